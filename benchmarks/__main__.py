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
from benchmarks.contenders import ENVIRONMENTS, FLOOR, MODULES
from benchmarks.options import positive
from benchmarks.questions import QUESTIONS
from benchmarks.worker import LOOPS

ROUNDS = 7
FEW_ROUNDS = 3
"""Rounds with `--quick`, and at most for memory, which hardly varies."""

SLOW_ROUNDS = 1
"""Rounds for slow contenders: what they take is a multiple of any spread."""

SLOW = ("httpx", "openai", "openai-aiohttp", "qianfan", "litellm")
"""Contenders that would take most of the time and are far from any line drawn here.

`--quick` asks them only if they are named.
"""

Results = dict[str, dict[str, dict[int, float]]]
Failures = dict[str, dict[str, str]]
"""Why a contender has no value, by question and contender."""


def parse_arguments() -> argparse.Namespace:
    def names(known: Sequence[str], text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := sorted(set(chosen) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not in {', '.join(known)}")
        return [name for name in known if name in chosen]

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=positive, help=f"{ROUNDS}, or {FEW_ROUNDS} with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    parser.add_argument(
        "--only",
        type=lambda text: names(list(QUESTIONS), text),
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
        type=lambda text: names(list(MODULES), f"{FLOOR},{text}"),
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


def importable(bench: runs.Bench, contenders: Sequence[str]) -> dict[str, dict[str, str]]:
    """The contenders that are there, with the versions of their libraries."""
    found = {}
    for contender in contenders:
        try:
            found[contender] = bench.try_import(contender)
        except runs.RunError as error:
            hint = "; --install makes its environment" if contender in ENVIRONMENTS else ""
            print(f"{contender}: skipped, {error}{hint}")
    return found


def rounds_of(contender: str, question: str, rounds: int) -> int:
    """How many of the rounds ask a contender a question."""
    if contender in SLOW and QUESTIONS[question].measure is not None:  # an import is quick
        return min(rounds, SLOW_ROUNDS)
    return min(rounds, FEW_ROUNDS) if QUESTIONS[question].is_memory else rounds


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
                if number >= rounds_of(contender, name, rounds):
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
    rounds = options.rounds or (FEW_ROUNDS if options.quick else ROUNDS)
    began = time.monotonic()
    about = machine.describe() | {"loop": options.loop}
    for name, value in about.items():
        print(f"{name}: {value}")
    with runs.start(is_quick=options.quick, loop=options.loop) as bench:
        everybody = [name for name in MODULES if not (options.quick and name in SLOW)]
        versions = importable(bench, options.contenders or everybody)
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
    if rounds > FEW_ROUNDS:
        print(f"Whatever is counted in bytes: {FEW_ROUNDS} rounds.")
    if rounds > SLOW_ROUNDS:
        print(f"{', '.join(SLOW)}: {SLOW_ROUNDS} round, but for the import.")
    for note in table.footnotes(chosen):
        print(note)


if __name__ == "__main__":
    main()
