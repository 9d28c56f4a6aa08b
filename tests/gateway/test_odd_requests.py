"""Requests as no browser writes them: each is refused for what it is, and nothing fails of it."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from aiohttp import WSMsgType, web

from ernie_async import AsyncClient
from ernie_async.gateway import GatewaySettings, Tenant, make_app
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie, reply

from .conftest import Serve

pytestmark = pytest.mark.anyio

ASK = {"messages": [{"role": "user", "content": "hi"}]}
LOCAL = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
TENANT = Tenant(name="a", token_sha256=token_hash("t"))


async def ask(port: int, start: str, headers: bytes = LOCAL, body: bytes = b"") -> bytes:
    """The bytes of an answer, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    head = start.encode() + b" HTTP/1.1\r\n" + headers + length + b"Connection: close\r\n\r\n"
    writer.write(head + body)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()


def status_of(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.fixture(autouse=True)
def nothing_of_ours_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "gateway failed" not in caplog.text


async def test_model_with_an_odd_name_is_asked_for(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(reply("好"))
    async with serve() as gateway:
        body = {**ASK, "model": "\0", "stream": True}
        url = gateway.url + "/v1/chat/completions"
        async with gateway.session.post(url, json=body) as answer:
            assert answer.status == 200
            assert '"content":"好"' in await answer.text()


@pytest.mark.parametrize(
    "headers",
    [
        b"Host: [\r\n",
        b"Host: localhost\r\nOrigin: http://[\r\n",
        b"Host: localhost\r\nOrigin: http://a\xe2\x84\x80b\r\n",
        b"Host: localhost\r\nOrigin: \xff\r\n",
    ],
)
async def test_hosts_and_origins_that_are_none_are_foreign(serve: Serve, headers: bytes) -> None:
    async with serve() as gateway:
        assert status_of(await ask(gateway.port, "GET /healthz", headers)) == 403


async def test_token_may_be_any_bytes(serve: Serve) -> None:
    async with serve(GatewaySettings(tenants=(TENANT,))) as gateway:
        headers = LOCAL + b"Authorization: Bearer \xff\r\n"
        assert status_of(await ask(gateway.port, "GET /v1/models", headers)) == 401


async def test_body_that_is_not_packed_as_told_is_refused(serve: Serve) -> None:
    async with serve() as gateway:
        headers = LOCAL + JSON + b"Content-Encoding: gzip\r\n"
        answer = await ask(gateway.port, "POST /v1/streams", headers, b"{}")
        assert status_of(answer) == 400
        assert b"encoded as its headers say" in answer


@pytest.mark.parametrize("key", [b"", b"\xff", b"a\tb", b"x" * 201])
async def test_idempotency_key_is_a_short_text(serve: Serve, key: bytes) -> None:
    async with serve() as gateway:
        headers = LOCAL + JSON + b"Idempotency-Key: " + key + b"\r\n"
        answer = await ask(gateway.port, "POST /v1/streams", headers, json.dumps(ASK).encode())
        assert status_of(answer) == 400


async def test_wrong_method_is_told_the_right_ones(serve: Serve) -> None:
    async with serve() as gateway:
        async with gateway.session.delete(gateway.url + "/v1/models") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
            assert (await answer.json())["error"]["code"] == "invalid_request"


async def test_head_sends_no_events_and_opens_no_socket(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(reply("hi"))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        for path, headers in ((started["events_url"], LOCAL), ("/v1/ws", LOCAL + UPGRADE)):
            answer = await ask(gateway.port, f"HEAD {path}", headers)
            assert status_of(answer) == 405
            assert answer.endswith(b"\r\n\r\n")
        assert status_of(await ask(gateway.port, "HEAD /healthz")) == 200


async def test_long_refusal_of_a_handshake_fits_a_close_frame(serve: Serve) -> None:
    async with serve() as gateway:
        path = f"/v1/streams/x/events?last_event_id={'敏' * 90}"
        async with gateway.session.ws_connect(gateway.url + path) as socket:
            message = await socket.receive(timeout=5)
            assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 4400)
            assert message.extra.startswith("Last-Event-ID: expected an id")


async def test_post_is_answered_in_json_even_if_it_asks_for_a_socket(serve: Serve) -> None:
    async with serve() as gateway:
        answer = await ask(gateway.port, "POST /v1/streams", LOCAL + JSON + UPGRADE, b"[]")
        assert status_of(answer) == 400
        assert b'"invalid_request"' in answer


async def test_whole_answer_needs_no_cursor_but_no_wrong_one_either(
    serve: Serve, upstream: MockErnie
) -> None:
    upstream.default(reply("hi"))
    async with serve() as gateway:
        path = "/v1/chat/completions"
        assert (await gateway.post(path, ASK, **{"Last-Event-ID": "abcdefgh-1"}))[0] == 200
        assert (await gateway.post(path, ASK, **{"Last-Event-ID": "nonsense"}))[0] == 400


async def test_cursor_in_the_address_has_to_be_one_even_if_the_header_wins(
    serve: Serve, upstream: MockErnie
) -> None:
    upstream.default(reply("hi"))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        for told, status in (("nonsense", 400), ("abcdefgh-1", 200)):
            url = f"{gateway.url}{started['events_url']}&last_event_id={told}"
            headers = {"Last-Event-ID": "abcdefgh-2"}
            async with gateway.session.get(url, headers=headers) as answer:
                assert answer.status == status


async def test_answer_that_fails_halfway_is_cut_and_gets_no_second_one(
    upstream: MockErnie,
) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError("a mistake")

    async with AsyncClient("k", base_url=upstream.base_url) as client:
        app = make_app(client)
        app.router.add_get("/half", fail)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answer = await ask(runner.addresses[0][1], "GET /half")
        await runner.cleanup()
    assert answer.endswith(b"half\r\n")
    assert answer.count(b"HTTP/1.1") == 1
