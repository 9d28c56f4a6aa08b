"""A batch from file to file: what a line costs, beside the ways people write it themselves.

`python -m benchmarks.batch --lines 1000000 --rounds 1` runs each way in a process of its own,
round by round, against a server that costs next to nothing:

- `ours`: `BatchRunner.run_file`, with its checkpoint, dead letters and limits;
- `openai`: a semaphore over openai-python, a task for each line, as cookbooks have it;
- `aiohttp`: the same over plain aiohttp.

A task for each line takes memory for each line: some 3 GiB for a million of them. `--memory` is
where a process is stopped, and `--contenders ours aiohttp` leaves one out.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.contenders import KEY, MODEL
from benchmarks.load_server import Mode
from benchmarks.machine import describe, limit_memory, peak_bytes, pick_cores, pin
from benchmarks.options import positive

CONCURRENCY = 64

Work = Callable[[str, Path, Path], Coroutine[Any, Any, None]]


async def ours(base_url: str, source: Path, out: Path) -> None:
    from ernie_async import AsyncClient
    from ernie_async.batch import BatchRunner

    async with AsyncClient(KEY, base_url=base_url) as client:
        report = await BatchRunner(client, concurrency=CONCURRENCY).run_file(source, out)
    assert report.exit_code == 0, report


async def with_semaphore(
    source: Path, out: Path, ask: Callable[[dict[str, Any]], Awaitable[Any]]
) -> None:
    room = asyncio.Semaphore(CONCURRENCY)
    with source.open(encoding="utf-8") as opened:
        lines = [json.loads(line) for line in opened]
    with out.open("w", encoding="utf-8") as file:

        async def one(line: dict[str, Any]) -> None:
            async with room:
                body = await ask(line["body"])
            record = {"custom_id": line["custom_id"], "response": {"body": body}}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

        await asyncio.gather(*(one(line) for line in lines))


async def openai(base_url: str, source: Path, out: Path) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key=KEY, base_url=base_url) as client:

        async def ask(body: dict[str, Any]) -> Any:
            completion = await client.chat.completions.create(**body)
            return completion.model_dump()

        await with_semaphore(source, out, ask)


async def aiohttp(base_url: str, source: Path, out: Path) -> None:
    from aiohttp import ClientSession

    async with ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def ask(body: dict[str, Any]) -> Any:
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                return await response.json()

        await with_semaphore(source, out, ask)


WAYS: dict[str, Work] = {"ours": ours, "openai": openai, "aiohttp": aiohttp}


def write_input(path: Path, lines: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            messages = [{"role": "user", "content": f"第 {number} 题：请用一句话解释量子纠缠。"}]
            line = {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v2/chat/completions",
                "body": {"model": MODEL, "messages": messages},
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def measure(way: str, port: int, source: Path, core: int | None) -> None:
    """One way, in this process; prints what it took as one line of JSON."""
    pin(core)
    base_url = f"http://127.0.0.1:{port}/{Mode(0)}/v2"
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        out = Path(folder) / "out.jsonl"
        started, cpu = time.monotonic(), time.process_time()
        asyncio.run(WAYS[way](base_url, source, out))
        told = {
            "wall": time.monotonic() - started,
            "cpu": time.process_time() - cpu,
            "peak": peak_bytes(),
        }
        assert count_lines(out) == count_lines(source), f"{way} lost lines"
    print(json.dumps(told))


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


@contextmanager
def load_server(core: int | None) -> Iterator[str]:
    """A server on a core; its port."""
    command = [sys.executable, "-m", "benchmarks.load_server"]
    command += [] if core is None else ["--core", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().strip()
        server.kill()


def compare(ways: Sequence[str], lines: int, rounds: int, memory: float) -> None:
    core, server_core = pick_cores()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder, load_server(server_core) as port:
        source = Path(folder) / "in.jsonl"
        write_input(source, lines)
        for number in range(rounds):
            for way in ways:
                worker = [sys.executable, "-m", "benchmarks.batch", "--way", way, "--port", port]
                worker += ["--source", str(source), "--memory", str(memory)]
                worker += [] if core is None else ["--core", str(core)]
                done = subprocess.run(worker, stdout=subprocess.PIPE, check=False)
                if done.returncode == 0:
                    found[way].append(json.loads(done.stdout))
                said = done.stdout.decode().strip() or "failed, see above"
                print(f"round {number + 1}, {way}: {said}", file=sys.stderr, flush=True)
    for name, value in describe().items():
        print(f"{name}: {value}")
    print(f"\n{lines:,} lines, {CONCURRENCY} at once, median of {rounds} rounds\n")
    print("| way | lines per second | CPU per line | peak memory |\n| --- | --- | --- | --- |")
    for way, rows in found.items():
        if not rows:
            print(f"| {way} | failed within {memory:g} GiB | | |")
            continue
        wall, cpu, peak = (
            statistics.median(row[name] for row in rows) for name in ("wall", "cpu", "peak")
        )
        each = cpu / lines * 1e6
        print(f"| {way} | {lines / wall:,.0f} | {each:,.0f} us | {peak / 2**20:,.0f} MiB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=positive, default=20_000)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--contenders", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--memory", type=float, default=12.0, help="GiB that a way may take")
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    if options.way is None:
        compare(options.contenders, options.lines, options.rounds, options.memory)
    else:
        limit_memory(int(options.memory * 2**30))
        measure(options.way, options.port, options.source, options.core)


if __name__ == "__main__":
    main()
