"""A thousand streams at once through a proxy that breaks a quarter of its connections.

`python -m benchmarks.chaos` prints what became of them, in three rounds: resumed by a server that
numbers its events, never resumed, and continued by the model. Ends with 1 if a text is wrong, a
failure is not typed or has not the text before it, or anything is left behind.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Literal

from benchmarks.chaos_server import text_of
from benchmarks.machine import allow_descriptors, open_descriptors
from benchmarks.options import positive
from ernie_async import (
    AsyncClient,
    ErnieError,
    Limits,
    Record,
    ResumePolicy,
    RetryPolicy,
    RetryScheduled,
    StreamResumed,
    Timeouts,
)

PATIENCE = Timeouts(connect=10, first_event=3, idle=1.5)
RETRY = RetryPolicy(attempts=10, base_delay=0.05, max_delay=0.5)
ROUND_SECONDS = 240.0

Mode = Literal["server", "never", "continue"]
ROUNDS: dict[str, tuple[str, Mode]] = {
    "ids, resumed by the server": ("ids", "server"),
    "no ids, never resumed": ("plain", "never"),
    "no ids, continued by the model": ("plain", "continue"),
}


@dataclass
class Outcome:
    """What became of one round."""

    exact: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    left: str = ""

    def count(self, kind: type[Record]) -> int:
        return sum(isinstance(record, kind) for record in self.records)


async def read_one(client: AsyncClient, name: str, outcome: Outcome, may_fail: bool) -> None:
    began = time.monotonic()
    expected = text_of(name)
    text = ""
    try:
        async with client.stream(name) as stream:
            async for chunk in stream:
                text += chunk.text
            answer = await stream.final()
    except ErnieError as error:
        outcome.failures[type(error).__name__] += 1
        partial = getattr(error, "partial", None)
        told = partial.text if partial is not None else ""
        if not may_fail or not expected.startswith(text) or told != text:
            outcome.wrong.append(f"{name}: {error}")
    else:
        if text == answer.text == expected:
            outcome.exact += 1
        else:
            outcome.wrong.append(f"{name}: {len(text)} characters, not the text")
    outcome.seconds.append(time.monotonic() - began)


async def run_round(port: int, way: str, mode: Mode, streams: int) -> Outcome:
    outcome = Outcome()
    before = (len(asyncio.all_tasks()), open_descriptors())
    async with AsyncClient(
        "chaos",
        base_url=f"http://127.0.0.1:{port}/{way}/v2",
        timeouts=PATIENCE,
        retry=RETRY,
        resume=ResumePolicy(mode=mode, most=10),
        limits=Limits(concurrency=streams),
        hooks=[outcome.records.append],
    ) as client:
        async with asyncio.timeout(ROUND_SECONDS):
            await asyncio.gather(
                *(
                    read_one(client, f"{mode} {number}", outcome, mode == "never")
                    for number in range(streams)
                )
            )
        assert client.limiter is not None
        permits = client.limiter.snapshot().in_flight
    await asyncio.sleep(0.1)
    after = (len(asyncio.all_tasks()), open_descriptors())
    lost = [now - then for now, then in zip(after, before, strict=True)]
    outcome.left = f"{lost[0]} tasks, {lost[1]} descriptors, {permits} permits"
    if lost != [0, 0] or permits:
        outcome.wrong.append(f"left behind: {outcome.left}")
    return outcome


def show(title: str, streams: int, outcome: Outcome) -> None:
    ordered = sorted(outcome.seconds)
    forms = Counter(record.how for record in outcome.records if isinstance(record, StreamResumed))
    rows = {
        "streams": str(streams),
        "complete and exact": f"{outcome.exact} ({outcome.exact / streams:.1%})",
        "typed failures": ", ".join(f"{n} {name}" for name, n in outcome.failures.items()) or "0",
        "wrong": str(len(outcome.wrong)),
        "resumes": ", ".join(f"{n} {how}" for how, n in forms.items()) or "0",
        "waits before a retry or resume": str(outcome.count(RetryScheduled)),
        "connections": ", ".join(f"{n} {kind}" for kind, n in sorted(outcome.faults.items())),
        "seconds of a stream, p50 and p99": f"{statistics.median(ordered):.1f}, "
        f"{ordered[int(len(ordered) * 0.99)]:.1f}",
        "left behind": outcome.left,
    }
    print(f"\n| {title} | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    for line in outcome.wrong[:10]:
        print(f"WRONG {line}", file=sys.stderr)


def start_server(seed: int, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.chaos_server"]
    return subprocess.Popen(
        [*command, f"--seed={seed}", f"--pause={pause}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask_faults(server: subprocess.Popen[str]) -> dict[str, int]:
    to, back = pipes(server)
    to.write("\n")
    to.flush()
    faults: dict[str, int] = json.loads(back.readline())
    return faults


def pipes(server: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert server.stdin is not None
    assert server.stdout is not None
    return server.stdin, server.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=positive, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="50 streams, at a higher pace")
    arguments = parser.parse_args()
    streams = 50 if arguments.quick else arguments.streams
    allow_descriptors(8 * streams + 200)  # the server, a child, holds four for each stream
    server = start_server(arguments.seed, 0.01 if arguments.quick else 0.05)
    is_right = True
    try:
        port = int(pipes(server)[1].readline())
        for title, (way, mode) in ROUNDS.items():
            outcome = asyncio.run(run_round(port, way, mode, streams))
            outcome.faults = ask_faults(server)
            show(title, streams, outcome)
            is_right = is_right and not outcome.wrong
    finally:
        pipes(server)[0].close()
        server.wait(10)
        pipes(server)[1].close()
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
