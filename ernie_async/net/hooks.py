"""What observers are told: one plain record for each moment of a call.

A hook is any callable that takes a record. It runs in the event loop, so it must be quick; one that
raises is logged and does not fail the call. The same records go to the logger `ernie_async`, which
never sees a prompt, an answer or a credential.

A hook that is an object may have two methods more. `headers(call)` returns headers to send with the
call's requests. `content(call, messages, answer)` is told, just before the end of a chat, what was
asked, and what the model said (a `ChatCompletion`, or `None` if there is none).
"""

import logging
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ernie_async.errors import ErnieError
from ernie_async.sansio.breaker import CircuitState
from ernie_async.sansio.resume import Form
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message
from ernie_async.types.usage import Timing, Usage

__all__ = [
    "CallEnded",
    "CallStarted",
    "CircuitChanged",
    "ContentFiltered",
    "FellBack",
    "HeartbeatSeen",
    "Hedged",
    "Hook",
    "LimiterPaused",
    "Queued",
    "Record",
    "RetryScheduled",
    "RetryWithheld",
    "StreamResumed",
    "brief",
    "headers_of",
    "tell",
    "tell_content",
]

logger: logging.Logger = logging.getLogger("ernie_async")


class CallStarted(NamedTuple):
    """A call begins; nothing was sent yet.

    Attributes:
        call: A number that all records of this call share; unique in the process.
        method: The HTTP method.
        path: The path below the base URL.
        model: The model asked for, if any.
        is_stream: Whether the answer is to be streamed.
        server: Who speaks at the base URL, such as `qianfan`.
        base_url: Where it is.
    """

    call: int
    method: str
    path: str
    model: str | None
    is_stream: bool
    server: str = ""
    base_url: str = ""


class Queued(NamedTuple):
    """An attempt has to wait in line for the limiter. `Timing.queued` tells in the end how long.

    Attributes:
        call: The call's number.
        model: The model asked for, if any.
        priority: `interactive` or `batch`.
        position: Its place in line; 1 is the next to be admitted.
        estimated_wait: Seconds, as far as can be told.
    """

    call: int
    model: str | None
    priority: str
    position: int
    estimated_wait: float


class LimiterPaused(NamedTuple):
    """The service said that a quota is spent: for a while, nobody is admitted for this model.

    Attributes:
        call: The number of the call that was told so.
        model: The model asked for, if any.
        seconds: How long, if the service said so; `None`: one call tries every 5 s.
        reason: What the service said, in short.
    """

    call: int
    model: str | None
    seconds: float | None
    reason: str


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


class RetryWithheld(NamedTuple):
    """An attempt failed and is not made again, since the client's retry budget is spent.

    Attributes:
        call: The call's number.
        attempt: Which attempt failed, from 1.
        error: What happened, in short.
    """

    call: int
    attempt: int
    error: str


class CircuitChanged(NamedTuple):
    """Requests to a model are stopped, tried one at a time, or free again; see `BreakerPolicy`.

    Attributes:
        call: The number of the call that found it out.
        model: The model, if any.
        state: `open`, `half-open` or `closed`.
        error: The last failure, in short.
    """

    call: int
    model: str | None
    state: CircuitState
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


class FellBack(NamedTuple):
    """A model could not answer, and another one is asked instead.

    Attributes:
        call: The call's number.
        from_model: The model that was asked.
        to_model: The model that is asked now.
        error: What happened, in short.
    """

    call: int
    from_model: str
    to_model: str
    error: str


class Hedged(NamedTuple):
    """A first token was late, so the request was sent twice; now one of the two has answered.

    Attributes:
        call: The call's number.
        model: The model asked.
        after: Seconds after the first request at which the second one was sent.
        won: Whether it was the second one that answered.
        usage: What the other one used, as far as it can be known: an estimate of its prompt.
    """

    call: int
    model: str
    after: float
    won: bool
    usage: Usage


class CallEnded(NamedTuple):
    """A call is over.

    Attributes:
        call: The call's number.
        outcome: `ok`, `error`, or `cancelled`: the caller left before the end.
        error: What happened, in short; `None` unless the outcome is `error`.
        request_id: What the service calls it; if it did not answer, the `X-Request-Id` we sent.
        timing: Attempts, time in line, time to the first token, total time.
        usage: Tokens, if the service told them; for a stream else an estimate.
        response_id: The service's id of the answer of a chat, if one came.
        model: The model that answered, as the service names it.
        finish_reasons: Why the model stopped, of each answer that came to an end.
    """

    call: int
    outcome: Literal["ok", "error", "cancelled"]
    error: str | None
    request_id: str | None
    timing: Timing
    usage: Usage | None
    response_id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()


Record = (
    CallStarted
    | Queued
    | LimiterPaused
    | RetryScheduled
    | RetryWithheld
    | CircuitChanged
    | HeartbeatSeen
    | StreamResumed
    | FellBack
    | Hedged
    | ContentFiltered
    | CallEnded
)
"""What hooks are told: one record for each moment of a call that somebody may want to see."""

Hook = Callable[[Record], None]
"""What is given as `hooks=`: called in the event loop, in the middle of the call, so be quick."""

# What an operator wants to see without asking: not everything went as it should.
NOTABLE = (
    LimiterPaused,
    RetryScheduled,
    RetryWithheld,
    CircuitChanged,
    StreamResumed,
    FellBack,
    Hedged,
)


def is_heard(hooks: Sequence[Hook]) -> bool:
    """Whether anybody is told anything: else the records of every call need not be made."""
    return bool(hooks) or logger.isEnabledFor(logging.DEBUG)


def tell(hooks: Sequence[Hook], record: Record) -> None:
    """Tell every hook, and the log."""
    level = logging.INFO if isinstance(record, NOTABLE) else logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(level, "%s", record)
    for hook in hooks:
        _safely(type(record).__name__, hook, record)


def headers_of(hooks: Sequence[Hook], call: int) -> dict[str, str]:
    """What hooks want sent with the requests of a call."""
    headers: dict[str, str] = {}
    for hook in hooks:
        if (make := getattr(hook, "headers", None)) is not None:
            headers |= _safely("headers", _sendable_headers, make, call) or {}
    return headers


def _sendable_headers(make: Callable[[int], dict[str, str]], call: int) -> dict[str, str]:
    """What a hook wants sent, which would else fail far from it.

    Raises:
        ValueError: It cannot be sent.
    """
    made = make(call) or {}
    for name, value in made.items():
        if not (f"{name}{value}".isascii() and f"{name}{value}".isprintable()):
            raise ValueError(f"the header {name!r} cannot be sent")
    return made


def tell_content(
    hooks: Sequence[Hook],
    call: int,
    messages: Sequence[Message],
    completion: Callable[[], ChatCompletion] | None,
) -> None:
    """Tell those hooks that want to know what was asked and said; the log is told nothing."""
    for hook in hooks:
        if (listen := getattr(hook, "content", None)) is not None:
            _safely("content", _tell_content, listen, call, messages, completion)


def _tell_content(
    listen: Callable[..., None],
    call: int,
    messages: Sequence[Message],
    completion: Callable[[], ChatCompletion] | None,
) -> None:
    listen(call, messages, completion and completion())


def _safely(what: str, hook: Callable[..., Any], *told: Any) -> Any:
    try:
        return hook(*told)
    except Exception:  # whatever it is, the caller's answer is worth more
        logger.exception("a hook failed on %s", what)


def brief(error: ErnieError) -> str:
    """What happened, in one line."""
    return f"{type(error).__name__}: {textwrap.shorten(error.message, 200)}"
