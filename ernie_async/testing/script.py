"""The steps of a script: what the mock should do with one chat request.

Plain values. Nothing here sends, waits or looks at a clock: `render` turns a step into bytes and
`play` puts the bytes on a connection. Each step is a frozen dataclass that scripts call by its
lower-case name: `reply("你好")`, `cut(after_chunks=3)`.

All `_ms` options are milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

SAMPLE_TEXT = "量子纠缠是两个粒子共享同一个状态的现象：测量其中一个，就知道另一个的结果。"


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the question: JSON, or SSE when the request says `stream: true`.

    Args:
        text: The answer. None is a sample sentence, or no text if there are `tool_calls`.
        reasoning: Thinking text, sent before the answer.
        tool_calls: Calls in the service's own shape. `id` and `type` may be left out, and
            `arguments` may be an object instead of a string.
        finish_reason: Becomes "tool_calls" by itself if there are some; None leaves it out.
        usage: The whole `usage` object; None counts one token per character of the texts.
            A stream carries it only if the request has `stream_options.include_usage`.
        flag: The service's safety class, on the answer or on the last chunk.
        search_results: Sent with the answer or with the first chunk.
        chunk_chars: Characters in each chunk.
        chunk_ms: Pause after each chunk.
        first_ms: Pause between the headers of a stream and its first event; JSON is sent so
            much later.
        ids: Number the events with `id:` lines 1, 2, 3, and send a request that carries
            `Last-Event-ID` only what comes after it.
        done: Close the stream with `[DONE]`.
        headers: More response headers.
    """

    text: str | None = None
    _: KW_ONLY
    reasoning: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    finish_reason: str | None = "stop"
    usage: Mapping[str, Any] | None = None
    flag: int = 0
    search_results: Sequence[Mapping[str, Any]] | None = None
    chunk_chars: int = 2
    chunk_ms: float = 0
    first_ms: float = 0
    ids: bool = False
    done: bool = True
    headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.chunk_chars < 1:
            raise ValueError(f"chunk_chars must be at least 1, not {self.chunk_chars}")


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection within an answer.

    Args:
        after_chunks: Events sent before the break; 0 breaks right after the headers. Any other
            number breaks a JSON answer in its middle.
        after_bytes: Bytes of the body sent before the break, instead of `after_chunks`. With
            neither, the break is halfway.
        text: The answer that is broken.
        of: The same as a whole `reply(...)`, for its other options; replaces `text`.
        how: "close" says goodbye (TCP FIN) in the middle of the chunked body; "reset" is a TCP
            RST; "end" is a body properly ended, but without finish marker and `[DONE]`.
        before_headers: Break before the first byte of a response; "end" is then "close".
    """

    after_chunks: int | None = None
    after_bytes: int | None = None
    _: KW_ONLY
    text: str = SAMPLE_TEXT
    of: Reply | None = None
    how: Literal["close", "reset", "end"] = "close"
    before_headers: bool = False


@dataclass(frozen=True, slots=True)
class Stall:
    """Fall silent within an answer, until the client leaves or the server stops.

    Args:
        after_chunks: Events sent before the silence; of a JSON answer, one half if not 0.
        text: The answer that is begun.
        of: The same as a whole `reply(...)`; replaces `text`.
        before_headers: Take the request and never send a byte.
    """

    after_chunks: int = 0
    _: KW_ONLY
    text: str = SAMPLE_TEXT
    of: Reply | None = None
    before_headers: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """Send only comment lines from some point on; before a JSON answer, empty lines.

    Args:
        every_ms: Pause before each heartbeat.
        after_chunks: Events sent before the first one, in a stream.
        text: The answer around them.
        of: The same as a whole `reply(...)`; replaces `text`.
        limit: After so many the rest of the answer follows; None never ends.
        comment: What the comment says.
    """

    every_ms: float
    _: KW_ONLY
    after_chunks: int = 0
    text: str = SAMPLE_TEXT
    of: Reply | None = None
    limit: int | None = None
    comment: str = "keep-alive"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an HTTP error and the service's error envelope.

    Args:
        status: HTTP status.
        code: The service's error code; None takes the usual one of the status.
        message: None takes the usual one of the code.
        retry_after: Seconds, sent as `Retry-After`.
        headers: More response headers.
        body: Sent as it is, instead of the envelope.
        content_type: Type of the body.
    """

    status: int
    code: str | None = None
    message: str | None = None
    _: KW_ONLY
    retry_after: float | None = None
    headers: Mapping[str, str] | None = None
    body: str | bytes | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Report an error inside an answer of HTTP status 200, then end the body.

    A request without `stream` gets the error envelope as its JSON.

    Args:
        code: The service's error code.
        message: None takes the usual one of the code.
        after_chunks: Events sent before the error.
        text: The answer that is begun.
        of: The same as a whole `reply(...)`; replaces `text`.
        bare: Send the error as a line of JSON without `data:`.
    """

    code: str = "internal_error"
    message: str | None = None
    _: KW_ONLY
    after_chunks: int = 0
    text: str = SAMPLE_TEXT
    of: Reply | None = None
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    r"""Send exactly these bytes as the body.

    Args:
        body: The bytes; each item of a sequence is one HTTP chunk in one TCP write.
        status: HTTP status.
        content_type: Type of the body.
        headers: More response headers; with `Content-Length` the body is not chunked.
        pause_ms: Pause after each write.
        end: "normal" ends the body; "close" and "reset" break the connection as `cut` does;
            "stall" stays silent until the client leaves or the server stops.
        framing: False announces a chunked body but writes the bytes bare on the connection, so
            that they must bring their own chunk sizes, or wrong ones: `b"zz\r\n"`. A normal end
            is then the end of the connection.
    """

    body: bytes | Sequence[bytes]
    _: KW_ONLY
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] | None = None
    pause_ms: float = 0
    end: Literal["normal", "close", "reset", "stall"] = "normal"
    framing: bool = True


Telling = Reply | Cut | Stall | Heartbeats | ErrorEvent
"""The steps that tell an answer, whole or in part."""

Step = Telling | Refuse | Raw
"""What the server does with one request."""

reply = Reply
cut = Cut
stall = Stall
heartbeats = Heartbeats
refuse = Refuse
error_event = ErrorEvent
raw = Raw
