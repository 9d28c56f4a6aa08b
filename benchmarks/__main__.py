"""Compare ernie_async with others and print one table: `python -m benchmarks`.

A round asks every question of every contender, one process after the other and in another order
each time. Ratios are taken within a round, so that a busy minute of the machine weighs on
both sides; a cell shows the median over all rounds and, in brackets, the least and the greatest.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import machine, runs, table
from benchmarks.contenders import ENVIRONMENTS, FLOOR, MODULES, SLOW
from benchmarks.options import names, positive
from benchmarks.questions import QUESTIONS
from benchmarks.worker import LOOPS

ROUNDS = 7

Results = dict[str, dict[str, dict[int, float]]]
Failures = dict[str, dict[str, str]]
"""Why a contender has no value, by question and contender."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=positive, help=f"{ROUNDS}, or {runs.FEW_ROUNDS} with --quick"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    parser.add_argument(
        "--only",
        type=lambda text: names(QUESTIONS, text),
        metavar="QUESTION,...",
        help=", ".join(QUESTIONS),
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"also {', '.join(name for name, asked in QUESTIONS.items() if asked.is_large)}",
    )
    parser.add_argument(
        "--contenders",
        type=lambda text: names(MODULES, f"{FLOOR},{text}"),
        metavar="NAME,...",
        help=f"{', '.join(MODULES)}; the floor is always among them; "
        f"without this option all, with --quick all but {', '.join(SLOW)}",
    )
    parser.add_argument("--loop", choices=LOOPS, default="asyncio", help="of all contenders")
    parser.add_argument(
        "--install",
        action="store_true",
        help="install the contenders that have an environment of their own, and end",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every single number, after each round"
    )
    options = parser.parse_args()
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {str(options.json.parent)!r}")
    if options.json and options.json.is_dir():
        parser.error(f"--json: {str(options.json)!r} is a folder, not a file to write")
    return options


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(
    bench: runs.Bench, questions: Sequence[str], contenders: Sequence[str], rounds: int
) -> Iterator[tuple[Results, Failures]]:
    """Values in seconds or bytes by question, contender and round, and who failed at what.

    After each round all so far. Who fails at a question once is not asked that question again.
    """
    results: Results = {name: {contender: {} for contender in contenders} for name in questions}
    failures: Failures = {}
    for number in range(rounds):
        for name in questions:
            say(f"round {number + 1} of {rounds}: {name}")
            for contender in random.Random(f"{number} {name}").sample(contenders, len(contenders)):
                if contender in failures.get(name, {}) or not QUESTIONS[name].is_put_to(contender):
                    continue
                if number >= runs.rounds_of(contender, name, rounds):
                    continue
                try:
                    results[name][contender][number] = bench.run(contender, name)
                except runs.RunError as error:
                    failures.setdefault(name, {})[contender] = str(error)
                    print(f"{contender}: {name} failed, {error}")
        yield results, failures


def main() -> None:
    options = parse_arguments()
    if options.install:
        runs.install(options.contenders or list(MODULES))
        return
    rounds = options.rounds or (runs.FEW_ROUNDS if options.quick else ROUNDS)
    began = time.monotonic()
    about = machine.describe() | {"loop": options.loop}
    for name, value in about.items():
        print(f"{name}: {value}")
    with runs.start(is_quick=options.quick, loop=options.loop) as bench:
        everybody = [name for name in MODULES if not (options.quick and name in SLOW)]
        versions = bench.importable(options.contenders or everybody)
        contenders = list(versions)
        default = [name for name in QUESTIONS if options.full or not QUESTIONS[name].is_large]
        chosen = {name: QUESTIONS[name] for name in options.only or default}
        results: Results = {}
        all_rounds = measure(bench, list(chosen), contenders, rounds)
        for done, (results, failures) in enumerate(all_rounds, 1):
            if options.json:
                written = {
                    "about": about,
                    "versions": versions,
                    "quick": options.quick,
                    "rounds": done,
                    "results": results,
                    "failures": failures,
                }
                options.json.write_text(json.dumps(written, indent=1))
    for contender, libraries in versions.items():
        if contender in ENVIRONMENTS:
            print(f"{contender}: {', '.join(map(' '.join, libraries.items()))}")
    took = time.monotonic() - began
    print(f"rounds: {rounds}{' (quick: small sizes)' if options.quick else ''}, {took:.0f} s")
    print()
    print(table.render(chosen, results, contenders))
    print()
    print("Each cell: median (least to greatest) over the rounds. Floor: absolute; others: ratios")
    print("to the floor of the same round, with + what they add to it, with a unit absolute.")
    if rounds > runs.FEW_ROUNDS:
        print(f"Whatever is counted in bytes: {runs.FEW_ROUNDS} rounds.")
    if rounds > runs.SLOW_ROUNDS:
        print(f"{', '.join(SLOW)}: {runs.SLOW_ROUNDS} round, but for the import.")
    for note in table.footnotes(chosen):
        print(note)


if __name__ == "__main__":
    main()
