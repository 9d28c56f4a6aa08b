"""The memory of a batch does not grow with its lines.

`python -m benchmarks.batch_memory --lines 10000000` maps that many lines of 4 KiB from a generator,
256 at once, and prints what the process holds as it goes.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

from benchmarks.contenders import KEY, MODEL
from benchmarks.load_server import Mode
from benchmarks.machine import resident_bytes
from benchmarks.options import positive
from ernie_async import AsyncClient
from ernie_async.batch import BatchRunner

LINE_BYTES = 4096
LOOKS = 20


def rows(lines: int) -> Iterator[dict[str, Any]]:
    for number in range(lines):
        text = f"{number} ".ljust(LINE_BYTES, "x")
        yield {"messages": [{"role": "user", "content": text}]}


async def run(port: int, lines: int, concurrency: int) -> None:
    base_url = f"http://127.0.0.1:{port}/{Mode(0)}/v2"
    print("| lines | resident MiB | seconds |\n| --- | --- | --- |")
    started, done = monotonic(), 0
    async with (
        AsyncClient(KEY, base_url=base_url, model=MODEL) as client,
        BatchRunner(client, concurrency=concurrency) as runner,
    ):
        async for result in runner.map(rows(lines)):
            if not result.ok:
                raise SystemExit(f"line {result.number}: {result.message}")
            done += 1
            if done % max(1, lines // LOOKS) == 0:
                mib = resident_bytes() / 2**20
                print(f"| {done:,} | {mib:.1f} | {monotonic() - started:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=positive, default=200_000)
    parser.add_argument("--concurrency", type=positive, default=256)
    options = parser.parse_args()
    command = [sys.executable, "-m", "benchmarks.load_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        asyncio.run(run(int(server.stdout.readline()), options.lines, options.concurrency))
        server.kill()


if __name__ == "__main__":
    main()
