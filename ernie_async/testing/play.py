"""One step played on one connection: when each piece is sent, and how the answer breaks.

Knows one exchange at a time; which step it is, and who may ask, is decided in `server`.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import web

from ernie_async.sansio.sse import encode_event
from ernie_async.testing import render
from ernie_async.testing.script import (
    Cut,
    ErrorEvent,
    Heartbeats,
    Raw,
    Refuse,
    Reply,
    Stall,
    Step,
    Telling,
)
from ernie_async.testing.seen import Seen


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request being answered: its record, the id of its answer, and headers to send."""

    request: web.BaseRequest
    seen: Seen
    body_id: str
    headers: dict[str, str]


async def play(step: Step, exchange: Exchange, *, whole: bytes | None = None) -> web.StreamResponse:
    """Answer as the step says, to its end.

    Args:
        step: What to do.
        exchange: The request.
        whole: The answer that the step tells or breaks, in JSON; None for that of a chat.
    """
    if isinstance(step, Refuse):
        return await refuse(step, exchange)
    if isinstance(step, Raw):
        return await send_raw(step, exchange)
    return await tell(step, exchange, whole)


async def refuse(step: Refuse, exchange: Exchange) -> web.StreamResponse:
    """Send an error."""
    body = render.refusal_body(step, body_id=exchange.body_id)
    headers = {"Content-Type": step.content_type, **(step.headers or {})}
    if step.retry_after is not None:
        headers["Retry-After"] = f"{step.retry_after:g}"
    return await send_whole(exchange, body, status=step.status, headers=headers)


async def send_json(
    exchange: Exchange, body: bytes, *, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send a JSON answer."""
    json = {"Content-Type": "application/json"}
    return await send_whole(exchange, body, headers={**json, **(headers or {})})


async def send_whole(
    exchange: Exchange, body: bytes, *, status: int = 200, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a body of known length."""
    response = web.Response(status=status, body=body, headers={**exchange.headers, **headers})
    await response.prepare(exchange.request)
    await response.write_eof()
    return response


async def tell(step: Telling, exchange: Exchange, whole: bytes | None = None) -> web.StreamResponse:
    """Tell an answer, as far as the step goes."""
    if isinstance(step, Cut) and step.before_headers:
        return await hang_up(exchange, web.StreamResponse(), how=step.how)
    if isinstance(step, Stall) and step.before_headers:
        await silence()
    request, is_stream = exchange.seen.json, whole is None and exchange.seen.is_stream
    reply = render.told_reply(step)
    now = int(time.time())
    if is_stream:
        events = render.events(reply, request, body_id=exchange.body_id, created=now)
        if reply.ids:
            events = events[last_event_id(exchange.seen) :]
        before, after = render.split_events(step, events)
    elif isinstance(step, ErrorEvent):
        return await send_json(exchange, error_of(step, exchange))
    else:
        await asyncio.sleep(reply.first_ms / 1000)
        body = whole or render.to_json(
            render.completion(reply, request, body_id=exchange.body_id, created=now)
        )
        if isinstance(step, Reply):
            return await send_json(exchange, body, headers=reply.headers)
        before, after = render.split_body(step, body)

    content_type = "text/event-stream" if is_stream else "application/json"
    response = web.StreamResponse(
        headers={"Content-Type": content_type, **exchange.headers, **(reply.headers or {})}
    )
    await response.prepare(exchange.request)
    if is_stream:
        await asyncio.sleep(reply.first_ms / 1000)
    await send_pieces(response, before, reply.chunk_ms)
    if isinstance(step, Cut):
        return await hang_up(exchange, response, how=step.how)
    if isinstance(step, Stall):
        await silence()
    if isinstance(step, Heartbeats):
        await beat(step, response, is_stream=is_stream)
        await send_pieces(response, after, reply.chunk_ms)
    if isinstance(step, ErrorEvent):
        error = error_of(step, exchange)
        await response.write(error + b"\n\n" if step.bare else encode_event(error))
    await response.write_eof()
    return response


def error_of(step: ErrorEvent, exchange: Exchange) -> bytes:
    """The error that an `error_event` reports."""
    return render.error_body(200, step.code, step.message, body_id=exchange.body_id)


def last_event_id(seen: Seen) -> int:
    """How many numbered events the client says it has."""
    given = seen.headers.get("Last-Event-ID", "")
    return int(given) if given.isdecimal() else 0


async def send_pieces(
    response: web.StreamResponse, pieces: Iterable[bytes], pause_ms: float
) -> None:
    """Send each piece in a write of its own; asyncio sets TCP_NODELAY, so in its own packet.

    Even without a pause everybody else has a turn after each piece.
    """
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause_ms / 1000)


async def beat(step: Heartbeats, response: web.StreamResponse, *, is_stream: bool) -> None:
    """Send heartbeats, up to the limit or for ever."""
    sign = render.heartbeat(step, is_stream=is_stream)
    sent = 0
    while step.limit is None or sent < step.limit:
        await asyncio.sleep(step.every_ms / 1000)
        await response.write(sign)
        sent += 1


async def send_raw(step: Raw, exchange: Exchange) -> web.StreamResponse:
    """Send the step's bytes and end as it says."""
    headers = {"Content-Type": step.content_type, **exchange.headers, **(step.headers or {})}
    response = web.StreamResponse(status=step.status, headers=headers)
    await response.prepare(exchange.request)
    pieces = [step.body] if isinstance(step.body, bytes) else step.body
    if step.framing:
        await send_pieces(response, pieces, step.pause_ms)
    else:
        for piece in pieces:
            if (transport := exchange.request.transport) is not None:
                transport.write(piece)
            await asyncio.sleep(step.pause_ms / 1000)
    if step.end == "stall":
        await silence()
    if step.end != "normal":
        return await hang_up(exchange, response, how=step.end)
    if not step.framing:
        return await hang_up(exchange, response, how="close")
    await response.write_eof()
    return response


async def hang_up(
    exchange: Exchange, response: web.StreamResponse, *, how: str
) -> web.StreamResponse:
    """Break off, as the script says."""
    exchange.seen.ended = "cut"
    if how == "end" and response.prepared:
        await response.write_eof()
        return response
    await break_off(exchange.request, is_reset=how == "reset")
    return response


async def break_off(request: web.BaseRequest, *, is_reset: bool = False) -> None:
    """Break the connection, once the operating system has taken what was written."""
    transport = request.transport
    if transport is None:
        return
    while transport.get_write_buffer_size():  # noqa: ASYNC110 - asyncio tells nobody when it is 0
        await asyncio.sleep(0.001)
    if is_reset:
        # Lingering for zero seconds turns the goodbye into a RST.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()


async def silence() -> None:
    """Wait until cancelled: aiohttp does it when the client leaves, the server when it stops."""
    await asyncio.get_running_loop().create_future()
