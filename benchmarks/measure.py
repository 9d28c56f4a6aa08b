"""The measurements: each takes a contender and a load server and returns one number.

Everything runs in the event loop of a fresh process and after a warm-up with a client of its own
mode. Results are seconds and bytes. A measurement that counts CPU repeats its unit of work until
it has used enough of it, so that fast and slow contenders do the same work, only not as often.
"""

import asyncio
import gc
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from benchmarks.contenders import ANSWER, Contender, Keeper
from benchmarks.load_server import GATE_OPEN, TEXT, Mode
from benchmarks.machine import peak_bytes, reset_peak, resident_bytes

MakeClient = Callable[[str], Contender]

TICK = 0.001
"""Seconds between two looks at the loop's punctuality."""

OPENED_AT_ONCE = 50
"""Streams opened together where many are held: a storm of connects would leave holes behind."""

OPEN_STREAM_PAUSE = 0.0004
"""Seconds by which each open stream lengthens the pause between two chunks of all of them."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load server as its clients see it."""

    port: int

    def base_url(self, mode: Mode) -> str:
        return f"http://127.0.0.1:{self.port}/{mode}/v2"

    def open_gate(self, *, ahead: bool = False) -> None:
        """Let the held streams go on.

        Blocks the event loop on purpose, for one round trip on loopback or, if `ahead`, until the
        sockets hold all of the streams, or as much as they can.
        """
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            path = b"/gate/ahead" if ahead else b"/gate"
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\n\r\n")
            assert connection.recv(len(GATE_OPEN)) == GATE_OPEN


class Streams:
    """Some streams of one client, each read by a task, all past their first chunk."""

    def __init__(self, client: Contender, count: int, chunks: int) -> None:
        self._to_start = count
        self._chunks = chunks
        self._all_started = asyncio.Event()
        self._tasks = [asyncio.create_task(client.stream(self._started)) for _ in range(count)]

    def _started(self) -> None:
        self._to_start -= 1
        if not self._to_start:
            self._all_started.set()

    async def start(self) -> None:
        """Wait for the first chunk of each; raises what a stream raises before."""
        waiting = asyncio.create_task(self._all_started.wait())
        await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self.finish()
            raise RuntimeError("a stream ended while others had not begun")

    async def finish(self, seconds: float | None = None) -> None:
        """Read all to the end, or for some seconds and drop what is left.

        Raises:
            RuntimeError: A contender lost or invented chunks.
        """
        done, pending = await asyncio.wait(self._tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            if task.result() not in {None, self._chunks}:
                raise RuntimeError(f"{task.result()} chunks came, {self._chunks} were sent")


async def run_streams(client: Contender, load: Load, count: int, chunks: int) -> None:
    streams = Streams(client, count, chunks)
    await streams.start()
    load.open_gate()
    await streams.finish()


@asynccontextmanager
async def warm_client(make: MakeClient, load: Load, mode: Mode) -> AsyncIterator[Contender]:
    """A client for `mode`, in a process that has read some streams with another one."""
    warm_up = Mode(chunks=50, is_gated=True)
    async with make(load.base_url(warm_up)) as client:
        for _ in range(3):
            await run_streams(client, load, 4, warm_up.chunks)
    gc.collect()
    async with make(load.base_url(mode)) as client:
        yield client


async def cpu_per_chunk(
    make: MakeClient, load: Load, *, streams: int, chunks: int, pause: float, at_least: float
) -> float:
    """CPU seconds per chunk, from where all streams have had their first one to their end.

    Without a pause the server is ahead of the client all the time, so the result says nothing
    about the server: how many events a read brings is up to the client.

    Args:
        make: The contender.
        load: The server.
        streams: How many are read at once.
        chunks: Chunks in each.
        pause: Seconds between two chunks of one stream.
        at_least: CPU seconds to use before the result counts.
    """
    mode = Mode(chunks, pause, is_gated=True)
    used = 0.0
    read = 0
    async with warm_client(make, load, mode) as client:
        while used < at_least:
            running = Streams(client, streams, chunks)
            await running.start()
            load.open_gate(ahead=not pause)
            before = time.process_time()
            await running.finish()
            used += time.process_time() - before
            read += streams * (chunks - 1)
    return used / read


async def time_to_first_chunk(
    make: MakeClient, load: Load, *, requests: int, percentile: int = 50
) -> float:
    """The wait from the call to the first chunk, one call at a time, one connection."""
    mode = Mode(chunks=3)
    waits: list[float] = []

    def started() -> None:
        waits.append(time.perf_counter() - called)

    async with make(load.base_url(mode)) as client:
        for _ in range(requests + requests // 4):
            called = time.perf_counter()
            await client.stream(started)
    return statistics.quantiles(waits[-requests:], n=100, method="inclusive")[percentile - 1]


async def ask_many(client: Contender, workers: int, requests: int) -> None:
    numbers = iter(range(requests))

    async def work() -> None:
        for _ in numbers:
            check(await client.answer(), ANSWER)

    await asyncio.gather(*[work() for _ in range(workers)])


async def per_request(
    make: MakeClient,
    load: Load,
    clock: Callable[[], float],
    *,
    workers: int,
    requests: int,
    at_least: float,
) -> float:
    """Seconds on `clock` per whole answer, with warm connections.

    Args:
        make: The contender.
        load: The server.
        clock: `time.process_time` or `time.perf_counter`.
        workers: Requests under way at once.
        requests: Requests in one unit of work.
        at_least: Seconds to use before the result counts.
    """
    used = 0.0
    answered = 0
    async with make(load.base_url(Mode(chunks=0))) as client:
        await ask_many(client, workers, workers)
        gc.collect()
        while not answered or used < at_least:
            before = clock()
            await ask_many(client, workers, requests)
            used += clock() - before
            answered += requests
    return used / answered


async def memory_per_stream(make: MakeClient, load: Load, *, streams: int) -> float:
    """Resident bytes per open stream that has had its second chunk and waits for its third."""
    mode = Mode(chunks=3, pause=max(0.4, streams * OPEN_STREAM_PAUSE), is_gated=True)
    async with warm_client(make, load, mode) as client:
        before = resident_bytes()
        opened: list[Streams] = []
        for _ in range(streams // OPENED_AT_ONCE):
            opened.append(Streams(client, OPENED_AT_ONCE, mode.chunks))
            await opened[-1].start()
        load.open_gate()
        await asyncio.sleep(mode.pause * 1.9)
        held = resident_bytes() - before
        for running in opened:
            await running.finish()
    return held / streams


class LoopWatch:
    """A timer that notes how late the loop called it at worst, from its making to `stop`."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._set()

    def _set(self) -> None:
        self._due = self._loop.time() + TICK
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._note()
        self._set()

    def _note(self) -> None:
        self.longest = max(self.longest, self._loop.time() - self._due)

    def stop(self) -> None:
        self._timer.cancel()
        self._note()  # the timer may have been due long ago


async def longest_stall(
    make: MakeClient, load: Load, *, streams: int, chunks: int, at_least: float
) -> float:
    """The longest the loop was late for a timer while all streams ran at full speed.

    The server is ahead when the reading begins, so all sockets are full, which is the worst that
    can meet a loop. The streams are read again and again, and the median of the longest stalls
    counts.

    Args:
        make: The contender.
        load: The server.
        streams: How many are read at once.
        chunks: Chunks in each.
        at_least: Seconds to spend before the result counts.
    """
    mode = Mode(chunks, is_gated=True)
    stalls: list[float] = []
    async with warm_client(make, load, mode) as client:
        until = time.monotonic() + at_least
        while not stalls or time.monotonic() < until:
            running = Streams(client, streams, chunks)
            await running.start()
            load.open_gate(ahead=True)
            watch = LoopWatch()
            await running.finish()
            watch.stop()
            stalls.append(watch.longest)
    return statistics.median(stalls)


async def peak_of_long_stream(
    make: MakeClient, load: Load, *, chunks: int, at_most: float
) -> float:
    """Resident bytes that one long stream added at its peak, its text thrown away.

    Args:
        make: The contender.
        load: The server.
        chunks: Chunks in the stream.
        at_most: Seconds after which the stream is dropped.
    """
    mode = Mode(chunks, is_gated=True)
    async with warm_client(make, load, mode) as client:
        running = Streams(client, 1, chunks)
        await running.start()
        reset_peak()
        before = resident_bytes()
        load.open_gate()
        await running.finish(at_most)
        return peak_bytes() - before


async def peak_of_text(
    make: MakeClient, load: Load, *, chunks: int, keeps_chunks: bool = False
) -> float:
    """Resident bytes that one long stream added at its peak, its text or all its chunks kept."""
    async with warm_client(make, load, Mode(chunks)) as client:
        keeper = cast("Keeper", client)
        reset_peak()
        before = resident_bytes()
        text = await keeper.read_text(keeps_chunks=keeps_chunks)
        check(text, TEXT * (chunks - 1))
        return peak_bytes() - before


async def peak_of_answer(make: MakeClient, load: Load, *, words: int) -> float:
    """Resident bytes that one whole answer added at its peak."""
    async with warm_client(make, load, Mode(chunks=0, words=words)) as client:
        reset_peak()
        before = resident_bytes()
        check(await client.answer(), TEXT * words)
        return peak_bytes() - before


def check(text: str | None, expected: str) -> None:
    """Compare what came with what was sent, unless the contender does not look.

    Raises:
        RuntimeError: They differ.
    """
    if text not in {None, expected}:
        raise RuntimeError("the text came back changed")


Measure = Callable[[MakeClient, Load], Awaitable[float]]
