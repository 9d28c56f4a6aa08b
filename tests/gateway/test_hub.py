"""The hub without a framework: viewers that fall behind, that never read, that come back late."""

import asyncio
from time import monotonic

import pytest

from ernie_async import AsyncClient, ConfigError
from ernie_async.gateway import GatewayError, MemoryStore, StreamHub, StreamLimits
from ernie_async.gateway.stores import StreamRecord
from ernie_async.sansio.replay import Cursor
from ernie_async.testing import MockErnie, reply, stall
from tests.waiting import until

pytestmark = pytest.mark.anyio

TEXT = "一二三四五六七八九十" * 20


@pytest.fixture
async def client(upstream: MockErnie):
    async with AsyncClient("k", base_url=upstream.base_url) as client:
        yield client


async def read(stream, cursor=None) -> tuple[str, str]:
    """The text, and how it ended."""
    text = kind = ""
    with stream.view(cursor) as viewer:
        while not viewer.is_over:
            for event in await viewer.wait():
                kind = event.kind
                if kind == "reset":
                    text = event.payload["text"]
                elif kind == "delta":
                    text += event.payload.get("text", "")
    return text, "lagged" if viewer.has_lagged else kind


async def test_sketch(client: AsyncClient, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT))
    hub = StreamHub(MemoryStore(), heartbeat=15)
    stream = await hub.start(lambda: client.stream("hi"), tenant="u", on_disconnect="linger:60")
    assert await read(await hub.open(stream.stream_id)) == (TEXT, "done")
    await hub.cancel(stream.stream_id)
    with pytest.raises(GatewayError):
        await hub.open(stream.stream_id, tenant="somebody else")
    await hub.aclose()
    assert (hub.n_kept, hub.n_running) == (0, 0)


async def test_one_of_200_viewers_never_reads_and_delays_nobody(
    client: AsyncClient, upstream: MockErnie
) -> None:
    upstream.script(reply(TEXT, chunk_chars=1, chunk_ms=2))
    hub = StreamHub(limits=StreamLimits(queue_events=50))
    stream = await hub.start(lambda: client.stream("hi"))
    with stream.view() as idle:
        await idle.wait()
        began = monotonic()
        assert await asyncio.gather(*(read(stream) for _ in range(199))) == [(TEXT, "done")] * 199
        assert monotonic() - began < 10
        assert await idle.wait() == []
        assert idle.has_lagged
        assert hub.n_lagged == 1
    # It comes back by the id that it has.
    text, kind = await read(stream, Cursor(stream.log.epoch, 1))
    assert (text, kind) == (TEXT, "done")
    await hub.aclose()


async def test_viewer_may_fall_behind_by_so_many_bytes(
    client: AsyncClient, upstream: MockErnie
) -> None:
    upstream.script(reply(TEXT, chunk_chars=50, chunk_ms=1))
    hub = StreamHub(limits=StreamLimits(queue_bytes=500))
    stream = await hub.start(lambda: client.stream("hi"))
    with stream.view() as viewer:
        await viewer.wait()
        await until(lambda: stream.log.is_over)
        assert await viewer.wait() == []
        assert viewer.has_lagged
    await hub.aclose()


async def test_viewer_is_woken_for_a_heartbeat_only_in_silence(
    client: AsyncClient, upstream: MockErnie
) -> None:
    upstream.script(stall(after_chunks=1))
    hub = StreamHub(heartbeat=0.1)
    stream = await hub.start(lambda: client.stream("hi"))
    with stream.view() as viewer:
        while await viewer.wait():
            pass
        began = monotonic()
        for _ in range(3):
            assert await viewer.wait() == []
        assert 0.2 < monotonic() - began < 2
    await hub.aclose()


async def test_answers_are_kept_for_a_while_and_within_bounds(
    client: AsyncClient, upstream: MockErnie
) -> None:
    upstream.default(reply(TEXT))
    hub = StreamHub(limits=StreamLimits(retention=0.2))
    stream = await hub.start(lambda: client.stream("hi"))
    await read(stream)
    await hub.open(stream.stream_id)
    await until(lambda: hub.n_kept == 0)
    with pytest.raises(GatewayError):
        await hub.open(stream.stream_id)
    await hub.aclose()
    hub = StreamHub(limits=StreamLimits(kept_bytes=10_000))
    for _ in range(20):
        await read(await hub.start(lambda: client.stream("hi")))
    await until(lambda: hub.n_running == 0)
    assert 0 < hub.n_kept < 10
    await hub.aclose()


async def test_whoever_is_too_late_for_the_window_gets_a_reset(
    client: AsyncClient, upstream: MockErnie
) -> None:
    upstream.script(reply(TEXT, chunk_chars=1))
    hub = StreamHub(limits=StreamLimits(window_events=10))
    stream = await hub.start(lambda: client.stream("hi"))
    await until(lambda: stream.log.is_over)
    for cursor in (None, Cursor(stream.log.epoch, 3), Cursor("xxxxxxxx", 100)):
        assert await read(stream, cursor) == (TEXT, "done")
    await hub.aclose()


async def test_nothing_is_left_of_a_start_that_is_cancelled_at_once(
    client: AsyncClient, upstream: MockErnie
) -> None:
    upstream.default(stall())
    settled = []
    hub = StreamHub()
    for n in range(20):
        start = hub.start(
            lambda: client.stream("hi"), on_disconnect="cancel", on_settled=settled.append
        )
        task = asyncio.create_task(start)
        for _ in range(n % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await hub.aclose()
    await upstream.wait_idle()
    # One that never ran took nothing.
    assert len(settled) == 15
    assert hub.n_running == 0


class ForgetfulStore(MemoryStore):
    """Loses the answer to its first claim."""

    n_claims = 0

    async def claim(self, key: str, stream_id: str, *, keep: float) -> str:
        holder = await super().claim(key, stream_id, keep=keep)
        self.n_claims += 1
        if self.n_claims == 1:
            raise ConnectionResetError
        return holder


async def test_key_of_a_start_that_failed_is_free(client: AsyncClient, upstream: MockErnie) -> None:
    hub = StreamHub(ForgetfulStore())
    with pytest.raises(ConnectionResetError):
        await hub.start(lambda: client.stream("hi"), key="k")
    await asyncio.sleep(0.01)
    stream = await hub.start(lambda: client.stream("hi"), key="k")
    assert (await read(stream))[1] == "done"
    assert await hub.start(lambda: client.stream("hi"), key="k") is stream
    assert upstream.requests_made == 1
    await hub.aclose()


async def test_key_of_an_answer_that_is_kept_no_longer_starts_anew(
    client: AsyncClient, upstream: MockErnie
) -> None:
    hub = StreamHub(limits=StreamLimits(retention=0.05))
    first = await hub.start(lambda: client.stream("hi"), key="k")
    await read(first)
    await until(lambda: hub.n_kept == 0)
    starts = [hub.start(lambda: client.stream("hi"), key="k") for _ in range(3)]
    streams = await asyncio.gather(*starts)
    assert first not in streams
    assert len(set(streams)) == 1
    assert (await read(streams[0]))[1] == "done"
    assert upstream.requests_made == 2
    await hub.aclose()


class SlowStore(MemoryStore):
    """Takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def begin(self, record: StreamRecord, *, keep: float) -> None:
        self.is_asked.set()
        await self.may_go_on.wait()


@pytest.mark.parametrize("key", [None, "k"])
async def test_start_that_is_too_slow_for_the_drain_is_refused(
    client: AsyncClient, upstream: MockErnie, key: str | None
) -> None:
    store, settled = SlowStore(), []
    hub = StreamHub(store)
    start = hub.start(lambda: client.stream("hi"), key=key, on_settled=settled.append)
    starting = asyncio.create_task(start)
    await store.is_asked.wait()
    await hub.drain(0.1)
    store.may_go_on.set()
    with pytest.raises(GatewayError) as refused:
        await starting
    assert refused.value.fault.code == "shutting_down"
    assert settled == [None]
    await hub.aclose()
    assert upstream.requests_made == hub.n_kept == 0


class SlowClaims(MemoryStore):
    """Who gets a key is told late."""

    def __init__(self) -> None:
        super().__init__()
        self.is_claimed, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def claim(self, key: str, stream_id: str, *, keep: float) -> str:
        holder = await super().claim(key, stream_id, keep=keep)
        if holder == stream_id:
            self.is_claimed.set()
            await self.may_go_on.wait()
        return holder


async def test_start_with_a_key_goes_on_without_who_asked_first(
    client: AsyncClient, upstream: MockErnie
) -> None:
    store = SlowClaims()
    hub = StreamHub(store)
    leaving = asyncio.create_task(hub.start(lambda: client.stream("hi"), key="k"))
    await store.is_claimed.wait()
    stream = await hub.start(lambda: client.stream("hi"), key="k")
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    store.may_go_on.set()
    assert (await read(stream))[1] == "done"
    assert upstream.requests_made == 1
    await hub.aclose()


async def test_everything_is_stopped_and_told(client: AsyncClient, upstream: MockErnie) -> None:
    upstream.default(stall(after_chunks=1))
    ended = []
    hub = StreamHub(on_end=[ended.append])
    streams = [await hub.start(lambda: client.stream("hi")) for _ in range(5)]
    readers = [asyncio.create_task(read(stream)) for stream in streams]
    await until(lambda: hub.n_viewers == 5)
    await hub.aclose()
    assert [kind for _, kind in await asyncio.gather(*readers)] == ["error"] * 5
    assert [one.ending for one in ended] == ["error"] * 5
    await upstream.wait_idle()
    with pytest.raises(GatewayError):
        await hub.start(lambda: client.stream("hi"))


async def test_hook_that_fails_takes_nothing_from_the_others(
    client: AsyncClient, upstream: MockErnie
) -> None:
    ended = []

    def fail(_: object) -> None:
        raise RuntimeError("no")

    hub = StreamHub(on_end=[fail, ended.append])
    await read(await hub.start(lambda: client.stream("hi")))
    await until(lambda: ended)
    await hub.aclose()


async def test_what_cannot_be_asked_is_not_started(client: AsyncClient) -> None:
    hub = StreamHub()
    settled = []
    with pytest.raises(ConfigError):
        await hub.start(lambda: client.stream([]), on_settled=settled.append)
    with pytest.raises(ConfigError):
        await hub.start(lambda: client.stream("hi"), on_disconnect="never")
    assert settled == [None]
    with pytest.raises(ConfigError):
        StreamHub(heartbeat=31)
    await hub.aclose()
