"""Leaving a stream early, in every way, and in great numbers."""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from ernie_async import (
    APIError,
    AsyncClient,
    CallEnded,
    ChatChunk,
    ChatStream,
    DeadlineError,
    ErnieError,
    InterruptedStreamError,
    Limits,
    Record,
    RetryPolicy,
    ServerError,
    Timeouts,
)
from ernie_async.testing import (
    MockErnie,
    Step,
    cut,
    error_event,
    heartbeats,
    raw,
    refuse,
    reply,
    stall,
)
from tests.net.freed import wait_freed

pytestmark = pytest.mark.anyio

SLOW = reply("字" * 2000, chunk_ms=5)


async def leave_by_break(client: AsyncClient) -> None:
    async for _ in client.stream("hi"):
        break


async def leave_by_break_in_block(client: AsyncClient) -> None:
    async with client.stream("hi") as stream:
        async for _ in stream:
            break


async def leave_by_exception(client: AsyncClient) -> None:
    with pytest.raises(ZeroDivisionError):
        async for _ in client.stream("hi"):
            _ = 1 / 0


async def leave_by_aclose(client: AsyncClient) -> None:
    stream = client.stream("hi")
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def leave_by_dropping_after_a_retry(client: AsyncClient) -> None:
    await anext(client.stream("retried"))


async def leave_by_cancel(client: AsyncClient) -> None:
    async with asyncio.timeout(None) as ends:
        async for _ in client.stream("hi"):
            ends.reschedule(0)  # at once: while the next chunk is awaited


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_break_in_block,
        leave_by_exception,
        leave_by_aclose,
        leave_by_dropping_after_a_retry,
        leave_by_cancel,
    ],
)
async def test_leaving_frees_the_connection_within_50_ms(
    server: MockErnie, client: AsyncClient, leave: Callable[[AsyncClient], Awaitable[None]]
) -> None:
    if leave is leave_by_dropping_after_a_retry:
        server.script(refuse(503))
    server.script(SLOW)
    gc.disable()  # a cycle that only the collector frees would not count
    try:
        try:
            await leave(client)
        except TimeoutError:
            assert leave is leave_by_cancel
        await wait_freed(server)
        assert server.requests[-1].ended == "client_gone"
    finally:
        gc.enable()


@pytest.mark.parametrize("moment", range(12))
async def test_cancelling_at_any_moment_leaves_nothing(server: MockErnie, moment: int) -> None:
    """Through the line of the limiter, the connection, the head, the chunks and the backoff."""
    records: list[Record] = []
    server.script(refuse(503), reply("字" * 10, chunk_ms=1, first_ms=5))
    server.default(SLOW)
    async with AsyncClient(
        "k",
        base_url=server.base_url,
        limits=Limits(concurrency=1, tokens_per_minute=10_000),
        retry=RetryPolicy(base_delay=0.005),
        hooks=[records.append],
    ) as client:

        async def read() -> None:
            async for _ in client.stream("hi"):
                pass

        tasks = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(moment * 0.004)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
        await server.wait_idle()
    await server.wait_idle(connections=True)
    n_ended = sum(isinstance(record, CallEnded) for record in records)
    assert n_ended == 3, "every call that began is told to be over"


async def test_500_streams_at_once_all_come_whole(server: MockErnie) -> None:
    server.default(reply(None, chunk_ms=1))

    async def read(client: AsyncClient, i: int) -> None:
        server_text = await client.stream(f"第{i}个").text()
        assert server_text.endswith("结果。")

    async with AsyncClient("k", base_url=server.base_url) as client:
        async with asyncio.TaskGroup() as group:
            for i in range(500):
                group.create_task(read(client, i))
    await server.wait_idle(connections=True)
    assert {seen.ended for seen in server.requests} == {"done"}


FAILS_FIRST: dict[str, Step] = {
    "cut after the headers": cut(0),
    "reset after the headers": cut(0, how="reset"),
    "cut before the headers": cut(before_headers=True),
    "a proper end without an event": cut(0, how="end"),
    "refused": refuse(503),
    "refused, and cut": raw(b"{", status=503, end="close"),
    "an error as the first event": error_event(),
    "silence": stall(),
    "silence before the headers": stall(before_headers=True),
    "heartbeats": heartbeats(5),
    "half an event, then a cut": raw(b'data: {"choices":[{', end="close"),
}
BREAKS_LATER: dict[str, Step] = {
    "cut": cut(2, of=reply("字" * 2000, ids=True)),
    "reset": cut(2, of=reply("字" * 2000, ids=True), how="reset"),
    "silence": stall(2, of=reply("字" * 2000, ids=True)),
    "cut in an event": cut(after_bytes=500, of=reply("字" * 2000, ids=True)),
}


@pytest.mark.parametrize("step", FAILS_FIRST.values(), ids=FAILS_FIRST.keys())
async def test_a_retried_stream_is_freed_when_it_is_dropped(
    server: MockErnie, client: AsyncClient, step: Step
) -> None:
    server.script(step, SLOW)
    await dropped_at_once(server, client, after=1)


@pytest.mark.parametrize("step", BREAKS_LATER.values(), ids=BREAKS_LATER.keys())
async def test_a_resumed_stream_is_freed_when_it_is_dropped(
    server: MockErnie, client: AsyncClient, step: Step
) -> None:
    server.script(step, reply("字" * 2000, ids=True, chunk_ms=5))
    await dropped_at_once(server, client, after=6)


async def dropped_at_once(server: MockErnie, client: AsyncClient, *, after: int) -> None:
    """Read some chunks and drop the stream: its connection is gone, without a collector's help."""

    async def use() -> None:
        chunks = 0
        async for _ in client.stream("hi"):
            chunks += 1
            if chunks == after:
                break

    gc.collect()
    gc.disable()
    try:
        await use()
        assert len(server.requests) == 2
        await server.wait_idle(0.5)
        assert server.requests[1].ended == "client_gone"
    finally:
        gc.enable()


async def test_1000_streams_ended_at_random_leave_no_socket_task_or_permit(
    server: MockErnie,
) -> None:
    chance = random.Random(7)
    steps = [SLOW, SLOW, SLOW, cut(3), cut(0), error_event(after_chunks=2), refuse(400), stall(1)]
    steps += [heartbeats(5, after_chunks=1), cut(2, how="reset"), reply("好")]
    server.script(*(chance.choice(steps) for _ in range(3000)))
    tasks_before = len(asyncio.all_tasks())

    async def use(client: AsyncClient, stream: ChatStream, how: int, patience: float) -> None:
        if how == 0:
            async for _ in stream:
                break
        elif how == 1:
            async with asyncio.timeout(patience):
                await stream.text()
        elif how == 2:
            async with stream:
                async for _ in stream:
                    raise ZeroDivisionError
        else:
            await stream.final()

    async with AsyncClient(
        "k",
        base_url=server.base_url,
        limits=Limits(concurrency=200, tokens_per_minute=1e9),
        retry=RetryPolicy(attempts=2, base_delay=0.001),
        timeouts=Timeouts(idle=0.2, first_event=0.5, total=5),
    ) as client:
        jobs = [
            use(client, client.stream("hi"), chance.randrange(4), chance.random() * 0.1)
            for _ in range(1000)
        ]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        unexpected = [
            result
            for result in results
            if not isinstance(result, ErnieError | TimeoutError | ZeroDivisionError | None)
        ]
        assert not unexpected
        del results, jobs
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
        await server.wait_idle()
    await server.wait_idle(connections=True)
    with anyio.fail_after(2):
        while len(asyncio.all_tasks()) > tasks_before:
            await anyio.sleep(0.01)


async def test_final_after_leaving_says_so(server: MockErnie, client: AsyncClient) -> None:
    server.script(SLOW)
    stream = client.stream("hi")
    first = await anext(stream)
    await stream.aclose()
    with pytest.raises(InterruptedStreamError, match="left before its end") as caught:
        await stream.final()
    assert caught.value.partial is not None
    assert caught.value.partial.text == first.text


async def test_a_stream_can_be_read_once(client: AsyncClient) -> None:
    stream = client.stream("hi")
    whole = await stream.text()
    assert [chunk async for chunk in stream] == []
    assert await stream.text() == whole


async def test_a_stream_never_begun_sends_nothing(server: MockErnie, client: AsyncClient) -> None:
    async with client.stream("hi"):
        pass
    del client
    assert server.requests == []


async def test_a_slow_consumer_is_no_silence(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply("字" * 20, chunk_ms=1))
    n_chunks = 0
    async for _ in client.stream("hi", timeouts=Timeouts(idle=0.05)):
        n_chunks += 1
        if n_chunks in {2, 5}:
            await asyncio.sleep(0.15)
    assert n_chunks == 11


async def test_total_covers_the_line_the_retries_and_the_stream(server: MockErnie) -> None:
    slow = Timeouts(total=0.2)
    async with AsyncClient("k", base_url=server.base_url, limits=Limits(concurrency=1)) as client:
        server.script(stall(1))
        with pytest.raises(DeadlineError) as streaming:
            await client.stream("hi", timeouts=Timeouts(total=1)).text()
        assert streaming.value.clock == "total"
        assert streaming.value.partial is not None
        server.script(SLOW)
        async with client.stream("hi") as other:
            await anext(other)
            with pytest.raises(DeadlineError) as queued:
                await client.chat("hi", timeouts=slow)
        assert queued.value.clock == "total"
        server.script(refuse(503, retry_after=5))
        with pytest.raises(ServerError) as retrying:  # no wait that would outlast the call
            await client.stream("hi", timeouts=slow).text()
        assert retrying.value.attempts[0].status == 503


async def test_heartbeats_and_timing_can_be_seen(server: MockErnie, client: AsyncClient) -> None:
    server.script(heartbeats(1, limit=5, text="好"))
    async with client.stream("hi", stream_options={"include_usage": True}) as stream:
        answer = await stream.final()
    assert stream.heartbeats == 5
    assert stream.usage == answer.usage is not None
    assert stream.request_id == answer.id == answer.request_id
    assert answer.timing is not None
    assert answer.timing.first_token is not None
    assert 0 < answer.timing.first_token <= (answer.timing.total or 0)


@pytest.mark.parametrize("options", [{}, {"coalesce": True}], ids=["own", "shared"])
async def test_a_second_reader_is_told_and_the_first_one_goes_on(
    server: MockErnie, client: AsyncClient, options: dict[str, Any]
) -> None:
    server.script(reply("abcdef", chunk_ms=50))
    stream = client.stream("hi", **options)
    text = ""
    async for chunk in stream:
        text += chunk.text
        if len(text) == 2:
            first = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match=r"another task is waiting .* tee"):
                await anext(stream)
            text += (await first).text
    assert text == "abcdef"


@pytest.mark.parametrize("where", ["line", "head", "backoff", "chunk"])
async def test_closing_a_stream_that_another_task_waits_for(server: MockErnie, where: str) -> None:
    limits = Limits(concurrency=1)
    retry = RetryPolicy(base_delay=60)
    async with AsyncClient("k", base_url=server.base_url, limits=limits, retry=retry) as client:
        assert client.limiter is not None
        first = {
            "head": stall(before_headers=True),
            "backoff": refuse(503),
            "chunk": stall(1),
        }
        server.script(first.get(where, stall(1)))
        other = client.stream("other")
        if where == "line":
            await anext(other)
        stream = client.stream("hi")

        async def read() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        n_requests = len(server.requests)
        await stream.aclose()
        with pytest.raises(InterruptedStreamError):
            async with asyncio.timeout(1):
                await task
        await asyncio.sleep(0.05)
        assert len(server.requests) == n_requests, "nothing is asked after closing"
        await other.aclose()
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)


async def test_two_tasks_cannot_begin_one_stream(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply("abc"))
    stream = client.stream("hi")
    results = await asyncio.gather(anext(stream), anext(stream), return_exceptions=True)
    assert isinstance(results[0], ChatChunk)
    assert isinstance(results[1], RuntimeError)
    assert len(server.requests) == 1
    assert (await stream.final()).text == "abc"


async def test_a_stream_can_be_cancelled_in_the_moment_in_which_its_time_is_up(
    mock_ernie: MockErnie,
) -> None:
    mock_ernie.script(stall(before_headers=True))
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    async with AsyncClient("k", base_url=mock_ernie.base_url) as client:
        stream = client.stream("hi", timeouts=Timeouts(total=0.1))
        loop.call_later(0.05, time.sleep, 0.15)  # so that both come due in the same turn
        loop.call_later(0.12, stream.cancel, "enough")
        with pytest.raises(InterruptedStreamError, match="enough"):
            await stream.text()
    assert told == []


async def test_all_answers_that_were_asked_for_have_to_end(
    server: MockErnie, client: AsyncClient
) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    server.script(raw(body))
    with pytest.raises(InterruptedStreamError):
        await client.stream("hi", n=2).text()
    server.script(raw(body))
    assert await client.stream("hi").text() == "a"


async def test_a_busy_loop_is_no_silence_of_the_server(mock_ernie: MockErnie) -> None:
    mock_ernie.script(reply("字" * 40, chunk_ms=20))
    async with AsyncClient("k", base_url=mock_ernie.base_url) as client:
        stream = client.stream("hi", timeouts=Timeouts(idle=0.3))

        async def read() -> str:
            return await stream.text()

        task = asyncio.create_task(read())
        await asyncio.sleep(0.15)
        time.sleep(0.6)  # noqa: ASYNC251 - what must not happen, happens
        assert await task == "字" * 40


def test_a_stream_that_outlives_its_loop_gives_its_permit_back(mock_ernie: MockErnie) -> None:
    client = AsyncClient("k", base_url=mock_ernie.base_url, limits=Limits(concurrency=1))
    mock_ernie.script(stall(1))

    async def begin() -> ChatStream:
        stream = client.stream("hi")
        await anext(stream)
        return stream

    stream = asyncio.run(begin())
    del stream
    gc.collect()
    assert client.limiter is not None
    assert client.limiter.in_flight == 0


@pytest.mark.anyio
@pytest.mark.parametrize("step", [refuse(401), refuse(500)])
async def test_a_stream_that_had_no_answer_used_nothing(server: MockErnie, step: Step) -> None:
    records: list[Record] = []
    server.script(step)
    async with AsyncClient(
        "k", base_url=server.base_url, hooks=[records.append], retry=RetryPolicy(attempts=1)
    ) as client:
        with pytest.raises(APIError):
            await client.stream("hi").text()
    assert isinstance(records[-1], CallEnded)
    assert records[-1].usage is None
