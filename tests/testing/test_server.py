"""`MockErnie` over a real socket, seen through plain aiohttp."""

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from ernie_async.testing import (
    MockErnie,
    cut,
    error_event,
    heartbeats,
    raw,
    refuse,
    reply,
    stall,
)

pytestmark = pytest.mark.anyio

BODY = {"model": "ernie-5.1", "messages": [{"role": "user", "content": "你好"}]}
STREAM = BODY | {"stream": True}


@pytest.fixture
async def server() -> AsyncIterator[MockErnie]:
    async with MockErnie() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


def ask(
    session: aiohttp.ClientSession, server: MockErnie, body: Any = STREAM, **options: Any
) -> Any:
    return session.post(f"{server.base_url}/chat/completions", json=body, **options)


async def read_all(response: aiohttp.ClientResponse) -> tuple[bytes, BaseException | None]:
    """Everything that came, and the error that stopped it."""
    got = b""
    try:
        async for data in response.content.iter_any():
            got += data
    except aiohttp.ClientError as error:
        return got, error
    return got, None


def text_of(stream: bytes) -> str:
    payloads = [e.split(b"data: ", 1)[1] for e in stream.split(b"\n\n") if b"data: {" in e]
    choices = [json.loads(payload)["choices"][0] for payload in payloads]
    return "".join(choice["delta"]["content"] or "" for choice in choices)


async def test_steps_are_played_in_order_and_then_the_default(server, session) -> None:
    server.script(reply("一"), refuse(429, retry_after=2))
    server.default(reply("再见"))
    async with ask(session, server, BODY) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == "一"
    async with ask(session, server, BODY) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "2"
        assert (await response.json())["error"]["code"] == "rpm_rate_limit_exceeded"
    for _ in range(2):
        async with ask(session, server, BODY) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "再见"
    assert server.steps_left == 0


async def test_without_a_script_the_answer_is_canned(server, session) -> None:
    async with ask(session, server) as response:
        assert response.content_type == "text/event-stream"
        assert text_of(await response.read()).endswith("你好")


async def test_a_stream_arrives_chunk_by_chunk(server, session) -> None:
    server.script(reply("量子纠缠", chunk_ms=20))
    async with ask(session, server) as response:
        packets = [packet async for packet in response.content.iter_any()]
    assert len(packets) == 4
    assert text_of(b"".join(packets)) == "量子纠缠"
    assert packets[-1] == b"data: [DONE]\n\n"


async def test_what_came_is_remembered(server, session) -> None:
    async with ask(session, server, headers={"X-Custom": "1"}) as response:
        await response.read()
    async with ask(session, server, data=None) as response:
        await response.read()
    await server.wait_idle()
    first, second = server.requests
    assert (first.method, first.path) == ("POST", "/v2/chat/completions")
    assert first.headers["x-custom"] == "1"
    assert first.json == STREAM
    assert json.loads(first.body) == STREAM
    assert 0 <= time.monotonic() - first.received_at < 5
    assert first.ended == second.ended == "done"
    assert first.connection == second.connection == 1
    assert server.connections_made == server.open_connections == 1
    assert server.requests_made == 2


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_cut_stream_has_its_chunks_and_an_error(server, session, how) -> None:
    server.script(cut(after_chunks=3, of=reply("一二三四五六七八", chunk_ms=5), how=how))
    async with ask(session, server) as response:
        got, error = await read_all(response)
    assert text_of(got) == "一二三四五六"
    assert error is not None
    assert ("reset by peer" in str(error)) == (how == "reset")
    await server.wait_idle(connections=True)
    assert server.requests[0].ended == "cut"


async def test_a_cut_stream_can_end_properly(server, session) -> None:
    server.script(cut(after_chunks=3, text="一二三四五六七八", how="end"))
    async with ask(session, server) as response:
        got, error = await read_all(response)
    assert (text_of(got), error) == ("一二三四五六", None)
    assert b"DONE" not in got
    assert server.requests[0].ended == "cut"
    assert server.open_connections == 1


async def test_a_cut_after_bytes_may_split_a_character(server, session) -> None:
    server.script(cut(after_bytes=150, of=reply("一二三四", chunk_ms=5)))
    async with ask(session, server) as response:
        got, error = await read_all(response)
    assert len(got) == 150
    assert error is not None


async def test_a_cut_after_no_chunk_sends_headers_only(server, session) -> None:
    server.script(cut(after_chunks=0))
    async with ask(session, server) as response:
        assert response.status == 200
        got, error = await read_all(response)
    assert got == b""
    assert error is not None


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_cut_before_headers_sends_nothing(server, session, how) -> None:
    server.script(cut(before_headers=True, how=how), cut(before_headers=True, how=how))
    with pytest.raises(aiohttp.ClientConnectionError):
        async with ask(session, server):
            pass
    await server.wait_idle(connections=True)
    assert {seen.ended for seen in server.requests} == {"cut"}


async def test_a_json_answer_can_be_cut(server, session) -> None:
    server.script(cut(of=reply("好", headers={"X-Extra": "1"})), cut(text="x" * 1000, how="end"))
    async with ask(session, server, BODY) as response:
        assert response.headers["X-Extra"] == "1"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.json()
    async with ask(session, server, BODY) as response:
        with pytest.raises(ValueError, match="Unterminated"):
            await response.json()


async def test_a_stall_is_silent_until_the_client_leaves(server, session) -> None:
    server.script(stall(after_chunks=1, text="一二三四"))
    async with ask(session, server) as response:
        assert text_of(await response.content.readany()) == "一二"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await response.content.readany()
        assert server.open_streams == 1
        assert server.requests[0].ended is None
        response.close()
    await server.wait_idle(connections=True)
    assert server.requests[0].ended == "client_gone"
    assert server.open_streams == 0


async def test_a_stall_before_headers_sends_nothing(server, session) -> None:
    server.script(stall(before_headers=True))
    asking = asyncio.ensure_future(ask(session, server))
    while not server.requests:
        await asyncio.sleep(0.002)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asking
    await server.wait_idle()
    assert server.requests[0].ended == "client_gone"


async def test_a_client_that_leaves_a_running_stream_is_noticed(server, session) -> None:
    server.script(reply("长" * 1000, chunk_ms=1))
    async with ask(session, server) as response:
        await response.content.readany()
    await server.wait_idle()
    assert server.requests[0].ended == "client_gone"


async def test_wait_idle_says_what_is_still_running(server, session) -> None:
    server.script(stall())
    async with ask(session, server):
        with pytest.raises(TimeoutError, match="POST /v2/chat/completions"):
            await server.wait_idle(0.02)


async def test_heartbeats_are_comments_around_the_answer(server, session) -> None:
    server.script(heartbeats(1, after_chunks=1, text="一二三四", limit=3))
    async with ask(session, server) as response:
        events = (await response.read()).split(b"\n\n")
    assert events[1:4] == [b": keep-alive"] * 3
    assert text_of(b"\n\n".join(events)) == "一二三四"


async def test_heartbeats_before_json_are_white_space(server, session) -> None:
    server.script(heartbeats(1, text="好", limit=3))
    async with ask(session, server, BODY) as response:
        body = await response.read()
    assert body.startswith(b"\n\n\n{")
    assert json.loads(body)["choices"][0]["message"]["content"] == "好"


async def test_heartbeats_without_limit_never_end(server, session) -> None:
    server.script(heartbeats(1))
    async with ask(session, server) as response:
        for _ in range(20):
            assert set((await response.content.readany()).split(b"\n\n")) == {b": keep-alive", b""}


async def test_an_error_event_ends_the_stream(server, session) -> None:
    server.script(error_event(after_chunks=1), error_event("tpm_rate_limit_exceeded", bare=True))
    async with ask(session, server) as response:
        events = (await response.read()).split(b"\n\n")
    assert len(events) == 3
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["type"] == "Internal_error"
    async with ask(session, server) as response:
        bare = await response.json(content_type=None)
    assert bare["error"]["message"] == "Rate limit reached for TPM"
    assert bare["error"]["type"] == "rate_limit_exceeded"


async def test_an_error_event_is_a_json_body_with_status_200(server, session) -> None:
    server.script(error_event())
    async with ask(session, server, BODY) as response:
        assert response.status == 200
        assert (await response.json())["error"]["code"] == "internal_error"


async def test_a_refusal_can_be_anything(server, session) -> None:
    server.script(refuse(502, body="<html>", content_type="text/html", headers={"Server": "nginx"}))
    async with ask(session, server) as response:
        assert (response.status, await response.text()) == (502, "<html>")
        assert response.content_type == "text/html"
        assert response.headers["Server"] == "nginx"


async def test_raw_bytes_arrive_as_they_are_each_in_its_own_packet(server, session) -> None:
    server.script(raw([b"data: \xff", b"\r", b"\n\r\n"], pause_ms=10, headers={"X-A": "1"}))
    async with ask(session, server) as response:
        assert response.headers["X-A"] == "1"
        packets = [packet async for packet in response.content.iter_any()]
    assert packets == [b"data: \xff", b"\r", b"\n\r\n"]


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_raw_bytes_can_end_in_a_break(server, session, end) -> None:
    server.script(raw([b"data: 1\n\n"], pause_ms=5, end=end))
    async with ask(session, server) as response:
        got, error = await read_all(response)
    assert got == b"data: 1\n\n"
    assert error is not None


async def test_raw_bytes_can_end_in_silence(server, session) -> None:
    server.script(raw(b"data: 1\n\n", end="stall"))
    async with ask(session, server) as response:
        assert await response.content.readany() == b"data: 1\n\n"
        await asyncio.sleep(0.02)
        assert server.open_streams == 1


async def test_raw_bytes_can_break_the_framing(server) -> None:
    server.script(raw(b"\xff\xffzz\r\nxx\r\n", framing=False))
    request = json.dumps(STREAM).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.base_url[17:-3]))
    head = b"POST /v2/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(request) + request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    headers, body = answer.split(b"\r\n\r\n", 1)
    assert b"Transfer-Encoding: chunked" in headers
    assert body == b"\xff\xffzz\r\nxx\r\n"


async def test_raw_with_a_content_length_can_fall_short_of_it(server, session) -> None:
    server.script(raw(b"{", content_type="application/json", headers={"Content-Length": "9"}))
    server.script(raw(b"{", headers={"Content-Length": "9"}, end="close"))
    async with ask(session, server) as response:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await response.read()
    async with ask(session, server) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_ids_let_a_client_go_on_where_it_was(server, session) -> None:
    whole = reply("一二三四五六", ids=True)
    server.script(cut(after_chunks=2, of=whole), whole)
    async with ask(session, server) as response:
        got, _ = await read_all(response)
    assert b"id: 2\n" in got
    async with ask(session, server, headers={"Last-Event-ID": "2"}) as response:
        rest = await response.read()
    assert rest.startswith(b"id: 3\n")
    assert text_of(got + rest) == "一二三四五六"


@pytest.mark.parametrize("header", [None, "Bearer wrong", "secret"])
async def test_a_wrong_key_is_refused_before_the_script(session, header) -> None:
    async with MockErnie(api_key="secret") as server:
        server.script(reply())
        headers = {"Authorization": header} if header else {}
        async with ask(session, server, headers=headers) as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == "invalid_iam_token"
        assert server.steps_left == 1
        async with ask(session, server, headers={"Authorization": "Bearer secret"}) as response:
            assert response.status == 200


async def test_requests_per_minute_refuses_what_is_over(session) -> None:
    async with MockErnie(requests_per_minute=2) as server:
        left = []
        for _ in range(3):
            async with ask(session, server, BODY) as response:
                assert response.headers["X-Ratelimit-Limit-Requests"] == "2"
                left.append((response.status, response.headers["X-Ratelimit-Remaining-Requests"]))
        assert left == [(200, "1"), (200, "0"), (429, "0")]


async def test_the_window_of_requests_per_minute_slides(session, monkeypatch) -> None:
    monkeypatch.setattr("ernie_async.testing.server.RATE_WINDOW", 0.05)
    async with MockErnie(requests_per_minute=1) as server:
        statuses = []
        for pause in (0, 0.1, 0):
            await asyncio.sleep(pause)
            async with ask(session, server, BODY) as response:
                statuses.append(response.status)
        assert statuses == [200, 200, 429]


async def test_concurrency_refuses_what_is_over(session) -> None:
    async with MockErnie(concurrency=1) as server:
        server.script(stall())
        async with ask(session, server), ask(session, server) as second:
            assert second.status == 429
            assert (await second.json())["error"]["code"] == "cluster_rate_limit_exceeded"
        await server.wait_idle()
        async with ask(session, server) as third:
            assert third.status == 200


async def test_a_malformed_body_is_refused_before_the_script(server, session) -> None:
    server.script(reply())
    url = f"{server.base_url}/chat/completions"
    async with session.post(url, data=b"{") as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "malformed_json"
    assert server.steps_left == 1
    assert server.requests[0].json is None


async def test_other_paths_and_methods(server, session) -> None:
    root = server.base_url.removesuffix("/v2")
    async with session.post(f"{root}/v2", json=BODY) as response:
        assert (response.status, await response.text()) == (404, "404 page not found")
    async with session.get(f"{root}/v2/chat/completions") as response:
        assert response.status == 405
        assert (await response.json())["error"]["code"] == "method_not_supported"
    for prefix in ("", "/v1", "/v2/coding"):
        async with session.post(f"{root}{prefix}/chat/completions", json=BODY) as response:
            assert response.status == 200
        async with session.get(f"{root}{prefix}/models") as response:
            models = await response.json()
        assert set(models["data"][1]) == {"id", "object", "owned_by", "created"}


async def test_the_request_id_is_echoed_or_made_up(server, session) -> None:
    async with ask(session, server, BODY, headers={"X-Request-Id": "mine"}) as response:
        assert response.headers["X-Request-Id"] == "mine"
        assert (await response.json())["id"].startswith("as-")
    async with ask(session, server, BODY) as response:
        assert response.headers["X-Request-Id"] == (await response.json())["id"]


async def test_a_body_of_many_megabytes_is_taken(server, session) -> None:
    body = BODY | {"messages": [{"role": "user", "content": "x" * 12_000_000}]}
    server.script(reply("好"))
    url = f"{server.base_url}/chat/completions"
    async with session.post(url, data=io.BytesIO(json.dumps(body).encode())) as response:
        assert (await response.json())["usage"]["prompt_tokens"] == 12_000_000


async def test_five_hundred_streams_at_once() -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with MockErnie() as server, aiohttp.ClientSession(connector=connector) as session:
        server.default(reply("五百" * 10, chunk_ms=20))

        async def one() -> str:
            async with ask(session, server) as response:
                return text_of(await response.read())

        texts = await asyncio.gather(*(one() for _ in range(500)))
        assert set(texts) == {"五百" * 10}
        assert len({seen.connection for seen in server.requests}) == 500


async def test_stopping_ends_what_is_open_and_leaves_no_task(session) -> None:
    before = asyncio.all_tasks()
    async with MockErnie() as server:
        server.default(stall(1))
        asked = [await ask(session, server) for _ in range(20)]
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert {seen.ended for seen in server.requests} == {"cut"}
    assert server.open_connections == server.open_streams == 0
    for response in asked:
        async with response:
            _, error = await read_all(response)
            assert error is not None
    assert asyncio.all_tasks() - before == set()


async def test_stopping_is_not_stopped_by_a_cancelled_scope(session) -> None:
    with anyio.move_on_after(0.05):
        async with MockErnie() as server:
            server.script(stall())
            async with ask(session, server):
                await anyio.sleep_forever()
    assert server.open_connections == 0


async def test_a_taken_port_is_reported_and_leaves_nothing_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="address already in use"),
    ):
        async with MockErnie(taken.getsockname()[1]):
            pass


async def test_a_server_not_entered_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="entered"):
        MockErnie().base_url  # noqa: B018


async def test_a_server_can_run_in_a_thread_of_its_own(session) -> None:
    threads = threading.active_count()
    with MockErnie() as server:
        assert threading.active_count() > threads
        server.script(reply("好", first_ms=20), stall())
        async with ask(session, server, BODY) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "好"
        async with ask(session, server) as response:
            assert server.open_streams == 1
        await server.wait_idle()
        assert server.requests[1].ended == "client_gone"
    assert threading.active_count() == threads


def test_plain_code_may_wait_for_the_server() -> None:
    with MockErnie() as server:
        anyio.run(server.wait_idle)
