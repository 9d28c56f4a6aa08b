"""What the sender needs of a chat platform, and what may go wrong there.

Knows no platform: an adapter is one class, which translates the errors of its framework.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from ernie_async.bots.platforms import Platform
from ernie_async.errors import ConfigError, ErnieError

__all__ = [
    "Caps",
    "ChatClosedError",
    "FloodError",
    "Format",
    "MarkupError",
    "MessageGoneError",
    "Mode",
    "PlatformError",
    "Transport",
    "UndeliveredError",
]

T = TypeVar("T")

# From the best to the least.
Mode = Literal["draft", "card", "append", "edit", "sentence", "final"]
MODES: tuple[Mode, ...] = get_args(Mode)

Format = Literal["markdown"]


class PlatformError(ErnieError):
    """A call failed and may be made again: no connection, an error of the platform's server."""


class FloodError(PlatformError):
    """The platform wants fewer calls.

    Attributes:
        retry_after: Seconds during which it takes none for this chat.
    """

    def __init__(self, message: str = "too many calls", *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MarkupError(PlatformError):
    """The platform cannot read the formatting of the text."""


class MessageGoneError(PlatformError):
    """The message is not there any more, or takes no more text."""


class ChatClosedError(PlatformError):
    """Nothing can be sent here: the bot was blocked, the chat does not exist, it has no rights."""


class UndeliveredError(ErnieError):
    """The answer could not be delivered as a whole.

    Attributes:
        rest: The text, from the first message on that was not delivered in its final state.
    """

    def __init__(self, message: str, *, rest: str = "") -> None:
        super().__init__(message)
        self.rest = rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a transport can do.

    Attributes:
        platform: The limits that apply.
        chat: Names the chat; all answers in one chat share its pace.
        modes: Which modes its methods are enough for.
        is_private: Whether one user is alone with the bot.
        markup: Where Markdown is understood: `"final"` if a call has to ask for it, which is done
            for a finished message only; `"always"` if every message is read as Markdown; `"none"`.
    """

    platform: Platform
    chat: str | int
    modes: tuple[Mode, ...]
    is_private: bool = True
    markup: Literal["none", "final", "always"] = "none"

    @property
    def interval(self) -> float:
        """Seconds between two calls for the chat."""
        group_interval = None if self.is_private else self.platform.group_interval
        return group_interval or self.platform.interval

    def mode(self, wanted: Mode | None = None) -> Mode:
        """The best mode, or the one that is wanted.

        Raises:
            ConfigError: The transport cannot do that.
        """
        can_draft = self.is_private
        able: list[Mode] = [m for m in MODES if m in self.modes and (m != "draft" or can_draft)]
        if wanted is None and able:
            return able[0]
        if wanted not in able:
            raise ConfigError(f"mode: expected one of {', '.join(able)}, got {wanted!r}")
        return wanted


class Transport:
    """One chat, or one message to answer. Write the methods that the modes of `caps` need.

    Every method raises a `PlatformError` of the right kind if the platform refuses, or what
    `refusal` makes one of. A `handle` is whatever names a message for this transport.

    Attributes:
        caps: What it can do.
        reply_to: Names the message to answer, if the first message should say so.
    """

    caps: Caps
    reply_to: Any = None

    async def send(self, text: str, *, reply_to: Any = None, format: Format | None = None) -> Any:
        """Send a new message; return its handle."""
        raise NotImplementedError

    async def edit(
        self, handle: Any, text: str, *, format: Format | None = None, sequence: int = 0
    ) -> None:
        """Replace a message. `sequence` grows with every call, for cards."""
        raise NotImplementedError

    async def begin(self, text: str, *, reply_to: Any = None) -> Any:
        """Send the beginning of a message that is appended to; return its handle."""
        return await self.send(text, reply_to=reply_to)

    async def append(self, handle: Any, text: str) -> None:
        """Add to a message."""
        raise NotImplementedError

    async def draft(self, draft_id: int, text: str) -> None:
        """Show a preview of a message that is not sent yet."""
        raise NotImplementedError

    async def finish(self, handle: Any, text: str) -> None:
        """Close a card, or a message that was appended to; `text` is all of it."""
        raise NotImplementedError

    async def delete(self, handle: Any) -> None:
        """Remove a message."""
        raise NotImplementedError

    async def typing(self) -> None:
        """Show that an answer is being written."""

    async def images(self) -> Sequence[bytes | str]:
        """The pictures of the message to answer: files as bytes, or addresses."""
        return ()

    def refusal(self, error: Exception) -> Exception | None:
        """What an error of the framework means; `None` if it is none, such as "not modified"."""
        return error

    async def attempt(self, call: Awaitable[T]) -> T | None:
        """Make a call whose errors are ours."""
        try:
            return await call
        except Exception as error:
            meant = self.refusal(error)
            if meant is error:
                raise
            if meant is not None:
                raise meant from error
            return None
