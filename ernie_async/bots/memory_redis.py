"""A store for conversations in Redis, shared by all processes of a bot (extra `redis`)."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Self

from ernie_async.bots.durations import parse_duration

try:
    from redis.asyncio import Redis
except ImportError as _error:
    raise ImportError(
        "conversations in Redis need the package redis: pip install 'ernie-async[redis]'"
    ) from _error

__all__ = ["RedisStore"]

PREFIX = "ernie_async:talk:"

# A conversation is a few kB, which any Redis that is well hands over in a fraction of this.
TIMEOUT = 5.0


class RedisStore:
    """Keeps conversations in Redis. Close it with `aclose`.

    Args:
        url: Such as `redis://localhost:6379/0`.
        ttl: A conversation is forgotten after so much silence; `None` for never.
        prefix: In front of every key.
        timeout: Seconds that Redis has for each of load, save and delete; then they raise
            `TimeoutError`.

    Raises:
        ConfigError: The duration is written wrongly.
    """

    def __init__(
        self,
        url: str,
        ttl: str | None = "30m",
        *,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
    ) -> None:
        self._redis: Any = Redis.from_url(url)
        self._seconds = None if ttl is None else max(round(parse_duration(ttl)), 1)
        self._prefix = prefix
        self._timeout = timeout

    async def load(self, key: str) -> str | None:
        held = await self._in_time(self._redis.get(self._prefix + key))
        return None if held is None else held.decode()

    async def save(self, key: str, text: str) -> None:
        await self._in_time(self._redis.set(self._prefix + key, text, ex=self._seconds))

    async def delete(self, key: str) -> None:
        await self._in_time(self._redis.delete(self._prefix + key))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _in_time(self, command: Awaitable[Any]) -> Any:
        async with asyncio.timeout(self._timeout):
            return await command
