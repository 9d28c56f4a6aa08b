"""Which part of a conversation is sent: whole turns, the newest ones that fit.

Pure. A turn begins with the user and ends with the model, so whatever is left of a conversation
begins with the user and alternates, and no result of a tool is without its call.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from ernie_async.errors import ConfigError
from ernie_async.types.messages import Message, system

__all__ = ["MessageTooLongError", "StoredTurn", "Trimmed", "budget_of", "trim"]

# Of the window: for what the estimate misses.
RESERVE = 0.05


class MessageTooLongError(ConfigError):
    """A message, with the instructions, is too long for the model even without any history.

    Attributes:
        tokens: How long it is, roughly.
        budget: How long it may be.
    """

    def __init__(self, message: str, *, tokens: int = 0, budget: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.budget = budget


class StoredTurn(TypedDict):
    """One turn of a conversation, as JSON.

    `messages` are the user's and all that came of it. `pinned` turns are never trimmed. `summary`
    stands for turns that were.
    """

    messages: list[dict[str, Any]]
    pinned: NotRequired[bool]
    summary: NotRequired[str]


class Trimmed(NamedTuple):
    """What is left, and what is not.

    Attributes:
        kept: Turns, in order.
        dropped: Turns, in order.
    """

    kept: list[StoredTurn]
    dropped: list[StoredTurn]


def budget_of(window: int, max_tokens: int) -> int:
    """Tokens of a prompt, if the answer is to fit into the model's window as well."""
    return window - max_tokens - int(window * RESERVE)


def trim(
    turns: Sequence[StoredTurn],
    fixed: Sequence[Message],
    budget: int,
    estimate: Callable[[Sequence[Message]], int],
) -> Trimmed:
    """Drop whole turns from the oldest on, until the rest fits.

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
            f"{budget} fit",
            tokens=tokens,
            budget=budget,
        )
    lengths = [estimate(messages_of(turn)) for turn in turns]
    excess = tokens + sum(lengths) - budget
    result = Trimmed([], [])
    for turn, length in zip(turns, lengths, strict=True):
        is_dropped = excess > 0 and not turn.get("pinned")
        if is_dropped:
            excess -= length
        (result.dropped if is_dropped else result.kept).append(turn)
    return result


def messages_of(turn: StoredTurn) -> list[Message]:
    """The messages of a turn; of a summary, its text as instructions."""
    if "summary" in turn:
        return [system(turn["summary"])]
    return [Message.model_validate(message) for message in turn["messages"]]
