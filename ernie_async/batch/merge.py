"""One file out of the outputs of several machines, and what is missing or there twice."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ernie_async.batch.checkpoint import errors_path, read_records
from ernie_async.batch.inputs import InputKind, kind_of, read_lines
from ernie_async.batch.lines import Fault, Line, LineReader
from ernie_async.batch.writing import AppendFile

__all__ = ["Merged", "merge"]

TABLE = """
CREATE TABLE records (
    id TEXT, line INTEGER, is_error INTEGER, file INTEGER, start INTEGER, size INTEGER
)
"""

# Those of one kind, and whether a result, or an earlier result, has the same id.
RECORDS = """
SELECT file, start, size, id IS NOT NULL AND EXISTS (
    SELECT 1 FROM records AS other WHERE other.id = records.id AND (
        other.is_error < records.is_error OR (
            other.is_error = 0 AND (other.file, other.start) < (records.file, records.start)
        )
    )
) FROM records WHERE is_error = ?
"""


class Merged(NamedTuple):
    """What was found.

    Attributes:
        ok: Results.
        failed: Dead letters of lines without a result.
        double: Results left out, since their id was there before.
        missing: Lines of the input that are nowhere; `None` if no input was given.
    """

    ok: int
    failed: int
    double: int
    missing: int | None


async def merge(
    outputs: Sequence[Path],
    out: Path,
    *,
    source: Path | None,
    kind: InputKind | None,
    reader: LineReader,
    ordered: bool,
) -> Merged:
    """Put outputs together, each with its dead letters.

    Args:
        outputs: The results of each machine. The dead letters of one of them may be among them, as
            `out-*.jsonl` names them, too.
        out: The file to write; neither it nor its dead letters may hold anything.
        source: The input of all, to see what is missing.
        kind: What it holds; `None` to go by its name.
        reader: Reads it as the runs did.
        ordered: In the order of the input, instead of file after file.

    Raises:
        BatchError: A file is damaged.
        FileExistsError: The output is there already.
        FileNotFoundError: One of the outputs is not there.
        OSError: A file cannot be read or written.
    """
    letters = {errors_path(path) for path in outputs}
    results = [path for path in outputs if path not in letters]
    pairs = [(path, is_error) for r in results for path, is_error in ((r, 0), (errors_path(r), 1))]
    for path in (out, errors_path(out)):
        if path.exists() and path.stat().st_size:
            raise FileExistsError(17, "it exists; remove it, or name another output", str(path))
    for path in results:
        if not path.exists() and not errors_path(path).exists():
            raise FileNotFoundError(2, "no such file", str(path))
    with ExitStack() as stack:
        db = stack.enter_context(closing(sqlite3.connect("", isolation_level=None)))
        db.execute("PRAGMA journal_mode = OFF")
        db.execute(TABLE)
        db.execute("BEGIN")
        files: list[BinaryIO | None] = []
        for number, (path, is_error) in enumerate(pairs):
            db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", _index(path, is_error, number)
            )
            files.append(stack.enter_context(path.open("rb")) if path.exists() else None)
        db.execute("CREATE INDEX by_id ON records (id, is_error)")
        ok, double = await _write(db, files, out, is_error=False, ordered=ordered)
        failed, _ = await _write(db, files, errors_path(out), is_error=True, ordered=ordered)
        missing = None
        if source is not None:
            db.execute("CREATE INDEX by_line ON records (line)")  # of those that have no id
            missing = _count_missing(db, read_lines(source, kind or kind_of(source), reader))
    return Merged(ok, failed, double, missing)


def _index(path: Path, is_error: int, number: int) -> Iterator[tuple[object, ...]]:
    start = 0
    for record, raw in read_records(path):
        yield record.custom_id, record.number, is_error, number, start, len(raw)
        start += len(raw)


async def _write(
    db: sqlite3.Connection,
    files: list[BinaryIO | None],
    out: Path,
    *,
    is_error: bool,
    ordered: bool,
) -> tuple[int, int]:
    """Write results, or dead letters of what has none; how many, and how many were left out."""
    order = "line, file, start" if ordered else "file, start"
    query = f"{RECORDS} ORDER BY {order}"
    written = left_out = 0
    target = AppendFile(out)
    try:
        for number, start, size, is_left_out in db.execute(query, (int(is_error),)):
            if is_left_out:
                left_out += 1
                continue
            file = files[number]
            assert file is not None
            file.seek(start)
            await target.append(file.read(size))
            written += 1
    finally:
        await target.aclose()
    return written, left_out


def _count_missing(db: sqlite3.Connection, lines: Iterable[Line | Fault]) -> int:
    missing = 0
    for line in lines:
        name, value = ("id", line.custom_id) if isinstance(line, Line) else ("line", line.number)
        query = f"SELECT 1 FROM records WHERE {name} = ? LIMIT 1"  # noqa: S608 - one of two names
        missing += db.execute(query, (value,)).fetchone() is None
    return missing
