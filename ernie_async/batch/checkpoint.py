"""What earlier runs left behind: their output files are the only truth, read back and mended.

Knows files, and nothing of calls.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from ernie_async.batch.ids import Ids, State
from ernie_async.batch.records import Record, is_settled_by_line, read_record
from ernie_async.batch.stopping import BatchError
from ernie_async.batch.writing import replacing

__all__ = [
    "Before",
    "drop_lines",
    "errors_path",
    "mend_tail",
    "read_back",
    "read_records",
    "repair",
    "rotate",
    "rotated",
    "torn_path",
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

    def told(self) -> dict[str, float]:
        """The same for a summary."""
        cost = round(self.cost, 6)
        return {"ok": self.ok, "failed": self.failed, "cost": cost, "tokens": self.tokens}


def errors_path(out: Path) -> Path:
    """Where dead letters go."""
    return out.with_name(f"{out.stem}.errors.jsonl")


def torn_path(path: Path) -> Path:
    """Where parts of a file go that cannot be read."""
    return path.with_name(f"{path.name}.torn")


def mend_tail(path: Path) -> int:
    """Move what stands behind the last newline aside; how many bytes that were."""
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
        with torn_path(path).open("ab") as torn:
            file.seek(start)
            while block := file.read(BLOCK):
                torn.write(block)
            torn.flush()
            os.fsync(torn.fileno())
        file.truncate(start)
        file.flush()
        os.fsync(file.fileno())
        return end - start


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of an output file, if it is there. What stands behind the last newline is none."""
    if path.exists():
        with path.open("rb") as file:
            yield from takewhile(lambda raw: raw.endswith(b"\n"), file)


def read_records(path: Path) -> Iterator[tuple[Record, bytes]]:
    """What the lines of an output file say, and the lines themselves.

    Raises:
        BatchError: A line cannot be read.
        OSError: The file cannot be read.
    """
    for number, raw in enumerate(whole_lines(path), 1):
        try:
            yield read_record(raw), raw
        except ValueError as error:
            reason = f"{path}: line {number}: {error}; --repair moves it aside"
            raise BatchError(reason, "damaged") from None


def read_back(out: Path, err: Path, *, only_failed: bool = False) -> Before:
    """Read the output files of earlier runs; their tails were mended before.

    Args:
        out: The results.
        err: The dead letters.
        only_failed: All dead letters stand for lines to be run, and none for one that is over.

    Raises:
        BatchError: A line cannot be read, or a result is there twice.
        OSError: A file cannot be read.
    """
    before = Before()
    for number, (record, _) in enumerate(read_records(out), 1):
        name = record.custom_id
        if name is None:
            reason = f"line {number}: no custom_id; --repair moves it aside"
            raise BatchError(f"{out}: {reason}", "damaged")
        if not before.ids.note(name, State.DONE, record.key):
            reason = f"custom_id {name!r} is there twice; --repair moves the later one aside"
            raise BatchError(f"{out}: {reason}", "damaged")
        before.ok += 1
        before.cost += record.cost
        before.tokens += record.tokens
    for path in [*rotated(err), err]:
        for record, _ in read_records(path):
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


def repair(out: Path, err: Path) -> None:
    """Move lines of output files aside that `read_back` would not take.

    Args:
        out: The results.
        err: The dead letters.
    """
    with closing(Ids()) as seen:

        def is_no_result(raw: bytes) -> bool:
            record = _record_of(raw)
            name = None if record is None else record.custom_id
            return name is None or not seen.note(name, State.DONE)

        drop_lines(out, is_no_result, aside=torn_path(out))
    for path in [*rotated(err), err]:
        drop_lines(path, lambda raw: _record_of(raw) is None, aside=torn_path(path))


def _record_of(raw: bytes) -> Record | None:
    try:
        return read_record(raw)
    except ValueError:
        return None


def drop_lines(
    path: Path, is_dropped: Callable[[bytes], bool], *, aside: Path | None = None
) -> int:
    """Write a file anew without some of its lines, all or nothing; how many they were.

    Args:
        path: The file.
        is_dropped: Says which; asked once for each line, in their order.
        aside: Where they are moved to; `None` for nowhere.
    """
    dropped = bytes(map(is_dropped, whole_lines(path)))  # a byte for each line
    if not any(dropped):
        return 0
    with replacing(path) as kept:
        for raw, goes in zip(whole_lines(path), dropped, strict=True):
            if not goes:
                kept.write(raw)
            elif aside is not None:
                with aside.open("ab") as file:
                    file.write(raw)
    return sum(dropped)


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
