"""How files are written: whole lines at their end, or all of a file at once.

And how soon that is safe from a loss of power.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

__all__ = ["AppendFile", "Fsync", "replacing"]

# `interval`: every so many lines or seconds; `always`: before a line counts as done; `never`: left
# to the system.
Fsync = Literal["interval", "always", "never"]

INTERVAL_LINES = 1000
INTERVAL_SECONDS = 1.0

_fsync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class AppendFile:
    """Appends whole lines, each in one write. Serves one event loop.

    Args:
        path: Made if it is not there; `None` for standard output.
        fsync: When lines are made durable.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path | None, fsync: Fsync = "interval") -> None:
        self._path = path
        self._fsync = fsync
        if path is None:
            self._file, self._fsync = os.dup(1), "never"
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(path, flags, 0o644)
        self._written = self._synced = 0
        self._lock = asyncio.Lock()
        self._has_many = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None  # of the interval
        self._is_closing = False

    async def append(self, line: bytes) -> None:
        """Write a line; it is with the system when this returns, or there is nothing of it.

        Raises:
            OSError: The disk is full, or broken; maybe since an earlier line.
        """
        if self._keeper is not None and self._keeper.done():
            self._keeper.result()
        written = os.write(self._file, line)
        if written < len(line):
            if self._path is not None:
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += 1
        if self._fsync == "always":
            await self.sync()
        elif self._fsync == "interval":
            if self._keeper is None:
                self._keeper = asyncio.create_task(self._keep_synced())
            if self._written - self._synced >= INTERVAL_LINES:
                self._has_many.set()

    async def sync(self) -> None:
        """Wait until everything that was appended so far is durable.

        Whoever comes while the disk is busy is served by its next turn, all of them together.

        Raises:
            OSError: The disk is full, or broken.
        """
        wanted = self._written
        while self._synced < wanted:
            async with self._lock:
                if self._synced < wanted:
                    aim = self._written
                    await asyncio.to_thread(_fsync, self._file)
                    self._synced = aim

    async def aclose(self) -> None:
        """Make everything durable as `fsync` says, and close.

        Raises:
            OSError: The disk is full, or broken.
        """
        self._is_closing = True
        self._has_many.set()
        try:
            if self._keeper is not None:
                await self._keeper
            elif self._fsync != "never":
                await self.sync()
        finally:
            os.close(self._file)

    async def _keep_synced(self) -> None:
        while not self._is_closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._has_many.wait()
            self._has_many.clear()
            await self.sync()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of another at the end, whole and durable, or not at all.

    Raises:
        OSError: It cannot be written.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            new.chmod(path.stat().st_mode)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
