"""Single flight: one call for all who ask the same at the same time, and nothing kept after it."""

import asyncio
import gc

import pytest
from pydantic import BaseModel

from ernie_async import (
    AsyncClient,
    BudgetError,
    CallEnded,
    Client,
    DeadlineError,
    DrainError,
    InterruptedStreamError,
    Limits,
    Record,
    RetryPolicy,
    ServerError,
    Timeouts,
)
from ernie_async.net import flights
from ernie_async.testing import MockErnie, cut, refuse, reply, stall
from tests.waiting import until

TEXT = "量子纠缠是两个粒子共享同一个状态的现象。"
SLOW = reply(TEXT, chunk_ms=5, first_ms=50)


def client_of(server: MockErnie, **settings) -> AsyncClient:
    given = {"retry": RetryPolicy(attempts=1), "coalesce": True, **settings}
    return AsyncClient("k", base_url=server.base_url, **given)


def kept(client: AsyncClient) -> dict:
    return client._desk.flights


@pytest.mark.anyio
async def test_the_same_chat_is_asked_once(server: MockErnie) -> None:
    server.default(SLOW)
    records: list[Record] = []
    async with client_of(server, hooks=[records.append]) as client:
        answers = await asyncio.gather(
            *(client.chat("hi", temperature=0.5, top_p=0.5, request_id=f"r{n}") for n in range(20)),
            client.chat("hi", top_p=0.5, temperature=0.5),
        )
        assert {answer.text for answer in answers} == {TEXT}
        assert server.requests_made == 1
        assert client.totals.calls == 1
        assert sum(isinstance(record, CallEnded) for record in records) == 1
        assert not kept(client)
        await client.chat("hi", temperature=0.5, top_p=0.5)  # it is no cache
        assert server.requests_made == 2


@pytest.mark.anyio
async def test_other_chats_are_asked_apart(server: MockErnie) -> None:
    server.default(SLOW)
    async with client_of(server) as client, client.budget(tokens=10_000):
        await asyncio.gather(
            client.chat("hi"),
            client.chat("ho"),
            client.chat("hi", temperature=0.5),
            client.chat("hi", model="other"),
            client.chat("hi", extra_headers={"X-A": "1"}),
            client.chat("hi", timeouts=Timeouts(total=9)),
            client.chat("hi", coalesce=False),
            client.stream("hi").text(),
        )
        assert server.requests_made == 8


@pytest.mark.anyio
async def test_streams_are_shared_from_their_beginning(server: MockErnie) -> None:
    server.default(reply(TEXT, chunk_ms=10))
    async with client_of(server, coalesce=False) as client:
        first = client.stream("hi", coalesce=True)
        begun = (await anext(first)).text
        await anext(first)
        late = [client.stream("hi", coalesce=True) for _ in range(5)]
        texts = await asyncio.gather(*(stream.text() for stream in late))
        rest = "".join([chunk.text async for chunk in first])
        assert texts == [TEXT] * 5
        assert (await first.final()).text == TEXT
        assert begun
        assert TEXT.endswith(rest)
        assert server.requests_made == 1
        assert client.totals.calls == 1
        ids = {stream.request_id for stream in [first, *late]}
        assert ids == {(await first.final()).id}
        assert all(stream.usage == first.usage for stream in late)
        assert all(stream.timing.attempts == 1 for stream in late)
        assert not kept(client)


@pytest.mark.anyio
async def test_who_leaves_does_not_end_it_for_others(server: MockErnie) -> None:
    server.default(reply(TEXT, chunk_ms=5, first_ms=300))
    async with client_of(server) as client:
        chats = [asyncio.create_task(client.chat("hi")) for _ in range(3)]
        streams = [client.stream("hi") for _ in range(4)]
        tasks = [asyncio.create_task(stream.text()) for stream in streams]
        await until(lambda: server.requests_made == 2)
        chats[0].cancel()
        tasks[0].cancel()
        streams[1].cancel("enough")
        await streams[2].aclose()
        with pytest.raises(asyncio.CancelledError):
            await chats[0]
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        for task, said in ((tasks[1], "enough"), (tasks[2], "closed")):
            with pytest.raises(InterruptedStreamError, match=said):
                await task
        assert (await chats[1]).text == (await chats[2]).text == TEXT
        assert await tasks[3] == TEXT
    assert [seen.ended for seen in server.requests] == ["done", "done"]


@pytest.mark.anyio
async def test_the_last_one_to_leave_ends_it(server: MockErnie, client: AsyncClient) -> None:
    server.default(stall(before_headers=True))
    tasks = [asyncio.create_task(client.chat("hi", coalesce=True)) for _ in range(3)]
    streams = [client.stream("hi", coalesce=True) for _ in range(3)]
    reading = [asyncio.create_task(stream.text()) for stream in streams]
    await until(lambda: server.requests_made == 2)
    for task in [*tasks, *reading]:
        task.cancel()
    await asyncio.gather(*tasks, *reading, return_exceptions=True)
    assert not kept(client)
    await server.wait_idle(connections=True)
    server.default(reply("好"))
    assert await client.stream("hi", coalesce=True).text() == "好"


@pytest.mark.anyio
async def test_dropped_streams_end_it_too(server: MockErnie, client: AsyncClient) -> None:
    server.default(reply(TEXT * 50, chunk_ms=5))
    streams = [client.stream("hi", coalesce=True) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    del stream
    streams.clear()
    gc.collect()
    assert not kept(client)
    await server.wait_idle(connections=True)


@pytest.mark.anyio
async def test_an_error_goes_to_all(server: MockErnie) -> None:
    server.script(refuse(500), cut(after_chunks=3, of=SLOW))
    async with client_of(server) as client:
        failed = await asyncio.gather(
            *(client.chat("hi") for _ in range(3)), return_exceptions=True
        )
        assert [type(error) for error in failed] == [ServerError] * 3
        assert len({id(error) for error in failed}) == 3
        streams = [client.stream("hi") for _ in range(3)]
        broken = await asyncio.gather(*(s.text() for s in streams), return_exceptions=True)
        assert [type(error) for error in broken] == [InterruptedStreamError] * 3
        assert len({error.partial.text for error in broken}) == 1  # type: ignore[union-attr]
        assert not kept(client)
        assert server.requests_made == 2


@pytest.mark.anyio
async def test_each_reader_has_a_partial_of_its_own(server: MockErnie) -> None:
    server.script(stall(after_chunks=3, of=reply(TEXT, chunk_ms=5)))
    async with client_of(server, timeouts=Timeouts(idle=0.3)) as client:
        slow, quick = client.stream("hi"), client.stream("hi")
        await anext(slow)
        with pytest.raises(TimeoutError) as caught:
            await quick.text()
        assert slow.snapshot().text != caught.value.partial.text  # type: ignore[attr-defined]
        rest = [await anext(slow), await anext(slow)]
        assert len(rest) == 2
        with pytest.raises(TimeoutError) as again:
            await anext(slow)
        assert again.value.partial.text == caught.value.partial.text  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_who_does_not_read_loses_it_and_a_long_stream_is_not_joined(
    server: MockErnie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "KEPT_CHUNKS", 8)
    server.default(reply("字" * 60, chunk_chars=1, chunk_ms=2))
    async with client_of(server, timeouts=Timeouts(idle=0.3)) as client:
        idle, reader = client.stream("hi"), client.stream("hi")
        await anext(idle)
        assert await reader.text() == "字" * 60
        assert server.requests_made == 1
        with pytest.raises(InterruptedStreamError, match="went on without it") as caught:
            await idle.text()
        assert caught.value.partial is not None
        first = client.stream("hi")
        for _ in range(12):
            await anext(first)
        assert await client.stream("hi").text() == "字" * 60
        assert server.requests_made == 3
        assert (await first.final()).text == "字" * 60


@pytest.mark.anyio
async def test_parsing_is_shared(server: MockErnie) -> None:
    class Point(BaseModel):
        x: int

    server.default(reply('{"x": 1}', first_ms=50))
    async with client_of(server) as client:
        points = await asyncio.gather(*(client.parse("hi", into=Point) for _ in range(3)))
        assert [point.x for point in points] == [1, 1, 1]
        finals = [client.stream_parse("hi", into=Point).final() for _ in range(3)]
        assert [point.x for point in await asyncio.gather(*finals)] == [1, 1, 1]
    assert server.requests_made == 2


@pytest.mark.anyio
async def test_each_budget_pays_for_itself(server: MockErnie) -> None:
    server.default(SLOW)
    async with client_of(server) as client:

        async def within(tokens: int) -> str:
            async with client.budget(tokens=tokens):
                return await client.stream("hi").text()

        small, large, none = await asyncio.gather(
            within(5), within(500), client.stream("hi").text(), return_exceptions=True
        )
        assert isinstance(small, BudgetError)
        assert large == none == TEXT


@pytest.mark.anyio
async def test_a_shared_stream_drains_and_falls_back(server: MockErnie) -> None:
    server.script(refuse(500), stall(after_chunks=2))
    async with client_of(server, fallback=["b"]) as client:
        streams = [client.stream("hi") for _ in range(2)]
        for stream in streams:
            await anext(stream)
            assert stream.fell_back_from == ("ernie-5.1",)
        report = await client.drain(timeout=0.05)
        assert len(report.cancelled) == 1
        for stream in streams:
            with pytest.raises(InterruptedStreamError, match="drained"):
                await stream.text()
        with pytest.raises(DrainError):
            await client.stream("other").text()


@pytest.mark.anyio
async def test_branches_of_a_shared_stream(server: MockErnie) -> None:
    server.default(SLOW)
    async with client_of(server) as client:
        other = asyncio.create_task(client.stream("hi").text())
        branches = client.stream("hi").tee(2)

        async def read(branch) -> str:
            return "".join([chunk.text async for chunk in branch])

        assert await asyncio.gather(*map(read, branches)) == [TEXT, TEXT]
        assert await other == TEXT
    assert server.requests_made == 1


def test_plain_client_shares_between_threads(mock_ernie: MockErnie) -> None:
    import threading

    mock_ernie.default(reply(TEXT, chunk_ms=5, first_ms=200))
    texts: list[str] = []
    with Client("k", base_url=mock_ernie.base_url, coalesce=True) as client:
        threads = [
            threading.Thread(target=lambda: texts.append(client.stream("hi").text()))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == [TEXT] * 4
    assert mock_ernie.requests_made == 1


@pytest.mark.anyio
async def test_a_thousand_at_once(server: MockErnie) -> None:
    server.default(SLOW)
    async with client_of(server) as client:
        streams = [client.stream("hi") for _ in range(1000)]
        texts = await asyncio.gather(*(stream.text() for stream in streams))
        assert set(texts) == {TEXT}
        assert server.requests_made == 1
        assert not kept(client)


@pytest.mark.anyio
async def test_who_has_less_patience_does_not_join(server: MockErnie) -> None:
    async with client_of(server, limits=Limits(concurrency=1)) as client:
        server.script(reply("好", first_ms=800))
        before = asyncio.create_task(client.chat("before"))
        await until(lambda: server.requests_made == 1)
        waiting = asyncio.create_task(client.chat("hi", priority="batch"))
        assert client.limiter is not None
        await until(lambda: client.limiter.waiting == 1)
        with pytest.raises(DeadlineError) as caught:
            await client.chat("hi", max_wait=0.1)
        assert caught.value.clock == "queue"
        await before
        await waiting
