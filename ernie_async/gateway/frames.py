"""The bytes that one viewer gets, for any framework that can send bytes."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple

from ernie_async.gateway.live import LiveStream, Viewer
from ernie_async.sansio.openai_frames import ChunkFrames
from ernie_async.sansio.replay import (
    HEARTBEAT,
    LAGGED,
    OPENING,
    Cursor,
    StreamEvent,
    encode_events,
    read_cursor,
)

__all__ = ["Framing", "chunk_framing", "cursor_of", "event_framing", "frames", "sse_headers"]


class Framing(NamedTuple):
    """In which form events are sent.

    Attributes:
        encode: Writes events.
        opening: The first bytes.
        heartbeat: Sent in silence.
        lagged: Sent to who fell behind.
    """

    encode: Callable[[Sequence[StreamEvent]], bytes]
    opening: bytes = OPENING
    heartbeat: bytes = HEARTBEAT
    lagged: bytes = LAGGED


def sse_headers(stream: LiveStream, *, http: str) -> dict[str, str]:
    """The headers of a response.

    Args:
        stream: Whose.
        http: Its version, such as `1.1`.
    """
    # `no-transform` and `X-Accel-Buffering` keep proxies from collecting what should flow.
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
        "X-Stream-Id": stream.stream_id,
    }
    return {**headers, "Connection": "keep-alive"} if http == "1.1" else headers


def event_framing(stream: LiveStream) -> Framing:
    """The gateway's own events."""
    epoch = stream.log.epoch
    return Framing(lambda events: encode_events(epoch, events))


def chunk_framing(chunks: ChunkFrames) -> Framing:
    """Chunks in OpenAI's form.

    Comments stand without an empty line, and no `retry` is sent: openai-python, and the decoder
    that many others took from it, would see an event without data there.
    """
    return Framing(chunks.encode, opening=b": ok\n", heartbeat=b": hb\n", lagged=b": lagged\n")


def cursor_of(headers: Mapping[str, str], query: Mapping[str, str]) -> Cursor | None:
    """Up to where a client has read: the header wins, since a browser keeps it up to date.

    Raises:
        ConfigError: It is no id of ours.
    """
    told = headers.get("Last-Event-ID"), query.get("last_event_id")
    header, other = map(read_cursor, told)
    return header or other


async def frames(viewer: Viewer, framing: Framing) -> AsyncGenerator[bytes, None]:
    """What to send, piece by piece; each piece ends where a frame does.

    Args:
        viewer: Entered, and left, by the caller.
        framing: In which form.
    """
    yield framing.opening
    while not viewer.is_over:
        events = await viewer.wait()
        if events:
            yield framing.encode(events)
        elif not viewer.is_over:
            yield framing.heartbeat
    if viewer.has_lagged:
        yield framing.lagged
