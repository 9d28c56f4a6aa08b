"""What is the same for all frameworks of Telegram: capabilities, formatting, refusals.

Source: core.telegram.org/bots/api, and the descriptions that the server sends.
"""

from ernie_async.bots.markup import telegram_html
from ernie_async.bots.platforms import Platform, platform
from ernie_async.bots.transport import (
    Caps,
    ChatClosedError,
    Format,
    MarkupError,
    MessageGoneError,
    PlatformError,
)

__all__ = ["formatted", "refusal", "telegram_caps"]

# Not an error: the message looks as it should.
NOT_MODIFIED = "message is not modified"

REFUSALS: list[tuple[str, type[PlatformError]]] = [
    ("can't parse entities", MarkupError),
    ("message to edit not found", MessageGoneError),
    ("message can't be edited", MessageGoneError),
    ("message_id_invalid", MessageGoneError),
    ("chat not found", ChatClosedError),
    ("user not found", ChatClosedError),
    ("peer_id_invalid", ChatClosedError),
    ("not enough rights", ChatClosedError),
    ("have no rights", ChatClosedError),
    ("chat_write_forbidden", ChatClosedError),
    ("group chat was", ChatClosedError),
    ("topic_closed", ChatClosedError),
]


def telegram_caps(chat: int, kind: str, limits: Platform | None) -> Caps:
    """Drafts in private chats, edits in all."""
    return Caps(
        platform=limits or platform("telegram"),
        chat=chat,
        modes=("draft", "edit", "sentence", "final"),
        is_private=kind == "private",
        markup="final",
    )


def formatted(text: str, form: Format | None) -> tuple[str, str | None]:
    """A text and its `parse_mode`."""
    return (telegram_html(text), "HTML") if form else (text, None)


def refusal(error: Exception, description: str) -> Exception | None:
    """What to raise for a bad request; `None` if it is no error, `error` itself if it is ours."""
    told = description.lower()
    if NOT_MODIFIED in told:
        return None
    return next((kind(description) for words, kind in REFUSALS if words in told), error)
