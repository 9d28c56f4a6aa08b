"""What uvloop gains: `python -m benchmarks.loops` asks all contenders with both loops by turns.

A round asks each question of each contender with each loop, one process after the other and in
another order each time; the gain is taken within a round. uvloop has to be installed, also where a
contender has an environment of its own (`python -m benchmarks --install` does that).
"""

import argparse
import importlib.util
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from benchmarks import runs, table
from benchmarks.contenders import FLOOR, MODULES
from benchmarks.machine import describe, library_version
from benchmarks.options import names, positive
from benchmarks.questions import QUESTIONS
from benchmarks.report import Panel, add_plot_option, write
from benchmarks.worker import LOOPS

ASKED = ("paced", "many", "first", "answers")

Values = dict[str, dict[tuple[str, str], dict[int, float]]]
"""By question, by contender and loop, and by round."""


def measure(benches: Mapping[str, runs.Bench], contenders: Sequence[str], rounds: int) -> Values:
    turns = [(who, loop) for who in contenders for loop in benches]
    values: Values = {question: {turn: {} for turn in turns} for question in ASKED}
    for number in range(rounds):
        for question, by_turn in values.items():
            print(f"round {number + 1} of {rounds}: {question}", file=sys.stderr, flush=True)
            asked = [turn for turn in turns if number < runs.rounds_of(turn[0], question, rounds)]
            for who, loop in random.sample(asked, len(asked)):
                try:
                    by_turn[who, loop][number] = benches[loop].run(who, question)
                except runs.RunError as error:
                    print(f"{who}, {loop}: {question} failed, {error}")
    return values


def of_loop(values: Values, loop: str) -> dict[str, dict[str, dict[int, float]]]:
    """What one loop has, as the suite's table takes it."""
    return {
        question: {who: rounds for (who, its_loop), rounds in by_turn.items() if its_loop == loop}
        for question, by_turn in values.items()
    }


def gains(values: Values, contenders: Sequence[str]) -> str:
    """What uvloop takes, divided by what asyncio takes, as Markdown."""
    lines = ["| uvloop / asyncio | " + " | ".join(contenders) + " |"]
    lines.append("| --- " * (len(contenders) + 1) + "|")
    for question, by_turn in values.items():
        cells = [QUESTIONS[question].title]
        for who in contenders:
            plain, quick = (by_turn[who, loop] for loop in LOOPS)
            ratios = [quick[number] / plain[number] for number in plain if number in quick]
            cells.append(table.spread(ratios, is_brief=who not in (FLOOR, table.OURS)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def panels(values: Values) -> list[Panel]:
    return [
        Panel(
            QUESTIONS[question].title,
            QUESTIONS[question].unit,
            {
                f"{who}, {loop}": [value * QUESTIONS[question].scale for value in rounds.values()]
                for (who, loop), rounds in by_turn.items()
                if rounds
            },
        )
        for question, by_turn in values.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument(
        "--contenders",
        type=lambda text: names(MODULES, f"{FLOOR},{text}"),
        metavar="NAME,...",
        help="the floor is always among them; without this option all that can be imported",
    )
    add_plot_option(parser)
    options = parser.parse_args()
    if importlib.util.find_spec("uvloop") is None:
        parser.error("uvloop is not installed; pip install uvloop")
    with ExitStack() as stack:
        benches = {
            loop: stack.enter_context(runs.start(is_quick=options.quick, loop=loop))
            for loop in LOOPS
        }
        contenders = list(benches["uvloop"].importable(options.contenders or list(MODULES)))
        values = measure(benches, contenders, options.rounds)
    for what, value in (describe() | {"uvloop": library_version("uvloop")}).items():
        print(f"{what}: {value}")
    for loop in LOOPS:
        print(f"\nWith {loop}:\n")
        chosen = {question: QUESTIONS[question] for question in ASKED}
        print(table.render(chosen, of_loop(values, loop), contenders, is_brief=True))
    print(f"\n{gains(values, contenders)}")
    if options.plot:
        write(options.plot, "loops", panels(values))


if __name__ == "__main__":
    main()
