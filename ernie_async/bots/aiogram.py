"""Answer in Telegram with aiogram 3 (extra `aiogram`)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ernie_async.bots.platforms import Platform
from ernie_async.bots.telegram_api import formatted, refusal, telegram_caps
from ernie_async.bots.transport import Caps, ChatClosedError, FloodError, PlatformError, Transport

try:
    from aiogram import exceptions
    from aiogram.types import Message, ReplyParameters
except ImportError as _error:
    raise ImportError("this needs aiogram: pip install 'ernie-async[aiogram]'") from _error

__all__ = ["AiogramTransport"]


class AiogramTransport(Transport):
    """The chat of a message: drafts in private chats, edits in groups."""

    def __init__(self, message: Message, *, limits: Platform | None = None) -> None:
        self._message = message
        self._bot: Any = message.bot
        self.caps: Caps = telegram_caps(message.chat.id, message.chat.type, limits)
        self._answers = None if self.caps.is_private else message.message_id

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        """Send a message; the first one in a group answers the user's."""
        shown, mode = formatted(text, format)
        to, self._answers = reply_to or self._answers, None
        answers = ReplyParameters(message_id=to, allow_sending_without_reply=True) if to else None
        with _translated():
            return await self._message.answer(shown, parse_mode=mode, reply_parameters=answers)

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        """Replace a message."""
        shown, mode = formatted(text, format)
        with _translated():
            await handle.edit_text(shown, parse_mode=mode)

    async def draft(self, draft_id: int, text: str) -> None:
        """Show a preview."""
        chat = self._message.chat.id
        with _translated():
            await self._bot.send_message_draft(chat, draft_id, text=text, parse_mode=None)

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
            return [(await self._bot.download(p)).read() for p in (self._message.photo or ())[-1:]]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exceptions.TelegramRetryAfter as error:
        raise FloodError(error.message, retry_after=error.retry_after) from error
    except (exceptions.TelegramForbiddenError, exceptions.TelegramUnauthorizedError) as error:
        raise ChatClosedError(error.message) from error
    except exceptions.TelegramBadRequest as error:
        if (ours := refusal(error, error.message)) is not None:
            raise ours from error
    except (exceptions.TelegramNetworkError, exceptions.TelegramServerError) as error:
        raise PlatformError(error.message) from error
