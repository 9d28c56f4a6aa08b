"""The bytes that one viewer gets, for any framework that can send bytes."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from ernie_async.errors import ConfigError
from ernie_async.gateway.errors import GatewayError
from ernie_async.gateway.live import LiveStream, Viewer
from ernie_async.sansio.relay import fault_of
from ernie_async.sansio.replay import (
    HEARTBEAT,
    LAGGED,
    OPENING,
    Cursor,
    StreamEvent,
    encode_events,
    read_cursor,
)

__all__ = ["SSE_HEADERS", "Encode", "cursor_of", "event_encoder", "frames"]

Encode = Callable[[Sequence[StreamEvent]], bytes]

# `no-transform` and `X-Accel-Buffering` keep proxies from collecting what should flow.
SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


def event_encoder(stream: LiveStream) -> Encode:
    """Writes the gateway's own events."""
    epoch = stream.log.epoch
    return lambda events: encode_events(epoch, events)


def cursor_of(headers: Mapping[str, str], query: Mapping[str, str]) -> Cursor | None:
    """Up to where a client has read: the header wins, since a browser keeps it up to date.

    Raises:
        GatewayError: It is no id of ours.
    """
    try:
        return read_cursor(headers.get("Last-Event-ID") or query.get("last_event_id"))
    except ConfigError as error:
        raise GatewayError(fault_of(error)) from error


async def frames(viewer: Viewer, encode: Encode) -> AsyncGenerator[bytes, None]:
    """What to send, piece by piece; each piece ends where a frame does.

    Args:
        viewer: Entered, and left, by the caller.
        encode: Writes events.
    """
    yield OPENING
    while not viewer.is_over:
        events = await viewer.wait()
        if events:
            yield encode(events)
        elif not viewer.is_over:
            yield HEARTBEAT
    if viewer.has_lagged:
        yield LAGGED
