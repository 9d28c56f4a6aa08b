"""What the gateway adds: seconds between a chunk of the model and the chunk of a viewer, and CPU.

`python -m benchmarks.gateway` runs three processes: a model that writes the time into each chunk, a
gateway on a core of its own, and viewers that compare. Each load is also run without the gateway,
which is the floor: what the model, the viewers and the machine take for themselves. Only Linux has
one clock for all of them.
"""

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns, process_time
from typing import NamedTuple

from benchmarks.machine import describe, pick_cores, pin, resident_bytes
from benchmarks.options import positive
from benchmarks.report import Panel, add_plot_option, write
from benchmarks.table import spread

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"as-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"@%d@"}}]}\n\n'
)
LAST = (
    b'data: {"id":"as-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'

# Streams are opened one after the other, as users come: to open one costs more than its chunks, so
# what is measured begins when that is over.
OPENED_A_SECOND = 200
SETTLING_SECONDS = 1.0

STAMP = re.compile(rb"@(\d+)@")


class Load(NamedTuple):
    """How many streams, and how fast."""

    streams: int
    pause: float

    def __str__(self) -> str:
        return f"{self.streams:,} streams, {1 / self.pause:g} chunks a second each"


PARTS = ("p50", "p99")
LOADS = (Load(300, 0.05), Load(1000, 0.2))


async def be_model(pause: float, seconds: float) -> None:
    """Answer each request with chunks that say when they were written."""
    n_chunks = round(seconds / pause)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        loop = asyncio.get_running_loop()
        at = loop.time()
        for _ in range(n_chunks):
            at += pause
            await asyncio.sleep(max(0.0, at - loop.time()))
            write_chunk(writer, EVENT % monotonic_ns())
        write_chunk(writer, LAST)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def be_gateway(model: int) -> None:
    """Relay, and tell the CPU time that each line of standard input asks for."""
    from aiohttp import web

    from ernie_async import AsyncClient
    from ernie_async.gateway import GatewaySettings, StreamLimits, make_app

    async with AsyncClient("k", base_url=f"http://127.0.0.1:{model}/v2") as client:
        settings = GatewaySettings(limits=StreamLimits(streams=2000))
        runner = web.AppRunner(
            make_app(client, settings), handler_cancellation=True, access_log=None
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
        print(runner.addresses[0][1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(process_time(), resident_bytes(), flush=True)
        await runner.cleanup()


class Viewer(asyncio.Protocol):
    """Reads one stream, and notes how old each chunk is."""

    def __init__(self, path: str, ages: list[int]) -> None:
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY
        self._ages = ages
        self._held = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        data = self._held + data
        end = 0
        for found in STAMP.finditer(data):
            self._ages.append(now - int(found[1]))
            end = found.end()
        self._held = data[end:][-200:]
        if b"[DONE]" in self._held:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.over.done():
            self.over.set_result(None)


async def view(port: int, path: str, load: Load) -> list[int]:
    """Watch so many streams to their end; the age of every chunk, in nanoseconds."""
    ages: list[int] = []
    loop = asyncio.get_running_loop()
    ends = []
    for _ in range(load.streams):
        _, viewer = await loop.create_connection(lambda: Viewer(path, ages), "127.0.0.1", port)
        ends.append(viewer.over)
        await asyncio.sleep(1 / OPENED_A_SECOND)
    await asyncio.sleep(SETTLING_SECONDS)
    ages.clear()
    await asyncio.wait(ends, timeout=120)
    return ages


@contextmanager
def started(*words: str, core: int | None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "benchmarks.gateway", *words, "--core", str(core)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.communicate()


def cpu(process: subprocess.Popen[str]) -> tuple[float, int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    seconds, size = process.stdout.readline().split()
    return float(seconds), int(size)


class Found(NamedTuple):
    """What one round with one load found; ages in milliseconds: the median, the 99th percentile.

    Attributes:
        direct: Ages at viewers of the model itself.
        relayed: Ages at viewers of the gateway.
        cpu: Microseconds of the gateway for each chunk.
        memory: Megabytes that it holds in the end.
    """

    direct: tuple[float, float]
    relayed: tuple[float, float]
    cpu: float
    memory: float


def half_and_most(ages: list[int]) -> tuple[float, float]:
    cuts = statistics.quantiles(ages, n=100)
    return cuts[49] / 1e6, cuts[98] / 1e6


def measure(load: Load, seconds: float, cores: tuple[int | None, int | None]) -> Found:
    own, other = cores
    pin(other)
    with started("--model", str(load.pause), str(seconds), core=other) as (_, model):
        direct = half_and_most(asyncio.run(view(model, "/v2/chat/completions", load)))
        with started("--gateway", str(model), core=own) as (gateway, port):
            before, _ = cpu(gateway)
            ages = asyncio.run(view(port, "/v1/chat/completions", load))
            after, size = cpu(gateway)
    # Over all chunks, those of the opening among them.
    each = (after - before) / (load.streams * round(seconds / load.pause)) * 1e6
    return Found(direct, half_and_most(ages), each, size / 1e6)


def row(load: Load, found: list[Found]) -> str:
    added = [
        [round_.relayed[place] - round_.direct[place] for round_ in found] for place in range(2)
    ]
    columns = [*zip(*(round_.direct for round_ in found), strict=True)]
    columns += zip(*(round_.relayed for round_ in found), strict=True)
    cells = [spread(values, " ms") for values in (*columns, *added)]
    cells.append(spread([round_.cpu for round_ in found], " µs"))
    cells.append(spread([round_.memory for round_ in found], " MB"))
    return f"| {load} | " + " | ".join(cells) + " |"


def panels(load: Load, found: list[Found]) -> list[Panel]:
    ages = [
        Panel(
            f"{load}: age of a chunk, {part}",
            "ms",
            {
                "floor, without the gateway": [round_.direct[place] for round_ in found],
                "ours, relayed": [round_.relayed[place] for round_ in found],
            },
        )
        for place, part in enumerate(PARTS)
    ]
    cost = {"ours, relayed": [round_.cpu for round_ in found]}
    return [*ages, Panel(f"{load}: CPU of the gateway for each chunk", "µs", cost)]


def compare(seconds: float, rounds: int, folder: Path | None) -> None:
    found: dict[Load, list[Found]] = {load: [] for load in LOADS}
    cores = pick_cores()  # once: to be pinned leaves one to pick from
    for _ in range(rounds):
        for load, results in found.items():
            results.append(measure(load, seconds, cores))
    for what, value in describe().items():
        print(f"{what}: {value}")
    titles = [f"{what}, {part}" for what in ("direct", "relayed", "added") for part in PARTS]
    print("\n| streams | " + " | ".join(titles) + " | CPU per chunk | memory |")
    print("|" + " --- |" * (len(titles) + 3))
    for load, results in found.items():
        print(row(load, results))
    if folder:
        drawn = [panel for load, results in found.items() for panel in panels(load, results)]
        write(folder, "gateway", drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=positive, default=15, help="of each stream")
    parser.add_argument("--rounds", type=positive, default=3)
    add_plot_option(parser)
    parser.add_argument("--model", nargs=2, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--gateway", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--core", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.core is not None:
        pin(None if given.core == "None" else int(given.core))
    if given.model is not None:
        asyncio.run(be_model(*given.model))
    elif given.gateway is not None:
        asyncio.run(be_gateway(given.gateway))
    else:
        compare(given.seconds, given.rounds, given.plot)


if __name__ == "__main__":
    main()
