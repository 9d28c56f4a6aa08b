"""`BatchRunner`: many lines through one client, from file to file or from iterator to iterator."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import asdict
from os import PathLike, fspath
from pathlib import Path
from time import monotonic, time
from typing import Any, Self, TypeVar
from weakref import WeakSet

from ernie_async.batch.asking import Asker
from ernie_async.batch.attempts import AnyAttempts, Attempts
from ernie_async.batch.estimate import Estimate, estimate
from ernie_async.batch.file_run import FileRun
from ernie_async.batch.flow import Flow, Rules, Tell
from ernie_async.batch.journal import Journal
from ernie_async.batch.lines import DEFAULT_URL, LineReader
from ernie_async.batch.options import FileOptions
from ernie_async.batch.progress import Progress
from ernie_async.batch.records import record_fields
from ernie_async.batch.results import BatchResults
from ernie_async.batch.rows import items_of, known_models
from ernie_async.batch.stopping import Budget, Losses, StopReason
from ernie_async.batch.summary import BatchReport, make_report, write_summary
from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError
from ernie_async.net.admission import AnyLimiter
from ernie_async.net.limiter import Limiter
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.settings import check_kind
from ernie_async.types.prices import Prices

__all__ = ["BatchRunner"]

R = TypeVar("R")

# A batch may wait longer than a call that somebody is waiting for.
RETRY = RetryPolicy(max_retry_after=300.0)
GRACE_SECONDS = 30.0

ADAPTIVE = Adaptive()
WINDOW_FACTOR, MAX_WINDOW = 4, 4096

# Seconds between two looks at how a run goes.
LOOK_EVERY = 0.2

OnProgress = Callable[[Mapping[str, Any]], None]


class BatchRunner:
    """Works through many requests with one client, in bounded memory.

    It may run several times, one after the other or at once; each run has its own counts. Leaving
    `async with` ends what still runs.

    Args:
        client: Whose key, connections, timeouts, limits and hooks are used. Its retries are not:
            a line that waits for its next attempt holds no call.
        concurrency: Calls under way at once: a number, or `Adaptive()` to find it out for each
            model.
        rpm: Requests per minute, besides the client's own limits.
        tpm: Tokens per minute, besides the client's own limits.
        max_cost: CNY that all runs on one output may cost; `None` for no limit.
        max_total_tokens: Tokens that they may use; `None` for no limit.
        prices: What tokens cost; `None` for the client's table.
        retry: How often a line is tried.
        deadline: Seconds after which nothing new begins; `None` for no limit.
        max_errors: Lines that may fail: a number, or a share such as `"5%"`; `None` for all.
        grace: Seconds that calls under way get when a run stops.
        window: Lines that are taken and not over; `None` for four times the concurrency. Of a file,
            a thread reads up to 64 ahead of them.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        concurrency: int | Adaptive = ADAPTIVE,
        rpm: float | None = None,
        tpm: float | None = None,
        max_cost: float | None = None,
        max_total_tokens: int | None = None,
        prices: Prices | None = None,
        retry: RetryPolicy = RETRY,
        deadline: float | None = None,
        max_errors: int | str | None = None,
        grace: float = GRACE_SECONDS,
        window: int | None = None,
    ) -> None:
        check_kind("client", client, AsyncClient)
        check_kind("concurrency", concurrency, int | Adaptive)
        check_kind("prices", prices, Prices | None)
        check_kind("retry", retry, RetryPolicy)
        for name, value in (("max_cost", max_cost), ("max_total_tokens", max_total_tokens)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name}: expected a number above 0, or None, got {value!r}")
        adaptive = concurrency if isinstance(concurrency, Adaptive) else None
        most = concurrency.max if isinstance(concurrency, Adaptive) else concurrency
        if most < 1 or (window is not None and window < most):
            raise ConfigError("concurrency: expected at least 1, and window no less than it")
        self._rules = Rules(
            concurrency=most,
            window=min(WINDOW_FACTOR * most, MAX_WINDOW) if window is None else window,
            retry=retry,
            deadline=deadline,
            grace=grace,
        )
        # Also one without limits is of use: it has all wait when the service says so.
        own = Limits(
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            concurrency=adaptive,
        )
        self._limiters: list[AnyLimiter] = [Limiter(own)]
        if client.limiter is not None:
            self._limiters.append(client.limiter)
        self._client = client
        self._prices = prices
        Losses(max_errors)  # refuses what is no limit
        self._told = {
            **asdict(self._rules),
            "concurrency": most if adaptive is None else asdict(adaptive),
            "rpm": rpm,
            "tpm": tpm,
            "max_cost": max_cost,
            "max_total_tokens": max_total_tokens,
            "max_errors": max_errors,
        }
        self._stops: list[StopReason] = []
        self._flows: WeakSet[Flow] = WeakSet()
        self._results: WeakSet[BatchResults] = WeakSet()
        self._models = known_models(client)

    def map(
        self,
        rows: Iterable[R] | AsyncIterable[R],
        *,
        id: Callable[[R], object] | None = None,  # noqa: A002 - the field's name
        request: Callable[[R], Mapping[str, Any]] | None = None,
        url: str = DEFAULT_URL,
    ) -> BatchResults:
        """Ask for each row; not awaited. Results come as they are ready.

        Nothing is read or asked faster than results are taken. A row that cannot be asked is a
        result with `ok` false, like one that failed.

        Args:
            rows: Any iterator, also an endless one.
            id: Names a row; `row-<number>` if not given.
            request: Makes the body for a row. Without it, each row is a line of a batch file, or
                has `messages` or a `prompt`.
            url: Where bodies go, such as `/v2/embeddings`.

        Raises:
            ConfigError: The url is not supported.
        """
        reader = LineReader(models=self._models, url=url)
        results = BatchResults(self._flow, lambda: items_of(rows, reader, id, request))
        self._results.add(results)
        return results

    async def run_partition(
        self, rows: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Ask for each row of a part of a larger job; yields records as files have them.

        For engines that spread work over machines: nothing is shared between two runners.

        Args:
            rows: Lines of a batch file, or rows with `messages` or a `prompt`.
        """
        async with aclosing(self.map(rows)) as results:
            async for result in results:
                yield record_fields(result)

    async def run_file(
        self,
        source: str | PathLike[str],
        output: str | PathLike[str],
        options: FileOptions = FileOptions(),
        *,
        on_progress: OnProgress | None = None,
    ) -> BatchReport:
        """Ask for each line of a file, and write what comes. Goes on where an earlier run ended.

        Args:
            source: JSON Lines, CSV or Parquet; `-` for standard input. That, and a pipe, is read
                only once.
            output: Where results go; `-` for standard output, without a checkpoint.
            options: See `FileOptions`.
            on_progress: Called in the event loop, five times a second, with the fields of the
                summary.

        Raises:
            BatchError: The run could not begin: output locked or damaged, input missing or bad.
            BrokenPipeError: The output is a pipe, and nobody reads it any more.
            ConfigError: Options that make no sense.
        """
        run = self._file_run(source, output, options)
        began, n_stops = time(), len(self._stops)
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(run.opened())
            spent = run.before.cost, run.before.tokens
            flow = self._flow(run.tell, spent, journal=journal, has_room=run.has_room)
            for reason in self._stops[n_stops:]:  # while it was opened
                flow.stop(reason)
            try:
                await run_beside(run, flow, on_progress)
                run.is_over = flow.reason is None
                await stack.aclose()
            except OSError as error:  # what was written last may not be durable
                flow.reason, flow.failure = "io", error
            except BaseException as error:
                is_cancelled = isinstance(error, asyncio.CancelledError)
                self._report(run, flow, began, "cancelled" if is_cancelled else "internal")
                raise
        report = self._report(run, flow, began, run.why(flow.reason, flow.progress.failed))
        if isinstance(flow.failure, BrokenPipeError):
            raise flow.failure
        return report

    async def estimate_file(
        self,
        source: str | PathLike[str],
        output: str | PathLike[str],
        options: FileOptions = FileOptions(),
    ) -> Estimate:
        """What `run_file` would take. Sends nothing and writes nothing.

        Raises:
            BatchError: The output is damaged, or the input has changed.
            OSError: The input cannot be read.
        """
        run = self._file_run(source, output, options)
        asker = Asker(self._client, self._prices, is_once=False)
        return await estimate(run, asker, self._told["rpm"], self._told["tpm"])

    def stop(self, reason: StopReason = "cancelled") -> None:
        """Have all runs begin nothing more. What is under way may finish for `grace` seconds."""
        self._stops.append(reason)
        for flow in list(self._flows):
            flow.stop(reason)

    def cancel(self) -> None:
        """Have all runs break off what is under way, and end."""
        self._stops.append("cancelled")
        for flow in list(self._flows):
            flow.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for results in list(self._results):
            await results.aclose()

    def _file_run(
        self, source: str | PathLike[str], output: str | PathLike[str], options: FileOptions
    ) -> FileRun:
        out = None if fspath(output) == "-" else Path(output)
        return FileRun(Path(source), out, options, self._models)

    def _report(self, run: FileRun, flow: Flow, began: float, reason: StopReason) -> BatchReport:
        """The report of a run that is over; it is also written beside the output."""
        report = make_report(
            flow.progress,
            reason,
            "" if flow.failure is None else str(flow.failure),
            began=began,
            now=monotonic(),
            notes=dict(run.reader.notes),
            limits={**self._told, **run.told_options()},
            earlier_runs=run.before.told(),
        )
        if run.out is not None:
            with suppress(OSError):  # a full disk has been told already
                write_summary(run.out, report)
        return report

    def _attempts(self, asker: Asker) -> AnyAttempts:
        """Where the attempts of one run are made."""
        return Attempts(asker, self._limiters, self._rules.retry.max_retry_after)

    def _flow(
        self,
        tell: Tell,
        spent: tuple[float, int] = (0.0, 0),
        *,
        journal: Journal | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> Flow:
        told = self._told
        asker = Asker(self._client, self._prices, is_once=journal is not None)
        budget = Budget(told["max_cost"], told["max_total_tokens"], *spent)
        is_counted = any(limiter.counts_tokens for limiter in self._limiters)
        flow = Flow(
            self._attempts(asker),
            self._rules,
            asker=asker,
            estimates=budget.is_limited or is_counted,
            budget=budget,
            losses=Losses(told["max_errors"]),
            progress=Progress(monotonic(), rpm=told["rpm"], tpm=told["tpm"]),
            tell=tell,
            journal=journal,
            has_room=has_room,
        )
        self._flows.add(flow)
        return flow


async def run_beside(run: FileRun, flow: Flow, on_progress: OnProgress | None) -> None:
    """Run the flow, and beside it what counts lines and tells how it goes."""
    progress = flow.progress

    def look() -> None:
        now, gauges = monotonic(), flow.gauges()
        progress.sample(gauges, now)
        if on_progress is not None:
            on_progress(progress.snapshot(gauges, now))

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            look()

    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(run.count(progress)), group.create_task(keep_looking())]
        try:
            async with aclosing(run.items(progress)) as items:
                await flow.run(items)
        finally:
            for task in beside:
                task.cancel()
            look()
    progress.ok -= run.held
    progress.undone += run.held
