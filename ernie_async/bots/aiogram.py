"""Answer in Telegram with aiogram 3 (extra `aiogram`)."""

from collections.abc import Sequence

from ernie_async.bots.platforms import Platform
from ernie_async.bots.telegram_api import TelegramChat, bad_request
from ernie_async.bots.transport import ChatClosedError, FloodError, PlatformError

try:
    from aiogram import exceptions
    from aiogram.types import Message, ReplyParameters
except ImportError as error:
    raise ImportError("this needs aiogram: pip install 'ernie-async[aiogram]'") from error

__all__ = ["AiogramTransport"]


class AiogramTransport(TelegramChat):
    """The chat of a message: drafts in private chats, edits in groups."""

    def __init__(self, message: Message, *, limits: Platform | None = None) -> None:
        super().__init__(message, message.bot, ReplyParameters, limits)
        self._photos = message.photo or ()

    async def images(self) -> Sequence[bytes]:
        """The photo of the message, in its largest size."""
        return [(await self._bot.download(photo)).read() for photo in self._photos[-1:]]

    def refusal(self, error: Exception) -> Exception | None:
        """What an error of aiogram means."""
        match error:
            case exceptions.TelegramRetryAfter():
                return FloodError(error.message, retry_after=error.retry_after)
            case exceptions.TelegramForbiddenError() | exceptions.TelegramUnauthorizedError():
                return ChatClosedError(error.message)
            case exceptions.TelegramBadRequest():
                return bad_request(error, error.message)
            case exceptions.TelegramNetworkError() | exceptions.TelegramServerError():
                return PlatformError(error.message)
        return error
