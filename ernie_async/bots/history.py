"""Which part of a conversation is sent: whole turns, the newest ones that fit.

Pure. A turn begins with the user and ends with the model, so whatever is left of a conversation
begins with the user and alternates, and no result of a tool is without its call.
"""

from collections.abc import Callable, Sequence
from typing import Any, NotRequired, TypedDict

from ernie_async.errors import ConfigError
from ernie_async.types.messages import Message

__all__ = ["MessageTooLongError", "StoredTurn", "messages_of", "stored", "trim"]


class MessageTooLongError(ConfigError):
    """A message, with the instructions, is too long for the model even without any history."""


class StoredTurn(TypedDict):
    """One turn of a conversation, as JSON: the user's message, and all that came of it.

    `pinned` turns are never trimmed. A summary of turns that were is a turn with one system
    message.
    """

    messages: list[dict[str, Any]]
    pinned: NotRequired[bool]


def stored(messages: Sequence[Message]) -> StoredTurn:
    """A turn of these messages."""
    return {"messages": [m.model_dump(mode="json", exclude_none=True) for m in messages]}


def messages_of(turns: Sequence[StoredTurn]) -> list[Message]:
    """The messages of turns."""
    return [Message.model_validate(message) for turn in turns for message in turn["messages"]]


def trim(
    turns: Sequence[StoredTurn],
    fixed: Sequence[Message],
    budget: int,
    estimate: Callable[[Sequence[Message]], int],
) -> tuple[list[StoredTurn], list[StoredTurn]]:
    """Drop whole turns from the oldest on, until the rest fits; return those kept and dropped.

    Args:
        turns: The conversation so far.
        fixed: What is always sent: instructions and the new message.
        budget: Tokens that all of it may have.
        estimate: Tokens of messages.

    Raises:
        MessageTooLongError: What is always sent does not fit.
    """
    tokens = estimate(fixed)
    if tokens > budget:
        raise MessageTooLongError(
            f"messages: the newest one has about {tokens} tokens with the instructions, and "
            f"{budget} fit"
        )
    lengths = [estimate(messages_of([turn])) for turn in turns]
    excess = tokens + sum(lengths) - budget
    kept: list[StoredTurn] = []
    dropped: list[StoredTurn] = []
    for turn, length in zip(turns, lengths, strict=True):
        is_dropped = excess > 0 and not turn.get("pinned")
        if is_dropped:
            excess -= length
        (dropped if is_dropped else kept).append(turn)
    return kept, dropped
