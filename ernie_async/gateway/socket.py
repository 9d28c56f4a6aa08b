"""Several chats on one WebSocket: JSON text frames both ways.

A stream that was started here can be gone on with over server-sent events, and the other way round.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from ernie_async.errors import ConfigError, ErnieError
from ernie_async.gateway.desk import GatewayDesk
from ernie_async.gateway.live import LiveStream
from ernie_async.sansio.relay import OUR_MISTAKE, Fault, GatewayError, fault_of
from ernie_async.sansio.replay import Cursor, StreamEvent, format_id, read_cursor
from ernie_async.types.wire import read_json

__all__ = ["ChatSocket", "refuse_socket"]

logger: logging.Logger = logging.getLogger("ernie_async")

AUTH_SECONDS = 5.0
GOODBYE_SECONDS = 1.0
MAX_FRAME = 1 << 20
MAX_REASON = 123  # bytes, by RFC 6455

# So many pings without an answer: instead of one more, the connection is closed.
MOST_UNANSWERED = 2

CLIENT_CLOSED_REQUEST = 499  # for the access log alone
GOING_AWAY, PROTOCOL_ERROR, NOT_AUTHENTICATED, TIMED_OUT = 1001, 4400, 4401, 4408

OVER = {web.WSMsgType.CLOSE, web.WSMsgType.CLOSING, web.WSMsgType.CLOSED, web.WSMsgType.ERROR}


class _GoodbyeError(Exception):
    """Closes the connection, with a code and a word."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def open_socket(request: web.Request, socket: web.WebSocketResponse) -> bool:
    """Shake hands; say whether anybody is there."""
    try:
        await socket.prepare(request)
    except ConnectionError:
        return False
    return True


async def refuse_socket(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Say by a close code why not: a browser shows no page the status of a refused handshake."""
    socket = web.WebSocketResponse(timeout=GOODBYE_SECONDS)
    if not await open_socket(request, socket):
        return web.Response(status=fault.status)
    reason = fault.message.encode()[:MAX_REASON].decode(errors="ignore").encode()
    await socket.close(code=4000 + fault.status, message=reason)
    return socket


class ChatSocket:
    """Serves one connection.

    Args:
        desk: Starts and finds streams.
        tenant: Whose connection it is; `None` if its first frame has to say so.
    """

    def __init__(self, desk: GatewayDesk, tenant: str | None) -> None:
        self._desk = desk
        self._tenant = tenant
        self._socket = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=MAX_FRAME, timeout=GOODBYE_SECONDS
        )
        self._transport: asyncio.Transport | None = None
        self._ping_at = 0.0
        self._n_unanswered = 0
        self._chats: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[str, str] = {}  # the chat's name and the stream's id

    async def close(self) -> None:
        """The gateway is being stopped."""
        await self._socket.close(code=GOING_AWAY, drain=False)

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Serve it to its end."""
        settings = self._desk.settings
        if not await open_socket(request, self._socket):
            return web.Response(status=CLIENT_CLOSED_REQUEST)
        self._transport = request.transport
        self._ping_at = asyncio.get_running_loop().time() + settings.ping
        try:
            if self._tenant is None:
                await self._authenticate()
            limits = {"chats": settings.chats_per_socket, "frame_bytes": MAX_FRAME}
            await self._send({"type": "ready", "limits": limits})
            while (told := await self._next()) is not None:
                await self._obey(told)
        except _GoodbyeError as goodbye:
            message = str(goodbye).encode()
            await self._socket.close(code=goodbye.code, message=message, drain=False)
            self._abort()
        except (ConnectionError, TimeoutError):
            self._abort()
        finally:
            for task in self._chats.values():
                task.cancel()
            while self._chats:
                await asyncio.wait(list(self._chats.values()))
        return self._socket

    def _abort(self) -> None:
        """It is gone, or reads no more."""
        if self._transport is not None:
            self._transport.abort()

    async def _authenticate(self) -> None:
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                told = await self._next() or {}
        except TimeoutError:
            raise _GoodbyeError(TIMED_OUT, "no auth frame came") from None
        token = told.get("token")
        if told.get("type") == "auth" and isinstance(token, str):
            self._tenant = self._desk.tenants.find(token)
        if self._tenant is None:
            raise _GoodbyeError(NOT_AUTHENTICATED, "a valid token is needed")

    async def _next(self) -> dict[str, Any] | None:
        """The next frame; `None` if there will be none."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                message = await self._socket.receive(max(1e-3, self._ping_at - loop.time()))
            except TimeoutError:
                await self._ping()
                continue
            if message.type in OVER:
                return None
            if message.type is web.WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is web.WSMsgType.PONG:
                self._n_unanswered = 0
            elif message.type is web.WSMsgType.TEXT:
                return _read(message.data)
            else:
                raise _GoodbyeError(PROTOCOL_ERROR, "expected text frames")

    async def _ping(self) -> None:
        if self._n_unanswered == MOST_UNANSWERED:
            raise _GoodbyeError(TIMED_OUT, "two pings were not answered")
        self._n_unanswered += 1
        self._ping_at += self._desk.settings.ping
        await self._socket.ping()

    async def _obey(self, told: dict[str, Any]) -> None:
        kind = told["type"]
        if kind == "ping":
            await self._send({"type": "pong", "t": told.get("t")})
        elif kind.startswith("chat."):
            try:
                await self._chat(kind, told)
            except Exception as error:  # noqa: BLE001 - it is told and logged
                await self._refuse(told.get("id"), error)
        else:
            raise _GoodbyeError(PROTOCOL_ERROR, "no such type of frame")

    async def _chat(self, kind: str, told: dict[str, Any]) -> None:
        chat = told.get("id")
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
        task = asyncio.get_running_loop().create_task(self._serve(chat, kind, told))
        self._chats[chat] = task
        task.add_done_callback(lambda _: self._forget(chat))

    def _forget(self, chat: str) -> None:
        self._chats.pop(chat, None)
        self._streams.pop(chat, None)

    async def _serve(self, chat: str, kind: str, told: dict[str, Any]) -> None:
        open_chat = self._create if kind == "chat.create" else self._resume
        try:
            try:
                stream, cursor = await open_chat(told)
            except Exception as error:  # noqa: BLE001 - it is told and logged
                await self._refuse(chat, error)
            else:
                await self._show(chat, stream, cursor)
        except (ConnectionError, TimeoutError):
            self._abort()

    async def _create(self, told: dict[str, Any]) -> tuple[LiveStream, None]:
        desk, request, policy = self._desk, told.get("request"), told.get("on_disconnect")
        if not isinstance(request, dict):
            raise ConfigError("request: expected a chat request, which is an object")
        if policy is not None:
            request = {**request, "on_disconnect": policy}
        ask = desk.read(request, is_stream=True)
        assert self._tenant is not None
        policy = desk.settings.stream_on_disconnect
        stream, _ = await desk.start(ask, self._tenant, on_disconnect=policy)
        return stream, None

    async def _resume(self, told: dict[str, Any]) -> tuple[LiveStream, Cursor | None]:
        after = told.get("after")
        if not isinstance(after, str | None):
            raise ConfigError("after: expected an event id or null")
        cursor = read_cursor(after)
        hub, stream_id = self._desk.hub, str(told.get("stream_id"))
        return await hub.open(stream_id, tenant=self._tenant, cursor=cursor), cursor

    async def _show(self, chat: str, stream: LiveStream, cursor: Cursor | None) -> None:
        self._streams[chat] = stream.stream_id
        log = stream.log
        with stream.view(cursor) as viewer:
            started = {"type": "chat.started", "id": chat, "stream_id": stream.stream_id}
            await self._send(started)
            while not viewer.is_over:
                for event in await viewer.wait():
                    if event.kind != "start":
                        await self._send(frame(chat, log.epoch, event))
        if viewer.has_lagged:
            lagged = Fault(429, "lagged", "you fell behind; resume by id", retryable=True)
            await self._refuse(chat, GatewayError(lagged))
        elif log.has_seen_all(cursor):
            kind = "error" if log.status == "error" else "done"
            last = StreamEvent(log.last_seq, kind, log.end or {})
            await self._send(frame(chat, log.epoch, last))

    async def _refuse(self, chat: object, error: Exception) -> None:
        if isinstance(error, ErnieError):
            fault = fault_of(error)
        else:
            logger.error("a chat of the gateway failed", exc_info=error)
            fault = OUR_MISTAKE
        await self._send({"type": "chat.error", "id": chat, "eid": None, **fault.payload})

    async def _send(self, told: dict[str, Any]) -> None:
        async with asyncio.timeout(self._desk.settings.limits.send):
            # A client may send numbers that no JSON can say again, such as 1e999.
            data = to_json(told, inf_nan_mode="null")
            await self._socket.send_frame(data, web.WSMsgType.TEXT)


def frame(chat: str, epoch: str, event: StreamEvent) -> dict[str, Any]:
    """An event as the socket sends it; the id of a tool's call is `call_id` here."""
    told = event.payload
    if "id" in told:
        told = {**told, "call_id": told["id"]}
    return {**told, "type": f"chat.{event.kind}", "id": chat, "eid": format_id(epoch, event.seq)}


def _read(data: str) -> dict[str, Any]:
    told = None
    with suppress(ValueError):
        told = read_json(data, allow_inf_nan=False)
    if not isinstance(told, dict) or not isinstance(told.get("type"), str):
        raise _GoodbyeError(PROTOCOL_ERROR, "expected JSON with a type")
    return told
