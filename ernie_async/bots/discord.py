"""Answer in Discord with discord.py (extra `discord`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ernie_async.bots import transport as to
from ernie_async.bots.platforms import Platform, platform

try:
    import discord
except ImportError as _error:
    raise ImportError("this needs discord.py: pip install 'ernie-async[discord]'") from _error

__all__ = ["DiscordTransport"]

UNKNOWN_MESSAGE = 10008

# Whatever the model writes, nobody is called by it.
NOBODY = discord.AllowedMentions.none()


class DiscordTransport(to.Transport):
    """The channel of a message, with edits."""

    def __init__(self, message: discord.Message, *, limits: Platform | None = None) -> None:
        self._message = message
        self._answers = None if message.guild is None else message
        self.caps: to.Caps = to.Caps(
            platform=limits or platform("discord"),
            chat=message.channel.id,
            modes=("edit", "sentence", "final"),
            is_private=message.guild is None,
            markup="always",
        )

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        """Send a message; the first one in a server answers the user's."""
        answers = reply_to or self._answers
        thread: Any = answers and answers.to_reference(fail_if_not_exists=False)
        with _translated():
            sent = await self._message.channel.send(text, reference=thread, allowed_mentions=NOBODY)
            self._answers = None
            return sent

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        """Replace a message."""
        with _translated():
            await handle.edit(content=text, allowed_mentions=NOBODY)

    async def delete(self, handle: Any) -> None:
        """Remove a message."""
        with _translated():
            await handle.delete()

    async def typing(self) -> None:
        """Show that the bot is typing."""
        await self._message.channel.typing()

    async def images(self) -> Sequence[bytes]:
        """The pictures that are attached to the message."""
        attached = self._message.attachments
        with _translated():
            return [await a.read() for a in attached if (a.content_type or "")[:6] == "image/"]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except discord.RateLimited as error:
        raise to.FloodError(str(error), retry_after=error.retry_after) from error
    except discord.NotFound as error:
        is_message = error.code == UNKNOWN_MESSAGE
        raise (to.MessageGoneError if is_message else to.ChatClosedError)(str(error)) from error
    except discord.Forbidden as error:
        raise to.ChatClosedError(str(error)) from error
    except (discord.DiscordServerError, OSError) as error:
        raise to.PlatformError(str(error)) from error
