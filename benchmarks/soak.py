"""An hour of streams through a proxy that breaks a quarter of its connections: does memory grow?

`python -m benchmarks.soak` keeps 500 streams under way, in the three ways of `chaos`, and lets one
reader in ten leave in the middle. Every 30 s it prints what the process holds; at the end, the
slope of its memory by least squares, and what is left when all is closed. Ends with 1 if a text is
wrong, a failure is not typed or has not the text before it, anything is left behind, or memory
grows, which a run under 45 minutes is not asked for. Typed failures are counted: on a busy machine
the server itself is late.

What a process holds is a high-water mark: it rises in steps, when more is under way than ever
before, and rests in between, for half an hour at a time. One step makes a slope of an hour, and its
error, which takes samples for noise around a line, is too small then. A leak grows without rest, as
long as there are streams. So memory grows if it does in each third of the run, by `HARMLESS` or
more. What the allocators have handed out is counted apart: that varies around a level, and has to
grow by more than chance. `--bare` has aiohttp read the same streams without us, whole or not.

`--rest MINUTES` lets all streams end every so often, while the clients stay open, and counts what
is left once nothing is under way and all garbage is collected. That hardly varies, so it shows a
leak of single objects, which the slope of a busy process cannot.
"""

import argparse
import asyncio
import gc
import math
import random
import sys
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import aiohttp

from benchmarks.chaos import (
    RETRY,
    ROUNDS,
    Outcome,
    ask_faults,
    pipes,
    read_one,
    start_server,
)
from benchmarks.chaos_server import CHUNKS
from benchmarks.machine import (
    allow_descriptors,
    describe,
    malloc_bytes,
    open_descriptors,
    own_bytes,
)
from benchmarks.options import positive
from ernie_async import AsyncClient, Limits, Record, ResumePolicy, Timeouts

PATIENCE = Timeouts(connect=30, first_event=15, idle=5)
"""More than `chaos` has: an hour on a busy machine has seconds in which nobody gets anywhere."""

LEAVING = 0.1
"""Share of the readers who leave within a stream's time."""

WARM_UP = 0.2
"""Share of the samples left out of the slope."""

GROWS_BY = 3.0
"""Standard errors from which the slope of what varies around a level is no chance."""

HARMLESS = 4.0
"""kB a minute under which growth is let pass: an hour of it is nothing."""

PARTS = 3
"""Of the run after `WARM_UP`. A leak grows in each of them."""

KEPT = 10.0
"""Pieces that idle clients may keep of 1,000 streams, however sure that is.

One object of each stream that ends in the rarest way would be more: 15 in 1,000 miss a deadline.
"""

FEWEST = 8
"""Samples to take before anything is said of a slope."""

SHOWN = 10
"""Wrong ends that are printed."""

SHORT = 45.0
"""Minutes under which memory is not judged: until then pools and caches fill, step by step."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many.

    Attributes:
        minutes: After which no new stream is begun.
        streams: Under way at once.
        every: Seconds between two samples.
        pause: Seconds between two chunks of a stream.
        rest: Seconds after which all streams end and what is left is counted.
        is_bare: Read by aiohttp alone.
    """

    minutes: float
    streams: int
    every: float
    pause: float
    rest: float
    is_bare: bool

    @property
    def most_samples(self) -> int:
        return 3 + int(self.minutes * 60 * (1 / self.every + 1 / self.rest))


@dataclass
class Tally:
    """What happened so far, in numbers that do not grow with it."""

    ended: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    wrong: int = 0

    def hear(self, record: Record) -> None:
        self.records[type(record).__name__] += 1

    def add(self, outcome: Outcome) -> None:
        self.ended["exact"] += outcome.exact
        self.ended.update(outcome.failures)
        self.wrong += len(outcome.wrong)
        if outcome.wrong and self.wrong < SHOWN:
            print(f"WRONG {outcome.wrong[0]}", file=sys.stderr)


class Sample(NamedTuple):
    """What the process held at one moment.

    Attributes:
        milliseconds: Since the beginning.
        own: Resident bytes, apart from mapped files.
        handed_out: Bytes of C's malloc, which has the larger pieces; 0 where it does not say.
        blocks: Smaller pieces, of Python's own allocator: of a leak, each object is one.
        tasks: Of the loop.
        descriptors: Open ones.
        permits: Of the limiters, given out.
        ended: Streams, so far.
        is_at_rest: Nothing was under way, and all garbage was collected.
    """

    milliseconds: int
    own: int
    handed_out: int
    blocks: int
    tasks: int
    descriptors: int
    permits: int
    ended: int
    is_at_rest: bool


class Diary:
    """Samples as bare numbers, in room that is taken before the first stream.

    An object that is made while streams are under way, and kept, lies among theirs. Where all
    others have gone it still holds a pool of Python's allocator, 16 kB: samples that are objects
    make the memory grow that they are to measure.

    Args:
        room: For how many samples.
    """

    def __init__(self, room: int) -> None:
        self._numbers = array("q", bytes(8 * len(Sample._fields) * room))
        self._end = 0

    def write(self, sample: Sample) -> None:
        start, self._end = self._end, self._end + len(sample)
        self._numbers[start : self._end] = array("q", sample)

    def read(self) -> list[Sample]:
        width = len(Sample._fields)
        rows = (self._numbers[start : start + width] for start in range(0, self._end, width))
        return [Sample._make(row) for row in rows]


def take(began: float, clients: Iterable[AsyncClient], tally: Tally, *, is_at_rest: bool) -> Sample:
    """A sample of this moment."""
    return Sample(
        milliseconds=round((time.monotonic() - began) * 1000),
        own=own_bytes(),
        handed_out=malloc_bytes(),
        blocks=sys.getallocatedblocks(),
        tasks=len(asyncio.all_tasks()),
        descriptors=open_descriptors(),
        permits=sum(c.limiter.snapshot().in_flight for c in clients if c.limiter is not None),
        ended=tally.ended.total(),
        is_at_rest=is_at_rest,
    )


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The slope of the line through points by least squares, and its standard error.

    What is left of neighbours is alike: n points count as (1 - r) / (1 + r) of n, where r is the
    correlation of each with the next (the usual correction for autoregressive noise).

    Raises:
        ValueError: Fewer than three points, which have no error.
    """
    if len(points) < 3:
        raise ValueError(f"a slope with an error needs three points, not {len(points)}")
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    found = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    left = [y - mean_y - found * (x - mean_x) for x, y in points]
    squares = sum(rest**2 for rest in left)
    alike = max(sum(a * b for a, b in pairwise(left)) / squares, 0.0) if squares else 0.0
    return found, (squares / (n - 2) / spread * (1 + alike) / (1 - alike)) ** 0.5


def growth(samples: Sequence[Sample]) -> list[float]:
    """By how much the memory grew in each part of a run, in kB a minute; from four samples on."""
    ends = [(len(samples) - 1) * part // PARTS for part in range(PARTS + 1)]
    return [
        (samples[end].own - samples[start].own)
        / 1000
        / ((samples[end].milliseconds - samples[start].milliseconds) / 60_000)
        for start, end in pairwise(ends)
    ]


Reader = Callable[[str, Outcome], Awaitable[None]]


async def read_bare(session: aiohttp.ClientSession, url: str, name: str, outcome: Outcome) -> None:
    """A stream as aiohttp hands it over; nobody asks whether it is whole."""
    asked = {"messages": [{"role": "user", "content": name}]}
    try:
        async with session.post(url, json=asked) as response:
            async for _ in response.content.iter_any():
                pass
    except aiohttp.ClientError as error:
        outcome.failures[type(error).__name__] += 1
    else:
        outcome.exact += 1


async def open_clients(
    stack: AsyncExitStack, port: int, plan: Plan, tally: Tally
) -> dict[str, AsyncClient]:
    """One for each way of reading on, by its name."""
    return {
        mode: await stack.enter_async_context(
            AsyncClient(
                "soak",
                base_url=f"http://127.0.0.1:{port}/{way}/v2",
                timeouts=PATIENCE,
                retry=RETRY,
                resume=ResumePolicy(mode=mode, most=10),
                limits=Limits(concurrency=plan.streams),
                hooks=[tally.hear],
            )
        )
        for way, mode in ROUNDS.values()
    }


async def open_bare(stack: AsyncExitStack, port: int) -> dict[str, Reader]:
    """As many sessions as there are clients else."""
    limits = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE.first_event)
    readers: dict[str, Reader] = {}
    for way, mode in ROUNDS.values():
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits)
        await stack.enter_async_context(session)
        url = f"http://127.0.0.1:{port}/{way}/v2/chat/completions"
        readers[mode] = partial(read_bare, session, url)
    return readers


async def keep_reading(read: Reader, name: str, plan: Plan, *, until: float, tally: Tally) -> None:
    """One stream after the other; the last one is read to its end."""
    chance = random.Random(name)
    takes = plan.pause * CHUNKS
    await asyncio.sleep(chance.uniform(0, takes))  # not all in step
    number = 0
    while time.monotonic() < until:
        number += 1
        outcome = Outcome()
        leaves = chance.uniform(0, takes) if chance.random() < LEAVING else None
        try:
            async with asyncio.timeout(leaves):
                await read(f"{name} {number}", outcome)
        except TimeoutError:
            tally.ended["left"] += 1
        tally.add(outcome)
        if outcome.failures:  # a server in trouble is left alone, as anyone would
            await asyncio.sleep(chance.uniform(0, takes))


def shared_out(readers: Mapping[str, Reader], streams: int) -> list[tuple[str, Reader]]:
    """A name and a reader for each stream."""
    return [
        (f"{mode} {number}", read)
        for first, (mode, read) in enumerate(readers.items())
        for number in range(first, streams, len(readers))
    ]


async def run(port: int, plan: Plan) -> tuple[list[Sample], Tally]:
    """Keep reading, and take a sample now and then; the last one is taken when all is closed."""
    tally, diary = Tally(), Diary(plan.most_samples)
    began = time.monotonic()
    until = began + plan.minutes * 60
    clients: dict[str, AsyncClient] = {}

    def sample(*, is_at_rest: bool = False) -> None:
        taken = take(began, clients.values(), tally, is_at_rest=is_at_rest)
        diary.write(taken)
        show(taken)

    sample()
    async with AsyncExitStack() as stack:
        if plan.is_bare:
            readers = await open_bare(stack, port)
        else:
            clients = await open_clients(stack, port, plan, tally)
            readers = {
                mode: partial(read_one, client, may_fail=True) for mode, client in clients.items()
            }
        part = 0
        while time.monotonic() < until:
            part += 1
            pause_at = min(until, time.monotonic() + plan.rest)
            reading = asyncio.gather(
                *(
                    keep_reading(read, f"{name} {part}", plan, until=pause_at, tally=tally)
                    for name, read in shared_out(readers, plan.streams)
                )
            )
            while not reading.done():
                await asyncio.wait([reading], timeout=plan.every)
                if time.monotonic() < pause_at:
                    sample()
            await reading
            await asyncio.sleep(0.5)
            gc.collect()
            sample(is_at_rest=True)
    await asyncio.sleep(0.5)
    sample()
    return diary.read(), tally


def show(sample: Sample) -> None:
    cells = (
        f"{sample.milliseconds / 60_000:.1f}",
        f"{sample.own / 2**20:.2f}",
        f"{sample.handed_out / 2**20:.2f}",
        f"{sample.blocks:,}",
        sample.tasks,
        sample.descriptors,
        sample.permits,
        f"{sample.ended:,}",
    )
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def judge(samples: Sequence[Sample], tally: Tally, faults: dict[str, int]) -> bool:
    """Print what it comes to; whether all is well."""
    first, *held, last = samples
    warm = [s for s in held if s.milliseconds > WARM_UP * last.milliseconds]
    steady = [s for s in warm if not s.is_at_rest]
    rested = [(s.ended / 1000, s.blocks) for s in warm if s.is_at_rest]
    grows, error = slope([(s.milliseconds / 60_000, s.own / 1000) for s in steady])
    given, given_error = slope([(s.milliseconds / 60_000, s.handed_out / 1000) for s in steady])
    taken, taken_error = slope([(s.milliseconds / 60_000, s.blocks) for s in steady])
    parts = growth(steady)
    left = [
        now - then
        for now, then in (
            (last.tasks, first.tasks),
            (last.descriptors, first.descriptors),
            (last.permits, first.permits),
        )
    ]
    rows = {
        "streams ended": ", ".join(f"{n:,} {how}" for how, n in sorted(tally.ended.items())),
        "heard by the hooks": ", ".join(f"{n:,} {k}" for k, n in sorted(tally.records.items())),
        "connections": ", ".join(f"{n:,} {kind}" for kind, n in sorted(faults.items())),
        "wrong": str(tally.wrong),
        "memory, kB a minute": f"{grows:+.1f} ± {error:.1f} ({len(steady)} samples)",
        f"in each of {PARTS} parts": ", ".join(f"{part:+.1f}" for part in parts),
        "of it malloc's, kB a minute": f"{given:+.1f} ± {given_error:.1f}",
        "blocks a minute": f"{taken:+.0f} ± {taken_error:.0f}",
        "left behind": "{} tasks, {} descriptors, {} permits".format(*left),
    }
    is_kept = False
    if len(rested) >= 3:
        kept, kept_error = slope(rested)
        is_kept = kept >= max(GROWS_BY * kept_error, KEPT)
        rows["blocks kept of 1,000 streams"] = f"{kept:+.1f} ± {kept_error:.1f}"
    print("\n| all in all | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    is_short = last.milliseconds < SHORT * 60_000
    is_flat = min(parts) < HARMLESS and taken < GROWS_BY * taken_error
    return (is_short or (is_flat and not is_kept)) and not tally.wrong and left == [0, 0, 0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--streams", type=positive, default=500)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two samples")
    parser.add_argument("--pause", type=float, default=0.25, help="seconds between two chunks")
    parser.add_argument("--rest", type=float, default=math.inf, help="minutes between two rests")
    parser.add_argument("--bare", action="store_true", help="aiohttp alone")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.streams < len(ROUNDS):
        parser.error(f"--streams: at least {len(ROUNDS)}, one for each way of reading on")
    shortest = min(options.minutes, options.rest) * 60
    if options.every <= 0 or shortest < FEWEST * options.every:
        parser.error(
            f"--minutes and --rest: expected the time of {FEWEST} samples or more, "
            f"each {options.every:g} s (--every) and more than 0, got {shortest:g} s"
        )
    allow_descriptors(8 * options.streams + 200)  # the server, a child, holds four for each
    for what, value in describe().items():
        print(f"{what}: {value}")
    print("\n| minutes | MiB | malloc, MiB | blocks | tasks | descriptors | permits | ended |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    plan = Plan(
        minutes=options.minutes,
        streams=options.streams,
        every=options.every,
        pause=options.pause,
        rest=options.rest * 60,
        is_bare=options.bare,
    )
    server = start_server(options.seed, plan.pause)
    try:
        port = int(pipes(server)[1].readline())
        samples, tally = asyncio.run(run(port, plan))
        is_well = judge(samples, tally, ask_faults(server))
    finally:
        pipes(server)[0].close()
        server.wait(10)
        pipes(server)[1].close()
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
