"""Answer in Telegram with python-telegram-bot (extra `telegram`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ernie_async.bots.platforms import Platform
from ernie_async.bots.telegram_api import formatted, refusal, telegram_caps
from ernie_async.bots.transport import Caps, ChatClosedError, FloodError, PlatformError, Transport

try:
    from telegram import Message, ReplyParameters
    from telegram import error as errors
except ImportError as _error:
    raise ImportError("this needs it: pip install 'ernie-async[telegram]'") from _error

__all__ = ["TelegramTransport"]


class TelegramTransport(Transport):
    """The chat of a message: drafts in private chats, edits in groups."""

    def __init__(self, message: Message, *, limits: Platform | None = None) -> None:
        self._message = message
        self._bot = message.get_bot()
        self.caps: Caps = telegram_caps(message.chat.id, message.chat.type, limits)
        self._answers = None if self.caps.is_private else message.message_id

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        """Send a message; the first one in a group answers the user's."""
        to, self._answers = reply_to or self._answers, None
        answers = ReplyParameters(to, allow_sending_without_reply=True) if to else None
        shown, mode = formatted(text, format)
        more: Any = {"parse_mode": mode, "message_thread_id": self._message.message_thread_id}
        with _translated():
            chat = self._message.chat.id
            return await self._bot.send_message(chat, shown, reply_parameters=answers, **more)

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        """Replace a message."""
        shown, mode = formatted(text, format)
        with _translated():
            await handle.edit_text(shown, parse_mode=mode)

    async def draft(self, draft_id: int, text: str) -> None:
        """Show a preview."""
        with _translated():
            await self._bot.send_message_draft(self._message.chat.id, draft_id, text)

    async def delete(self, handle: Any) -> None:
        """Remove a message."""
        with _translated():
            await handle.delete()

    async def typing(self) -> None:
        """Show that the bot is typing."""
        await self._bot.send_chat_action(self._message.chat.id, "typing")

    async def images(self) -> Sequence[bytes]:
        """The photo of the message, in its largest size."""
        with _translated():
            files = [await photo.get_file() for photo in self._message.photo[-1:]]
            return [bytes(await file.download_as_bytearray()) for file in files]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except errors.RetryAfter as error:
        after = error._retry_after.total_seconds()  # the public one is an int, with a warning
        raise FloodError(error.message, retry_after=after) from error
    except (errors.Forbidden, errors.InvalidToken, errors.ChatMigrated) as error:
        raise ChatClosedError(error.message) from error
    except errors.BadRequest as error:
        if (ours := refusal(error, error.message)) is not None:
            raise ours from error
    except errors.NetworkError as error:
        raise PlatformError(error.message) from error
