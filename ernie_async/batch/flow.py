"""Lines on their way: read, admitted, asked, tried again when due, and handed over.

A fixed number of workers and one feeder, whatever the number of lines. What a stop means for each
line is decided here; files and screens are unknown.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from time import monotonic, time
from typing import Any, NamedTuple

from ernie_async.batch.answers import Answer
from ernie_async.batch.asking import Asker, Need
from ernie_async.batch.attempts import AnyAttempts
from ernie_async.batch.failures import code_of, may_be_billed, was_refused, was_unreached
from ernie_async.batch.journal import Journal
from ernie_async.batch.lines import Fault, Line
from ernie_async.batch.outage import MANY, Outage, Trail
from ernie_async.batch.progress import Gauges, Progress, WaitingFor
from ernie_async.batch.records import MAX_ATTEMPTS_TOLD, Attempt, BatchResult
from ernie_async.batch.stopping import BatchError, Budget, Losses, StopReason, code_of_undone
from ernie_async.errors import APIError, ConfigError, ErnieError, NoKeyError, RateLimitError
from ernie_async.sansio.load import is_quota
from ernie_async.sansio.retry import RetryPolicy

__all__ = ["Flow", "Item", "Rules", "Tell"]

Tell = Callable[[BatchResult], Awaitable[None]]

# Until one line has succeeded, no more calls than this are made at once: a wrong key shall not cost
# as many of them as there are workers.
CAUTIOUS = 8

# A line that is refused for want of quota is given up after so many seconds, if the run has no
# deadline.
QUOTA_PATIENCE = 600.0

# A server that answered before may be out for so many seconds; then the run stops.
OUTAGE_PATIENCE = 600.0

# Items that bring no work are read in a row before others have a turn.
ITEMS_IN_A_ROW = 64


class Item(NamedTuple):
    """A line of the input, and what the caller wants to see again with its result."""

    line: Line | Fault
    row: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a flow obeys.

    Attributes:
        concurrency: Calls at once, at most.
        window: Lines that are read and not over, at most.
        retry: How often a line is tried.
        deadline: Seconds after which nothing new begins; `None` for no limit.
        grace: Seconds that calls under way get when the run stops.
    """

    concurrency: int
    window: int
    retry: RetryPolicy
    deadline: float | None
    grace: float


@dataclass(slots=True, eq=False)
class Job:
    """A line on its way."""

    line: Line
    row: Any
    need: Need
    attempts: int = 0
    refused_since: float | None = None
    trail: Trail = field(default_factory=Trail)
    errors: list[Attempt] = field(default_factory=list)


class Flow:
    """Runs once.

    Args:
        attempts: Makes them.
        rules: What it obeys.
        asker: Estimates what lines take.
        estimates: Whether anybody wants to know that.
        budget: What may be spent.
        losses: Says when there are too many.
        progress: Told of everything.
        tell: Takes each result. A failure of it stops the run.
        journal: If there is one, no line is ever asked twice. Told before each attempt, and of
            those that the service refused to work on.
        has_room: Whether one more line may be read, apart from the window.

    Attributes:
        reason: Why it stops before the end; `None` while it does not.
        failure: What went wrong, if something did.
    """

    def __init__(
        self,
        attempts: AnyAttempts,
        rules: Rules,
        *,
        asker: Asker,
        estimates: bool,
        budget: Budget,
        losses: Losses,
        progress: Progress,
        tell: Tell,
        journal: Journal | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.progress = progress
        self.reason: StopReason | None = None
        self.failure: Exception | None = None
        self._attempts = attempts
        self._rules = rules
        self._budget = budget
        self._losses = losses
        self._outage = Outage(
            # With a journal, lines that fail make room for others.
            rules.window if journal is None else MANY,
            attempts=rules.retry.attempts,
            patience=OUTAGE_PATIENCE,
        )
        self._tell = tell
        self._journal = journal
        self._has_room = has_room
        self._asker = asker
        self._estimates = estimates
        self._chance = Random()
        self._has_succeeded = False
        # Lines: those that were read, those that wait for a moment, those whose moment has come,
        # and those that a stop has left.
        self._fresh: deque[Job] = deque()
        self._later: dict[Job, asyncio.TimerHandle] = {}
        self._due: deque[Job] = deque()
        self._undone: list[Job] = []
        self._is_read = False
        self._outstanding = 0
        self._has_changed = asyncio.Event()
        # Workers: those that have a line, and what they do with it; those that have none.
        self._active = 0
        self._admitting: set[asyncio.Task[Any]] = set()
        self._asking: set[asyncio.Task[Any]] = set()
        self._telling = 0
        self._idle: list[asyncio.Future[None]] = []
        self._feeder: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, items: AsyncIterator[Item]) -> None:
        """Take all items to their end, or stop.

        Raises:
            ExceptionGroup: Something failed that should not.
        """
        if self._rules.deadline is not None:
            self._call_later(self._rules.deadline, self.stop, "deadline")
        try:
            async with self._attempts.opened(), asyncio.TaskGroup() as group:
                self._feeder = group.create_task(self._feed(items))
                for _ in range(self._rules.concurrency):
                    group.create_task(self._work())
        finally:
            for timer in (*self._timers, *self._later.values()):
                timer.cancel()
        code = code_of_undone(self.reason or "cancelled")
        for job in (*self._undone, *self._due, *self._later, *self._fresh):
            await self._hand_over(self._result(job, Answer(), code, "the run stopped before"))

    def stop(self, reason: StopReason, failure: Exception | None = None) -> None:
        """Begin nothing more, and give what is under way its time. Only the first call counts.

        Args:
            reason: Why.
            failure: What went wrong, if something did.
        """
        if self.reason is not None:
            return
        self.reason, self.failure = reason, failure
        if self._feeder is not None and self._feeder is not asyncio.current_task():
            self._feeder.cancel()
        cancel_all(self._admitting)
        self._attempts.stop()
        self._wake_all()
        self._call_later(self._rules.grace, self.cancel)

    def cancel(self) -> None:
        """Stop, and break off what is under way."""
        self.stop("cancelled")
        cancel_all(self._admitting | self._asking)

    def gauges(self) -> Gauges:
        """What is so right now."""
        view = self._attempts.view()
        in_flight = len(self._asking) - self._attempts.waiting
        limit = min(self._limit, self._limit if view.concurrency is None else view.concurrency)
        waiting: WaitingFor | None = None
        if self._telling and self._active >= limit:
            waiting = "consumer"
        elif view.paused_for:
            waiting = "cooldown"
        elif in_flight >= limit:
            waiting = "concurrency"
        elif self._admitting or self._attempts.waiting:
            waiting = "rate"
        elif self._later:
            waiting = "cooldown"
        elif not self._is_read:
            waiting = "input"
        return Gauges(in_flight, limit, waiting)

    def _call_later(self, seconds: float, call: Callable[..., None], *given: Any) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call, *given))

    # Reading

    async def _feed(self, items: AsyncIterator[Item]) -> None:
        n_items = 0
        try:
            async for item in items:
                n_items += 1
                if n_items % ITEMS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                await self._take(item)
                if self.reason is not None:
                    break
        except asyncio.CancelledError:
            if self.reason is None:
                raise
        except BatchError as error:
            self.stop(error.reason, error)
        except (OSError, ConfigError) as error:
            self.stop("input", error)
        except Exception as error:  # noqa: BLE001 - his iterator's, raised where he takes results
            self.stop("internal", error)
        finally:
            self._is_read = True
            self._wake_all()

    async def _take(self, item: Item) -> None:
        """Have a line done, and wait until there is room for another."""
        line, row = item
        if isinstance(line, Fault):
            result = Answer().result_for(line, line.code, line.message, row=row)
            await self._finish(result, None)
            return
        if self._budget.max_cost is not None and not self._asker.has_price(line):
            raise BatchError(f"max_cost: {line.model!r} has no price", "budget")
        need = self._asker.need(line) if self._estimates else Need()
        self._outstanding += 1
        self._fresh.append(Job(line, row, need))
        self._wake_one()
        while self._outstanding >= self._rules.window or not self._has_room():
            self._has_changed.clear()
            await self._has_changed.wait()

    # Working

    @property
    def _limit(self) -> int:
        most = self._rules.concurrency
        return most if self._has_succeeded else min(most, CAUTIOUS)

    @property
    def _queue(self) -> deque[Job]:
        """The lines whose turn it is; empty if there are none."""
        if self._outage.is_in_doubt:  # a line that has not failed says more than one that has
            return self._fresh or self._due
        return self._due or self._fresh

    async def _next(self) -> Job | None:
        """The next line for a worker; `None` if there will be none."""
        while self.reason is None:
            queue = self._queue
            if queue and self._active < self._limit and self._may_spend(queue[0].need):
                self._active += 1
                job = queue.popleft()
                if self._due or self._fresh:
                    self._wake_one()
                return job
            if self.reason is not None or (self._is_read and not self._outstanding):
                break
            idle = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle
        return None

    def _may_spend(self, need: Need) -> bool:
        """Set something aside for a line. If it is too much, and nothing is to come back, stop."""
        if self._budget.reserve(need.cost, need.tokens):
            return True
        if not self._active:
            self.stop("budget")
        return False

    def _wake_one(self) -> None:
        """Have an idle worker look for a line. One that finds it wakes the next one."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return

    def _wake_all(self) -> None:
        for _ in range(len(self._idle)):
            self._wake_one()

    async def _work(self) -> None:
        while (job := await self._next()) is not None:
            try:
                await self._try(job)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self.reason is None or task is None:
                    raise
                task.uncancel()
                self._undone.append(job)
            except OSError as error:  # of the journal
                self.stop("io", error)
                self._undone.append(job)
            except BatchError as error:  # nobody is left to ask
                self.stop(error.reason, error)
                self._undone.append(job)
            finally:
                self._active -= 1

    async def _try(self, job: Job) -> None:
        try:
            answer = await self._attempt(job)
        finally:
            self._budget.release(job.need.cost, job.need.tokens)
        if answer.usage is not None:
            self._budget.spend(answer.cost or 0.0, answer.usage.total_tokens)
        if not answer.is_sent:  # since the run stops
            await self._note_refused(job)
            self._undone.append(job)
        elif answer.error is not None:
            await self._failed(job, answer, answer.error)
        else:
            self._outage.answered(job.trail)
            if not self._has_succeeded:
                self._has_succeeded = True
                self._wake_all()
            await self._finish_job(self._result(job, answer, None, ""), None)

    async def _attempt(self, job: Job) -> Answer:
        task = asyncio.current_task()
        assert task is not None

        async def begin() -> None:
            if self._journal is not None:
                await self._journal.begin(job.line)
            self._outage.begin(job.trail)
            job.attempts += 1
            self.progress.requests += 1
            self._admitting.discard(task)
            self._asking.add(task)

        self._admitting.add(task)
        try:
            return await self._attempts.make(job.line, job.need, begin)
        finally:
            self._admitting.discard(task)
            self._asking.discard(task)

    async def _failed(self, job: Job, answer: Answer, error: ErnieError) -> None:
        now = monotonic()
        code = code_of(error)
        job.errors.append(Attempt(time(), code, answer.status))
        del job.errors[:-MAX_ATTEMPTS_TOLD]
        if isinstance(error, RateLimitError):
            self.progress.refused += 1
        if may_be_billed(error):
            self.progress.unknown_usage += 1
        is_refused = was_refused(error)
        delay = self._delay(job, error, now, is_refused=is_refused)
        if is_refused:
            await self._note_refused(job)
        if delay is None:
            await self._finish_job(self._result(job, answer, code, error.message), error)
        elif self.reason is not None:
            self._undone.append(job)
        else:
            self.progress.retried += 1
            loop = asyncio.get_running_loop()
            self._later[job] = loop.call_later(delay, self._come_up, job)

    async def _note_refused(self, job: Job) -> None:
        if self._journal is not None:
            await self._journal.refused(job.line)

    def _come_up(self, job: Job) -> None:
        del self._later[job]
        self._due.append(job)
        self._wake_one()

    def _delay(self, job: Job, error: ErnieError, now: float, *, is_refused: bool) -> float | None:
        """Seconds until the line is tried again; `None` if it has failed."""
        is_out = self._outage.failed(job.trail, error)
        if self._journal is not None and not is_refused:
            if is_out:  # to wait for its end would cost one line after the other
                self._stop_out(error)
            return None
        if isinstance(error, NoKeyError) or (is_quota(error) and not self._is_too_long(error)):
            # No attempt of the line's: everybody was refused.
            job.attempts -= 1
            if job.refused_since is None:
                job.refused_since = now
            if self._rules.deadline is None and now - job.refused_since > QUOTA_PATIENCE:
                return None
            # Else the limiters let nobody pass for a while.
            return error.retry_after if isinstance(error, NoKeyError) else 0.0
        if is_out:
            return self._delay_out(job, error, now)
        return self._rules.retry.delay(error, job.attempts, 0.0, self._chance)

    def _delay_out(self, job: Job, error: ErnieError, now: float) -> float:
        """Seconds until the server is looked for again, at no attempt; else the run stops."""
        job.attempts -= 1
        is_over = self._outage.lasts_too_long(job.trail, now)
        n_out = job.trail.n_out
        tireless = replace(self._rules.retry, attempts=n_out + 1, time_budget=None)
        delay = tireless.delay(error, n_out, 0.0, self._chance)
        if is_over or delay is None:
            self._stop_out(error)
        return delay or 0.0

    def _stop_out(self, error: ErnieError) -> None:
        what = "out of reach" if was_unreached(error) else "out of order"
        self.stop("errors", BatchError(f"{what}: {error.message}", "errors"))

    def _is_too_long(self, error: ErnieError) -> bool:
        asked = error.retry_after if isinstance(error, APIError) else None
        return asked is not None and asked > self._rules.retry.max_retry_after

    # Handing over

    def _result(self, job: Job, answer: Answer, code: str | None, message: str) -> BatchResult:
        return answer.result_for(
            job.line,
            code,
            message,
            attempts=job.attempts,
            errors=tuple(job.errors),
            row=job.row,
        )

    async def _finish_job(self, result: BatchResult, error: ErnieError | None) -> None:
        await self._finish(result, error)
        self._outstanding -= 1
        self._has_changed.set()
        if self._is_read and not self._outstanding:
            self._wake_all()

    async def _finish(self, result: BatchResult, error: ErnieError | None) -> None:
        """A line is over."""
        await self._hand_over(result)
        reason = self._losses.note(error, failed=not result.ok)
        if reason is not None:
            self.stop(reason, error)

    async def _hand_over(self, result: BatchResult) -> None:
        if self.reason != "io":
            self._telling += 1
            try:
                await self._tell(result)
            except OSError as error:
                self.stop("io", error)
            finally:
                self._telling -= 1
        if self.reason == "io":
            result = result._replace(code=code_of_undone("io"))  # it is written nowhere
        self.progress.over(result, monotonic())


def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Break off what these do now; for a worker that is one line."""
    for task in list(tasks):
        task.cancel()
