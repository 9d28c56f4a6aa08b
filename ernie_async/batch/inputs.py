"""Where lines come from: JSON Lines, CSV and Parquet, read piece by piece; and any iterator.

Reads files and never a whole one. What a line means is decided in `lines`.
"""

import asyncio
import csv
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from ernie_async.batch.lines import Fault, Line, LineReader, raw_key
from ernie_async.errors import ConfigError

__all__ = ["MAX_LINE_BYTES", "InputKind", "count_lines", "kind_of", "read_ahead", "read_lines"]

T = TypeVar("T")

InputKind = Literal["jsonl", "csv", "parquet"]

MAX_LINE_BYTES = 16 * 1024 * 1024

BLOCK = 1 << 20
BOM = b"\xef\xbb\xbf"

# A thread reads so many lines ahead.
AHEAD_LINES = 64

# A thread that does not come back, since it reads from a pipe, is left alone after so many seconds.
THREAD_SECONDS = 5.0

SUFFIXES: dict[str, InputKind] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


def kind_of(path: Path) -> InputKind:
    """What a file holds, by the end of its name; JSON Lines if that says nothing."""
    return SUFFIXES.get(path.suffix.lower(), "jsonl")


def read_lines(
    path: Path, kind: InputKind, reader: LineReader, *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Line | Fault]:
    """The lines of a file, in order. Holds one at a time.

    Args:
        path: The file.
        kind: What it holds.
        reader: Makes requests of them.
        max_line_bytes: A longer line is skipped, and never held.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is not what it should be as a whole.
    """
    if kind == "jsonl":
        return _read_jsonl(path, reader, max_line_bytes)
    rows = _read_parquet(path) if kind == "parquet" else _read_csv(path)
    return (reader.take(number, row) for number, row in enumerate(rows, 1))


def _read_jsonl(path: Path, reader: LineReader, max_line_bytes: int) -> Iterator[Line | Fault]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(max_line_bytes + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(BOM)
            line = raw.strip()
            if len(raw) > max_line_bytes and not raw.endswith(b"\n"):
                while (rest := file.readline(BLOCK)) and not rest.endswith(b"\n"):
                    pass
                reason = f"longer than {max_line_bytes:,} bytes"
                yield Fault(number, "line_too_long", reason, raw_key(raw[:BLOCK]))
            elif line:
                yield reader.read(number, line)


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    # A cell may hold a whole document.
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file):
                # Cells that a short row does not have are left out, those that are too many, too.
                yield {name: cell for name, cell in row.items() if name and cell is not None}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not CSV in UTF-8: {error}") from error


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    from ernie_async.batch.parquet import read_rows  # an extra of its own

    return read_rows(path)


def count_lines(
    path: Path, kind: InputKind, is_over: Callable[[], bool] = lambda: False
) -> int | None:
    """How many lines there are, quickly; `None` if only reading them all would tell.

    Args:
        path: The file.
        kind: What it holds.
        is_over: Whether nobody wants to know any more.

    Raises:
        OSError: The file cannot be read.
    """
    if kind == "csv":
        return None
    if kind == "parquet":
        from ernie_async.batch.parquet import count_rows  # an extra of its own

        return count_rows(path)
    n_lines, last = 0, b"\n"
    with path.open("rb", buffering=0) as file:
        while (block := file.read(BLOCK)) and not is_over():
            n_lines += block.count(b"\n")
            last = block[-1:]
    return n_lines + (last != b"\n")


async def read_ahead(lines: Iterator[T]) -> AsyncGenerator[T, None]:
    """The same items, read by a thread some time before they are asked for."""
    loop = asyncio.get_running_loop()
    while True:
        reading = loop.run_in_executor(None, lambda: list(islice(lines, AHEAD_LINES)))
        try:
            taken = await asyncio.shield(reading)
        except asyncio.CancelledError:
            await asyncio.wait({reading}, timeout=THREAD_SECONDS)
            raise
        if not taken:
            return
        for line in taken:
            yield line
