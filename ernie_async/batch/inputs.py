"""Where lines come from: JSON Lines, CSV and Parquet, read piece by piece; and any iterator.

Reads files and never a whole one; also pipes and standard input, which can be read once. What a
line means is decided in `lines`.
"""

import asyncio
import csv
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Condition, Thread
from types import ModuleType
from typing import Any, Literal, TypeVar

from ernie_async.batch.lines import Fault, Line, LineReader, raw_key
from ernie_async.errors import ConfigError

__all__ = [
    "MAX_LINE_BYTES",
    "STDIN",
    "InputKind",
    "check_input",
    "count_lines",
    "is_once",
    "is_same",
    "kind_of",
    "read_ahead",
    "read_lines",
]

T = TypeVar("T")

InputKind = Literal["jsonl", "csv", "parquet"]

MAX_LINE_BYTES = 16 * 1024 * 1024

BLOCK = 1 << 20
BOM = b"\xef\xbb\xbf"

# A thread reads so many lines ahead: one half of them is taken while it reads the other.
AHEAD_LINES = 64

# A thread that does not come back, since it reads from a pipe, is left alone after so many seconds.
THREAD_SECONDS = 1.0

STDIN = Path("-")

# Where a Mac has the files that a process holds open. To open one of them gives no place of its own
# in it, so that who reads there takes away what others are to read.
OPEN_FILES = Path("/dev/fd")

SUFFIXES: dict[str, InputKind] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


def kind_of(path: Path) -> InputKind:
    """What a file holds, by the end of its name; JSON Lines if that says nothing."""
    return SUFFIXES.get(path.suffix.lower(), "jsonl")


def is_once(path: Path) -> bool:
    """Whether what is read of it is gone: standard input, or a pipe."""
    if path == STDIN:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # whoever opens it will tell
    return not (S_ISREG(mode) or S_ISDIR(mode)) or path.resolve().parent == OPEN_FILES


def is_same(path: Path, out: Path) -> bool:
    """Whether an input and an output are one file.

    Raises:
        OSError: One of them cannot be looked at.
    """
    if not out.exists() or (path != STDIN and not path.exists()):
        return False
    return os.path.samestat(os.stat(_place(path)), out.stat())


def check_input(path: Path, kind: InputKind, twice: Sequence[str] = ()) -> None:
    """See whether this can be read as it shall be. Nothing of it is read.

    Args:
        path: The input.
        kind: What it holds.
        twice: What would read it a second time.

    Raises:
        ConfigError: It cannot.
    """
    if path == STDIN and sys.stdin is None:
        raise ConfigError("standard input is closed; name a file")
    if kind == "parquet":
        _parquet()
        twice = (*twice, "Parquet")
    if twice and is_once(path):
        name = "standard input" if path == STDIN else str(path)
        raise ConfigError(
            f"{twice[0]}: {name} can be read only once, and this needs more; write it to a file "
            "first"
        )


def _place(path: Path) -> Path | int:
    return 0 if path == STDIN else path


def read_lines(
    path: Path, kind: InputKind, reader: LineReader, *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Line | Fault]:
    """The lines of a file, in order. Holds one at a time.

    Args:
        path: The file; `STDIN` for standard input.
        kind: What it holds.
        reader: Makes requests of them.
        max_line_bytes: A longer line is skipped, and never held.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is not what it should be as a whole.
    """
    if kind == "jsonl":
        return _read_jsonl(path, reader, max_line_bytes)
    rows = _parquet().read_rows(path) if kind == "parquet" else _read_csv(path)
    return (reader.take(number, row) for number, row in enumerate(rows, 1))


def _read_jsonl(path: Path, reader: LineReader, max_line_bytes: int) -> Iterator[Line | Fault]:
    with open(_place(path), "rb", closefd=path != STDIN) as file:
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
    closes = path != STDIN
    with open(_place(path), encoding="utf-8-sig", newline="", closefd=closes) as file:
        try:
            for row in csv.DictReader(file):
                # Cells that a short row does not have are left out, those that are too many, too.
                yield {name: cell for name, cell in row.items() if name and cell is not None}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not CSV in UTF-8: {error}") from error


def _parquet() -> ModuleType:
    try:
        from ernie_async.batch import parquet  # an extra of its own
    except ImportError as error:
        raise ConfigError(str(error)) from error
    return parquet


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
        return int(_parquet().count_rows(path))
    n_lines, last = 0, b"\n"
    with path.open("rb", buffering=0) as file:
        while (block := file.read(BLOCK)) and not is_over():
            n_lines += block.count(b"\n")
            last = block[-1:]
    return n_lines + (last != b"\n")


async def read_ahead(lines: Iterator[T]) -> AsyncGenerator[T, None]:
    """The same items, read by a thread some time before they are asked for.

    None waits for the next one to be read.
    """
    lock, ahead, is_left = Condition(), list[T](), False
    has_come = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in lines:
            with lock:
                lock.wait_for(lambda: is_left or len(ahead) < AHEAD_LINES // 2)
                if is_left:
                    return
                ahead.append(line)
                if len(ahead) == 1:
                    loop.call_soon_threadsafe(has_come.set)

    reading = asyncio.wrap_future(_in_thread(read))
    reading.add_done_callback(lambda _: has_come.set())
    try:
        while True:
            has_come.clear()
            is_over = reading.done()
            with lock:
                taken, ahead[:] = ahead[:], []
                lock.notify()
            for line in taken:
                yield line
            if is_over:
                reading.result()
                return
            if not taken:
                await has_come.wait()
    finally:
        with lock:
            is_left = True
            lock.notify()
        await asyncio.wait({reading}, timeout=THREAD_SECONDS)
        if not reading.cancel():
            reading.exception()  # else asyncio would complain that nobody has seen it


def _in_thread(call: Callable[[], None]) -> Future[None]:
    """Have a thread call this. The program may end before it comes back, unlike an executor's."""
    future = Future[None]()
    future.set_running_or_notify_cancel()  # from here on nobody else ends it

    def work() -> None:
        try:
            call()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            future.set_exception(error)

    Thread(target=work, name="ernie-async-input", daemon=True).start()
    return future
