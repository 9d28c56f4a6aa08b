"""The gateway as an application of aiohttp.web: routes and what they answer.

What an answer is, is decided in `desk` and `hub`; who gets in, in `guard`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from functools import cache, cached_property
from pathlib import Path
from secrets import token_urlsafe

from aiohttp import web
from pydantic_core import to_json

from ernie_async.client import AsyncClient
from ernie_async.errors import ErnieError
from ernie_async.gateway.desk import GatewayDesk
from ernie_async.gateway.frames import (
    Framing,
    chunk_framing,
    cursor_of,
    event_framing,
    frames,
    sse_headers,
)
from ernie_async.gateway.guard import Guard, json_answer
from ernie_async.gateway.live import LiveStream
from ernie_async.gateway.openapi import describe
from ernie_async.gateway.production import OnEnd
from ernie_async.gateway.settings import GatewaySettings
from ernie_async.gateway.socket import ChatSocket
from ernie_async.gateway.stores import Store
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.openai_frames import ChunkFrames
from ernie_async.sansio.relay import Fault, GatewayError, usage_payload
from ernie_async.sansio.replay import Cursor
from ernie_async.sansio.tickets import fingerprint, is_ticket, make_ticket

__all__ = ["GATEWAY", "aiohttp_sse", "make_app"]

# A piece that is larger may have to wait for the viewer, even where nothing else does.
SMALL_BYTES = 32 << 10

PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

GATEWAY = web.AppKey("GATEWAY", GatewayDesk)
"""Where an application has its desk: `app[GATEWAY].hub` is the hub."""


def make_app(
    client: AsyncClient,
    settings: GatewaySettings | None = None,
    *,
    store: Store | None = None,
    content_filter: ContentFilter | None = None,
    on_end: Sequence[OnEnd] = (),
) -> web.Application:
    """The gateway as an application.

    Run it with `handler_cancellation=True`, else nobody is told of clients that leave.

    Args:
        client: Asks the model. It is not closed here.
        settings: `None` for an open gateway, which serves its own machine only.
        store: Where answers are kept for other processes; `None` for this one alone.
        content_filter: What must not be shown. In mode `live`, streams of events show text at once
            and take back what is found; chats in OpenAI's form, which cannot, use `window`.
        on_end: Told what each answer came to.

    Raises:
        ConfigError: A setting cannot be right.
    """
    settings = GatewaySettings() if settings is None else settings
    desk = GatewayDesk(client, settings, store=store, content_filter=content_filter, on_end=on_end)
    guard = Guard(desk.tenants, settings.origins)
    app = web.Application(middlewares=[guard.stand_before], client_max_size=settings.body)
    app[GATEWAY] = desk
    app.on_response_prepare.append(guard.add_headers)
    routes = Routes(desk, guard)
    app.add_routes(
        [
            web.get("/", routes.page),
            web.get("/openapi.json", routes.openapi),
            web.post("/v1/chat/completions", routes.chat),
            web.get("/v1/models", routes.models),
            web.post("/v1/streams", routes.start),
            web.get("/v1/streams/{id}", routes.snapshot),
            web.get("/v1/streams/{id}/events", routes.events, allow_head=False),
            web.post("/v1/streams/{id}/cancel", routes.cancel),
            web.get("/v1/ws", routes.socket, allow_head=False),
            web.get("/healthz", routes.health),
            web.get("/readyz", routes.ready),
            web.get("/metrics", routes.metrics),
        ]
    )

    async def lifespan(_: web.Application) -> AsyncIterator[None]:
        await desk.hub.ready()
        yield
        await desk.hub.aclose()

    app.cleanup_ctx.append(lifespan)
    app.on_shutdown.append(routes.close_sockets)
    return app


async def aiohttp_sse(
    request: web.Request,
    stream: LiveStream,
    *,
    framing: Framing | None = None,
    cursor: Cursor | None = None,
) -> web.StreamResponse:
    """Answer a request with a stream, from where its client has read.

    Args:
        request: Its `Last-Event-ID` is read here.
        stream: As the hub gave it.
        framing: In which form; `None` for the gateway's own events.
        cursor: Instead of what the request says.

    Raises:
        ConfigError: The client's cursor cannot be read.
    """
    if cursor is None:
        cursor = cursor_of(request.headers, request.query)
    if stream.log.has_seen_all(cursor):
        return web.Response(status=204)  # what stops a browser from coming back again
    http = f"{request.version.major}.{request.version.minor}"
    response = web.StreamResponse(headers=sse_headers(stream, http=http))
    with suppress(ConnectionError), stream.view(cursor) as viewer:  # the client may leave
        await response.prepare(request)
        async with aclosing(frames(viewer, framing or event_framing(stream))) as pieces:
            async for piece in pieces:
                if not await _send(request, response, piece, stream.limits.send):
                    break
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, piece: bytes, seconds: float
) -> bool:
    """Send a piece; say whether the viewer took it in time."""
    transport = request.transport
    if transport is None:
        return False
    if len(piece) < SMALL_BYTES and not transport.get_write_buffer_size():
        await response.write(piece)  # there is room for it, so nobody has to wait
        return True
    try:
        async with asyncio.timeout(seconds):
            await response.write(piece)
    except TimeoutError:
        transport.abort()
        return False
    return True


class Routes:
    """What the routes answer."""

    def __init__(self, desk: GatewayDesk, guard: Guard) -> None:
        self._desk = desk
        self._guard = guard
        self._sockets: set[ChatSocket] = set()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """An answer in OpenAI's form, streamed or not; one that broke off goes on by event id."""
        desk, tenant = self._desk, self._guard.tenant_of(request)
        cursor = cursor_of(request.headers, {})
        body = await self._body(request)
        ask = desk.read(body)
        if not ask.is_stream:
            answer = await desk.answer(ask, tenant)
            told = answer.model_dump(mode="json", exclude_unset=True)
            return json_answer({**told, "usage": usage_payload(answer.usage)})
        mark = fingerprint(b"chat", tenant.encode(), body)
        if cursor is None:
            policy = desk.settings.chat_on_disconnect
            stream, _ = await desk.start(
                ask, tenant, on_disconnect=policy, takes_back=False, fingerprint=mark
            )
        else:
            stream = await desk.hub.open_cursor(cursor, tenant=tenant, fingerprint=mark)
            if not stream.log.knows(cursor):  # chunks cannot say that everything comes anew
                raise GatewayError.unknown_stream()
        chunks = ChunkFrames(
            stream.stream_id,
            stream.log.epoch,
            model=stream.record.model,
            created=stream.record.created,
            has_usage=ask.has_usage,
        )
        return await aiohttp_sse(request, stream, framing=chunk_framing(chunks), cursor=cursor)

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Start a stream that can be left and come back to."""
        desk, tenant = self._desk, self._guard.tenant_of(request)
        body = await self._body(request)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not (0 < len(key) <= 200 and key.isprintable()):
            message = "Idempotency-Key: expected 1 to 200 characters of text"
            raise GatewayError(Fault(400, "invalid_request", message))
        stream, is_new = await desk.start(
            desk.read(body, is_stream=True),
            tenant,
            on_disconnect=desk.settings.stream_on_disconnect,
            key=key,
            fingerprint=fingerprint(tenant.encode(), body),
        )
        stream_id, limits = stream.stream_id, desk.settings.limits
        ticket = make_ticket(desk.settings.ticket_secret, stream_id)
        told = {
            "stream_id": stream_id,
            "events_url": f"/v1/streams/{stream_id}/events?ticket={ticket}",
            "ticket": ticket,
            "expires_at": stream.record.created + round(limits.life + limits.retention),
        }
        answer = json_answer(told, status=201 if is_new else 200)
        answer.headers["X-Stream-Id"] = stream_id
        return answer

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The events of a stream."""
        stream_id, ticket = request.match_info["id"], request.query.get("ticket")
        if ticket is None:
            tenant: str | None = self._guard.tenant_of(request)
        elif is_ticket(self._desk.settings.ticket_secret, stream_id, ticket):
            tenant = None
        else:
            raise GatewayError(Fault(401, "unauthorized", "the ticket is not for this stream"))
        cursor = cursor_of(request.headers, request.query)
        stream = await self._desk.hub.open(stream_id, tenant=tenant, cursor=cursor)
        return await aiohttp_sse(request, stream)

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        """How far a stream is."""
        tenant = self._guard.tenant_of(request)
        stream = await self._desk.hub.open(request.match_info["id"], tenant=tenant)
        return json_answer(stream.log.snapshot())

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Stop a stream."""
        tenant = self._guard.tenant_of(request)
        stream = await self._desk.hub.cancel(request.match_info["id"], tenant=tenant)
        return json_answer({"stream_id": stream.stream_id}, status=202)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Several chats on one WebSocket."""
        if "Authorization" in request.headers:
            tenant: str | None = self._guard.tenant_of(request)
        else:
            tenant = self._desk.tenants.find("")
        if len(self._sockets) >= self._desk.settings.limits.streams:
            raise GatewayError(Fault(429, "rate_limited", "too many WebSockets are open"))
        socket = ChatSocket(self._desk, tenant)
        self._sockets.add(socket)
        try:
            return await socket.run(request)
        finally:
            self._sockets.discard(socket)

    async def close_sockets(self, _: web.Application) -> None:
        """The application is being stopped."""
        await asyncio.gather(*(socket.close() for socket in self._sockets))

    async def models(self, request: web.Request) -> web.StreamResponse:
        """The models that may be asked."""
        self._guard.tenant_of(request)
        names = list(self._desk.settings.rules.models)
        if not names:
            try:
                names = [card.id for card in await self._desk.client.list_models()]
            except ErnieError:
                if self._desk.client.model is None:
                    raise
                names = [self._desk.client.model]
        cards = [{"id": name, "object": "model", "owned_by": "ernie-async"} for name in names]
        return json_answer({"object": "list", "data": cards})

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Alive."""
        return web.Response(text="ok\n")

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Ready for new streams."""
        if self._desk.hub.is_draining:
            return web.Response(text="draining\n", status=503)
        return web.Response(text="ok\n")

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """What was counted."""
        text = self._desk.metrics.text(self._desk.hub)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def openapi(self, _: web.Request) -> web.StreamResponse:
        """What the routes take and answer."""
        return web.Response(body=self._document, content_type="application/json")

    @cached_property
    def _document(self) -> bytes:
        return to_json(describe(self._desk.settings))

    async def page(self, _: web.Request) -> web.StreamResponse:
        """The chat page."""
        nonce = token_urlsafe(16)
        headers = {
            "Content-Security-Policy": PAGE_POLICY.format(nonce),
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        text = page_text().replace("{nonce}", nonce)
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)

    @staticmethod
    async def _body(request: web.Request) -> bytes:
        # Anything else could be sent by a page elsewhere without the browser asking first.
        if request.content_type != "application/json":
            message = "Content-Type: expected application/json"
            raise GatewayError(Fault(400, "invalid_request", message))
        try:
            return await request.read()
        except web.RequestPayloadError:
            message = "expected a body that is encoded as its headers say"
            raise GatewayError(Fault(400, "invalid_request", message)) from None


@cache
def page_text() -> str:
    """The page, with `{nonce}` where the nonce goes."""
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8")
