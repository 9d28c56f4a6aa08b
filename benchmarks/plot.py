"""Pictures and tables of a run: `python -m benchmarks.plot results.json docs/benchmarks`.

Writes one SVG for each question, with the machine under it, and with `--page docs/performance.md`
also the table, between two marks in that page. Of a program of its own, such as `limiter.json`, it
draws the one picture. The same results give the same bytes.
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
from benchmarks.report import Panel

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
    versions = [f"{name} {about[name]}" for name in (*LIBRARIES, "commit")]
    return machine + "\n" + ", ".join(versions)


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


def color_of(name: str) -> str:
    return COLORS.get(name.partition(",")[0], OTHERS)


def bars(
    axes: Axes,
    title: str,
    unit: str,
    values: Mapping[str, Sequence[float]],
    labels: Mapping[str, str],
) -> None:
    """One bar for each name up to its median, with a line from its least to its greatest."""
    medians = {name: statistics.median(numbers) for name, numbers in values.items()}
    for place, (name, numbers) in enumerate(values.items()):
        axes.barh(place, medians[name], color=color_of(name), height=0.62)
        axes.plot([min(numbers), max(numbers)], [place, place], color="#333333", linewidth=1.2)
        axes.annotate(
            labels[name],
            (max(numbers), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    least, most = min(medians.values()), max(medians.values())
    if least > 0 and most / least > WIDE:
        axes.set_xscale("log")
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=11, loc="left")
    axes.margins(x=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw(axes: Axes, question: Question, results: Mapping[str, Rounds]) -> None:
    """The bars of one question, with the ratios to the floor if it is shown so."""
    floor = results.get(FLOOR, {})
    values, labels = {}, {}
    for name, rounds in results.items():
        if not rounds:
            continue
        values[name] = [value * question.scale for value in rounds.values()]
        labels[name] = table.spread(values[name], f" {question.unit}", is_brief=True)
        # A floor may be nothing at all where memory is counted, and then there is no ratio.
        pairs = [value / floor[number] for number, value in rounds.items() if floor.get(number)]
        if question.shown == "ratio" and name != FLOOR and pairs:
            labels[name] += f" (x {table.spread(pairs, is_brief=True)})"
    bars(axes, question.title, question.unit, values, labels)


def picture(question: Question, results: Mapping[str, Rounds], run: Mapping[str, Any]) -> Figure:
    asked = sum(bool(rounds) for rounds in results.values())
    figure = Figure(figsize=(8, 1.5 + 0.34 * asked), layout="constrained")
    draw(figure.subplots(), question, results)
    figure.supxlabel(caption(run), fontsize=6, color="#666666")
    return figure


def draw_panels(panels: Sequence[Panel], about: Mapping[str, str], path: Path) -> None:
    """One picture of what a program of its own found, with bars for each panel."""
    use_fixed_style()
    heights = [0.9 + 0.3 * len(panel.values) for panel in panels]
    figure = Figure(figsize=(8, sum(heights) + 0.4), layout="constrained")
    parts = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for [axes], (title, unit, values) in zip(parts, panels, strict=True):
        labels = {
            name: table.spread(numbers, f" {unit}", is_brief=True)
            for name, numbers in values.items()
        }
        bars(axes, title, unit, values, labels)
    figure.supxlabel(told(about), fontsize=6, color="#666666")
    save(figure, path)


def by_question(run: Mapping[str, Any]) -> dict[str, dict[str, Rounds]]:
    """The numbers of a run that `python -m benchmarks --json` wrote."""
    return {
        question: {
            contender: {int(number): value for number, value in rounds.items()}
            for contender, rounds in by_contender.items()
        }
        for question, by_contender in run["results"].items()
    }


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
    use_fixed_style()
    try:
        run = json.loads(options.results.read_text("utf-8"))
        options.folder.mkdir(parents=True, exist_ok=True)
        if "panels" in run:
            path = options.folder / f"{options.results.stem}.svg"
            draw_panels([Panel(**panel) for panel in run["panels"]], run["about"], path)
            return
        results = by_question(run)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        parser.error(f"{str(options.results)!r} is nothing that the benchmarks wrote: {error}")
    for name, by_contender in results.items():
        if any(by_contender.values()):
            save(picture(QUESTIONS[name], by_contender, run), options.folder / f"{name}.svg")
    if options.page:
        write_table(options.page, run, results)


if __name__ == "__main__":
    main()
