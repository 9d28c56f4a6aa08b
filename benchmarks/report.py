"""What a program of its own found: every number as JSON, and one picture, if `--plot` asks."""

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import table
from benchmarks.machine import describe

__all__ = ["Panel", "add_plot_option", "write", "write_json"]


class Panel(NamedTuple):
    """One question of a program.

    Attributes:
        title: What was asked.
        unit: Of the values.
        values: One number for each round, by who was asked; `ours` and `floor` before a comma have
            colours of their own.
    """

    title: str
    unit: str
    values: Mapping[str, Sequence[float]]


def add_plot_option(parser: argparse.ArgumentParser) -> None:
    def folder(text: str) -> Path:
        if importlib.util.find_spec("matplotlib") is None:
            raise argparse.ArgumentTypeError("matplotlib draws, and is not installed")
        if Path(text).exists() and not Path(text).is_dir():
            raise argparse.ArgumentTypeError(f"{text!r} is a file, not a folder")
        return Path(text)

    parser.add_argument("--plot", type=folder, metavar="FOLDER", help="draw what was found there")


def write_json(folder: Path, name: str, **found: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": describe(), **found}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", "utf-8")


def write(folder: Path, name: str, panels: Sequence[Panel]) -> None:
    """Write `name.json` and `name.svg`, with one row of bars for each panel."""
    from matplotlib.figure import Figure

    from benchmarks.plot import bars, save, told, use_fixed_style

    write_json(folder, name, panels=[panel._asdict() for panel in panels])
    use_fixed_style()
    heights = [0.9 + 0.3 * len(panel.values) for panel in panels]
    figure = Figure(figsize=(8, sum(heights) + 0.4), layout="constrained")
    parts = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for [axes], panel in zip(parts, panels, strict=True):
        labels = {
            who: table.spread(values, f" {panel.unit}", is_brief=True)
            for who, values in panel.values.items()
        }
        bars(axes, panel.title, panel.unit, panel.values, labels)
    figure.supxlabel(told(describe()), fontsize=6, color="#666666")
    save(figure, folder / f"{name}.svg")
