"""Draining: no call begins, those under way may end, and the rest is named."""

import asyncio
import time
from dataclasses import dataclass

import pytest

from ernie_async import (
    AsyncClient,
    Client,
    ConfigError,
    DeadlineError,
    DrainError,
    DrainReport,
    InterruptedStreamError,
    Limits,
    RetryPolicy,
    Timeouts,
)
from ernie_async.net.roster import Roster
from ernie_async.testing import MockErnie, refuse, reply, stall
from tests.waiting import until


@pytest.mark.anyio
async def test_calls_under_way_end_and_none_begins(server: MockErnie, client: AsyncClient) -> None:
    server.default(reply("好" * 20, chunk_ms=10))
    chat = asyncio.create_task(client.chat("hi"))
    stream = client.stream("hi")
    await anext(stream)
    reading = asyncio.create_task(stream.text())
    draining = asyncio.create_task(client.drain(timeout=5))
    await asyncio.sleep(0)
    for ask in (client.chat("no"), client.stream("no").text(), client.list_models()):
        with pytest.raises(DrainError, match="takes no more calls"):
            await ask
    with pytest.raises(DrainError):
        await client.with_options(model="m").chat("no")
    assert await draining == DrainReport(finished=2, cancelled=())
    assert (await chat).text
    assert await reading
    assert server.requests_made == 2
    assert await client.drain(timeout=None) == (0, ())


@pytest.mark.anyio
async def test_what_is_late_is_cancelled_and_named(server: MockErnie, client: AsyncClient) -> None:
    server.script(stall(before_headers=True), stall(after_chunks=2), reply("好" * 900, chunk_ms=5))
    chat = asyncio.create_task(client.chat("hi", request_id="mine"))
    await until(lambda: server.requests_made == 1)
    waiting, resting = client.stream("hi"), client.stream("hi")
    await anext(waiting)
    await anext(waiting)
    await anext(resting)
    reading = asyncio.create_task(anext(waiting))
    started = time.monotonic()
    report = await client.drain(timeout=0.1)
    assert time.monotonic() - started < 1
    assert report.finished == 0
    assert set(report.cancelled) == {"mine", waiting.request_id, resting.request_id}
    with pytest.raises(DrainError, match=r"not over within 0\.1 s") as caught:
        await chat
    assert caught.value.request_id == "mine"
    for ask in (reading, anext(resting)):
        with pytest.raises(InterruptedStreamError, match="drained") as stopped:
            await ask
        assert stopped.value.partial is not None
    await server.wait_idle(connections=True)


@pytest.mark.anyio
async def test_calls_that_wait_are_stopped_wherever_they_wait(server: MockErnie) -> None:
    server.script(stall(), refuse(429, retry_after=30))
    server.default(stall())
    retry = RetryPolicy(attempts=5, max_retry_after=60)
    limits = Limits(concurrency=2)
    url = server.base_url
    async with AsyncClient("k", base_url=url, retry=retry, limits=limits) as client:
        tasks = [asyncio.create_task(client.stream("hi").text()) for _ in range(2)]
        await until(lambda: server.requests_made == 2)
        tasks += [asyncio.create_task(client.stream("hi").text()) for _ in range(2)]
        tasks += [asyncio.create_task(client.chat("hi")) for _ in range(2)]
        await asyncio.sleep(0.1)
        report = await client.drain(timeout=0)
        assert len(report.cancelled) + report.finished == 6
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = (DrainError, InterruptedStreamError)
        assert sum(isinstance(error, kinds) for error in ended) >= 5
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
    await server.wait_idle(connections=True)


@pytest.mark.anyio
async def test_a_dropped_stream_is_no_call_any_more(server: MockErnie, client: AsyncClient) -> None:
    server.default(reply("好" * 900, chunk_ms=5))
    stream = client.stream("hi")
    await anext(stream)
    del stream
    assert await client.drain(timeout=0) == (0, ())


@pytest.mark.anyio
async def test_draining_can_be_cancelled(server: MockErnie, client: AsyncClient) -> None:
    server.default(reply("好" * 30, chunk_ms=5))
    stream = client.stream("hi")
    await anext(stream)
    draining = asyncio.create_task(client.drain(timeout=None))
    await asyncio.sleep(0.02)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert await stream.text()
    with pytest.raises(DrainError):
        await client.chat("no")


@pytest.mark.anyio
async def test_copies_drain_by_themselves(server: MockErnie, client: AsyncClient) -> None:
    import copy

    async with copy.copy(client) as other:
        await client.drain(timeout=0)
        assert (await other.chat("hi")).text


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", [-1, "soon", float("nan")])
async def test_a_wrong_time_is_a_clear_error(client: AsyncClient, wrong) -> None:
    with pytest.raises(ConfigError, match="timeout: expected seconds"):
        await client.drain(wrong)
    assert (await client.chat("hi")).text


def test_plain_client_drains_other_threads_and_loops(mock_ernie: MockErnie) -> None:
    mock_ernie.default(reply("好" * 900, chunk_ms=5))
    with Client("k", base_url=mock_ernie.base_url) as client:
        stream = client.stream("hi")
        next(stream)
        report = client.drain(timeout=0.05)
        assert report == (0, (stream.request_id,))
        with pytest.raises(InterruptedStreamError, match="drained"):
            for _ in stream:
                pass


def test_a_stream_of_a_closed_loop_does_not_hold_it_up(mock_ernie: MockErnie) -> None:
    mock_ernie.default(reply("好" * 900, chunk_ms=5))
    client = AsyncClient("k", base_url=mock_ernie.base_url)
    kept = []

    async def begin() -> None:
        kept.append(client.stream("hi"))
        await anext(kept[0])

    asyncio.run(begin())
    report = asyncio.run(client.drain(timeout=0.05))
    assert len(report.cancelled) == 1


@pytest.mark.anyio
async def test_closing_stops_the_calls_of_its_loop(server: MockErnie) -> None:
    client = AsyncClient("k", base_url=server.base_url)
    await client.chat("warm")
    server.script(stall(before_headers=True), stall(after_chunks=1), stall(after_chunks=1))
    chat = asyncio.create_task(client.chat("hi"))
    await until(lambda: server.requests_made == 2)
    waiting, resting = client.stream("hi"), client.stream("hi")
    await anext(waiting)
    await anext(resting)
    reading = asyncio.create_task(anext(waiting))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await client.aclose()
    assert time.monotonic() - started < 0.5
    with pytest.raises(DrainError, match="closed before this call was over") as caught:
        await chat
    assert len(caught.value.attempts) == 1
    for ask in (reading, anext(resting)):
        with pytest.raises(InterruptedStreamError, match="closed before") as broken:
            await ask
        assert broken.value.partial is not None
    assert server.requests_made == 4
    await server.wait_idle(connections=True)


@pytest.mark.anyio
async def test_a_client_that_was_closed_elsewhere_makes_no_more_calls(server: MockErnie) -> None:
    client = AsyncClient("k", base_url=server.base_url)
    await client.chat("hi")

    async def close() -> None:
        await client.aclose()

    await asyncio.to_thread(asyncio.run, close())
    with pytest.raises(ConfigError, match="closed"):
        await client.chat("hi")
    await client.aclose()


@pytest.mark.anyio
async def test_a_stream_whose_loop_ends_is_over(server: MockErnie) -> None:
    """The task that reads for all branches, or for all who share, is cancelled with its loop."""
    server.default(stall(before_headers=True))
    client = AsyncClient("k", base_url=server.base_url)
    ended: list[object] = []
    client = client.with_options(hooks=[ended.append])

    async def leave() -> None:
        branch, _ = client.stream("hi").tee(2)
        shared = client.stream("hi", coalesce=True)
        reading = [asyncio.create_task(anext(each)) for each in (branch, shared)]
        await until(lambda: len(ended) == 2)
        del reading

    await asyncio.to_thread(asyncio.run, leave())
    assert [type(record).__name__ for record in ended] == ["CallStarted"] * 2 + ["CallEnded"] * 2
    assert await client.drain(0.1) == (0, ())
    await client.aclose()


# Time


@pytest.mark.anyio
async def test_each_call_runs_out_at_its_own_time(server: MockErnie, client: AsyncClient) -> None:
    server.default(stall())
    seconds = [1.0, 0.15, 0.3, 0.15]  # not in the order in which they begin
    ended: list[float] = []

    async def ask(total: float) -> DeadlineError:
        with pytest.raises(DeadlineError) as caught:
            await client.chat("hi", timeouts=Timeouts(total=total))
        ended.append(total)
        return caught.value

    stream = client.stream("hi", timeouts=Timeouts(total=0.2))
    began = time.monotonic()
    async with asyncio.timeout(10):
        *errors, streamed = await asyncio.gather(
            *map(ask, seconds), stream.text(), return_exceptions=True
        )
    assert time.monotonic() - began >= 1
    assert ended[-1] == 1
    assert [error.seconds for error in errors] == seconds
    assert isinstance(streamed, DeadlineError)
    assert (streamed.clock, streamed.seconds) == ("total", 0.2)
    assert not client._desk.roster._alarms


@pytest.mark.anyio
async def test_calls_in_time_share_a_timer_which_closing_ends(server: MockErnie) -> None:
    server.script(reply("好"), reply("好", first_ms=700), reply("好"))
    async with AsyncClient("k", base_url=server.base_url) as client:
        alarms = client._desk.roster._alarms
        quick, slow = (
            asyncio.create_task(client.chat("hi", timeouts=Timeouts(total=total)))
            for total in (0.5, 9)
        )
        await quick
        [first] = alarms.values()
        await slow  # the first one's time came, and nothing was left to be stopped
        [second] = alarms.values()
        assert first.rings_at < second.rings_at
        await client.chat("hi")
        assert [*alarms.values()] == [second]
    assert not alarms
    assert second.timer.cancelled()


@dataclass
class Held:
    """A call that does nothing."""

    loop: asyncio.AbstractEventLoop
    number: int
    runs_out_at: float | None
    request_id: str = ""

    def stop(self, reason: str) -> None: ...

    def run_out(self) -> None: ...


def test_loops_have_a_timer_each_and_those_that_are_closed_none() -> None:
    roster, soon = Roster(), time.monotonic() + 9
    loops = [asyncio.new_event_loop() for _ in range(3)]
    for number, loop in enumerate(loops):
        roster.enter(Held(loop, number, soon))
        if loop is loops[0]:
            loop.close()
    assert list(roster._alarms) == loops[1:]
    for loop in loops[1:]:
        loop.close()
