"""A thousand consumers that read one chunk and then nothing, while the server pushes.

`python -m benchmarks.stalled` prints what each open stream holds in memory, and that it does not
grow: a consumer that stops reading stops its socket.
"""

import argparse
import asyncio
import subprocess
import sys

from benchmarks.contenders import KEY, MODEL, PROMPT
from benchmarks.load_server import Mode
from benchmarks.machine import allow_descriptors, resident_bytes
from benchmarks.measure import Load
from benchmarks.options import positive
from ernie_async import AsyncClient, ChatStream

CHUNKS = 1_000_000
LOOKS = (5.0, 6.0, 7.0, 9.0)


async def hold(port: int, streams: int) -> list[float]:
    """Resident kB for each of the streams, at each of the looks."""
    load = Load(port)
    base_url = load.base_url(Mode(CHUNKS, is_gated=True))
    held: list[ChatStream] = []
    async with AsyncClient(KEY, base_url=base_url, model=MODEL) as client:
        for _ in range(10):  # so that what is loaded once is not counted
            await anext(client.stream(PROMPT))
        before = resident_bytes()
        for _ in range(streams):
            stream = client.stream(PROMPT)
            await anext(stream)
            held.append(stream)
        load.open_gate()
        started = asyncio.get_running_loop().time()
        sizes = []
        for look in LOOKS:
            await asyncio.sleep(started + look - asyncio.get_running_loop().time())
            sizes.append((resident_bytes() - before) / streams / 1000)
        for stream in held:
            await stream.aclose()
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=positive, default=1000)
    streams = parser.parse_args().streams
    allow_descriptors(4 * streams + 200)
    command = [sys.executable, "-m", "benchmarks.load_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        sizes = asyncio.run(hold(int(server.stdout.readline()), streams))
        server.kill()
    print(f"{streams} streams that nobody reads\n")
    print("| after | memory of each |\n| --- | --- |")
    for look, size in zip(LOOKS, sizes, strict=True):
        print(f"| {look:g} s | {size:.0f} kB |")


if __name__ == "__main__":
    main()
