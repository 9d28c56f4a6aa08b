"""The ways to read a stream: text alone, so far, by several, and until somebody says stop."""

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator
from itertools import groupby, pairwise

import anyio
import pytest

from ernie_async import (
    AsyncClient,
    BlockedError,
    ChatChunk,
    ChatStream,
    ConfigError,
    ConnectError,
    DeadlineError,
    HeartbeatSeen,
    InterruptedStreamError,
    RateLimitError,
    ReadBuffer,
    Record,
    RetryPolicy,
    RetryScheduled,
    ServerError,
    Timeouts,
)
from ernie_async.testing import MockErnie, cut, heartbeats, raw, refuse, reply, stall

pytestmark = pytest.mark.anyio

TEXT = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
SLOW = reply("字" * 2000, chunk_ms=5)


def chunk(text: str, **more: object) -> bytes:
    fields = "".join(f',"{name}":{value}' for name, value in more.items())
    return b'data: {"choices":[{"delta":{"content":"%s"}%s}]}\n\n' % (
        text.encode(),
        fields.encode(),
    )


async def test_text_deltas_are_the_texts_and_none_is_empty(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(reply(TEXT, reasoning="想一想"))
    deltas = [delta async for delta in client.stream("hi").text_deltas()]
    assert "".join(deltas) == TEXT
    assert all(deltas)


async def test_leaving_text_deltas_frees_the_connection(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(SLOW)
    async for _ in client.stream("hi").text_deltas():
        break
    await server.wait_idle(0.5, connections=True)
    assert server.requests[0].ended == "client_gone"


@pytest.mark.parametrize("packet", [chunk("量") + chunk("子") + chunk("纠"), b""])
async def test_snapshot_is_what_was_handed_over(
    server: MockErnie, client: AsyncClient, packet: bytes
) -> None:
    # Also in the middle of a packet, of which the rest is not told yet.
    last = chunk("缠", finish_reason='"stop"')
    server.script(raw([packet, last]) if packet else reply(TEXT))
    async with client.stream("hi") as stream:
        assert stream.snapshot().text == ""
        told = ""
        async for part in stream:
            told += part.text
            assert stream.snapshot().text == told
    assert told == ("量子纠缠" if packet else TEXT)


async def test_a_partial_answer_has_only_what_was_handed_over(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(raw([chunk("量") + chunk("子") + chunk("纠")], end="stall"))
    stream = client.stream("hi")
    assert (await anext(stream)).text == "量"
    stream.cancel("enough")
    with pytest.raises(InterruptedStreamError) as caught:
        await anext(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "量"


async def _text_of(chunks: AsyncIterator[ChatChunk]) -> str:
    return "".join([part.text async for part in chunks])


class TestCancel:
    async def test_the_consumer_is_told_why(self, server: MockErnie, client: AsyncClient) -> None:
        server.script(SLOW)
        stream = client.stream("hi")
        await anext(stream)
        asyncio.get_running_loop().call_later(0.02, stream.cancel, "the user pressed stop")
        with pytest.raises(InterruptedStreamError, match="the user pressed stop") as caught:
            async for _ in stream:
                pass
        assert caught.value.reason == "the user pressed stop"
        assert caught.value.partial is not None
        await server.wait_idle(0.5, connections=True)

    async def test_from_another_thread(self, server: MockErnie, client: AsyncClient) -> None:
        server.script(SLOW)
        stream = client.stream("hi")
        await anext(stream)
        thread = threading.Thread(target=stream.cancel, args=("from afar",))
        thread.start()
        with pytest.raises(InterruptedStreamError, match="from afar"):
            async for _ in stream:
                pass
        thread.join()
        await server.wait_idle(0.5, connections=True)

    @pytest.mark.parametrize(
        "step", [stall(before_headers=True), stall(), refuse(429, retry_after=9)]
    )
    async def test_while_it_is_being_opened(
        self, server: MockErnie, client: AsyncClient, step: object
    ) -> None:
        server.script(step)  # type: ignore[arg-type]
        stream = client.stream("hi", timeouts=Timeouts())
        started = time.monotonic()
        threading.Timer(0.05, stream.cancel, ("early",)).start()
        with pytest.raises(InterruptedStreamError, match="early"):
            await anext(stream)
        assert time.monotonic() - started < 1

    async def test_before_the_first_step(self, server: MockErnie, client: AsyncClient) -> None:
        stream = client.stream("hi")
        stream.cancel("never mind")
        with pytest.raises(InterruptedStreamError, match="never mind"):
            await anext(stream)
        assert server.requests == []

    async def test_after_the_end_it_does_nothing(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        stream = client.stream("hi")
        whole = await stream.text()
        stream.cancel("late")
        assert await stream.text() == whole


class TestTee:
    async def test_every_branch_gets_everything(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply(TEXT, chunk_ms=1))
        stream = client.stream("hi")

        async def read(branch: object, pause: float) -> str:
            text = ""
            async for part in branch:  # type: ignore[attr-defined]
                text += part.text
                await asyncio.sleep(pause)
            return text

        branches = stream.tee(3)
        texts = await asyncio.gather(
            *(
                read(branch, pause)
                for branch, pause in zip(branches, (0, 0.003, 0.001), strict=True)
            )
        )
        assert texts == [TEXT] * 3
        assert len(server.requests) == 1
        assert (await stream.final()).text == TEXT

    async def test_a_branch_waits_for_a_slow_one(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply("字" * 400))
        fast, slow = client.stream("hi").tee(2, ahead=20)
        with anyio.move_on_after(0.1):
            ahead = 0
            async for _ in fast:
                ahead += 1
        # One packet more may have come at once.
        assert 20 <= ahead < 100
        await fast.aclose()
        assert "".join([part.text async for part in slow]) == "字" * 400

    async def test_a_branch_that_nobody_reads_is_an_error_in_the_end(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply("字" * 400))
        fast, slow = client.stream("hi").tee(2, ahead=20)
        with pytest.raises(DeadlineError, match="another branch") as caught:
            async for _ in fast:
                pass
        assert caught.value.clock == "idle"
        await slow.aclose()
        await fast.aclose()

    async def test_a_cancelled_branch_leaves_the_others_alone(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply(TEXT, chunk_ms=5, first_ms=30))
        first, second = client.stream("hi").tee(2)
        with anyio.move_on_after(0.01):
            await anext(first)
        await first.aclose()
        assert "".join([part.text async for part in second]) == TEXT
        assert len(server.requests) == 1

    @pytest.mark.parametrize("how", ["close", "drop", "cancel"])
    async def test_leaving_all_branches_leaves_the_stream(
        self, server: MockErnie, client: AsyncClient, how: str
    ) -> None:
        server.script(SLOW)
        branches = list(client.stream("hi").tee(2))
        await anext(branches[0])
        if how == "cancel":
            tasks = [asyncio.ensure_future(anext(branches[0])) for _ in range(1)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del tasks, task
        if how == "close":
            for branch in branches:
                await branch.aclose()
            del branch
        branches.clear()
        await server.wait_idle(0.5, connections=True)

    async def test_a_branch_that_is_dropped_is_not_waited_for(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply("字" * 400))
        fast, slow = client.stream("hi", timeouts=Timeouts(idle=30)).tee(2, ahead=20)
        reading = asyncio.create_task(_text_of(fast))
        await asyncio.sleep(0.1)
        assert not reading.done()
        del slow
        assert await asyncio.wait_for(reading, 5) == "字" * 400

    @pytest.mark.parametrize("n_read", [1, 2, 3])
    async def test_after_some_steps_the_branches_have_the_rest(
        self, server: MockErnie, client: AsyncClient, n_read: int
    ) -> None:
        end = b"data: [DONE]\n\n"
        server.script(raw(chunk("床") + chunk("前") + chunk("明", finish_reason='"stop"') + end))
        stream = client.stream("hi")
        text = "".join([(await anext(stream)).text for _ in range(n_read)])
        first, second = stream.tee(2)
        assert await asyncio.gather(_text_of(first), _text_of(second)) == ["床前明"[n_read:]] * 2
        assert (await stream.final()).text == "床前明"
        assert text == "床前明"[:n_read]

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks")
    @pytest.mark.parametrize("is_shared", [False, True])
    async def test_in_a_loop_whose_tasks_are_eager(
        self, server: MockErnie, client: AsyncClient, *, is_shared: bool
    ) -> None:
        if sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        server.script(reply("字" * 1000), reply(TEXT))
        stream = client.stream("hi", coalesce=is_shared)
        texts = await asyncio.gather(*map(_text_of, stream.tee(3)))
        assert texts == ["字" * 1000] * 3
        assert (await client.chat("hi")).text == TEXT

    async def test_every_branch_is_told_of_a_break(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(cut(3, text=TEXT))
        for branch in client.stream("hi").tee(2):
            text = ""
            with pytest.raises(InterruptedStreamError) as caught:
                async for part in branch:
                    text += part.text
            assert text == TEXT[:6]
            assert caught.value.partial is not None
            assert caught.value.partial.text == text

    @pytest.mark.parametrize(("n", "ahead"), [(0, 1), (2, 0), ("2", 1)])
    async def test_numbers_are_checked(self, client: AsyncClient, n: int, ahead: int) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            client.stream("hi").tee(n, ahead=ahead)


class TestVerdict:
    @pytest.mark.parametrize(("flag", "retracted"), [(3, False), (4, True)])
    async def test_a_text_that_must_not_be_shown_is_not(
        self, server: MockErnie, client: AsyncClient, flag: int, *, retracted: bool
    ) -> None:
        server.script(raw(chunk("量子") + chunk("坏", flag=flag, ban_round=-1) + chunk("x")))
        told = ""
        with pytest.raises(BlockedError) as caught:
            async for part in client.stream("hi"):
                told += part.text
        assert told == "量子"
        error = caught.value
        assert (error.flag, error.ban_round, error.is_retracted) == (flag, -1, retracted)
        assert error.partial is not None
        assert error.partial.text == "量子"
        assert len(server.requests) == 1

    async def test_content_filter_ends_as_an_error_with_the_text_before(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply(TEXT, finish_reason="content_filter"))
        with pytest.raises(BlockedError) as caught:
            await client.stream("hi").text()
        assert caught.value.partial is not None
        assert caught.value.partial.finish_reason == "content_filter"
        assert caught.value.partial.text == TEXT
        server.script(reply(TEXT, finish_reason="content_filter"), reply(TEXT, flag=3))
        for _ in range(2):
            with pytest.raises(BlockedError):
                await client.chat("hi")

    async def test_the_end_of_a_conversation_is_a_field(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply(TEXT, flag=2), reply(TEXT, flag=2), reply(TEXT))
        assert (await client.stream("hi").final()).conversation_closed
        assert (await client.chat("hi")).conversation_closed
        assert not (await client.chat("hi")).conversation_closed


class TestUsage:
    async def test_left_early_it_is_an_estimate(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(SLOW)
        async with client.stream("量子纠缠是什么") as stream:
            for _ in range(8):
                await anext(stream)
            assert stream.usage is None
        assert stream.usage is not None
        assert stream.usage.is_estimate
        assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (4, 10)

    async def test_told_by_the_server_it_is_none(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply(TEXT, usage={"total_tokens": 7}))
        stream = client.stream("hi", stream_options={"include_usage": True})
        await stream.text()
        assert stream.usage is not None
        assert not stream.usage.is_estimate
        assert stream.usage.total_tokens == 7

    async def test_of_a_stream_that_was_never_begun_there_is_none(
        self, client: AsyncClient
    ) -> None:
        stream = client.stream("hi")
        await stream.aclose()
        assert stream.usage is None


class TestDeadlineAround:
    """No retry is begun that cannot finish in time."""

    async def test_of_anyio(self, server: MockErnie, client: AsyncClient) -> None:
        server.script(refuse(429, retry_after=5))
        started = time.monotonic()
        with pytest.raises(RateLimitError), anyio.fail_after(2):
            await client.stream("hi").text()
        assert time.monotonic() - started < 1

    async def test_of_asyncio_ends_the_wait(self, server: MockErnie, client: AsyncClient) -> None:
        server.script(refuse(429, retry_after=5), reply(TEXT))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.stream("hi").text()
        await server.wait_idle()
        assert len(server.requests) == 1

    async def test_of_the_call(self, server: MockErnie, client: AsyncClient) -> None:
        server.script(refuse(503, retry_after=5))
        with pytest.raises(ServerError):
            await client.chat("hi", timeouts=Timeouts(total=0.5))


async def test_a_hook_hears_heartbeats(server: MockErnie) -> None:
    records: list[Record] = []
    server.script(heartbeats(5, limit=3, text=TEXT, after_chunks=2))
    async with AsyncClient("k", base_url=server.base_url, hooks=[records.append]) as client:
        stream = client.stream("hi")
        await stream.text()
    seen = [record.heartbeats for record in records if isinstance(record, HeartbeatSeen)]
    assert seen[-1] == stream.heartbeats == 3


async def test_packets_are_held_together_only_if_that_is_asked_for(server: MockErnie) -> None:
    parts = {}
    for delay in (0.0, 0.08):
        async with AsyncClient(
            "k", base_url=server.base_url, read_buffer=ReadBuffer(max_delay=delay)
        ) as client:
            server.script(reply("字" * 60, chunk_chars=1, chunk_ms=5))
            stream = client.stream("hi")
            arrivals: list[float] = []
            async for _ in stream:
                arrivals.append(time.monotonic())
            assert len(arrivals) >= 60
            parts[delay] = sum(b - a > 0.002 for a, b in pairwise(arrivals))
            assert 512 <= stream.read_buffer.size <= 4096
            assert stream.read_buffer.bandwidth > 0
            # The first chunk never waits.
            assert arrivals[1] > arrivals[0]
    assert parts[0.0] > 50
    assert parts[0.08] < 25


async def test_a_lost_retry_field_is_no_reason_to_hurry(server: MockErnie) -> None:
    records: list[Record] = []
    server.script(
        raw([b"retry: 80\n\nid: 1\n" + chunk("量")], end="close"),
        raw([b"id: 2\n" + chunk("子", finish_reason='"stop"')]),
    )
    async with AsyncClient(
        "k", base_url=server.base_url, hooks=[records.append], retry=RetryPolicy(base_delay=0)
    ) as client:
        assert await client.stream("hi").text() == "量子"
    delays = [record.delay for record in records if isinstance(record, RetryScheduled)]
    assert delays == [0.08]


async def test_an_error_of_a_resume_does_not_hide_the_break(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(cut(2, of=reply(TEXT, ids=True)), refuse(401))
    with pytest.raises(InterruptedStreamError) as caught:
        await client.stream("hi").text()
    assert caught.value.partial is not None
    assert [attempt.error.partition(":")[0] for attempt in caught.value.attempts] == [
        "InterruptedStreamError",
        "AuthError",
    ]
    server.script(cut(2, of=reply(TEXT, ids=True)), *[cut(before_headers=True)] * 3)
    with pytest.raises(InterruptedStreamError) as caught:
        await client.stream("hi").text()
    assert len(caught.value.attempts) == 4
    assert ConnectError.__name__ in str(caught.value)
    gc.collect()


async def test_streams_that_are_ahead_of_their_readers_take_turns(server: MockErnie) -> None:
    n_streams, longest = 8, 35
    server.script(*[reply("字" * 200)] * n_streams)  # an event is some 200 bytes, a read 4096
    order: list[int] = []

    async def read(number: int, stream: ChatStream) -> None:
        async for _ in stream:
            order.append(number)

    async with AsyncClient("k", base_url=server.base_url) as client:
        streams = [client.stream("hi") for _ in range(n_streams)]
        for stream in streams:
            await anext(stream)
        await asyncio.sleep(0.3)  # until as much has come as a connection holds
        await asyncio.gather(*map(read, range(n_streams), streams))
    assert longest / 3 < max(len([*turn]) for _, turn in groupby(order)) <= longest


async def test_packets_of_several_events_that_are_held_together_lose_nothing(
    server: MockErnie,
) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(240))
    packets = [chunk(text[at]) + chunk(text[at + 1]) for at in range(0, len(text), 2)]
    server.script(raw([*packets, chunk("", finish_reason='"stop"')], pause_ms=2))
    held = ReadBuffer(max_delay=0.05)
    async with AsyncClient("k", base_url=server.base_url, read_buffer=held) as client:
        stream = client.stream("hi")
        seen = [piece.text async for piece in stream]
    assert "".join(seen) == stream.snapshot().text == text
