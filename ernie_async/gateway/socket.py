"""Several chats on one WebSocket: JSON text frames both ways.

A stream that was started here can be gone on with over server-sent events, and the other way round.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web
from pydantic_core import from_json, to_json

from ernie_async.errors import ConfigError, ErnieError
from ernie_async.gateway.desk import GatewayDesk
from ernie_async.gateway.errors import GatewayError
from ernie_async.gateway.live import LiveStream
from ernie_async.sansio.relay import Fault, fault_of
from ernie_async.sansio.replay import Cursor, StreamEvent, format_id, read_cursor

__all__ = ["ChatSocket"]

AUTH_SECONDS = 5.0
PING_SECONDS = 20.0
MAX_FRAME = 1 << 20

GOING_AWAY, PROTOCOL_ERROR, NOT_AUTHENTICATED, TIMED_OUT = 1001, 4400, 4401, 4408

# What a resume by id starts with already, or what only its own route says.
UNSENT = {"start"}


class ChatSocket:
    """Serves one connection.

    Args:
        desk: Starts and finds streams.
        tenant_of_token: Whose token it is.
        tenant: Whose connection it is; `None` if its first frame has to say so.
    """

    def __init__(
        self,
        desk: GatewayDesk,
        tenant_of_token: Callable[[str], str | None],
        tenant: str | None,
    ) -> None:
        self._desk = desk
        self._tenant_of_token = tenant_of_token
        self._tenant = tenant
        self._socket = web.WebSocketResponse(
            heartbeat=PING_SECONDS, max_msg_size=MAX_FRAME, compress=False
        )
        self._chats: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[str, str] = {}  # the chat's name and the stream's id

    async def close(self) -> None:
        """The gateway is being stopped."""
        await self._socket.close(code=GOING_AWAY)

    async def run(self, request: web.Request) -> web.WebSocketResponse:
        """Serve it to its end."""
        await self._socket.prepare(request)
        try:
            if self._tenant is None and not await self._authenticate():
                return self._socket
            limits = {"chats": self._desk.settings.chats_per_socket, "frame_bytes": MAX_FRAME}
            await self._send({"type": "ready", "limits": limits})
            await self._listen()
        finally:
            for task in self._chats.values():
                task.cancel()
            while self._chats:
                await asyncio.wait(list(self._chats.values()))
        return self._socket

    async def _authenticate(self) -> bool:
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                message = await self._socket.receive()
        except TimeoutError:
            await self._socket.close(code=TIMED_OUT, message=b"no auth frame came")
            return False
        if message.type is not web.WSMsgType.TEXT:
            await self._socket.close(code=PROTOCOL_ERROR)
            return False
        told = _read(message.data) or {}
        token = told.get("token")
        if told.get("type") == "auth" and isinstance(token, str):
            self._tenant = self._tenant_of_token(token)
        if self._tenant is None:
            await self._socket.close(code=NOT_AUTHENTICATED, message=b"a valid token is needed")
        return self._tenant is not None

    async def _listen(self) -> None:
        async for message in self._socket:
            if message.type is not web.WSMsgType.TEXT:
                await self._socket.close(code=PROTOCOL_ERROR, message=b"expected text frames")
                return
            told = _read(message.data)
            kind = None if told is None else told.get("type")
            if told is None or not isinstance(kind, str):
                await self._socket.close(code=PROTOCOL_ERROR, message=b"expected JSON with a type")
                return
            if kind == "ping":
                await self._send({"type": "pong", "t": told.get("t")})
            elif kind.startswith("chat."):
                await self._chat(kind, told)
            else:
                await self._socket.close(code=PROTOCOL_ERROR, message=b"no such type of frame")
                return

    async def _chat(self, kind: str, told: dict[str, Any]) -> None:
        chat = told.get("id")
        try:
            if not isinstance(chat, str) or not 0 < len(chat) <= 100:
                raise ConfigError("id: expected a name for the chat, of 1 to 100 characters")
            if kind == "chat.cancel":
                if chat in self._streams:
                    await self._desk.hub.cancel(self._streams[chat], tenant=self._tenant)
                return
            if kind not in {"chat.create", "chat.resume"}:
                raise ConfigError(f"type: there is no {kind}")
            if chat in self._chats:
                raise ConfigError("id: this chat is under way")
            if len(self._chats) >= self._desk.settings.chats_per_socket:
                message = f"{len(self._chats)} chats are under way, which is all that there may be"
                raise GatewayError(Fault(429, "rate_limited", message, retryable=True))
        except ErnieError as error:
            await self._refuse(chat, error)
            return
        task = asyncio.get_running_loop().create_task(self._serve(chat, kind, told))
        self._chats[chat] = task
        task.add_done_callback(lambda _: self._forget(chat))

    def _forget(self, chat: str) -> None:
        self._chats.pop(chat, None)
        self._streams.pop(chat, None)

    async def _serve(self, chat: str, kind: str, told: dict[str, Any]) -> None:
        try:
            with suppress(ConnectionError):
                try:
                    stream, cursor = await self._stream(kind, told)
                except ErnieError as error:
                    await self._refuse(chat, error)
                else:
                    await self._show(chat, stream, cursor)
        except TimeoutError:  # it does not read what it asked for
            await self._socket.close(code=TIMED_OUT)

    async def _stream(self, kind: str, told: dict[str, Any]) -> tuple[LiveStream, Cursor | None]:
        desk, tenant = self._desk, self._tenant
        assert tenant is not None
        if kind == "chat.resume":
            after = told.get("after")
            if not isinstance(after, str | None):
                raise ConfigError("after: expected an event id or null")
            cursor = read_cursor(after)
            stream_id = str(told.get("stream_id"))
            return await desk.hub.open(stream_id, tenant=tenant, cursor=cursor), cursor
        request = told.get("request")
        if not isinstance(request, dict):
            raise ConfigError("request: expected a chat request, which is an object")
        policy = (
            {} if told.get("on_disconnect") is None else {"on_disconnect": told["on_disconnect"]}
        )
        ask = desk.read({**request, **policy}, is_stream=True)
        stream, _ = await desk.start(ask, tenant, on_disconnect=desk.settings.stream_on_disconnect)
        return stream, None

    async def _show(self, chat: str, stream: LiveStream, cursor: Cursor | None) -> None:
        self._streams[chat] = stream.stream_id
        epoch = stream.log.epoch
        with stream.view(cursor) as viewer:
            started = {"type": "chat.started", "id": chat, "stream_id": stream.stream_id}
            await self._send(started)
            while not viewer.is_over:
                for event in await viewer.wait():
                    if event.kind not in UNSENT:
                        await self._send(frame(chat, epoch, event))
        if viewer.has_lagged:
            lagged = Fault(429, "lagged", "you fell behind; resume by id", retryable=True)
            await self._send({"type": "chat.error", "id": chat, "eid": None, **lagged.payload})
        elif stream.log.has_seen_all(cursor):
            last = StreamEvent(
                stream.log.last_seq,
                "error" if stream.log.status == "error" else "done",
                stream.log.end or {},
            )
            await self._send(frame(chat, epoch, last))

    async def _refuse(self, chat: object, error: ErnieError) -> None:
        fault = error.fault if isinstance(error, GatewayError) else fault_of(error)
        await self._send({"type": "chat.error", "id": chat, "eid": None, **fault.payload})

    async def _send(self, told: dict[str, Any]) -> None:
        async with asyncio.timeout(self._desk.settings.limits.send):
            await self._socket.send_str(to_json(told).decode())


def frame(chat: str, epoch: str, event: StreamEvent) -> dict[str, Any]:
    """An event as the socket sends it; the id of a tool's call is `call_id` here."""
    told = event.payload
    if "id" in told:
        told = {**told, "call_id": told["id"]}
    return {
        **told,
        "type": f"chat.{event.kind}",
        "id": chat,
        "eid": format_id(epoch, event.seq),
    }


def _read(data: str) -> dict[str, Any] | None:
    try:
        told = from_json(data)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
