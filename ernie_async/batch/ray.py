"""A batch whose calls are made by many machines, with Ray; and the same for a `ray.data.Dataset`.

Needs the package ray (`pip install 'ernie-async[ray]'`). The driver reads, writes, decides and
tries again, as every batch does; workers make the attempts. Each is an async actor with one client
and its part of the limits. A worker that dies is replaced.
"""

# Without Ray, pyright takes this file for it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from math import ceil
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise ImportError(
        "ernie_async.batch.ray needs ray: pip install 'ernie-async[ray]'", name="ray"
    ) from error

from ernie_async.batch.asking import Answer, Asker, Need
from ernie_async.batch.attempts import AnyAttempts
from ernie_async.batch.ledger import Ledger
from ernie_async.batch.lines import DEFAULT_URL, Line
from ernie_async.batch.row_asker import RowAsker
from ernie_async.batch.runner import ADAPTIVE, RETRY, BatchRunner
from ernie_async.batch.sharing import portable_client, share_of, split
from ernie_async.batch.stopping import BatchError
from ernie_async.batch.summary import BatchReport
from ernie_async.batch.worker import Setup, Told, Worker
from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError, ConnectError, shorten
from ernie_async.net.admission import LimiterSnapshot
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.retry import RetryPolicy

__all__ = ["RayRunner", "map"]

T = TypeVar("T")

N_WORKERS = 2
BATCH_SIZE = 256
REDIS_NAME = "ernie-batch"

# A worker that says nothing for so long is as good as dead; see also `worker.TELL_SECONDS`.
REPLY_SECONDS = 60.0

# Lines that wait in a worker for their turn: enough to keep it busy. Others may be quicker.
MAX_WAITING = 16

# A cluster may have to fetch a machine first.
START_SECONDS = 300.0

# So many workers may die one after the other before any of them came up.
MAX_STARTS = 5
PAUSE_SECONDS = 1.0

CONNECT_SECONDS = 60.0
GOODBYE_SECONDS = 5.0


class Crew:
    """The workers of one run, as the driver sees them. Each place is kept filled.

    Args:
        setup: What each of them is made of.
        asker: Estimates what lines take.
        n_workers: How many.
        room: Lines that one of them may hold.
        cpus: That Ray sets aside for each.
        address: Of the cluster.
    """

    def __init__(
        self,
        setup: Setup,
        asker: Asker,
        *,
        n_workers: int,
        room: int,
        cpus: float,
        address: str | None,
    ) -> None:
        self.need = asker.need
        self.has_price = asker.has_price
        self.counts_tokens = any(limiter.counts_tokens for limiter in setup.limiters)
        self._setup = setup
        self._n_workers = n_workers
        self._room = room
        self._address = address
        self._hire = ray.remote(Worker).options(num_cpus=cpus, scheduling_strategy="SPREAD")
        self._ledger = Ledger()
        self._actors: dict[str, Any] = {}
        self._told: dict[str, Told] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._names = count(1)
        self._failed_starts = 0

    @property
    def waiting(self) -> int:
        """Attempts in line, here or at the limiters of workers."""
        return max(0, len(self._ledger) - sum(told.under_way for told in self._told.values()))

    def view(self) -> LimiterSnapshot:
        """How things stand at these limiters, as workers told last."""
        views = [told.view for told in self._told.values()]
        if not views:
            return LimiterSnapshot()
        limits = [view.concurrency for view in views if view.concurrency is not None]
        return LimiterSnapshot.of_all(views)._replace(concurrency=sum(limits) or None)

    async def make(self, line: Line, need: Need, begin: Callable[[], Awaitable[None]]) -> Answer:
        """Have a worker make an attempt; see `AnyAttempts`."""
        await begin()
        return await self._ledger.make(line._replace(metadata=None), need)

    def stop(self) -> None:
        """Send nothing more."""
        self._ledger.end(Answer(is_sent=False))
        for actor in self._actors.values():
            actor.stop.remote()

    async def __aenter__(self) -> Self:
        await connect(self._address)
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._n_workers)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.wait(self._keepers)

    async def _keep(self) -> None:
        """Keep one place filled, until cancelled."""
        while True:
            name = f"ErnieWorker-{next(self._names)}"
            try:
                await self._employ(name, self._hire.remote(name, self._setup))
            except Exception as error:  # noqa: BLE001 - whoever waits for an answer gets it
                if not is_loss(error):
                    self._ledger.end(error)
                    return
                await asyncio.sleep(PAUSE_SECONDS)

    async def _employ(self, name: str, actor: Any) -> None:
        """Give work to a worker until it dies.

        Raises:
            RayError: It did.
            TimeoutError: It does not answer.
        """
        try:
            await self._start(actor)
            self._actors[name] = actor
            await self._exchange(name, actor)
        finally:
            self._told.pop(name, None)
            if self._actors.pop(name, None) is not None:
                with suppress(RayError, TimeoutError):
                    async with asyncio.timeout(GOODBYE_SECONDS):
                        await actor.aclose.remote()
            ray.kill(actor)

    async def _start(self, actor: Any) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await actor.open.remote()
        except (RayError, TimeoutError) as error:
            self._failed_starts += 1
            is_late = isinstance(error, TimeoutError)
            if not self._actors and (is_late or self._failed_starts >= MAX_STARTS):
                reason = f"none within {START_SECONDS:.0f} s" if is_late else last_line(error)
                self._ledger.end(BatchError(f"no Ray worker comes up: {reason}", "errors"))
            raise
        self._failed_starts = 0

    async def _exchange(self, name: str, actor: Any) -> None:
        held: set[int] = set()
        has_room = asyncio.Event()
        sender = asyncio.create_task(self._send(name, actor, held, has_room))
        try:
            while not sender.done():
                told = await _reply(actor.take.remote())
                self._told[name] = told
                for ticket, answer in told.answers:
                    held.discard(ticket)
                    self._ledger.answer(ticket, answer)
                has_room.set()
            sender.result()
        finally:
            sender.cancel()
            await asyncio.wait({sender})
            # Nobody knows what the service did of it.
            self._ledger.lose(held, Answer(error=ConnectError(f"the worker {name} was lost")))

    async def _send(self, name: str, actor: Any, held: set[int], has_room: asyncio.Event) -> None:
        while True:
            await self._ledger.has_orders.wait()
            told = self._told.get(name)
            waiting = len(held) - (0 if told is None else told.under_way)
            room = min(self._room - len(held), MAX_WAITING - waiting)
            if room <= 0:
                has_room.clear()
                await has_room.wait()
                continue
            orders = self._ledger.take(room)
            if orders:
                held.update(order.ticket for order in orders)
                await _reply(actor.give.remote(orders))


def is_loss(error: Exception) -> bool:
    """Whether a worker died, and not of a bug."""
    return isinstance(error, RayError | TimeoutError) and not isinstance(error, RayTaskError)


async def _reply(call: Awaitable[T]) -> T:
    async with asyncio.timeout(REPLY_SECONDS):
        return await call


def last_line(error: Exception) -> str:
    """What Ray says, without the traceback in front of it."""
    lines = str(error).strip().splitlines()
    return shorten(lines[-1] if lines else type(error).__name__)


async def connect(address: str | None) -> None:
    """Be a driver of a cluster, unless this process is one already.

    Raises:
        BatchError: There is no such cluster.
    """
    if ray.is_initialized():
        return
    done: Future[None] = Future()

    def init() -> None:
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        except BaseException as error:  # noqa: BLE001 - told where it is waited for
            done.set_exception(error)
        else:
            done.set_result(None)
            Event().wait()  # a cluster on this machine dies with the thread that started it

    # In a thread it leaves signals alone, and the loop goes on. It may not come back.
    Thread(target=init, daemon=True).start()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.shield(asyncio.wrap_future(done))
    except TimeoutError:
        raise BatchError(f"ray: no cluster within {CONNECT_SECONDS:.0f} s", "errors") from None
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise BatchError(f"ray: {last_line(error)}", "errors") from None


class RayRunner(BatchRunner):
    """A `BatchRunner` whose calls are made by workers of a Ray cluster.

    Files, limits, retries, budget, results and reports are the same, and this process alone reads
    and writes them. What a worker was doing when it died is done again, unless `is_once`.

    Args:
        client: Each worker makes one of its own with the same settings; hooks stay here. The key
            travels through the cluster.
        workers: How many.
        address: Of the cluster, as `ray.init` takes it; `None` for the one that Ray finds, else one
            on this machine.
        redis: URL of a Redis where the workers share the limits of this run; `None` to give each an
            even part. The limits of the client are split, unless they are a `RedisLimiter`.
        cpus: That Ray sets aside for each worker. With 0 there is always a place.
        settings: As for `BatchRunner`.

    Raises:
        ConfigError: An argument cannot be right.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        workers: int = N_WORKERS,
        address: str | None = None,
        redis: str | None = None,
        cpus: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(client, **settings)
        check_workers(workers)
        self._n_workers = min(workers, self._rules.concurrency)
        self._address = address
        self._cpus = cpus
        own, *of_client = self._limiters
        self._shares = [share_of(limiter, self._n_workers) for limiter in (own, *of_client)]
        if redis is not None:
            from ernie_async.redis import RedisLimiter  # noqa: PLC0415 - an extra of its own

            share = 1 / self._n_workers
            self._shares[0] = RedisLimiter(redis, own.limits, name=REDIS_NAME, share=share)
        self._limits |= {"engine": "ray", "workers": self._n_workers, "redis": redis is not None}

    async def run_file(self, *args: Any, **options: Any) -> BatchReport:
        """As of a `BatchRunner`; connects to the cluster first.

        Raises:
            BatchError: There is no cluster.
        """
        await connect(self._address)
        return await super().run_file(*args, **options)

    def _attempts(self, *, is_once: bool) -> AnyAttempts:
        setup = Setup(
            client=portable_client(self._client),
            limiters=self._shares,
            prices=self._prices,
            is_once=is_once,
            max_retry_after=self._rules.retry.max_retry_after,
        )
        return Crew(
            setup,
            Asker(self._client, self._prices, is_once=is_once),
            n_workers=self._n_workers,
            room=ceil(self._rules.concurrency / self._n_workers),
            cpus=self._cpus,
            address=self._address,
        )


def check_workers(workers: int) -> None:
    """Refuse a number of workers that makes no sense."""
    if not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers: expected a whole number of at least 1, got {workers!r}")


def map(  # noqa: A001 - as `BatchRunner.map`
    dataset: Any,
    client: AsyncClient | None = None,
    *,
    id: Callable[[dict[str, Any]], object] | None = None,  # noqa: A002 - the field's name
    request: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    url: str = DEFAULT_URL,
    workers: int = N_WORKERS,
    concurrency: int | Adaptive = ADAPTIVE,
    retry: RetryPolicy = RETRY,
    batch_size: int = BATCH_SIZE,
    cpus: float = 0.0,
) -> Any:
    """Ask for each row of a `ray.data.Dataset`; as lazy as that is.

    Rows keep their columns and get `ernie_ok`, `ernie_text`, `ernie_code` (empty for a success) and
    `ernie_record`, the line that a file would have, as JSON. A row that failed is a row.

    Args:
        dataset: The rows.
        client: Each worker makes one of its own with the same settings; `None` for one from the
            environment. Its limits are split evenly, unless they are a `RedisLimiter`.
        id: Names a row; `custom_id`, else its number in a batch, if not given.
        request: Makes the body for a row. Without it, each row is a line of a batch file, or has
            `messages` or a `prompt`.
        url: Where bodies go, such as `/v2/embeddings`.
        workers: Actors.
        concurrency: Calls at once, of all of them together.
        retry: How often a row is tried.
        batch_size: Rows that an actor takes at a time. It works on several batches at once.
        cpus: That Ray sets aside for each actor. With 0 they leave room for the tasks that read.

    Raises:
        ConfigError: An argument cannot be right.
        BatchError: When rows are taken: the service refuses all, such as with a wrong key.
    """
    check_workers(workers)
    if not isinstance(concurrency, Adaptive):
        concurrency = Adaptive(start=concurrency, min=concurrency, max=concurrency)
    own = AsyncClient() if client is None else client
    limits = None if own.limiter is None else share_of(own.limiter, workers)
    part = split(Limits(concurrency=concurrency), workers).concurrency
    return dataset.map_batches(
        RowAsker,
        fn_constructor_args=(portable_client(own, limits),),
        fn_constructor_kwargs={
            "concurrency": part,
            "retry": retry,
            "id": id,
            "request": request,
            "url": url,
        },
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
    )
