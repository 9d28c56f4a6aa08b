"""A file that only grows: whole lines, and how soon they are safe from a loss of power."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

__all__ = ["AppendFile", "Fsync"]

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
        self.path = path
        self.fsync = fsync
        if path is None:
            self._file, self.fsync = os.dup(1), "never"
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(path, flags, 0o644)
        self._written = self._synced = 0
        self._lock = asyncio.Lock()
        self._has_many = asyncio.Event()

    async def append(self, line: bytes) -> None:
        """Write a line; it is with the system when this returns, or there is nothing of it.

        Raises:
            OSError: The disk is full, or broken.
        """
        written = os.write(self._file, line)
        if written < len(line):
            if self.path is not None:
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += 1
        if self.fsync == "always":
            await self.sync()
        elif self._written - self._synced >= INTERVAL_LINES:
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

    async def keep_synced(self) -> None:
        """Obey `interval`, until cancelled.

        Raises:
            OSError: The disk is full, or broken.
        """
        while self.fsync == "interval":
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._has_many.wait()
            except TimeoutError:
                pass
            self._has_many.clear()
            await self.sync()

    async def aclose(self) -> None:
        """Make everything durable as `fsync` says, and close.

        Raises:
            OSError: The disk is full, or broken.
        """
        try:
            if self.fsync != "never":
                await self.sync()
        finally:
            os.close(self._file)
