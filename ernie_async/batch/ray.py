"""A batch whose calls are made by many machines, with Ray; and the same for a `ray.data.Dataset`.

Needs the package ray (`pip install 'ernie-async[ray]'`). The driver reads, writes, decides and
tries again, as every batch does; workers make the attempts. Each is an async actor with one client
and its part of the limits. A worker that dies is replaced.
"""

# Without Ray, pyright takes this file for it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from itertools import count
from threading import Event, Thread
from typing import Any

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as _error:
    raise ImportError(
        "ernie_async.batch.ray needs ray: pip install 'ernie-async[ray]'", name="ray"
    ) from _error

from ernie_async.batch.answers import Answer
from ernie_async.batch.asking import Asker, Need
from ernie_async.batch.attempts import AnyAttempts
from ernie_async.batch.hand import Hand
from ernie_async.batch.lines import DEFAULT_URL, Line
from ernie_async.batch.row_asker import RowAsker
from ernie_async.batch.runner import ADAPTIVE, RETRY, BatchRunner
from ernie_async.batch.sharing import portable_client, share_of, split
from ernie_async.batch.stopping import BatchError
from ernie_async.batch.summary import BatchReport
from ernie_async.batch.worker import Setup, Worker
from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError, shorten
from ernie_async.net.admission import LimiterSnapshot
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.retry import RetryPolicy

__all__ = ["RayRunner", "map"]

N_WORKERS = 2
BATCH_SIZE = 256
REDIS_NAME = "ernie-batch"

# A cluster may have to fetch a machine first.
START_SECONDS = 300.0

# So many workers may die one after the other before any of them came up.
MAX_STARTS = 5
PAUSE_SECONDS = 1.0

CONNECT_SECONDS = 60.0
GOODBYE_SECONDS = 5.0


class Crew(AnyAttempts):
    """The workers of one run. Each place is kept filled, and who has the least to do is asked.

    Args:
        setup: What each of them is made of.
        n_workers: How many.
        cpus: That Ray sets aside for each.
        address: Of the cluster.
    """

    def __init__(self, setup: Setup, *, n_workers: int, cpus: float, address: str | None) -> None:
        self.hands: list[Hand] = []
        self._setup = setup
        self._n_workers = n_workers
        self._address = address
        self._hire = ray.remote(Worker).options(num_cpus=cpus, scheduling_strategy="SPREAD")
        self._names = count(1)
        self._n_asked = 0
        self._failed_starts = 0
        self._is_stopped = False
        self._failure: BatchError | None = None
        self._has_changed = asyncio.Event()  # one of these, or the hands

    @property
    def waiting(self) -> int:
        """Attempts in line, here or at the limiters of workers."""
        under_way = sum(hand.told.under_way for hand in self.hands if hand.told is not None)
        return max(0, self._n_asked - under_way)

    def view(self) -> LimiterSnapshot:
        """How things stand at these limiters, as workers told last."""
        views = [hand.told.view for hand in self.hands if hand.told is not None]
        if not views:
            return LimiterSnapshot()
        limits = [view.concurrency for view in views if view.concurrency is not None]
        return LimiterSnapshot.of_all(views)._replace(concurrency=sum(limits) or None)

    async def make(self, line: Line, need: Need, begin: Callable[[], Awaitable[None]]) -> Answer:
        """Have a worker make an attempt; see `AnyAttempts`."""
        await begin()
        self._n_asked += 1
        try:
            while not self.hands and not self._is_stopped:
                if self._failure is not None:
                    raise self._failure
                self._has_changed.clear()
                await self._has_changed.wait()
            if self._is_stopped:
                return Answer(is_sent=False)
            return await min(self.hands, key=len).make(line, need)
        finally:
            self._n_asked -= 1

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopped = True
        self._has_changed.set()
        for hand in self.hands:
            hand.stop()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Workers come up, and end with it.

        Raises:
            BatchError: There is no cluster.
        """
        await connect(self._address)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep()) for _ in range(self._n_workers)]
            try:
                yield
            finally:
                for keeper in keepers:
                    keeper.cancel()

    async def _keep(self) -> None:
        """Keep one place filled, until cancelled."""
        while True:
            name = f"ErnieWorker-{next(self._names)}"
            actor = self._hire.remote(name, self._setup)
            try:
                await self._start(actor)
                await self._employ(Hand(name, actor), actor)
            except (RayError, TimeoutError) as error:
                if isinstance(error, RayTaskError):
                    raise  # it died of a bug of ours
            finally:
                ray.kill(actor)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _start(self, actor: Any) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await actor.open.remote()
        except (RayError, TimeoutError) as error:
            self._failed_starts += 1
            is_late = isinstance(error, TimeoutError)
            if not self.hands and (is_late or self._failed_starts >= MAX_STARTS):
                reason = f"none within {START_SECONDS:.0f} s" if is_late else last_line(error)
                self._failure = BatchError(f"no Ray worker comes up: {reason}", "errors")
                self._has_changed.set()
            raise
        self._failed_starts = 0

    async def _employ(self, hand: Hand, actor: Any) -> None:
        """Have a worker work until it dies, or until there is nothing more to do."""
        self.hands.append(hand)
        self._has_changed.set()
        try:
            await hand.work()
        finally:
            self.hands.remove(hand)
            with suppress(RayError, TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await actor.aclose.remote()


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
            from ernie_async.redis import RedisLimiter  # an extra of its own

            share = 1 / self._n_workers
            self._shares[0] = RedisLimiter(redis, own.limits, name=REDIS_NAME, share=share)
        self._told |= {"engine": "ray", "workers": self._n_workers, "redis": redis is not None}

    async def run_file(self, *args: Any, **options: Any) -> BatchReport:
        """As of a `BatchRunner`; connects to the cluster first.

        Raises:
            BatchError: There is no cluster.
        """
        await connect(self._address)
        return await super().run_file(*args, **options)

    def _attempts(self, asker: Asker) -> AnyAttempts:
        setup = Setup(
            client=portable_client(self._client),
            limiters=self._shares,
            prices=self._prices,
            is_once=asker.is_once,
            max_retry_after=self._rules.retry.max_retry_after,
        )
        return Crew(
            setup,
            n_workers=self._n_workers,
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
