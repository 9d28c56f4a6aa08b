"""When a platform takes the next call, and waiting for it. One `Traffic` serves all chats of a bot.

The arithmetic is pure: time is an argument, seconds on one monotonic clock.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from math import ldexp

from ernie_async.bots.transport import (
    Caps,
    ChatClosedError,
    FloodError,
    MarkupError,
    MessageGoneError,
    PlatformError,
)

__all__ = ["BotPace", "ChatPace", "Lane", "Traffic"]

# After a flood answer the interval is doubled, up to this many seconds, and every minute without
# another one takes back half of it.
MOST_SECONDS = 10.0
QUIET_SECONDS = 60.0

# Chats are forgotten once there are so many, if nothing is known of them that matters.
KEPT_CHATS = 1_000


class ChatPace:
    """The calls of one chat: an interval apart, or more once the platform has complained."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._learnt = interval
        self._complained_at = 0.0
        self._ready_at = float("-inf")

    def interval(self, now: float) -> float:
        """Seconds between two calls, at this moment."""
        quiet_minutes = int((now - self._complained_at) // QUIET_SECONDS)
        return max(ldexp(self._learnt, -quiet_minutes), self._interval)

    def wait(self, now: float) -> float:
        """Seconds until a call may be made; 0 if it may be made now."""
        return max(self._ready_at - now, 0.0)

    def called(self, now: float) -> None:
        """A call is over, well or not. Counted from its end: it may have arrived that late."""
        self._ready_at = max(self._ready_at, now + self.interval(now))

    def flooded(self, now: float, retry_after: float) -> None:
        """The platform complained; no call is made for `retry_after` seconds."""
        self._learnt = max(min(2 * self.interval(now), MOST_SECONDS), self._interval)
        self._complained_at = now
        self._ready_at = max(self._ready_at, now + max(retry_after, self._learnt))

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        return self.wait(now) == 0 and self.interval(now) == self._interval


class BotPace:
    """The calls of one bot, in all its chats: evenly spaced, first come, first served."""

    def __init__(self, per_second: float | None) -> None:
        self._step = 1 / per_second if per_second else 0.0
        self._next = float("-inf")

    def book(self, now: float) -> float:
        """Take the next place in line; return the seconds until it is there."""
        at = max(now, self._next)
        self._next = at + self._step
        return at - now


class Lane:
    """The way to one chat: one call at a time, at the pace of the chat and of the bot."""

    def __init__(self, interval: float, bot: BotPace) -> None:
        self.pace = ChatPace(interval)
        self.n_users = 0
        self._bot = bot
        self._lock = asyncio.Lock()

    async def call(self, step: Callable[[float], Awaitable[bool]]) -> None:
        """Have a call made at the next right moment; learn from a failure that will pass.

        Args:
            step: Given the time, makes a call, or says that there was none to make.
        """
        time = asyncio.get_running_loop().time
        async with self._lock:
            await asyncio.sleep(self.pace.wait(time()))
            await asyncio.sleep(self._bot.book(time()))
            is_made = True
            try:
                is_made = await step(time())
            except (MarkupError, MessageGoneError, ChatClosedError):
                raise
            except FloodError as error:
                self.pace.flooded(time(), error.retry_after)
            except PlatformError:
                self.pace.flooded(time(), 0)  # whatever it is, asking more often does not help
            finally:
                if is_made:
                    self.pace.called(time())


class Traffic:
    """The lanes to the chats of one bot, and their common limit. Serves one event loop."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane] = {}
        self._bots: dict[str, BotPace] = {}
        self._forget_at = KEPT_CHATS

    @asynccontextmanager
    async def lane(self, caps: Caps) -> AsyncIterator[Lane]:
        """The lane to a chat, remembered as long as its pace matters."""
        if len(self._lanes) >= self._forget_at:
            self._forget(asyncio.get_running_loop().time())
        platform = caps.platform
        bot = self._bots.setdefault(platform.name, BotPace(platform.per_second))
        lane = self._lanes.setdefault((platform.name, caps.chat), Lane(caps.interval, bot))
        lane.n_users += 1
        try:
            yield lane
        finally:
            lane.n_users -= 1

    def _forget(self, now: float) -> None:
        for key, lane in list(self._lanes.items()):
            if not lane.n_users and lane.pace.is_idle(now):
                del self._lanes[key]
        self._forget_at = max(KEPT_CHATS, 2 * len(self._lanes))
