"""Stores for conversations: in memory, and in a file of SQLite."""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from os import PathLike
from time import monotonic, time
from typing import Any, Self

import anyio.to_thread

from ernie_async.bots.durations import parse_duration
from ernie_async.errors import ConfigError

__all__ = ["MemoryStore", "SQLiteStore"]

IDLE = "30m"
MOST = 10_000


class MemoryStore:
    """Keeps conversations as long as the program runs.

    Args:
        ttl: A conversation is forgotten after so much silence, as `"30m"`; `None` for never.
        most: So many conversations are kept; those that were silent the longest go first.
        clock: Seconds that only grow.

    Raises:
        ConfigError: The duration is written wrongly.
    """

    def __init__(
        self,
        ttl: str | None = IDLE,
        *,
        most: int = MOST,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if most < 1:
            raise ConfigError(f"most: expected at least 1, got {most!r}")
        self._seconds = float("inf") if ttl is None else parse_duration(ttl)
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        """Conversations that are kept."""
        return len(self._kept)

    async def load(self, key: str) -> str | None:
        self._expire()
        return self._kept[key][1] if key in self._kept else None

    async def save(self, key: str, text: str) -> None:
        self._kept[key] = self._clock() + self._seconds, text
        self._kept.move_to_end(key)
        self._expire()

    async def delete(self, key: str) -> None:
        self._kept.pop(key, None)

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) <= self._most and self._kept[oldest][0] > now:
                return
            del self._kept[oldest]


class SQLiteStore:
    """Keeps conversations in a file, written in a worker thread. Close it with `aclose`.

    Args:
        path: Made if it is not there.
        ttl: A conversation is forgotten after so much silence, as `"30d"`; `None` for never.

    Raises:
        ConfigError: The duration is written wrongly.
    """

    def __init__(self, path: str | PathLike[str], ttl: str | None = None) -> None:
        self._path = path
        self._seconds = None if ttl is None else parse_duration(ttl)
        self._database: sqlite3.Connection | None = None
        self._line = anyio.CapacityLimiter(1)  # a connection serves one thread at a time

    async def load(self, key: str) -> str | None:
        rows = await self._run(
            "SELECT text FROM conversations WHERE key = ? AND (until IS NULL OR until > ?)",
            key,
            time(),
        )
        return rows[0][0] if rows else None

    async def save(self, key: str, text: str) -> None:
        until = None if self._seconds is None else time() + self._seconds
        await self._run("REPLACE INTO conversations VALUES (?, ?, ?)", key, text, until)
        if until is not None:
            await self._run("DELETE FROM conversations WHERE until <= ?", time())

    async def delete(self, key: str) -> None:
        await self._run("DELETE FROM conversations WHERE key = ?", key)

    async def aclose(self) -> None:
        """Close the file."""
        if self._database is not None:
            database, self._database = self._database, None
            await anyio.to_thread.run_sync(database.close, limiter=self._line)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, statement: str, *values: Any) -> list[Any]:
        return await anyio.to_thread.run_sync(self._execute, statement, values, limiter=self._line)

    def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        if self._database is None:
            self._database = sqlite3.connect(self._path, check_same_thread=False)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS conversations "
                "(key TEXT PRIMARY KEY, text TEXT NOT NULL, until REAL)"
            )
        with self._database:
            return self._database.execute(statement, values).fetchall()
