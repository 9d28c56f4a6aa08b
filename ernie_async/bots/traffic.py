"""Wait until a platform takes the next call. One `Traffic` serves all chats of a bot."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar

from ernie_async.bots.pacing import BotPace, ChatPace
from ernie_async.bots.transport import (
    Caps,
    ChatClosedError,
    FloodError,
    MarkupError,
    MessageGoneError,
    PlatformError,
)

__all__ = ["Lane", "Traffic"]

T = TypeVar("T")

# Chats are forgotten once there are so many, if nothing is known of them that matters.
KEPT_CHATS = 1_000


class Lane:
    """The way to one chat: one call at a time, at the pace of the chat and of the bot."""

    def __init__(self, interval: float, bot: BotPace | None) -> None:
        self.pace: ChatPace = ChatPace(interval)
        self.n_users = 0
        self._bot = bot
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the moment at which one call may be made; `call` makes it in the block."""
        time = asyncio.get_running_loop().time
        async with self._lock:
            while (wait := self.pace.wait(time())) > 0:  # noqa: ASYNC110 - known beforehand
                await asyncio.sleep(wait)
            if self._bot is not None:
                await asyncio.sleep(self._bot.book(time()))
            yield

    async def call(self, made: Awaitable[T]) -> T:
        """Make a call that counts, and learn from how it ends."""
        time = asyncio.get_running_loop().time
        try:
            return await made
        except (MarkupError, MessageGoneError, ChatClosedError):
            raise
        except FloodError as error:
            self.pace.flooded(time(), error.retry_after)
            raise
        except PlatformError:
            self.pace.flooded(time(), 0)  # whatever it is, asking more often does not help
            raise
        finally:
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
        platform = caps.platform
        key = (platform.name, caps.chat)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= self._forget_at:
                self._forget()
            bot = None
            if platform.per_second is not None:
                bot = self._bots.setdefault(platform.name, BotPace(platform.per_second))
            interval = platform.pace(is_private=caps.is_private)
            lane = self._lanes[key] = Lane(interval, bot)
        lane.n_users += 1
        try:
            yield lane
        finally:
            lane.n_users -= 1

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        self._lanes = {
            key: lane
            for key, lane in self._lanes.items()
            if lane.n_users or not lane.pace.is_idle(now)
        }
        self._forget_at = max(KEPT_CHATS, 2 * len(self._lanes))
