"""What the content filter costs: for each character, to build, to hold, and in a stream.

`python -m benchmarks.content_filter` filters Chinese text with 1,000, 10,000 and 100,000 terms,
whole and in pieces, interleaved with the automaton of ahocorasick-rs alone (`pip install
ahocorasick-rs`; left out if it is not there), which neither folds nor holds back. Then it reads 64
paced streams without a filter and with one of 10,000 terms. All times are CPU.
"""

import argparse
import asyncio
import importlib
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any, NamedTuple

from benchmarks.contenders import KEY, MODEL, PROMPT
from benchmarks.load_server import Mode
from benchmarks.machine import describe, pick_cores, pin, resident_bytes
from benchmarks.options import positive
from benchmarks.report import Panel, add_plot_option, write
from benchmarks.table import spread
from ernie_async import AsyncClient, ContentFilter

SIZES = (1_000, 10_000, 100_000)
# The most frequent characters of Chinese, by number; where they stand makes no difference here.
CHARACTERS = [chr(0x4E00 + number) for number in range(3_500)]
LENGTHS = (2, 2, 3, 4, 4, 5, 6)
PIECES = {"whole": 20_000, "in pieces of 4": 4, "in pieces of 1": 1}
STREAMS = 64
MODE = Mode(chunks=100, pause=0.02)


class Texts(NamedTuple):
    """What is filtered."""

    terms: list[str]
    text: str


def make_texts(seed: int = 7) -> Texts:
    chance = random.Random(seed)
    terms: dict[str, None] = {}
    while len(terms) < SIZES[-1]:
        terms["".join(chance.choices(CHARACTERS, k=chance.choice(LENGTHS)))] = None
    return Texts(list(terms), "".join(chance.choices(CHARACTERS, k=20_000)))


class Built(NamedTuple):
    """One contender with one list."""

    seconds: float
    bytes: int
    run: Callable[[str, int], object]  # a text, the size of its pieces


def build_ours(terms: Sequence[str]) -> Built:
    before, began = resident_bytes(), process_time()
    words = ContentFilter.from_terms(terms)
    seconds = process_time() - began

    def run(text: str, size: int) -> None:
        part = words.open()
        for at in range(0, len(text), size):
            part.feed(text[at : at + size])
        part.close()

    return Built(seconds, resident_bytes() - before, run)


def build_automaton(terms: Sequence[str]) -> Built | None:
    try:
        library: Any = importlib.import_module("ahocorasick_rs")
    except ImportError:
        return None
    before, began = resident_bytes(), process_time()
    automaton = library.AhoCorasick(terms, matchkind=library.MatchKind.LeftmostLongest)
    seconds = process_time() - began

    def run(text: str, size: int) -> None:
        for at in range(0, len(text), size):
            automaton.find_matches_as_indexes(text[at : at + size])

    return Built(seconds, resident_bytes() - before, run)


BUILDERS = {"ours": build_ours, "ahocorasick-rs": build_automaton}


def measure_alone(name: str, n_terms: int) -> None:
    """In a process of its own, so that what others freed is not used: print build and memory."""
    built = BUILDERS[name](make_texts().terms[:n_terms])
    if built is not None:
        print(built.seconds, built.bytes)


def build_figures(name: str, n_terms: int, rounds: int) -> tuple[list[float], list[float]]:
    seconds, sizes = [], []
    for _ in range(rounds):
        command = [sys.executable, "-m", "benchmarks.content_filter", "--alone", name, str(n_terms)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if printed:
            second, size = printed.split()
            seconds.append(float(second))
            sizes.append(int(size) / 2**20)
    return seconds, sizes


def compare(rounds: int) -> list[Panel]:
    """What both cost with all lists; the bars of each panel in the order of the lists."""
    terms, text = make_texts()
    found: dict[str, dict[str, list[float]]] = {
        what: {} for what in ("build, s", "memory, MiB", *(f"{piece}, µs" for piece in PIECES))
    }
    for n_terms in SIZES:
        built = {
            f"{name}, {n_terms:,} terms": made
            for name, make in BUILDERS.items()
            if (made := make(terms[:n_terms]))
        }
        for name, made in built.items():
            seconds, sizes = build_figures(name.partition(",")[0], n_terms, 3)
            found["build, s"][name], found["memory, MiB"][name] = seconds, sizes
            made.run(text, 4)  # to know its characters
        for _ in range(rounds):
            for piece, size in PIECES.items():
                for name, made in built.items():
                    began = process_time()
                    made.run(text, size)
                    used = (process_time() - began) / len(text) * 1e6
                    found[f"{piece}, µs"].setdefault(name, []).append(used)
    panels = []
    for what, values in found.items():
        title, _, unit = what.rpartition(", ")
        panels.append(Panel(title if unit != "µs" else f"a character, {title}", unit, values))
    return panels


def show(panels: Sequence[Panel]) -> None:
    print("| filter | " + " | ".join(panel.title for panel in panels) + " |")
    print("|" + " --- |" * (1 + len(panels)))
    for name in panels[0].values:
        cells = [spread(panel.values[name], f" {panel.unit}") for panel in panels]
        print(f"| {name} | " + " | ".join(cells) + " |")


async def read_streams(base_url: str, content_filter: ContentFilter | None) -> float:
    """CPU microseconds for each chunk."""
    async with AsyncClient(
        KEY, base_url=base_url, model=MODEL, content_filter=content_filter
    ) as client:

        async def read(at: float) -> None:
            await asyncio.sleep(at)
            async for _ in client.stream(PROMPT):
                pass

        used = process_time()
        await asyncio.gather(*(read(number / STREAMS) for number in range(STREAMS)))
        return (process_time() - used) / (STREAMS * MODE.chunks) * 1e6


def compare_streams(port: int, rounds: int) -> Panel:
    words = ContentFilter.from_terms(make_texts().terms[:10_000])
    base_url = f"http://127.0.0.1:{port}/{MODE}/v2"
    plain, filtered = [], []
    for _ in range(rounds):
        plain.append(asyncio.run(read_streams(base_url, None)))
        filtered.append(asyncio.run(read_streams(base_url, words)))
    ratios = [more / less for more, less in zip(filtered, plain, strict=True)]
    title = f"CPU per chunk of 2 characters, {STREAMS} streams, 20 ms between chunks"
    print(f"\n| {title} | |")
    print("| --- | --- |")
    print(f"| without a filter | {spread(plain, ' µs')} |")
    print(f"| with 10,000 terms | {spread(filtered, ' µs')} |")
    print(f"| ratio, round by round | {spread(ratios)} |")
    return Panel(title, "µs", {"ours, no filter": plain, "ours, 10,000 terms": filtered})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    add_plot_option(parser)
    given = parser.parse_args()
    if given.alone:
        measure_alone(given.alone[0], int(given.alone[1]))
        return
    for name, value in describe().items():
        print(f"{name}: {value}")
    print()
    ours, theirs = pick_cores()
    pin(ours)
    panels = compare(given.rounds)
    show(panels)
    command = [sys.executable, "-m", "benchmarks.load_server"]
    pin(theirs)  # for the server, which takes it over
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        pin(ours)
        panels.append(compare_streams(int(server.stdout.readline()), given.rounds))
        server.stdin.close()
    if given.plot:
        write(given.plot, "content-filter", panels)


if __name__ == "__main__":
    main()
