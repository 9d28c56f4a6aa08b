"""What was begun, before it is sent: for runs that must not ask twice (`at-most-once`)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import to_json

from ernie_async.batch.lines import Line
from ernie_async.batch.stopping import BatchError
from ernie_async.batch.writing import AppendFile
from ernie_async.types.wire import read_json

__all__ = ["Journal", "journal_path", "named_by", "read_journal"]


def journal_path(out: Path) -> Path:
    """Where it is."""
    return out.with_name(f"{out.name}.started")


class Journal:
    """Records that are durable before a request is sent; many of them by one visit to the disk.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self._file = AppendFile(path, "never")  # but when we say so

    async def begin(self, line: Line) -> None:
        """A request is about to be sent.

        Raises:
            OSError: This cannot be noted, so it must not be.
        """
        await self._file.append(to_json({"started": line.custom_id}) + b"\n")
        try:
            await self._file.sync()
        except asyncio.CancelledError:  # so it is not sent
            await self.refused(line)
            raise

    async def refused(self, line: Line) -> None:
        """The service did not work on it.

        Raises:
            OSError: This cannot be noted.
        """
        await self._file.append(to_json({"refused": line.custom_id}) + b"\n")

    async def aclose(self) -> None:
        """Close it."""
        await self._file.aclose()


def named_by(raw: bytes) -> str:
    """The line that an entry names; empty if it is no entry."""
    try:
        return _read_entry(raw)[0]
    except ValueError:
        return ""


def read_journal(path: Path) -> Iterator[tuple[str, bool]]:
    """The lines that it names, in its order, and whether each was begun or refused.

    Raises:
        BatchError: It is damaged.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield _read_entry(raw)
            except ValueError as error:
                reason = f"{path}: line {number}: {error}; --repair moves it aside"
                raise BatchError(reason, "damaged") from error


def _read_entry(raw: bytes) -> tuple[str, bool]:
    match read_json(raw):
        case {"started": str(name)}:
            return name, True
        case {"refused": str(name)}:
            return name, False
    raise ValueError("expected what was started, or refused")
