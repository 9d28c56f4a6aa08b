"""How a run ended: for the program that started it, and as a file beside its output."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ernie_async.batch.progress import Gauges, Progress, Sample
from ernie_async.batch.records import iso
from ernie_async.batch.stopping import EXIT_CODES, StopReason
from ernie_async.batch.writing import replacing

__all__ = ["BatchReport", "make_report", "summary_path", "undone_text", "write_summary"]

# What a run that is begun again goes on with.
NOT_RESUMABLE = {"finished", "failures", "invalid_input"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """How a run ended.

    Attributes:
        reason: `finished`, `failures` (all lines are over, and some have failed), or what stopped
            it: `budget`, `deadline`, `errors`, `auth`, `io`, `damaged`, `input`, `sigint`,
            `sigterm`, `cancelled`.
        exit_code: The same as a number for a shell.
        message: What went wrong, if something did.
        ok: Lines that succeeded in this run.
        failed: Lines that failed in it.
        skipped: Lines that earlier runs had done.
        undone: Lines that were read and remain to be done; those that were not read are not known.
        cost: CNY of this run; `None` if no line had a price.
        tokens_in: Of the prompts of this run.
        tokens_out: Of its answers.
        codes: Failed lines by code.
        notes: What was odd about the input, and how often.
        summary: All of it, and more, as JSON has it.
        samples: Points for plots.
        histogram: Lines by latency; the key `n` stands for up to `2 ** (n / 2)` seconds.
    """

    reason: StopReason
    exit_code: int
    message: str
    ok: int
    failed: int
    skipped: int
    undone: int
    cost: float | None
    tokens_in: int
    tokens_out: int
    codes: Mapping[str, int]
    notes: Mapping[str, int]
    summary: Mapping[str, Any]
    samples: list[Sample] = field(repr=False)
    histogram: Mapping[int, int] = field(repr=False)


def make_report(
    progress: Progress,
    reason: StopReason,
    message: str = "",
    *,
    began: float,
    now: float,
    notes: Mapping[str, int],
    **more: Mapping[str, Any],
) -> BatchReport:
    """The report of a run that is over.

    Args:
        progress: What happened.
        reason: Why it ended.
        message: What went wrong.
        began: Seconds since 1970.
        now: On the clock of `progress`.
        notes: What was odd about the input.
        more: Further parts of the summary.
    """
    summary: dict[str, Any] = {
        "reason": reason,
        "exit_code": EXIT_CODES[reason],
        "resumable": reason not in NOT_RESUMABLE,
        "message": message,
        "started_at": iso(began),
        "ended_at": iso(began + now - progress.started),
        **progress.snapshot(Gauges(), now),
        "codes": dict(progress.codes),
        "notes": notes,
        **more,
    }
    own = {one.name: summary[one.name] for one in fields(BatchReport) if one.name in summary}
    return BatchReport(
        **own, summary=summary, samples=progress.samples, histogram=dict(progress.histogram)
    )


def undone_text(report: BatchReport) -> str:
    """How many lines remain to be done, for people; of those that were not read, as it is known."""
    total, done = report.summary["total"], report.summary["done"]
    if total is None:
        return f"at least {report.undone:,}"
    if total - done <= report.undone:
        return f"{report.undone:,}"
    return f"about {total - done:,}"  # empty lines were counted


def summary_path(out: Path) -> Path:
    """Where the summary is."""
    return out.with_name(f"{out.name}.summary.json")


def write_summary(out: Path, report: BatchReport) -> None:
    """Write the summary, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(summary_path(out)) as file:
        file.write(to_json(report.summary, indent=2) + b"\n")
