"""Where our client's time goes: `python -m benchmarks.flame --plot docs/benchmarks`.

Samples a process that reads 64 streams at full speed, and one that asks for answers with 64
workers, with py-spy (`pip install py-spy`; it may want root). Prints the share of each layer, by
the innermost frame that belongs to one; a call of the kernel is its own layer. What only the
benchmark does is left out.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import runs
from benchmarks.contenders import load
from benchmarks.machine import describe, pin
from benchmarks.measure import Load, Measure, cpu_per_chunk, per_request
from benchmarks.report import add_plot_option

SECONDS = 5.0
"""CPU seconds in each of the two programs; py-spy looks 200 times in each second."""

WORKS: dict[str, tuple[str, Measure]] = {
    "streams": (
        "64 streams at full speed",
        partial(cpu_per_chunk, streams=64, chunks=200, pause=0, at_least=SECONDS),
    ),
    "answers": (
        "answers, 64 workers",
        partial(per_request, clock=time.process_time, workers=64, requests=640, at_least=SECONDS),
    ),
}

LAYERS = {
    "kernel": (
        r"^(send|recv|sendmsg|writev|epoll_\w+|connect|close|socket|accept4?) \(libc",
        "#bdbdbd",
    ),
    "ernie_async": (r"\(ernie_async/", "#4051b5"),
    "pydantic": (r"pydantic", "#e0559a"),
    "aiohttp": (
        r"\((aiohttp|multidict|yarl|propcache|frozenlist)/|_http_parser|_http_writer",
        "#26a69a",
    ),
    "asyncio": (r"\((asyncio/|_asynciomodule|selectors|selectmodule|socketmodule)", "#ffb74d"),
    "benchmark": (r"\(benchmarks/", "#e0e0e0"),
}
"""How a frame tells its layer, the first that fits, and its colour."""

BELOW = "BaseEventLoop._run_once"
LEFT_OUT = ("importlib", "Load.open_gate", "Runner.close", "clock_gettime", "gc_collect (")
"""What only the benchmark does; collections that nobody asks for are those of the work."""

DULL = re.compile(r"^(task_step|TaskStepMethWrapper|Handle\._run|0x)")

NARROWEST = 0.004
"""Share of the time under which a frame is not drawn."""


@dataclass
class Frame:
    """A function, how often it was seen, and what it called."""

    name: str
    samples: int = 0
    called: dict[str, "Frame"] = field(default_factory=dict)

    def add(self, stack: list[str], samples: int) -> None:
        self.samples += samples
        if stack:
            self.called.setdefault(stack[0], Frame(stack[0])).add(stack[1:], samples)


def layer_of(stack: list[str]) -> str:
    """The layer of the innermost frame that has one."""
    for frame in reversed(stack):
        for layer, (pattern, _) in LAYERS.items():
            if re.search(pattern, frame):
                return layer
    return "asyncio"  # the loop itself, between two callbacks


def read(raw: str) -> Counter[tuple[str, ...]]:
    """Stacks inside the event loop, outermost frame first and without line numbers."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in raw.splitlines():
        text, _, samples = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in text.split(";")]
        places = [place for place, frame in enumerate(frames) if frame.startswith(BELOW)]
        if not places or any(word in text for word in LEFT_OUT):
            continue
        inside = [frame for frame in frames[places[0] + 1 :] if not DULL.match(frame)]
        stacks[tuple(inside)] += int(samples)
    return stacks


def shares(stacks: Counter[tuple[str, ...]]) -> dict[str, float]:
    """Share of each layer in the samples, without those that only the benchmark has."""
    found: Counter[str] = Counter()
    for stack, samples in stacks.items():
        found[layer_of(list(stack))] += samples
    return {layer: found[layer] / found.total() for layer in LAYERS}


def sample(bench: runs.Bench, spy: str, work: str) -> Counter[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.txt"
        command = [
            spy,
            "record",
            "--native",
            "--format",
            "raw",
            "--rate",
            "200",
            "--output",
            str(raw),
        ]
        command += ["--", sys.executable, "-m", "benchmarks.flame", "--work", work]
        command += ["--port", str(bench.port)]
        command += [] if bench.core is None else ["--core", str(bench.core)]
        environment = bench.environment | runs.STEADY_HEAP
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return read(raw.read_text("utf-8"))


def plot(title: str, stacks: Counter[tuple[str, ...]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    from benchmarks.plot import save, told, use_fixed_style

    root = Frame("event loop (asyncio/base_events.py)")
    for stack, samples in sorted(stacks.items()):
        root.add(list(stack), samples)
    use_fixed_style()
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    depth = 0

    def draw(frame: Frame, left: float, level: int) -> None:
        nonlocal depth
        width = frame.samples / root.samples
        if width < NARROWEST:
            return
        depth = max(depth, level + 1)
        color = LAYERS[layer_of([frame.name])][1]
        axes.add_patch(
            Rectangle((left, level), width, 0.94, facecolor=color, edgecolor="white", linewidth=0.3)
        )
        name = frame.name.partition(" (")[0].removesuffix(".<locals>")
        fits = int(width * 190)
        if fits >= 4:
            shown = name if len(name) <= fits else name[: fits - 1] + "…"
            axes.text(left + 0.001, level + 0.28, shown, fontsize=5.5)
        for called in sorted(frame.called.values(), key=lambda called: called.name):
            draw(called, left, level + 1)
            left += called.samples / root.samples

    draw(root, 0.0, 0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, depth)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, loc="left")
    patches = [Patch(color=color, label=layer) for layer, (_, color) in LAYERS.items()]
    axes.legend(handles=patches, loc="upper left", fontsize=7, frameon=False)
    figure.supxlabel(told(describe()), fontsize=6, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_plot_option(parser)
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        pin(options.core)
        make = load("ours")

        async def work() -> None:
            await WORKS[options.work][1](make, Load(options.port))

        asyncio.run(work())
        return
    spy = shutil.which(
        "py-spy", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    )
    if spy is None:
        parser.error("py-spy is not installed")
    for what, value in describe().items():
        print(f"{what}: {value}")
    print("\n| work | samples | " + " | ".join(LAYERS) + " |")
    print("| --- " * (len(LAYERS) + 2) + "|")
    with runs.start(is_quick=False) as bench:
        for name, (title, _) in WORKS.items():
            stacks = sample(bench, spy, name)
            cells = [f"{share:.0%}" for share in shares(stacks).values()]
            print(f"| {title} | {stacks.total():,} | " + " | ".join(cells) + " |", flush=True)
            if options.plot:
                plot(title, stacks, options.plot / f"flame-{name}.svg")


if __name__ == "__main__":
    main()
