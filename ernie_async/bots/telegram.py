"""Answer in Telegram with python-telegram-bot (extra `telegram`)."""

from collections.abc import Sequence

from ernie_async.bots.platforms import Platform
from ernie_async.bots.telegram_api import TelegramChat, bad_request
from ernie_async.bots.transport import ChatClosedError, FloodError, PlatformError

try:
    from telegram import Message, ReplyParameters
    from telegram import error as errors
except ImportError as error:
    raise ImportError("this needs it: pip install 'ernie-async[telegram]'") from error

__all__ = ["TelegramTransport"]


class TelegramTransport(TelegramChat):
    """The chat of a message: drafts in private chats, edits in groups."""

    def __init__(self, message: Message, *, limits: Platform | None = None) -> None:
        super().__init__(message, message.get_bot(), ReplyParameters, limits)
        self._photos = message.photo

    async def images(self) -> Sequence[bytes]:
        """The photo of the message, in its largest size."""
        files = [await photo.get_file() for photo in self._photos[-1:]]
        return [bytes(await file.download_as_bytearray()) for file in files]

    def refusal(self, error: Exception) -> Exception | None:
        """What an error of the library means."""
        match error:
            case errors.RetryAfter():
                after = error._retry_after.total_seconds()  # the public one warns of its own type
                return FloodError(error.message, retry_after=after)
            case errors.Forbidden() | errors.InvalidToken() | errors.ChatMigrated():
                return ChatClosedError(error.message)
            case errors.BadRequest():
                return bad_request(error, error.message)
            case errors.NetworkError():
                return PlatformError(error.message)
        return error
