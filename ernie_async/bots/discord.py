"""Answer in Discord with discord.py (extra `discord`)."""

from collections.abc import Sequence
from typing import Any

from aiohttp import ClientError

from ernie_async.bots import transport as to
from ernie_async.bots.platforms import Platform, platform

try:
    import discord
except ImportError as error:
    raise ImportError("this needs discord.py: pip install 'ernie-async[discord]'") from error

__all__ = ["DiscordTransport"]

UNKNOWN_MESSAGE = 10008

# Whatever the model writes, nobody is called by it.
NOBODY = discord.AllowedMentions.none()


class DiscordTransport(to.Transport):
    """The channel of a message, with edits."""

    def __init__(self, message: discord.Message, *, limits: Platform | None = None) -> None:
        self._message = message
        is_private = message.guild is None
        self.reply_to = None if is_private else message.to_reference(fail_if_not_exists=False)
        self.caps = to.Caps(
            platform=limits or platform("discord"),
            chat=message.channel.id,
            modes=("edit", "sentence", "final"),
            is_private=is_private,
            markup="always",
        )

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        return await self._message.channel.send(text, reference=reply_to, allowed_mentions=NOBODY)

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        await handle.edit(content=text, allowed_mentions=NOBODY)

    async def delete(self, handle: Any) -> None:
        await handle.delete()

    async def typing(self) -> None:
        await self._message.channel.typing()

    async def images(self) -> Sequence[bytes]:
        """The pictures that are attached to the message."""
        attached = self._message.attachments
        return [await a.read() for a in attached if (a.content_type or "").startswith("image/")]

    def refusal(self, error: Exception) -> Exception | None:
        """What an error of discord.py means."""
        match error:
            case discord.RateLimited():
                return to.FloodError(str(error), retry_after=error.retry_after)
            case discord.NotFound() if error.code == UNKNOWN_MESSAGE:
                return to.MessageGoneError(str(error))
            case discord.NotFound() | discord.Forbidden():
                return to.ChatClosedError(str(error))
            case discord.DiscordServerError() | ClientError() | OSError():
                return to.PlatformError(str(error))
        return error
