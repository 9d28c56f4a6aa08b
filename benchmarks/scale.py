"""What a chunk costs, and an open stream, when there are one or ten thousand of them.

`python -m benchmarks.scale` prints a table for aiohttp alone and for us; `--plot FOLDER` draws it.
All chunks of all streams together come at the same rate, however many streams there are, so that
only their number differs. Each measurement has a process of its own and fails if a chunk is lost.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import runs
from benchmarks.contenders import load
from benchmarks.load_server import Mode
from benchmarks.machine import MANY, allow_descriptors, describe, pin, resident_bytes
from benchmarks.measure import OPENED_AT_ONCE, Load, Streams, warm_client
from benchmarks.options import positive
from benchmarks.report import add_plot_option, write_json

CONTENDERS = ("floor", "ours")
COUNTS = (1, 10, 100, 1_000, 5_000, 10_000)
CHUNKS = 11
RATE = 2_000
"""Chunks a second, of all streams together: a quarter of a core."""

SHORTEST_PAUSE = 0.01
"""Seconds: below, chunks of one stream would come bundled."""

AT_LEAST = 1_000
"""Chunks to read before the cost of one counts."""

Costs = tuple[float, float]
Found = dict[str, dict[int, list[Costs]]]
"""One measurement for each round, by contender and number of streams."""


async def hold(contender: str, server: Load, streams: int) -> Costs:
    """CPU seconds per chunk, and resident bytes that all open streams hold.

    Raises:
        RuntimeError: A stream lost or invented chunks.
    """
    mode = Mode(CHUNKS, max(streams / RATE, SHORTEST_PAUSE), is_gated=True)
    used = read = held = 0.0
    async with warm_client(load(contender), server, mode) as client:
        while read < AT_LEAST:
            before = resident_bytes()
            opened: list[Streams] = []
            for start in range(0, streams, OPENED_AT_ONCE):
                opened.append(Streams(client, min(OPENED_AT_ONCE, streams - start), CHUNKS))
                await opened[-1].start()
            held = held or resident_bytes() - before
            server.open_gate()
            began = time.process_time()
            for running in opened:
                await running.finish()
            used += time.process_time() - began
            read += streams * (CHUNKS - 1)
    return used / read, held


def measure(bench: runs.Bench, contender: str, streams: int) -> Costs:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--contender", contender]
    command += ["--streams", str(streams), "--port", str(bench.port)]
    command += [] if bench.core is None else ["--core", str(bench.core)]
    environment = bench.environment | runs.STEADY_HEAP
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender}, {streams} streams: {done.stderr}")
    cpu, held = json.loads(done.stdout)
    return cpu, held


def compare(counts: Sequence[int], rounds: int) -> Found:
    found: Found = {name: {} for name in CONTENDERS}
    with runs.start(is_quick=False) as bench:
        for _ in range(rounds):
            for count in counts:
                for name in CONTENDERS:
                    found[name].setdefault(count, []).append(measure(bench, name, count))
    return found


def medians(found: Found) -> dict[str, dict[int, Costs]]:
    return {
        name: {
            count: (statistics.median(c for c, _ in costs), statistics.median(h for _, h in costs))
            for count, costs in by_count.items()
        }
        for name, by_count in found.items()
    }


def show(found: dict[str, dict[int, Costs]]) -> None:
    titles = [f"{what}, {name}" for what in ("CPU per chunk", "memory") for name in found]
    print("\n| open streams | " + " | ".join(titles) + " |")
    print("| --- " * (len(titles) + 1) + "|")
    for count in next(iter(found.values())):
        cells = [f"{found[name][count][0] * 1e6:.0f} µs" for name in found]
        cells += [f"{found[name][count][1] / 1e6:.1f} MB" for name in found]
        print(f"| {count:,} | " + " | ".join(cells) + " |")


def plot(found: dict[str, dict[int, Costs]], folder: Path) -> None:
    from matplotlib.figure import Figure

    from benchmarks.plot import COLORS, save, told, use_fixed_style

    use_fixed_style()
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, costs in found.items():
        counts = list(costs)
        left.plot(counts, [costs[n][0] * 1e6 for n in counts], "o-", color=COLORS[name], label=name)
        right.plot(
            counts, [costs[n][1] / 1e6 for n in counts], "o-", color=COLORS[name], label=name
        )
    left.set_xscale("log")
    left.set_ylim(bottom=0)
    left.set_title("CPU per chunk, µs", fontsize=10, loc="left")
    right.set_title("memory of all open streams, MB", fontsize=10, loc="left")
    for axes in (left, right):
        axes.set_xlabel("open streams")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(told(describe()), fontsize=6, color="#666666")
    save(figure, folder / "scale.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument(
        "--counts",
        type=lambda text: [positive(count) for count in text.split(",")],
        default=COUNTS,
        metavar="STREAMS,...",
    )
    add_plot_option(parser)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=positive, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    allow_descriptors(MANY)
    if options.contender:
        pin(options.core)
        print(json.dumps(asyncio.run(hold(options.contender, Load(options.port), options.streams))))
        return
    for what, value in describe().items():
        print(f"{what}: {value}")
    found = compare(options.counts, options.rounds)
    show(medians(found))
    if options.plot:
        write_json(options.plot, "scale", results=found)
        plot(medians(found), options.plot)


if __name__ == "__main__":
    main()
