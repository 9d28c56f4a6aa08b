"""What the adaptive buffer saves, and what it costs: CPU for each chunk against the time it comes.

`python -m benchmarks.read_buffer` reads 64 and 1,000 paced streams with and without `max_delay`,
interleaved, and prints one table. CPU is a ratio to the same round without.
"""

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks.contenders import KEY, MODEL, PROMPT
from benchmarks.machine import pick_cores, pin
from benchmarks.options import positive
from ernie_async import AsyncClient, ReadBuffer

CHUNKS = 60
LOADS = {"64 streams, 20 ms between chunks": (64, 20), "1,000 streams, 60 ms": (1000, 60)}
BUFFERS = {
    "as it comes (default)": ReadBuffer(),
    "max_delay 150 ms": ReadBuffer(max_delay=0.15),
    "max_delay 300 ms": ReadBuffer(max_delay=0.3),
}


class Measured(NamedTuple):
    """One run: CPU seconds for each chunk, and seconds from sending to reading."""

    cpu: float
    first: float
    p50: float
    p99: float


async def measure(port: int, streams: int, pause_ms: int, buffer: ReadBuffer) -> Measured:
    base_url = f"http://127.0.0.1:{port}/{pause_ms}/{CHUNKS}/v2"
    first: list[float] = []
    later: list[float] = []
    async with AsyncClient(KEY, base_url=base_url, model=MODEL, read_buffer=buffer) as client:

        async def read(at: float) -> None:
            await asyncio.sleep(at)
            late = first
            async for chunk in client.stream(PROMPT):
                late.append(time.monotonic() - float(chunk.text))
                late = later

        used = time.process_time()
        # Spread over a second, so that they do not march in step.
        await asyncio.gather(*(read(number / streams) for number in range(streams)))
        used = time.process_time() - used
    late = sorted(later)
    return Measured(
        used / (streams * CHUNKS),
        statistics.median(first),
        statistics.median(late),
        late[int(len(late) * 0.99)],
    )


def run(port: int, rounds: int) -> None:
    print(
        "| load | buffer | CPU per chunk | late by, p50 | p99 | first chunk late by, p50 |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for title, (streams, pause_ms) in LOADS.items():
        runs: dict[str, list[Measured]] = {name: [] for name in BUFFERS}
        for _ in range(rounds):
            for name, buffer in BUFFERS.items():
                runs[name].append(asyncio.run(measure(port, streams, pause_ms, buffer)))
        default = next(iter(runs.values()))
        for name, measured in runs.items():
            ratios = [one.cpu / of.cpu for one, of in zip(measured, default, strict=True)]
            cpu = statistics.median(one.cpu for one in measured) * 1e6
            cells = [statistics.median(one[at] for one in measured) * 1000 for at in (2, 3, 1)]
            print(
                f"| {title} | {name} | {cpu:.1f} µs, x {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) | "
                + " | ".join(f"{cell:.1f} ms" for cell in cells)
                + " |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    rounds = parser.parse_args().rounds
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 5000), hard))
    ours, theirs = pick_cores()
    pin(theirs)  # for the server, which takes it over
    command = [sys.executable, "-m", "benchmarks.clock_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        pin(ours)
        run(int(server.stdout.readline()), rounds)
        server.stdin.close()


if __name__ == "__main__":
    main()
