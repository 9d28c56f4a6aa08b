"""Pictures and tables of a run: `python -m benchmarks.plot results.json docs/benchmarks`.

Writes one SVG for each question, with the machine under it, and with `--page docs/performance.md`
also the table, between two marks in that page. The same results give the same bytes.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import table
from benchmarks.contenders import FLOOR
from benchmarks.machine import LIBRARIES
from benchmarks.questions import QUESTIONS, Question

WIDE = 10.0
"""From this ratio of the largest to the smallest on, the scale is a logarithm."""

BEGIN, END = "<!-- from here: python -m benchmarks.plot -->", "<!-- to here -->"

COLORS = {table.OURS: "#4051b5", FLOOR: "#9e9e9e"}
OTHERS = "#90caf9"

Rounds = Mapping[int, float]


def use_fixed_style() -> None:
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ernie_async"
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["font.family"] = "sans-serif"
    mpl.rcParams["font.sans-serif"] = ["DejaVu Sans"]


def save(figure: Figure, path: Path) -> None:
    """Write a figure without the day and the tool, so that the same is the same."""
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    kept = "\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines())
    path.write_text(kept + "\n", "utf-8")


def told(about: Mapping[str, str]) -> str:
    """The machine and our libraries, in two lines."""
    machine = ", ".join(about[name] for name in ("cpu", "system", "python"))
    return machine + "\n" + ", ".join(f"{name} {about[name]}" for name in LIBRARIES)


def caption(run: Mapping[str, Any]) -> str:
    """The machine, the versions, and how it was measured."""
    others = [
        f"{name}: {' '.join(f'{library} {version}' for library, version in libraries.items())}"
        for name, libraries in run["versions"].items()
        if name not in COLORS and libraries
    ]
    sizes = ", small sizes" if run["quick"] else ""
    how = f"loop: {run['about']['loop']}, rounds: {run['rounds']}{sizes}"
    return "\n".join([told(run["about"]), "; ".join(others), how]).replace("\n\n", "\n")


def label(question: Question, values: Sequence[float], ratio: float | None) -> str:
    text = table.spread(values, f" {question.unit}", is_brief=True)
    return text if ratio is None else f"{text} (x {table.spread([ratio], is_brief=True)})"


def draw(axes: Axes, question: Question, results: Mapping[str, Rounds]) -> None:
    """One bar for each contender up to its median, with a line from its least to its greatest."""
    floor = results.get(FLOOR, {})
    asked = {name: rounds for name, rounds in results.items() if rounds}
    medians = []
    for place, (name, rounds) in enumerate(asked.items()):
        values = [value * question.scale for value in rounds.values()]
        middle = statistics.median(values)
        medians.append(middle)
        axes.barh(place, middle, color=COLORS.get(name, OTHERS), height=0.62)
        axes.plot([min(values), max(values)], [place, place], color="#333333", linewidth=1.2)
        # A floor may be nothing at all where memory is counted, and then there is no ratio.
        pairs = [value / floor[number] for number, value in rounds.items() if floor.get(number)]
        is_ratio = question.shown == "ratio" and name != FLOOR and pairs
        text = label(question, values, statistics.median(pairs) if is_ratio else None)
        axes.annotate(
            text,
            (max(values), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    if min(medians) > 0 and max(medians) / min(medians) > WIDE:
        axes.set_xscale("log")
    axes.set_yticks(range(len(asked)), list(asked))
    axes.invert_yaxis()
    axes.set_xlabel(question.unit)
    axes.set_title(question.title, fontsize=11, loc="left")
    axes.margins(x=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def picture(question: Question, results: Mapping[str, Rounds], run: Mapping[str, Any]) -> Figure:
    asked = sum(bool(rounds) for rounds in results.values())
    figure = Figure(figsize=(8, 1.5 + 0.34 * asked), layout="constrained")
    draw(figure.subplots(), question, results)
    figure.supxlabel(caption(run), fontsize=6, color="#666666")
    return figure


def read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Rounds]]]:
    """A run as `python -m benchmarks --json` wrote it, and its numbers by question."""
    run = json.loads(path.read_text("utf-8"))
    results: dict[str, dict[str, Rounds]] = {
        question: {
            contender: {int(number): value for number, value in rounds.items()}
            for contender, rounds in by_contender.items()
        }
        for question, by_contender in run["results"].items()
    }
    return run, results


def write_table(page: Path, run: Mapping[str, Any], results: dict[str, dict[str, Rounds]]) -> None:
    """Put the table between the marks of a page.

    Raises:
        ValueError: The page has no marks.
    """
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    chosen = {name: QUESTIONS[name] for name in results}
    shown = table.render(chosen, results, list(run["versions"]), is_brief=True)
    machine = "\n".join(f"    {line}" for line in caption(run).splitlines())
    notes = "\n".join(f"- {note}" for note in table.footnotes(chosen))
    page.write_text(f"{before}{begin}\n\n{machine}\n\n{shown}\n\n{notes}\n\n{end}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path, help="a Markdown page with the two marks")
    options = parser.parse_args()
    if not options.results.is_file():
        parser.error(f"there is no file {str(options.results)!r}; --json of the suite writes one")
    run, results = read(options.results)
    options.folder.mkdir(parents=True, exist_ok=True)
    use_fixed_style()
    for name, by_contender in results.items():
        if any(by_contender.values()):
            save(picture(QUESTIONS[name], by_contender, run), options.folder / f"{name}.svg")
    if options.page:
        write_table(options.page, run, results)


if __name__ == "__main__":
    main()
