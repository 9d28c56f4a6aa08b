"""A Redis or Valkey that limiters run a script on: in time, or it counts as down.

Needs the package redis. What the scripts do is in the `.lua` file beside each limiter.
"""

import asyncio
import hashlib
import logging
import math
import random
from collections.abc import Sequence
from time import monotonic
from typing import Any, Literal
from urllib.parse import urlsplit

try:
    from redis import RedisError
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, ResponseError
except ImportError as _error:
    raise ImportError(
        "limits in Redis need the package redis: pip install 'ernie-async[redis]'", name="redis"
    ) from _error

from ernie_async.errors import ConfigError, LimiterError, shorten

__all__ = [
    "BEATS",
    "LEASE",
    "SHARE",
    "TIMEOUT",
    "RedisServer",
    "WhenDown",
    "check_settings",
    "host_of",
    "microseconds",
    "seconds_of",
]

logger: logging.Logger = logging.getLogger("ernie_async")

# What a process that died had under way counts for so long. It tells that it is alive three times
# as often, so that one answer may get lost and another one be late.
LEASE = 15.0
BEATS = 3

# A Redis nearby answers within a millisecond. One that takes this long is as good as down.
TIMEOUT = 1.0

# After a failure, Redis is tried again after 0.5 to 1 s: not by all processes in one moment.
TRY_AGAIN = (0.5, 1.0)

# A fleet of ten processes keeps its limits while Redis is down.
SHARE = 0.1

MICROSECONDS = 1_000_000

WhenDown = Literal["local", "refuse"]


def check_settings(
    url: str, *, when_down: WhenDown, share: float, lease: float, timeout: float
) -> None:
    """Refuse what cannot be right.

    Raises:
        ConfigError: It says which, and what was expected.
    """
    try:
        parse_url(url)
    except ValueError as error:
        raise ConfigError(f"url: {error}") from None
    if when_down not in ("local", "refuse"):
        raise ConfigError(f"when_down: expected 'local' or 'refuse', got {shorten(when_down)}")
    if not 0 < share <= 1:
        raise ConfigError(f"share: expected a number above 0, at most 1, got {share}")
    if not 0 < timeout < math.inf:
        raise ConfigError(f"timeout: expected seconds above 0, got {timeout}")
    if not BEATS * timeout <= lease < math.inf:
        raise ConfigError(
            f"lease: expected at least {BEATS * timeout:g} s, {BEATS} times the timeout, "
            f"got {lease}"
        )


class RedisServer:
    """One server, as one event loop sees it. Connects at the first use, and after `aclose` again.

    Args:
        url: As the package redis reads it.
        script: What is run there.
        timeout: Seconds that it has to answer.
        until_then: What happens while it is down, for the warning.
        cluster: Whether the URL is that of a node of a cluster.

    Attributes:
        failure: Why it cannot be reached; `None` while it can.
        try_at: When to try again if it cannot.
    """

    def __init__(
        self, url: str, script: str, *, timeout: float, until_then: str, cluster: bool = False
    ) -> None:
        self.failure: LimiterError | None = None
        self.try_at: float = 0.0
        self._url = url
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._timeout = timeout
        self._until_then = until_then
        self._kind: type[Redis] | type[RedisCluster] = RedisCluster if cluster else Redis
        self._client: Redis | RedisCluster | None = None

    def raise_if_down(self) -> None:
        """Do not even ask, if it failed and it is too early to try again.

        Raises:
            LimiterError: So it is.
        """
        if self.failure is not None and monotonic() < self.try_at:
            raise LimiterError(self.failure.message)

    async def run(self, keys: Sequence[str], arguments: Sequence[str | float]) -> list[Any]:
        """Run the script.

        Raises:
            LimiterError: The server is down. It may have run the script all the same.
        """
        if self.failure is not None:
            # Nobody else tries while this one does: they would wait for nothing.
            self.try_at = monotonic() + self._timeout + TRY_AGAIN[1]
        client = self._connections()
        answer: list[Any]
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    answer = await client.evalsha(self._sha, len(keys), *keys, *arguments)
                except NoScriptError:
                    answer = await client.eval(self._script, len(keys), *keys, *arguments)
        except (RedisError, OSError) as error:  # a timeout is one
            raise self._fell(error) from None
        if self.failure is not None:
            logger.warning("the limiter's Redis at %s answers again", host_of(self._url))
            self.failure = None
        return answer

    async def listen(self, bell: str, seconds: int) -> bool:
        """Wait for something in a list, and take it; say whether it is worth running the script."""
        try:
            async with asyncio.timeout(seconds + self._timeout):
                return await self._connections().blpop([bell], seconds) is not None
        except ResponseError:
            return False  # not allowed: what is due is seen with the next beat
        except (RedisError, OSError):
            return True  # the script will tell what happened

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _connections(self) -> Redis | RedisCluster:
        if self._client is None:
            self._client = self._kind.from_url(
                self._url,
                # Deadlines and second tries are ours: a step made twice takes twice.
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    def _fell(self, error: Exception) -> LimiterError:
        self.try_at = monotonic() + random.uniform(*TRY_AGAIN)
        why = str(error) or f"no answer within {self._timeout:g} s"
        failure = LimiterError(f"the limiter's Redis at {host_of(self._url)} is down: {why}")
        if self.failure is None:
            logger.warning("%s; until it answers, %s", failure.message, self._until_then)
        self.failure = failure
        return failure


def host_of(url: str) -> str:
    """Where a URL leads, without the password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def microseconds(seconds: float) -> int:
    """As scripts take times."""
    return round(seconds * MICROSECONDS)


def seconds_of(told: float) -> float:
    """Of a time that a script told."""
    return told / MICROSECONDS
