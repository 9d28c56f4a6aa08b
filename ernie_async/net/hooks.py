"""What observers are told: one plain record for each moment of a call.

A hook is any callable that takes a record. It runs in the event loop, so it must be quick; one that
raises is logged and does not fail the call. The same records go to the logger `ernie_async`, which
never sees a prompt, an answer or a credential.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ernie_async.sansio.resume import Form
from ernie_async.types.usage import Timing, Usage

__all__ = [
    "CallEnded",
    "CallStarted",
    "ContentFiltered",
    "HeartbeatSeen",
    "Hook",
    "Record",
    "RetryScheduled",
    "StreamResumed",
    "tell",
]

logger = logging.getLogger("ernie_async")


class CallStarted(NamedTuple):
    """A call begins; nothing was sent yet.

    Attributes:
        call: A number that all records of this call share; unique in the process.
        method: The HTTP method.
        path: The path below the base URL.
        model: The model asked for, if any.
        is_stream: Whether the answer is to be streamed.
    """

    call: int
    method: str
    path: str
    model: str | None
    is_stream: bool


class RetryScheduled(NamedTuple):
    """An attempt failed and will be made again.

    Attributes:
        call: The call's number.
        attempt: Which attempt failed, from 1.
        delay: Seconds until the next one.
        error: What happened, in short.
    """

    call: int
    attempt: int
    delay: float
    error: str


class HeartbeatSeen(NamedTuple):
    """The server sent a comment to keep a stream's connection alive; no progress otherwise.

    Attributes:
        call: The call's number.
        heartbeats: How many came on this connection so far.
    """

    call: int
    heartbeats: int


class StreamResumed(NamedTuple):
    """A stream broke after its first chunk, and goes on.

    Attributes:
        call: The call's number.
        how: `server`: the server sends the rest. `prefix`, `final_message`, `emulated`: the model
            was asked to go on, see `ResumePolicy`. `restart`: asked anew, since no text had come.
        at: Characters of text that had come before.
        error: What broke it, in short.
    """

    call: int
    how: Form
    at: int
    error: str


class ContentFiltered(NamedTuple):
    """The content filter found something. What it was is not told, nor where.

    Attributes:
        channel: `content`, `reasoning`, `tool_arguments` or `prompt`.
        action: What was done: `mask`, `drop`, `block` or `flag`; or `allow`, if a checker failed
            and the text was shown all the same.
        category: Of the term or pattern, or what a checker said; may be empty.
    """

    channel: str
    action: str
    category: str


class CallEnded(NamedTuple):
    """A call is over.

    Attributes:
        call: The call's number.
        outcome: `ok`, `error`, or `cancelled`: the caller left before the end.
        error: What happened, in short; `None` unless the outcome is `error`.
        request_id: What the service calls it; if it did not answer, the `X-Request-Id` we sent.
        timing: Attempts, time in line, time to the first token, total time.
        usage: Tokens, if the service told them; for a stream else an estimate.
    """

    call: int
    outcome: Literal["ok", "error", "cancelled"]
    error: str | None
    request_id: str | None
    timing: Timing
    usage: Usage | None


Record = CallStarted | RetryScheduled | HeartbeatSeen | StreamResumed | ContentFiltered | CallEnded
Hook = Callable[[Record], None]


def tell(hooks: Sequence[Hook], record: Record) -> None:
    """Tell every hook, and the log."""
    level = logging.INFO if isinstance(record, RetryScheduled | StreamResumed) else logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(level, "%s", record)
    for hook in hooks:
        try:
            hook(record)
        except Exception:  # whatever it is, the caller's answer is worth more
            logger.exception("a hook failed on %s", type(record).__name__)
