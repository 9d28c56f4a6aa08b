"""What uvloop gains: `python -m benchmarks.loops` asks the floor and us with both loops by turns.

A round asks each question of each contender with each loop, one process after the other and in
another order each time; the gain is taken within a round. uvloop has to be installed.
"""

import argparse
import importlib.util
import random
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from benchmarks import runs
from benchmarks.contenders import FLOOR
from benchmarks.machine import describe, library_version
from benchmarks.options import positive
from benchmarks.questions import QUESTIONS
from benchmarks.report import Panel, add_plot_option, write
from benchmarks.table import OURS, spread
from benchmarks.worker import LOOPS

ASKED = ("paced", "many", "first", "answers")
CONTENDERS = (FLOOR, OURS)

Values = dict[str, dict[tuple[str, str], list[float]]]
"""One value for each round, by question, and by contender and loop."""


def measure(rounds: int, *, is_quick: bool) -> Values:
    turns = [(who, loop) for who in CONTENDERS for loop in LOOPS]
    values: Values = {question: {turn: [] for turn in turns} for question in ASKED}
    with ExitStack() as stack:
        benches = {
            loop: stack.enter_context(runs.start(is_quick=is_quick, loop=loop)) for loop in LOOPS
        }
        for _ in range(rounds):
            for question, by_turn in values.items():
                for who, loop in random.sample(turns, len(turns)):
                    by_turn[who, loop].append(benches[loop].run(who, question))
    return values


def panels(values: Values) -> list[Panel]:
    return [
        Panel(
            QUESTIONS[question].title,
            QUESTIONS[question].unit,
            {
                f"{who}, {loop}": [value * QUESTIONS[question].scale for value in found]
                for (who, loop), found in by_turn.items()
            },
        )
        for question, by_turn in values.items()
    ]


def show(drawn: Sequence[Panel]) -> None:
    print("\n| measure | " + " | ".join(LOOPS) + " | ratio, round by round |")
    print("| --- " * (len(LOOPS) + 2) + "|")
    for title, unit, values in drawn:
        for who in CONTENDERS:
            plain, quick = (values[f"{who}, {loop}"] for loop in LOOPS)
            cells = [spread(found, f" {unit}") for found in (plain, quick)]
            cells.append(spread([less / more for more, less in zip(plain, quick, strict=True)]))
            print(f"| {title}, {who} | " + " | ".join(cells) + " |")


def ratios(values: Mapping[str, Sequence[float]], loop: str) -> list[float]:
    """Ours to the floor, round by round."""
    floor, ours = (values[f"{who}, {loop}"] for who in CONTENDERS)
    return [more / less for less, more in zip(floor, ours, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    add_plot_option(parser)
    options = parser.parse_args()
    if importlib.util.find_spec("uvloop") is None:
        parser.error("uvloop is not installed; pip install uvloop")
    values = measure(options.rounds, is_quick=options.quick)
    for what, value in (describe() | {"uvloop": library_version("uvloop")}).items():
        print(f"{what}: {value}")
    drawn = panels(values)
    show(drawn)
    paced = drawn[ASKED.index("paced")].values
    found = ", ".join(f"{statistics.median(ratios(paced, loop)):.2f} with {loop}" for loop in LOOPS)
    print(f"\nOurs to the floor, paced, median: {found}")
    if options.plot:
        write(options.plot, "loops", drawn)


if __name__ == "__main__":
    main()
