"""The WebSocket: chats beside each other, and streams that move between it and SSE."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import WSMsgType

from ernie_async.gateway import GatewaySettings, StreamLimits, Tenant
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie, reply, stall
from tests.waiting import until

from .conftest import Serve

pytestmark = pytest.mark.anyio

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = "量子纠缠是两个粒子共享同一个状态的现象。"
WITH_TOKEN = GatewaySettings(tenants=(Tenant(name="a", token_sha256=token_hash("t")),))


def create(chat: str, **more: object) -> dict[str, object]:
    return {"type": "chat.create", "id": chat, "request": REQUEST, **more}


async def until_end(socket: aiohttp.ClientWebSocketResponse, *chats: str) -> dict[str, list[dict]]:
    """The frames of these chats, up to the last one's end."""
    told: dict[str, list[dict]] = {chat: [] for chat in chats}
    left = set(chats)
    while left:
        frame = await socket.receive_json(timeout=5)
        told[frame["id"]].append(frame)
        if frame["type"] in {"chat.done", "chat.error"}:
            left.discard(frame["id"])
    return told


def text_of(frames: list[dict]) -> str:
    return "".join(frame.get("text", "") for frame in frames if frame["type"] == "chat.delta")


async def test_chats_beside_each_other(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(reply(TEXT, chunk_ms=2))
    async with serve() as gateway, gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
        assert (await socket.receive_json())["limits"]["chats"] == 8
        for chat in "abc":
            await socket.send_json(create(chat))
        told = await until_end(socket, *"abc")
        for frames in told.values():
            assert frames[0]["type"] == "chat.started"
            assert text_of(frames) == TEXT
            assert [frame["type"] for frame in frames[-2:]] == ["chat.usage", "chat.done"]
        await socket.send_json(create("a"))  # the name may be used again
        assert text_of((await until_end(socket, "a"))["a"]) == TEXT
        await socket.send_json({"type": "ping", "t": 7})
        assert await socket.receive_json() == {"type": "pong", "t": 7}


async def test_stream_moves_between_socket_and_events(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(reply(TEXT, chunk_ms=5))
    async with serve() as gateway:
        async with gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
            await socket.receive_json()
            await socket.send_json(create("a"))
            stream_id = (await socket.receive_json())["stream_id"]
            first = await socket.receive_json()
        rest = await gateway.read(f"/v1/streams/{stream_id}/events", last=first["eid"])
        texts = [json.loads(event.data).get("text", "") for event in rest]
        assert first["text"] + "".join(texts) == TEXT
        async with gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
            await socket.receive_json()
            resume = {"type": "chat.resume", "id": "b", "stream_id": stream_id}
            await socket.send_json({**resume, "after": first["eid"]})
            frames = (await until_end(socket, "b"))["b"]
            assert first["text"] + text_of(frames) == TEXT
            await socket.send_json({**resume, "after": frames[-1]["eid"]})
            assert [f["type"] for f in (await until_end(socket, "b"))["b"]] == [
                "chat.started",
                "chat.done",
            ]
        assert upstream.requests_made == 1


async def test_cancel_and_bad_frames(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(stall(after_chunks=1))
    async with serve() as gateway, gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
        await socket.receive_json()
        for bad in (
            {"type": "chat.create", "id": "x"},
            {"type": "chat.create", "id": "x", "request": {**REQUEST, "base_url": "http://e"}},
            {"type": "chat.create", "id": "x", "request": REQUEST, "on_disconnect": "finish"},
            {"type": "chat.resume", "id": "x", "stream_id": "st_none"},
            {"type": "chat.resume", "id": "x", "stream_id": "st_none", "after": 5},
            {"type": "chat.dance", "id": "x"},
        ):
            await socket.send_json(bad)
            frame = await socket.receive_json(timeout=2)
            assert (frame["type"], frame["id"], frame["eid"]) == ("chat.error", "x", None)
        await socket.send_json({"type": "chat.create", "request": REQUEST})
        assert (await socket.receive_json())["code"] == "invalid_request"
        for n in range(9):
            await socket.send_json(create(f"c{n}"))
        refused = None
        while refused is None:
            frame = await socket.receive_json(timeout=2)
            refused = frame if frame["type"] == "chat.error" else None
        assert (refused["id"], refused["code"]) == ("c8", "rate_limited")
        await until(lambda: gateway.hub.n_viewers == 8)
        for n in range(8):
            await socket.send_json({"type": "chat.cancel", "id": f"c{n}"})
        ended = await until_end(socket, *(f"c{n}" for n in range(8)))
        assert all(frames[-1]["cancelled"] for frames in ended.values())


async def test_pong_is_json(serve: Serve) -> None:
    async with serve() as gateway, gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
        await socket.receive_json()
        await socket.send_str('{"type": "ping", "t": 1e999}')  # no number that we could say again
        assert (await socket.receive()).data == '{"type":"pong","t":null}'


@pytest.mark.parametrize(
    "bad", ["{", '{"type": "ping", "t": NaN}', "[]", '{"type": 5}', '{"type": "dance"}', b"\0"]
)
async def test_what_is_no_frame_ends_the_connection(serve: Serve, bad: str | bytes) -> None:
    async with serve() as gateway, gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
        await socket.receive_json()
        await (socket.send_str(bad) if isinstance(bad, str) else socket.send_bytes(bad))
        assert (await socket.receive(timeout=2)).type is WSMsgType.CLOSE
        assert socket.close_code == 4400


async def test_large_frame_ends_the_connection(serve: Serve) -> None:
    async with serve() as gateway, gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
        await socket.receive_json()
        await socket.send_str("x" * ((1 << 20) + 1))
        await socket.receive(timeout=2)
        assert socket.close_code == 1009


async def test_first_frame_may_bring_the_token(serve: Serve, upstream: MockErnie) -> None:
    async with serve(WITH_TOKEN) as gateway:
        url = gateway.url + "/v1/ws"
        async with gateway.session.ws_connect(url) as socket:
            await socket.send_json({"type": "auth", "token": "t"})
            assert (await socket.receive_json())["type"] == "ready"
        async with gateway.session.ws_connect(url, headers={"Authorization": "Bearer t"}) as socket:
            assert (await socket.receive_json())["type"] == "ready"
        for first in ({"type": "auth", "token": "wrong"}, create("a"), {"type": "auth"}):
            async with gateway.session.ws_connect(url) as socket:
                await socket.send_json(first)
                await socket.receive(timeout=2)
                assert socket.close_code == 4401
        assert upstream.requests_made == 0


async def test_close_codes_say_why_nobody_was_let_in(serve: Serve) -> None:
    settings = GatewaySettings(tenants=WITH_TOKEN.tenants, limits=StreamLimits(streams=1))
    async with serve(settings) as gateway:
        url = gateway.url + "/v1/ws"
        good = {"Authorization": "Bearer t"}
        async with gateway.session.ws_connect(url, headers=good):
            for options, code in (
                ({"origin": "http://evil.com", "headers": good}, 4403),
                ({"headers": {"Authorization": "Bearer wrong"}}, 4401),
                ({"headers": good}, 4429),
            ):
                async with gateway.session.ws_connect(url, **options) as socket:
                    await socket.receive(timeout=2)
                    assert socket.close_code == code
        # Who asks without a handshake is told as everywhere.
        assert (await gateway.get("/v1/ws", **good))[0] == 400


async def test_connection_is_closed_when_two_pings_are_not_answered(serve: Serve) -> None:
    async with serve(GatewaySettings(ping=0.1)) as gateway:
        url = gateway.url + "/v1/ws"
        async with gateway.session.ws_connect(url) as alive:
            await alive.receive_json()
            # It answers, as any client does by itself.
            listening = asyncio.create_task(alive.receive_json(timeout=5))
            async with gateway.session.ws_connect(url, autoping=False) as silent:
                await silent.receive_json()
                kinds = [(await silent.receive(timeout=2)).type for _ in range(2)]
                assert kinds == [WSMsgType.PING] * 2
                await silent.pong()
                kinds = [(await silent.receive(timeout=2)).type for _ in range(3)]
                assert kinds == [WSMsgType.PING] * 2 + [WSMsgType.CLOSE]
                assert silent.close_code == 4408
            await alive.send_json({"type": "ping", "t": 1})
            assert (await listening)["t"] == 1


async def test_who_does_not_read_loses_the_connection(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(reply("x" * 3_000_000, chunk_chars=60_000))
    limits = StreamLimits(send=0.2, chars=1 << 22, queue_bytes=1 << 30)
    async with serve(GatewaySettings(limits=limits)) as gateway:
        async with gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
            await socket.receive_json()
            for n in range(8):
                await socket.send_json(create(f"c{n}", on_disconnect="cancel"))
            await until(lambda: gateway.hub.n_viewers)
            await until(lambda: not gateway.hub.n_viewers, 10)
            while (message := await socket.receive(timeout=2)).type is WSMsgType.TEXT:
                pass
            assert message.type in {WSMsgType.CLOSED, WSMsgType.ERROR}


async def test_stopping_says_goodbye(serve: Serve, upstream: MockErnie) -> None:
    async with serve() as gateway, gateway.session.ws_connect(gateway.url + "/v1/ws") as socket:
        await socket.receive_json()
        closing = asyncio.create_task(gateway.app.shutdown())
        await socket.receive(timeout=2)
        assert socket.close_code == 1001
        await closing


@pytest.mark.parametrize("is_refused", [True, False])
async def test_who_has_gone_before_the_handshake_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture, is_refused: bool
) -> None:
    path = "/nowhere" if is_refused else "/v1/ws"
    asked = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with serve() as gateway:
        for number in range(40):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(asked.encode())
            for _ in range(number % 4):
                await asyncio.sleep(0)
            writer.transport.abort()
            await asyncio.sleep(number % 3 / 1000)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
