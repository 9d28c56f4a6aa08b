"""What observers are told: one plain record for each moment of a call.

A hook is any callable that takes a record. It runs in the event loop, so it must be quick; one that
raises is logged and does not fail the call. The same records go to the logger `ernie_async`, which
never sees a prompt, an answer or a credential.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ernie_async.types.usage import Timing, Usage

__all__ = ["CallEnded", "CallStarted", "Hook", "Record", "RetryScheduled", "tell"]

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


class CallEnded(NamedTuple):
    """A call is over.

    Attributes:
        call: The call's number.
        outcome: `ok`, `error`, or `cancelled`: the caller left before the end.
        error: What happened, in short; `None` unless the outcome is `error`.
        request_id: What the service calls it; if it did not answer, the `X-Request-Id` we sent.
        timing: Attempts, time in line, time to the first token, total time.
        usage: Tokens, if the service told them.
    """

    call: int
    outcome: Literal["ok", "error", "cancelled"]
    error: str | None
    request_id: str | None
    timing: Timing
    usage: Usage | None


Record = CallStarted | RetryScheduled | CallEnded
Hook = Callable[[Record], None]


def tell(hooks: Sequence[Hook], record: Record) -> None:
    """Tell every hook, and the log."""
    level = logging.INFO if isinstance(record, RetryScheduled) else logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(level, "%s", record)
    for hook in hooks:
        try:
            hook(record)
        except Exception:  # whatever it is, the caller's answer is worth more
            logger.exception("a hook failed on %s", type(record).__name__)
