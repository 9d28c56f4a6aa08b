"""The routes of the ready application, over real connections."""

import asyncio
import json
import re
from contextlib import suppress

import aiohttp
import pytest

from ernie_async import AsyncClient, ContentFilter, RetryPolicy
from ernie_async.gateway import GATEWAY, GatewaySettings, StreamLimits, Tenant
from ernie_async.sansio.gateway_ask import AskRules
from ernie_async.sansio.sse import EventDecoder
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie, cut, raw, refuse, reply, stall
from tests.waiting import until

from .conftest import Serve
from .cutting import CuttingProxy
from .resets import reset_at_random

pytestmark = pytest.mark.anyio

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = "量子纠缠是两个粒子共享同一个状态的现象。😀 ok"


def text_of(events) -> str:
    return "".join(json.loads(e.data).get("text", "") for e in events if e.event == "delta")


async def test_stream_is_started_read_and_kept(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT, reasoning="嗯", chunk_ms=1))
    async with serve() as gateway:
        status, started = await gateway.post("/v1/streams", ASK)
        assert status == 201
        assert set(started) == {"stream_id", "events_url", "ticket", "expires_at"}
        events = await gateway.read(started["events_url"])
        assert [e.event for e in events][:1] == ["start"]
        assert [e.event for e in events][-2:] == ["usage", "done"]
        assert text_of(events) == TEXT
        epoch = events[0].id.partition("-")[0]
        assert re.fullmatch(r"[0-9a-f]{8}", epoch)
        done = json.loads(events[-1].data)
        assert (done["finish_reason"], done["chars"], done["cancelled"]) == (
            "stop",
            len(TEXT) + 1,
            False,
        )
        assert done["usage"]["completion_tokens"] == len(TEXT) + 1
        status, snapshot = await gateway.get(f"/v1/streams/{started['stream_id']}")
        assert (status, snapshot["status"], snapshot["text"]) == (200, "done", TEXT)
        assert snapshot["last_event_id"] == events[-1].id
        # At the end of all, a browser is told to stay away.
        async with gateway.session.get(
            gateway.url + started["events_url"], headers={"Last-Event-ID": events[-1].id}
        ) as answer:
            assert answer.status == 204
        (ended,) = gateway.ended
        assert (ended.ending, ended.usage.is_estimate) == ("done", False)
        assert ended.first_token < ended.duration


async def test_headers_and_first_bytes_come_before_the_model_answers(
    serve: Serve, upstream: MockErnie
) -> None:
    upstream.script(stall(before_headers=True))
    async with serve(GatewaySettings(heartbeat=0.1)) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        async with gateway.session.get(gateway.url + started["events_url"]) as answer:
            first = await asyncio.wait_for(answer.content.readany(), 1)
            headers = answer.headers
            assert first.startswith(b": ok\nretry: 3000\n\n")
            assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert headers["Cache-Control"] == "no-cache, no-transform"
            assert headers["X-Accel-Buffering"] == "no"
            assert headers["Connection"] == "keep-alive"
            assert "Content-Length" not in headers
            assert "Content-Encoding" not in headers
            assert headers["Vary"] == "Origin"
            beats = b""
            while beats.count(b": hb\n\n") < 3:
                beats += await asyncio.wait_for(answer.content.readany(), 1)
            assert b"id:" not in beats.partition(b": hb")[2]
        await gateway.post(f"/v1/streams/{started['stream_id']}/cancel", None)


async def test_cut_after_every_event_loses_and_repeats_nothing(
    serve: Serve, upstream: MockErnie
) -> None:
    upstream.script(reply(TEXT, chunk_chars=1, chunk_ms=2))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        events, last = [], None
        while not events or events[-1].event != "done":
            (event,) = await gateway.read(started["events_url"], last=last, n=1)
            events.append(event)
            last = event.id
        assert text_of(events) == TEXT
        numbers = [int(event.id.partition("-")[2]) for event in events]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == len(TEXT) + 3


async def test_cut_in_the_middle_of_every_frame_loses_nothing(
    serve: Serve, upstream: MockErnie
) -> None:
    upstream.script(reply(TEXT[:8], chunk_chars=1))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        whole = await gateway.read(started["events_url"])
        size = sum(60 + len(event.data) for event in whole) + 400
        for after in range(400, size, 17):
            async with CuttingProxy(gateway.port, after=(after,)) as proxy:
                first, decoder = [], EventDecoder()
                with suppress(aiohttp.ClientError):
                    async with gateway.session.get(proxy.url + started["events_url"]) as answer:
                        async for packet in answer.content.iter_any():
                            first += decoder.feed(packet)
            last = first[-1].id if first else None
            if last != whole[-1].id:
                rest = await gateway.read(started["events_url"], last=last)
                assert text_of(first + rest) == TEXT[:8]


async def test_query_names_the_cursor_and_the_header_wins(
    serve: Serve, upstream: MockErnie
) -> None:
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        whole = await gateway.read(started["events_url"])
        url = started["events_url"]
        rest = await gateway.read(f"{url}&last_event_id={whole[3].id}")
        assert text_of(whole[:4]) + text_of(rest) == text_of(whole)
        both = await gateway.read(f"{url}&last_event_id={whole[3].id}", last=whole[1].id)
        assert text_of(whole[:2]) + text_of(both) == text_of(whole)
        status, error = await gateway.get(f"{url}&last_event_id=nonsense")
        assert (status, error["error"]["code"]) == (400, "invalid_request")


async def test_idempotency_key_starts_once(serve: Serve, upstream: MockErnie) -> None:
    async with serve() as gateway:
        both = await asyncio.gather(
            *(gateway.post("/v1/streams", ASK, **{"Idempotency-Key": "k"}) for _ in range(2))
        )
        assert sorted(status for status, _ in both) == [200, 201]
        assert both[0][1] == both[1][1]
        status, error = await gateway.post(
            "/v1/streams", {**ASK, "temperature": 1}, **{"Idempotency-Key": "k"}
        )
        assert (status, error["error"]["code"]) == (409, "conflict")
        await until(lambda: gateway.ended)
        assert upstream.requests_made == 1
        assert len(gateway.ended) == 1


async def test_cancel_tells_everybody(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(stall(after_chunks=2))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        readers = [asyncio.create_task(gateway.read(started["events_url"])) for _ in range(3)]
        await until(lambda: gateway.hub.n_viewers == 3)
        path = f"/v1/streams/{started['stream_id']}/cancel"
        assert (await gateway.post(path, None))[0] == 202
        for events in await asyncio.wait_for(asyncio.gather(*readers), 1):
            assert json.loads(events[-1].data)["cancelled"] is True
        await upstream.wait_idle()
        assert (await gateway.post(path, None))[0] == 202
        (ended,) = gateway.ended
        assert (ended.ending, ended.usage.is_estimate) == ("cancelled", True)
        assert ended.usage.prompt_tokens


@pytest.mark.parametrize(("policy", "survives"), [("cancel", False), ("linger:1", True)])
async def test_leaving_is_a_stop_only_if_it_shall_be(
    serve: Serve, upstream: MockErnie, policy: str, survives: bool
) -> None:
    upstream.script(stall(after_chunks=2))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", {**ASK, "on_disconnect": policy})
        await gateway.read(started["events_url"], n=2)
        if survives:
            await asyncio.sleep(0.3)
            assert upstream.open_streams == 1
            await gateway.read(started["events_url"], n=2)
        await upstream.wait_idle(3)
        await until(lambda: gateway.ended)
        assert [ended.ending for ended in gateway.ended] == ["disconnected"]


async def test_finish_needs_leave(serve: Serve, upstream: MockErnie) -> None:
    async with serve() as gateway:
        status, error = await gateway.post("/v1/streams", {**ASK, "on_disconnect": "finish"})
        assert (status, error["error"]["code"]) == (400, "invalid_request")
    rules = AskRules(on_disconnect=("finish",))
    async with serve(GatewaySettings(rules=rules)) as gateway:
        upstream.script(reply(TEXT, chunk_ms=5))
        _, started = await gateway.post("/v1/streams", {**ASK, "on_disconnect": "finish"})
        await gateway.read(started["events_url"], n=1)
        await until(lambda: gateway.ended)
        assert gateway.ended[0].ending == "done"
        assert text_of(await gateway.read(started["events_url"])) == TEXT


async def test_real_usage_is_read_after_a_cancel(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT, chunk_ms=10))
    limits = StreamLimits(drain_for_usage=5)
    async with serve(GatewaySettings(limits=limits)) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        await gateway.read(started["events_url"], n=3)
        await gateway.post(f"/v1/streams/{started['stream_id']}/cancel", None)
        events = await gateway.read(started["events_url"])
        assert json.loads(events[-1].data)["cancelled"] is True
        assert len(text_of(events)) < len(TEXT)
        await until(lambda: gateway.ended)
        (ended,) = gateway.ended
        assert (ended.ending, ended.usage.is_estimate) == ("cancelled", False)
        assert ended.usage.completion_tokens == len(TEXT)


async def test_missing_usage_is_estimated(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(cut(after_chunks=4))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        events = await gateway.read(started["events_url"])
        error = json.loads(events[-1].data)
        assert events[-1].event == "error"
        assert (error["code"], error["retryable"]) == ("upstream_error", True)
        (ended,) = gateway.ended
        assert (ended.ending, ended.usage.is_estimate) == ("error", True)
        assert ended.usage.completion_tokens


async def test_blocked_answer_is_an_error_and_a_retraction(
    serve: Serve, upstream: MockErnie
) -> None:
    words = ContentFilter.from_terms(["敏感词"], action="block", mode="live")
    upstream.script(reply("这是敏感词。", chunk_ms=5), reply("这是敏感词。"))
    async with serve(client={"content_filter": words}) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        events = await gateway.read(started["events_url"])
        kinds = [event.event for event in events]
        assert kinds[-2:] == ["retract", "error"]
        assert json.loads(events[-2].data)["from_char"] == 0
        assert json.loads(events[-1].data)["code"] == "content_filter"
        later = await gateway.read(started["events_url"])
        assert text_of(later) == ""
        assert "敏" not in b"".join(event.data for event in later).decode()
        assert gateway.ended[0].ending == "filtered"
        status, error = await gateway.post("/v1/chat/completions", ASK)
        assert (status, error["error"]["code"]) == (400, "content_filter")
        assert gateway.ended[1].ending == "filtered"


async def test_masked_text_is_what_is_kept(serve: Serve, upstream: MockErnie) -> None:
    words = ContentFilter.from_terms(["敏感词"])
    upstream.script(reply("这是敏感词。", chunk_chars=1, chunk_ms=5))
    async with serve(client={"content_filter": words}) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        assert text_of(await gateway.read(started["events_url"])) == "这是***。"
        assert text_of(await gateway.read(started["events_url"])) == "这是***。"
        _, snapshot = await gateway.get(f"/v1/streams/{started['stream_id']}")
        assert snapshot["text"] == "这是***。"


@pytest.mark.parametrize(
    ("step", "code", "status"),
    [
        (refuse(429, retry_after=0), "rate_limited", 429),
        (refuse(401), "upstream_error", 502),
        (refuse(400), "invalid_request", 400),
        (refuse(500), "upstream_error", 502),
    ],
)
async def test_errors_of_the_model(
    serve: Serve, upstream: MockErnie, step: object, code: str, status: int
) -> None:
    upstream.script(step, step, step, step)
    async with serve() as gateway:
        told, error = await gateway.post("/v1/chat/completions", ASK)
        assert (told, error["error"]["code"]) == (status, code)
        assert set(error["error"]) == {"code", "message", "request_id"}
        _, started = await gateway.post("/v1/streams", ASK)
        events = await gateway.read(started["events_url"])
        assert json.loads(events[-1].data)["code"] == code
        assert [ended.ending for ended in gateway.ended] == ["error", "error"]


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("verdict", [2, 3, 4, "content_filter"])
async def test_verdicts_of_the_service_are_obeyed(
    serve: Serve, upstream: MockErnie, verdict: int | str, is_stream: bool
) -> None:
    last = {"finish_reason": verdict} if isinstance(verdict, str) else {"flag": verdict}
    upstream.script(reply("这是", chunk_chars=1, chunk_ms=5, **last))
    async with serve() as gateway:
        if not is_stream:
            status, answer = await gateway.post("/v1/chat/completions", ASK)
            assert status == (200 if verdict == 2 else 400)
            assert verdict == 2 or answer["error"]["code"] == "content_filter"
            return
        _, started = await gateway.post("/v1/streams", ASK)
        events = await gateway.read(started["events_url"])
        told = json.loads(events[-1].data)
        if verdict == 2:
            assert (events[-1].event, told["conversation_closed"]) == ("done", True)
        else:
            assert (events[-1].event, told["code"]) == ("error", "content_filter")
            assert gateway.ended[0].ending == "filtered"
        _, snapshot = await gateway.get(f"/v1/streams/{started['stream_id']}")
        assert snapshot["text"] == ("" if verdict == 4 else "这是")
        retracted = [json.loads(event.data) for event in events if event.event == "retract"]
        assert [one["from_char"] for one in retracted] == ([0] if verdict == 4 else [])


async def test_whole_answers_are_relayed_with_all_that_was_asked_for(
    serve: Serve, upstream: MockErnie
) -> None:
    choices = [
        {"index": n, "message": {"role": "assistant", "content": "好"}, "finish_reason": "stop"}
        for n in range(2)
    ]
    choices[1]["logprobs"] = {"content": [{"token": "好", "logprob": -0.1}]}
    body = {"id": "as-1", "object": "chat.completion", "created": 1, "choices": choices}
    upstream.script(raw(json.dumps(body).encode(), content_type="application/json"))
    async with serve() as gateway:
        ask = {**ASK, "n": 2, "logprobs": True}
        _, answer = await gateway.post("/v1/chat/completions", ask)
        assert answer["choices"] == choices
        # Their events have no place for either, and saying so is better than leaving it out.
        for path, body in (
            ("/v1/streams", ask),
            ("/v1/chat/completions", {**ASK, "stream": True, "logprobs": True}),
        ):
            status, error = await gateway.post(path, body)
            assert (status, error["error"]["code"]) == (400, "invalid_request")


async def test_long_answers_end(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply("字" * 100, chunk_chars=7), stall(after_chunks=1))
    limits = StreamLimits(chars=20, life=0.5)
    async with serve(GatewaySettings(limits=limits)) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        events = await gateway.read(started["events_url"])
        assert text_of(events) == "字" * 20
        assert json.loads(events[-1].data)["finish_reason"] == "length"
        _, started = await gateway.post("/v1/streams", ASK)
        events = await gateway.read(started["events_url"])
        assert json.loads(events[-1].data)["code"] == "upstream_timeout"


async def test_chat_in_one_piece(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply("好"))
    async with serve() as gateway:
        status, answer = await gateway.post("/v1/chat/completions", ASK)
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == "好"
        assert answer["usage"]["completion_tokens"] == 1
        assert gateway.ended[0].ending == "done"


async def test_leaving_a_chat_stops_the_model(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(stall(after_chunks=2), stall(before_headers=True))
    async with serve() as gateway:
        for is_stream in (True, False):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    async with gateway.session.post(
                        gateway.url + "/v1/chat/completions", json={**ASK, "stream": is_stream}
                    ) as answer:
                        await answer.read()
            await upstream.wait_idle(1)
        await until(lambda: len(gateway.ended) == 2)
        assert [ended.ending for ended in gateway.ended] == ["disconnected"] * 2


async def test_our_own_client_resumes_by_event_id(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT, chunk_ms=10))
    async with serve() as gateway:
        async with (
            CuttingProxy(gateway.port, after=(700,)) as proxy,
            AsyncClient(
                "x", base_url=f"{proxy.url}/v1", retry=RetryPolicy(base_delay=0.01)
            ) as client,
        ):
            stream = client.stream("hi", model="m", extra_body={"on_disconnect": "linger:5"})
            answer = await stream.final()
        assert answer.text == TEXT
        assert [resume.how for resume in stream.resumes][:1] == ["server"]
        assert answer.finish_reason == "stop"
        assert upstream.requests_made == 1


async def test_models(serve: Serve, upstream: MockErnie) -> None:
    async with serve(GatewaySettings(rules=AskRules(models=("a", "b")))) as gateway:
        _, told = await gateway.get("/v1/models")
        assert [card["id"] for card in told["data"]] == ["a", "b"]
    async with serve() as gateway:
        _, told = await gateway.get("/v1/models")
        assert told["data"]


TOKENS = GatewaySettings(
    tenants=(
        Tenant(name="a", token_sha256=token_hash("token-a"), streams=1),
        Tenant(name="b", token_sha256=token_hash("token-b"), requests_per_minute=1),
    ),
    origins=("https://chat.example.com",),
    admission=0.1,
    limits=StreamLimits(streams=3),
)
A, B = {"Authorization": "Bearer token-a"}, {"Authorization": "Bearer token-b"}


async def test_tokens_and_tickets(serve: Serve, upstream: MockErnie) -> None:
    async with serve(TOKENS) as gateway:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "token-a"}):
            status, error = await gateway.post("/v1/streams", ASK, **headers)
            assert (status, error["error"]["code"]) == (401, "unauthorized")
        _, one = await gateway.post("/v1/streams", ASK, **A)
        await gateway.read(one["events_url"])
        _, two = await gateway.post("/v1/streams", ASK, **B)
        path = f"/v1/streams/{one['stream_id']}"
        assert (await gateway.get(path, **A))[0] == 200
        assert (await gateway.get(path, **B))[0] == 404
        assert (await gateway.get(path))[0] == 401
        assert (await gateway.get(f"{path}?ticket={one['ticket']}"))[0] == 401
        assert (await gateway.get(f"{path}/events?ticket={two['ticket']}"))[0] == 401
        assert (await gateway.post(f"{path}/cancel", None, **B))[0] == 404
        assert (await gateway.get("/v1/streams/st_none", **A))[0] == 404


async def test_limits_of_tenants(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(stall(after_chunks=1))
    async with serve(TOKENS) as gateway:
        assert (await gateway.post("/v1/streams", ASK, **A))[0] == 201
        assert (await gateway.post("/v1/streams", ASK, **B))[0] == 201
        for headers in (A, B):  # no room for another stream, no request left in this minute
            async with gateway.session.post(
                gateway.url + "/v1/streams", json=ASK, headers=headers
            ) as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
                assert (await answer.json())["error"]["code"] == "overloaded"


async def test_limit_of_the_process(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(stall(after_chunks=1))
    async with serve(GatewaySettings(limits=StreamLimits(streams=2))) as gateway:
        answers = [await gateway.post("/v1/streams", ASK) for _ in range(3)]
        assert [status for status, _ in answers] == [201, 201, 503]
        await gateway.post(f"/v1/streams/{answers[0][1]['stream_id']}/cancel", None)
        await until(lambda: gateway.hub.n_running == 1)
        assert (await gateway.post("/v1/streams", ASK))[0] == 201


async def test_origins(serve: Serve, upstream: MockErnie) -> None:
    good, bad = "https://chat.example.com", "https://evil.example.com"
    async with serve(TOKENS) as gateway:
        url = gateway.url + "/v1/streams"
        async with gateway.session.options(url, headers={"Origin": good}) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == good
            allowed = answer.headers["Access-Control-Allow-Headers"]
            assert allowed == "Authorization, Content-Type, Last-Event-ID, Idempotency-Key"
        for method in ("OPTIONS", "POST", "GET"):
            async with gateway.session.request(method, url, headers={"Origin": bad}) as answer:
                assert answer.status == 403
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert answer.headers["Vary"] == "Origin"
        async with gateway.session.post(url, json=ASK, headers={"Origin": good, **A}) as answer:
            assert answer.status == 201
            assert answer.headers["Access-Control-Allow-Origin"] == good
            assert "X-Stream-Id" in answer.headers["Access-Control-Expose-Headers"]


async def test_open_gateway_serves_only_its_own_machine(serve: Serve) -> None:
    async with serve() as gateway:
        for host in ("evil.example.com", "evil.example.com:80"):
            status, error = await gateway.get("/v1/models", Host=host)
            assert (status, error["error"]["code"]) == (403, "forbidden")
        # What a page elsewhere may send without asking first.
        async with gateway.session.post(gateway.url + "/v1/streams", data=b"{}") as answer:
            assert answer.status == 400


async def test_large_and_odd_requests(serve: Serve) -> None:
    async with serve(GatewaySettings(body=1000)) as gateway:
        status, error = await gateway.post("/v1/streams", {**ASK, "user": "x" * 2000})
        assert (status, error["error"]["code"]) == (413, "too_large")
        status, error = await gateway.post("/v1/streams", {**ASK, "base_url": "http://evil"})
        assert (status, error["error"]["code"]) == (400, "invalid_request")
        status, error = await gateway.get("/nowhere")
        assert (status, error["error"]["code"]) == (404, "not_found")
        status, error = await gateway.get("/v1/streams")
        assert (status, error["error"]["code"]) == (405, "invalid_request")
        status, error = await gateway.post("/v1/streams", ASK, **{"Idempotency-Key": "x" * 201})
        assert status == 400


async def test_health_metrics_and_drain(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT), stall(after_chunks=1))
    async with serve() as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        await gateway.read(started["events_url"])
        async with gateway.session.get(gateway.url + "/metrics") as answer:
            text = await answer.text()
        assert 'ernie_gateway_streams_total{ending="done"} 1' in text
        assert f'ernie_gateway_tokens_total{{kind="completion"}} {len(TEXT)}' in text
        _, started = await gateway.post("/v1/streams", ASK)
        reader = asyncio.create_task(gateway.read(started["events_url"]))
        await until(lambda: gateway.hub.n_viewers)
        drain = asyncio.create_task(gateway.hub.drain(0.3))
        await until(lambda: gateway.hub.is_draining)
        for path, status in (("/healthz", 200), ("/readyz", 503)):
            async with gateway.session.get(gateway.url + path) as answer:
                assert answer.status == status
        status, error = await gateway.post("/v1/streams", ASK)
        assert (status, error["error"]["code"]) == (503, "shutting_down")
        await drain
        error = json.loads((await reader)[-1].data)
        assert (error["code"], error["retryable"]) == ("shutting_down", True)


async def test_provider_key_reaches_nobody(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(refuse(401, message="Incorrect key k-secret"), refuse(401, message="k-secret"))
    async with serve() as gateway:
        _, error = await gateway.post("/v1/chat/completions", ASK)
        _, started = await gateway.post("/v1/streams", ASK)
        async with gateway.session.get(gateway.url + started["events_url"]) as answer:
            body = await answer.text()
        assert "k-secret" not in json.dumps(error) + body


async def test_http_1_0_and_heads(serve: Serve) -> None:
    async with serve() as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 2)
        assert answer.startswith(b"HTTP/1.0 200")
        writer.close()


def test_settings_that_cannot_be_right() -> None:
    from ernie_async import ConfigError

    tenant = Tenant(name="a", token_sha256=token_hash("a"))
    for make in (
        lambda: GatewaySettings(origins=("*",)),
        lambda: GatewaySettings(chat_on_disconnect="never"),
        lambda: GatewaySettings(tenants=(tenant, tenant)),
        lambda: Tenant(name="a", token_sha256="a"),
        lambda: StreamLimits(life=0),
    ):
        with pytest.raises(ConfigError):
            make()
    assert "ticket_secret" not in repr(GatewaySettings())


async def test_connections_reset_at_random_points_leave_nothing(
    serve: Serve, upstream: MockErnie, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.default(reply(TEXT, chunk_ms=4))
    async with serve(GatewaySettings(tenants=())) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        replay = started["events_url"]
        await gateway.read(replay)
        before = len(asyncio.all_tasks()) - upstream.open_connections
        n = 1002
        for path, body in (
            ("/v1/chat/completions", {**ASK, "stream": True}),
            ("/v1/chat/completions", ASK),
            ("/v1/streams", {**ASK, "on_disconnect": "linger:0"}),
        ):
            told = json.dumps(body).encode()
            await reset_at_random(gateway.port, path, told, n=n // 3, replay=replay)
        await until(lambda: gateway.hub.n_viewers == 0, 5)
        # Streams that nobody ever came to see have some seconds.
        await until(lambda: gateway.hub.n_running == 0, 15)
        await upstream.wait_idle(2)
        limiters = gateway.app[GATEWAY].tenants.limiters.values()
        assert not any(limiter.in_flight for limiter in limiters)
        # Each connection that the client keeps for later has a task of the mock.
        await until(lambda: len(asyncio.all_tasks()) - upstream.open_connections <= before, 5)
        streams = [ended.stream_id for ended in gateway.ended if ended.stream_id]
        assert len(streams) == len(set(streams)) > 50
    assert "Traceback" not in caplog.text
