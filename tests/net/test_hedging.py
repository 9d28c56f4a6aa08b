"""A second request when the first one is late: who wins, what it costs, what is left behind."""

import asyncio

import pytest

from ernie_async import (
    AsyncClient,
    ConfigError,
    Hedged,
    Hedging,
    Limiter,
    Limits,
    Record,
    RetryPolicy,
    ServerError,
    Timeouts,
)
from ernie_async.testing import MockErnie, raw, refuse, reply, stall
from tests.waiting import until

SOON = Hedging(after=0.05, share=1.0)
FAST = reply("好", chunk_ms=1)


def client_of(server: MockErnie, records: list[Record] | None = None, **settings) -> AsyncClient:
    given = {"hedge": SOON, "retry": RetryPolicy(attempts=1), **settings}
    hooks = [] if records is None else [records.append]
    return AsyncClient("k", base_url=server.base_url, hooks=hooks, **given)


async def ask(client: AsyncClient, kind: str) -> str:
    if kind == "chat":
        return (await client.chat("hi there")).text
    return await client.stream("hi there").text()


both = pytest.mark.parametrize("kind", ["chat", "stream"])


@both
@pytest.mark.anyio
async def test_the_second_request_answers_when_the_first_is_late(
    server: MockErnie, kind: str
) -> None:
    records: list[Record] = []
    server.script(stall(before_headers=True), FAST)
    async with client_of(server, records, limits=Limits(concurrency=2)) as client:
        async with client.budget(tokens=1000) as budget:
            assert await ask(client, kind) == "好"
        assert client.limiter is not None
        assert client.limiter.in_flight == 0
        [hedged] = [record for record in records if isinstance(record, Hedged)]
        assert (hedged.won, hedged.model, hedged.usage.prompt_tokens) == (True, "ernie-5.1", 2)
        assert 0.05 <= hedged.after < 1
        # Its cost is noted: both requests are, and the one that lost is an estimate.
        assert client.totals.calls == 2
        assert client.totals.estimated_calls >= 1
        assert budget.tokens == client.totals.total_tokens
        await server.wait_idle()
    assert [seen.ended for seen in server.requests] == ["client_gone", "done"]


@both
@pytest.mark.anyio
async def test_the_first_request_may_still_win(server: MockErnie, kind: str) -> None:
    records: list[Record] = []
    server.script(reply("好", first_ms=150), stall(before_headers=True))
    async with client_of(server, records) as client:
        assert await ask(client, kind) == "好"
        await server.wait_idle()
    assert [record.won for record in records if isinstance(record, Hedged)] == [False]
    assert [seen.ended for seen in server.requests] == ["done", "client_gone"]


@both
@pytest.mark.anyio
async def test_who_is_in_time_is_not_hedged(server: MockErnie, kind: str) -> None:
    records: list[Record] = []
    server.default(FAST)
    async with client_of(server, records, hedge=Hedging(after=5)) as client:
        for _ in range(5):
            await ask(client, kind)
        assert client.totals.calls == 5
    assert server.requests_made == 5
    assert not any(isinstance(record, Hedged) for record in records)


@both
@pytest.mark.anyio
async def test_no_room_no_hedge(server: MockErnie, kind: str) -> None:
    server.script(reply("好", first_ms=200), FAST)
    async with client_of(server, limits=Limits(concurrency=1)) as client:
        assert await ask(client, kind) == "好"
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
    assert server.requests_made == 1


@both
@pytest.mark.anyio
async def test_no_more_than_its_share(server: MockErnie, kind: str) -> None:
    server.default(reply("好", first_ms=60))
    hedge = Hedging(after=0.01, share=0.1)
    async with client_of(server, hedge=hedge) as client:
        await asyncio.gather(*(ask(client, kind) for _ in range(20)))
    assert server.requests_made in {22, 23}


@both
@pytest.mark.anyio
async def test_both_fail(server: MockErnie, kind: str) -> None:
    late_failure = raw(b"{", pause_ms=200, status=500, content_type="application/json")
    server.script(refuse(500), late_failure, late_failure)
    async with client_of(server) as client:
        with pytest.raises(ServerError) as caught:
            await ask(client, kind)
        assert len(caught.value.attempts) == 1  # it failed in time, so nothing was sent beside it
        with pytest.raises(ServerError) as caught:
            await ask(client, kind)
        assert len(caught.value.attempts) == 2
        await server.wait_idle()
    assert server.requests_made == 3


@pytest.mark.anyio
async def test_both_are_late(server: MockErnie) -> None:
    server.default(stall(before_headers=True))
    timeouts = Timeouts(first_event=0.3, total=0.5)
    async with client_of(server, timeouts=timeouts) as client:
        for kind in ("chat", "stream"):
            with pytest.raises(TimeoutError):
                await ask(client, kind)
        await server.wait_idle()
    assert server.requests_made == 4


@both
@pytest.mark.anyio
async def test_one_failure_is_made_good_by_the_other(server: MockErnie, kind: str) -> None:
    server.script(reply("好", first_ms=200), refuse(500))
    async with client_of(server) as client:
        assert await ask(client, kind) == "好"
    assert server.requests_made == 2


@both
@pytest.mark.anyio
@pytest.mark.parametrize("after", [0.0, 0.02, 0.06, 0.1])
async def test_cancelling_leaves_nothing(server: MockErnie, kind: str, after: float) -> None:
    server.default(stall(before_headers=True))
    tasks_before = len(asyncio.all_tasks())
    async with client_of(server, limits=Limits(concurrency=2)) as client:
        task = asyncio.create_task(ask(client, kind))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
        await server.wait_idle(connections=True)
        assert len(asyncio.all_tasks()) <= tasks_before + 1


@pytest.mark.anyio
async def test_a_stream_that_is_left_while_two_requests_are_under_way(server: MockErnie) -> None:
    server.default(stall(before_headers=True))
    async with client_of(server) as client:
        stream = client.stream("hi")
        reading = asyncio.create_task(stream.text())
        await until(lambda: server.requests_made == 2)
        stream.cancel("enough")
        with pytest.raises(Exception, match="enough"):
            await reading
        await server.wait_idle(connections=True)


@pytest.mark.anyio
async def test_late_is_what_was_seen_of_the_model(server: MockErnie) -> None:
    server.default(FAST)
    async with client_of(server, hedge=Hedging(share=1.0)) as client:
        for _ in range(20):
            await client.chat("hi")
        assert server.requests_made == 20
        server.script(stall(before_headers=True), FAST)
        assert (await client.chat("hi")).text == "好"
        assert server.requests_made == 22
        # Another model, and streams, are of their own.
        server.script(reply("好", first_ms=100))
        await client.stream("hi").text()
        assert server.requests_made == 23


@pytest.mark.anyio
async def test_only_chats_are_sent_twice(server: MockErnie) -> None:
    server.script(reply(first_ms=150), path="/embeddings")
    async with client_of(server, hedge=Hedging(after=0.0, share=1.0)) as client:
        await client.embed("hi")
        await client.list_models()
        assert server.requests_made == 2
        plain = client.with_options(hedge=None)
        server.script(reply("好", first_ms=100))
        await plain.chat("hi")
    assert server.requests_made == 3


def test_a_wrong_setting_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="hedge: expected Hedging, got True"):
        AsyncClient("k", hedge=True)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_task_that_never_began_leaves_its_permit() -> None:
    from ernie_async.net.hedging import _leave

    limiter = Limiter(Limits(concurrency=1))
    task = asyncio.create_task(asyncio.sleep(60))
    assert await _leave({task: await limiter.admit()}, lambda _: None)
    await asyncio.sleep(0)
    assert (task.cancelled(), limiter.in_flight) == (True, 0)
