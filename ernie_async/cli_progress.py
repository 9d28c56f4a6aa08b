"""How a batch looks while it runs, and at its end: a bar, plain lines, or JSON; on standard error.

Knows the fields of a run's progress, and nothing of runs.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from json import dumps
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ernie_async.cli_terminal import note

if TYPE_CHECKING:
    from ernie_async.batch.estimate import Estimate
    from ernie_async.batch.summary import BatchReport

__all__ = ["ProgressKind", "View", "progress_view", "show_estimate", "show_report"]

ProgressKind = Literal["auto", "plain", "json", "none"]
View = Callable[[Mapping[str, Any]], None]

# Where nobody watches, a line is enough twice a minute.
PLAIN_SECONDS = 30.0
JSON_SECONDS = 1.0
REFRESHES_PER_SECOND = 5

BAR_WIDTH, LEAST_BAR_WIDTH = 24, 8


@contextmanager
def progress_view(kind: ProgressKind, currency: str) -> Iterator[View]:
    """What suits standard error. Takes a snapshot whenever there is one, and shows some of them."""
    console = Console(stderr=True)
    if kind == "none":
        yield lambda _: None
    elif kind == "auto" and console.is_terminal and not console.is_dumb_terminal:
        with Live(
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
        ) as live:
            yield lambda told: live.update(bar_line(told, currency, console.width))
    else:
        lines = Lines(currency, is_json=kind == "json")
        yield lines.show
        lines.close()


class Lines:
    """Shows a snapshot now and then: as a line for people, or as an object for a program."""

    def __init__(self, currency: str, *, is_json: bool) -> None:
        self._currency = currency
        self._is_json = is_json
        self._every = JSON_SECONDS if is_json else PLAIN_SECONDS
        self._next = monotonic() + (0.0 if is_json else self._every)
        self._unseen: Mapping[str, Any] | None = None

    def show(self, told: Mapping[str, Any]) -> None:
        """Show it, if it is time."""
        self._unseen = told
        if monotonic() >= self._next:
            self._next = monotonic() + self._every
            self._write(told)

    def close(self) -> None:
        """Show the last one to a program; people get a summary."""
        if self._is_json and self._unseen is not None:
            self._write(self._unseen)

    def _write(self, told: Mapping[str, Any]) -> None:
        self._unseen = None
        if self._is_json:
            sys.stderr.write(dumps(told) + "\n")
            sys.stderr.flush()
        else:
            note(_line(told, self._currency))


def _line(told: Mapping[str, Any], currency: str) -> str:
    from ernie_async.batch.progress import progress_line  # a wing

    return progress_line(dict(told), currency)


def bar_line(told: Mapping[str, Any], currency: str, width: int) -> RenderableType:
    """One line: what there is to tell, and in front of it as much of a bar as there is room for."""
    text = Text(_line(told, currency), no_wrap=True, overflow="ellipsis")
    room = min(BAR_WIDTH, width - len(text) - 1)
    if room < LEAST_BAR_WIDTH:
        return text
    total = told["total"]
    bar = ProgressBar(total=total, completed=told["done"], width=room, pulse=total is None)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(bar, text)
    return grid


def show_estimate(told: "Estimate", currency: str) -> None:
    """What a run would take, on standard output."""
    from ernie_async.batch.progress import duration  # a wing

    rows = [
        ("lines to ask", f"{told.lines:,}"),
        ("bad lines", f"{told.bad:,}"),
        ("done before", f"{told.skipped:,}"),
        ("prompt tokens", f"~{told.prompt_tokens:,}"),
        ("answer tokens", f"~{told.answer_tokens:,}"),
        ("cost", f"~{currency}{told.cost:,.2f}"),
    ]
    if told.unpriced:
        rows.append(("lines without a price", f"{told.unpriced:,}"))
    if told.seconds is not None:
        rows.append(("time, by the limits", f"at least {duration(told.seconds)}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        sys.stdout.write(f"{name:{width}}  {value}\n")


def show_report(report: "BatchReport", currency: str) -> None:
    """How a run ended, on standard error."""
    from ernie_async.batch.progress import duration  # a wing
    from ernie_async.batch.summary import undone_text

    told = report.summary
    tokens = f"{report.tokens_in:,} in, {report.tokens_out:,} out"
    rows = [
        ("ended", f"{report.reason} (exit code {report.exit_code})"),
        ("succeeded", f"{report.ok:,}"),
        ("failed", f"{report.failed:,}"),
        ("done before", f"{report.skipped:,}"),
        ("not done", undone_text(report)),
        ("tried again", f"{told['retried']:,}"),
        ("tokens", tokens),
        ("time", duration(told["elapsed_s"])),
    ]
    if report.cost is not None:
        rows.append(("cost", f"{currency}{report.cost:,.4f}"))
    if told["unknown_usage"]:
        rows.append(("unknown usage", f"{told['unknown_usage']:,} calls"))
    rows += [(f"failed: {code}", f"{count:,}") for code, count in sorted(report.codes.items())]
    rows += [(f"note: {text}", f"{count:,}") for text, count in sorted(report.notes.items())]
    console = Console(stderr=True)
    if console.is_terminal:
        table = Table(show_header=False)
        for name, value in rows:
            table.add_row(name, value)
        console.print(table, markup=False)
    else:
        note("; ".join(f"{name}: {value}" for name, value in rows))
    if report.message:
        note(report.message)
