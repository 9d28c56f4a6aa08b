"""What earlier runs left behind: their output files are the only truth, read back and mended.

Knows files, and nothing of calls.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ernie_async.batch.ids import Ids, State
from ernie_async.batch.records import Record, is_settled_by_line, read_record
from ernie_async.batch.stopping import BatchError
from ernie_async.batch.writing import replacing

__all__ = [
    "Before",
    "drop_records",
    "errors_path",
    "mend_tail",
    "read_back",
    "read_records",
    "rotate",
    "rotated",
]

BLOCK = 1 << 20


@dataclass(slots=True)
class Before:
    """What earlier runs did.

    Attributes:
        ids: What became of each line.
        ok: Lines in OUT.
        failed: Lines in ERR.
        cost: CNY that all of them cost.
        tokens: That all of them used.
    """

    ids: Ids = field(default_factory=Ids)
    ok: int = 0
    failed: int = 0
    cost: float = 0.0
    tokens: int = 0


def errors_path(out: Path) -> Path:
    """Where dead letters go."""
    return out.with_name(f"{out.stem}.errors.jsonl")


def mend_tail(path: Path) -> int:
    """Move what stands behind the last newline into `<file>.torn`; how many bytes that were."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        end = position = file.seek(0, os.SEEK_END)
        start = 0
        while position > 0:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            found = file.read(size).rfind(b"\n")
            if found >= 0:
                start = position + found + 1
                break
        if start == end:
            return 0
        with path.with_name(f"{path.name}.torn").open("ab") as torn:
            file.seek(start)
            while block := file.read(BLOCK):
                torn.write(block)
            torn.flush()
            os.fsync(torn.fileno())
        file.truncate(start)
        file.flush()
        os.fsync(file.fileno())
        return end - start


def read_records(path: Path) -> Iterator[tuple[int, Record | ValueError, bytes]]:
    """The lines of an output file, with their numbers; an unreadable one with what is wrong.

    What stands behind the last newline is no line.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                yield number, read_record(raw), raw
            except ValueError as error:
                yield number, error, raw


def read_back(out: Path, err: Path, *, repair: bool, only_failed: bool = False) -> Before:
    """Read the output files of earlier runs; their tails were mended before.

    Args:
        out: The results.
        err: The dead letters.
        repair: Move unreadable lines aside instead of giving up.
        only_failed: All dead letters stand for lines to be run, and none for one that is over.

    Raises:
        BatchError: A line cannot be read, or a result is there twice.
        OSError: A file cannot be read.
    """
    if repair:
        for path in (out, err):
            drop_records(path, lambda record: isinstance(record, ValueError), aside="torn")
    before = Before()
    for number, record, _ in read_records(out):
        if isinstance(record, ValueError):
            raise _unreadable(out, number, record)
        name = record.custom_id
        if name is None or not before.ids.note(name, State.DONE, record.key):
            raise BatchError(f"{out}: line {number}: custom_id {name!r} twice", "damaged")
        before.ok += 1
        before.cost += record.cost
        before.tokens += record.tokens
    for path in [*rotated(err), err]:
        for number, record, _ in read_records(path):
            if isinstance(record, ValueError):
                raise _unreadable(path, number, record)
            before.cost += record.cost
            before.tokens += record.tokens
            if path != err and not only_failed:
                continue  # what was renamed has been done again, or waits to be done
            before.failed += not only_failed
            if record.custom_id is not None and not is_settled_by_line(record):
                before.ids.note(record.custom_id, State.FAILED)
            elif not only_failed:
                before.ids.note_bad(record.number, record.key)
    return before


def _unreadable(path: Path, number: int, error: ValueError) -> BatchError:
    return BatchError(f"{path}: line {number}: {error}; --repair moves it aside", "damaged")


def drop_records(
    path: Path, is_dropped: Callable[[Record | ValueError], bool], *, aside: str | None = None
) -> int:
    """Write a file anew without some of its lines, all or nothing; how many they were.

    Args:
        path: The file.
        is_dropped: Says which.
        aside: The ending of a file that they are moved to; `None` for none.
    """
    if not any(is_dropped(record) for _, record, _ in read_records(path)):
        return 0
    dropped = 0
    with replacing(path) as kept:
        for _, record, raw in read_records(path):
            if not is_dropped(record):
                kept.write(raw)
                continue
            dropped += 1
            if aside is not None:
                with path.with_name(f"{path.name}.{aside}").open("ab") as file:
                    file.write(raw)
    return dropped


def rotated(err: Path) -> list[Path]:
    """Dead letters of earlier runs that were renamed, oldest first."""
    found: list[Path] = []
    while (path := err.with_name(f"{err.name}.{len(found) + 1}")).exists():
        found.append(path)
    return found


def rotate(err: Path) -> None:
    """Rename the dead letters to the next free number, if there are any."""
    if err.exists() and err.stat().st_size:
        err.replace(err.with_name(f"{err.name}.{len(rotated(err)) + 1}"))
