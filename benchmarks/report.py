"""What a program of its own found: every number as JSON, and one picture, if `--plot` asks."""

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    """Write `name.json` and `name.svg`."""
    from benchmarks.plot import draw_panels

    write_json(folder, name, panels=[panel._asdict() for panel in panels])
    draw_panels(panels, describe(), folder / f"{name}.svg")
