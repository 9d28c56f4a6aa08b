"""Streams that are cut and go on: by the server, or by asking the model again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ernie_async import (
    AsyncClient,
    DeadlineError,
    InterruptedStreamError,
    Limits,
    Record,
    ResumePolicy,
    RetryPolicy,
    RetryScheduled,
    ServerError,
    StreamResumed,
    Timeouts,
    user,
)
from ernie_async.testing import MockErnie, Step, cut, error_event, raw, refuse, reply, stall
from tests.waiting import until

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parents[1] / "fixtures" / "chat_v2"
QUICK = RetryPolicy(attempts=3, base_delay=0.001)

# No character stands twice in a row, so that the seam is never in doubt.
POEM = "白日依山尽黄河入海流欲穷千里目更上一层楼。春眠不觉晓处闻啼鸟夜来风雨声花落知多少？"


def blocks_of(body: bytes) -> list[bytes]:
    return [block for block in body.replace(b"\r\n", b"\n").split(b"\n\n") if block]


def numbered(body: bytes, *, id_first: bool = True) -> list[bytes]:
    """Each event of a recording with an id of its own, and its end."""
    events = []
    for n, block in enumerate(blocks_of(body), 1):
        lines = [b"id: %d" % n, block] if id_first else [block, b"id: %d" % n]
        events.append(b"\n".join(lines) + b"\n\n")
    return events


@asynccontextmanager
async def event_server(answer: Callable[[int, int], bytes]) -> AsyncIterator[str]:
    """A bare server; `answer(offset, last_event_id)` is a body, the path's number its argument."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            await reader.readexactly(length)
            last = 0
            if "last-event-id: " in head.lower():
                last = int(head.lower().split("last-event-id: ")[1].split("\r\n")[0])
            body = answer(int(head.split("/cut-")[1].split("/")[0]), last)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class CutServer:
    """Sends a numbered recording up to a byte, and from where the client says it is afterwards."""

    def __init__(self, events: list[bytes], *, replays_all: bool = False) -> None:
        self.events = events
        self.replays_all = replays_all

    def __call__(self, offset: int, last_event_id: int) -> bytes:
        if last_event_id or offset < 0:
            return b"".join(self.events[0 if self.replays_all else last_event_id :])
        return b"".join(self.events)[:offset]


async def read_cut_at(base: str, offset: int) -> tuple[str, str, int]:
    async with AsyncClient("k", base_url=f"{base}/cut-{offset}/v2", retry=QUICK) as client:
        text = reasoning = ""
        async with client.stream("hi") as stream:
            async for chunk in stream:
                text += chunk.text
                reasoning += chunk.reasoning
            answer = await stream.final()
        assert (answer.text, answer.reasoning) == (text, reasoning)
        return text, reasoning, len(stream.resumes)


@pytest.mark.parametrize("id_first", [True, False], ids=["id before", "id after"])
@pytest.mark.parametrize("replays_all", [False, True], ids=["the rest", "everything"])
@pytest.mark.parametrize(
    "name", ["stream_text_qwen3_32b", "stream_reasoning_qwen3_32b", "stream_sdk_mock_ernie"]
)
async def test_cut_at_every_byte_loses_and_repeats_nothing(
    name: str, *, id_first: bool, replays_all: bool
) -> None:
    events = numbered((FIXTURES / f"{name}.sse").read_bytes(), id_first=id_first)
    size = len(b"".join(events))
    step = 1 if id_first and not replays_all else 7
    first_event = len(events[0])
    async with event_server(CutServer(events, replays_all=replays_all)) as base:
        text, reasoning, _ = await read_cut_at(base, -1)
        assert text or reasoning
        limit = anyio.CapacityLimiter(50)

        async def check(offset: int) -> None:
            async with limit:
                told = await read_cut_at(base, offset)
            assert told[:2] == (text, reasoning), offset
            assert told[2] <= 1

        async with anyio.create_task_group() as tasks:
            # Before the first event is whole there is nothing to resume, only to retry: below.
            for offset in range(first_event, size, step):
                tasks.start_soon(check, offset)


async def test_a_server_that_begins_another_answer_is_not_joined(
    server: MockErnie, client: AsyncClient
) -> None:
    # The mock makes up an id for each answer, and its second step does not heed what was read.
    server.script(
        cut(3, of=reply(POEM, ids=True)),
        raw(b"".join(numbered(b'data: {"id":"x","choices":[{"delta":{"content":"no"}}]}\n\n' * 9))),
    )
    with pytest.raises(InterruptedStreamError) as caught:
        await client.stream("hi").text()
    assert caught.value.partial is not None
    assert caught.value.partial.text == POEM[:6]


async def test_a_server_that_forgets_the_ids_is_not_joined(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(cut(3, of=reply(POEM, ids=True)), reply(POEM))
    with pytest.raises(InterruptedStreamError) as caught:
        await client.stream("hi").text()
    assert caught.value.partial is not None
    assert caught.value.partial.text == POEM[:6]


async def test_ids_of_an_attempt_that_failed_early_are_forgotten(server: MockErnie) -> None:
    server.script(raw(b"id: 7\n\n", end="close"), cut(3, of=reply(POEM)))
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK) as client:
        with pytest.raises(InterruptedStreamError) as caught:
            await client.stream("hi").text()
    assert caught.value.last_event_id is None
    assert len(server.requests) == 2


@pytest.mark.parametrize("at", [2, 20, 40])
async def test_a_model_may_repeat_up_to_forty_characters(server: MockErnie, at: int) -> None:
    text = POEM * 2
    at += len(POEM)
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        for repeated in range(41):
            server.script(
                cut(at, of=reply(text, chunk_chars=1)),
                reply(text[at - repeated :], chunk_chars=3),
            )
            stream = client.stream("背两首诗")
            told = "".join([chunk.text async for chunk in stream])
            assert told == text, repeated
            assert (await stream.final()).text == text
            [resumed] = stream.resumes
            assert (resumed.how, resumed.at) == ("emulated", at)


async def test_going_on_is_asked_of_the_model_with_another_turn(server: MockErnie) -> None:
    records: list[Record] = []
    server.script(cut(4, text=POEM), reply(POEM[8:]))
    async with AsyncClient(
        "k", base_url=server.base_url, retry=QUICK, resume="continue", hooks=[records.append]
    ) as client:
        stream = client.stream("背诗", max_tokens=100, extra_body={"x": 1})
        assert await stream.text() == POEM
    first, second = server.requests
    assert second.json["messages"][:2] == [
        *first.json["messages"],
        {"role": "assistant", "content": POEM[:8]},
    ]
    assert second.json["messages"][2]["role"] == "user"
    assert second.json["max_tokens"] == 95
    assert second.json["x"] == 1
    [resumed] = [record for record in records if isinstance(record, StreamResumed)]
    assert resumed == stream.resumes[0]
    assert len([record for record in records if isinstance(record, RetryScheduled)]) == 1


async def test_usage_adds_up_and_says_what_is_an_estimate(server: MockErnie) -> None:
    server.script(
        cut(4, text=POEM),
        reply(POEM[8:], usage={"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}),
    )
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        stream = client.stream("背两首诗", stream_options={"include_usage": True})
        answer = await stream.final()
    assert answer.usage == stream.usage
    # By our count: 2 tokens of prompt and 5 of answer in the part that was cut.
    assert answer.usage.total_tokens == 30 + 2 + 5
    assert answer.usage.is_estimate


@pytest.mark.parametrize(
    ("model", "policy", "added"),
    [
        ("deepseek-v3.2", ResumePolicy(mode="continue"), {"prefix": True}),
        ("ernie-5.1", ResumePolicy(mode="continue", continuation="prefix"), {"prefix": True}),
        ("my-own", ResumePolicy(mode="continue", continuation="final_message"), {}),
    ],
)
async def test_servers_that_know_a_way_are_asked_in_it(
    server: MockErnie, model: str, policy: ResumePolicy, added: dict[str, bool]
) -> None:
    server.script(cut(4, text=POEM), reply(POEM[8:]))
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume=policy) as client:
        stream = client.stream("背诗", model=model)
        assert await stream.text() == POEM
    body = server.requests[1].json
    assert body["messages"][-1] == {"role": "assistant", "content": POEM[:8], **added}
    if not added:
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert stream.resumes[0].how == ("prefix" if added else "final_message")


async def test_a_short_repetition_is_text_where_the_server_promises_to_go_on(
    server: MockErnie,
) -> None:
    policy = ResumePolicy(mode="continue", continuation="prefix")
    server.script(cut(2, of=reply("他笑：哈哈", chunk_chars=2)), reply("哈哈哈！"))
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume=policy) as client:
        assert await client.stream("hi").text() == "他笑：哈哈哈哈！"


async def test_a_400_to_the_prefix_falls_back_once(server: MockErnie) -> None:
    server.script(cut(4, text=POEM), refuse(400), reply(POEM[8:]))
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        stream = client.stream("背诗", model="deepseek-v3.2")
        assert await stream.text() == POEM
        assert stream.resumes[0].how == "emulated"
        assert server.requests[1].json["messages"][-1]["prefix"] is True
        server.script(cut(4, text=POEM), refuse(400), refuse(400))
        with pytest.raises(InterruptedStreamError) as caught:
            await client.stream("背诗", model="deepseek-v3.2").text()
        assert len(caught.value.attempts) == 3


CALL = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
THOUGHT = reply("", reasoning="想" * 20)
NOT_TO_BE_CONTINUED: dict[str, tuple[Step, dict[str, object]]] = {
    "within thinking": (cut(3, of=THOUGHT), {}),
    "within a tool call": (cut(2, of=reply(tool_calls=[CALL])), {}),
    "structured output": (
        cut(3, text=POEM), {"response_format": {"type": "json_object"}}),
    "several answers": (cut(3, text=POEM), {"n": 2}),
}  # fmt: skip


@pytest.mark.parametrize("row", NOT_TO_BE_CONTINUED.values(), ids=NOT_TO_BE_CONTINUED.keys())
async def test_some_answers_are_never_continued(
    server: MockErnie, row: tuple[Step, dict[str, object]]
) -> None:
    step, options = row
    server.script(step)
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        with pytest.raises(InterruptedStreamError) as caught:
            await client.stream("hi", **options).text()  # type: ignore[arg-type]
        assert caught.value.partial is not None
    assert len(server.requests) == 1


async def test_nothing_of_the_text_came_so_it_is_asked_anew(server: MockErnie) -> None:
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    server.script(raw([role], end="close"), reply(POEM))
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        stream = client.stream("背诗")
        assert await stream.text() == POEM
    assert stream.resumes[0].how == "restart"
    assert server.requests[0].json == server.requests[1].json


async def test_resumes_are_counted(server: MockErnie) -> None:
    policy = ResumePolicy(mode="continue", most=2)
    steps = [cut(2, text=POEM[at:]) for at in range(0, 16, 4)]
    server.script(*steps)
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume=policy) as client:
        stream = client.stream("背诗")
        with pytest.raises(InterruptedStreamError) as caught:
            await stream.text()
    assert [resumed.at for resumed in stream.resumes] == [4, 8]
    assert caught.value.partial is not None
    assert caught.value.partial.text == POEM[:12]
    assert len(caught.value.attempts) == 3


@pytest.mark.parametrize("mode", ["server", "continue"])
async def test_each_resume_takes_a_permit_and_gives_it_back(server: MockErnie, mode: str) -> None:
    ids = mode == "server"
    server.script(cut(3, of=reply(POEM, ids=ids)), reply(POEM if ids else POEM[6:], ids=ids))
    limits = Limits(concurrency=1, requests_per_minute=60_000, tokens_per_minute=6_000_000)
    async with AsyncClient(
        "k",
        base_url=server.base_url,
        retry=QUICK,
        resume=mode,
        limits=limits,  # type: ignore[arg-type]
    ) as client:
        stream = client.stream("背诗")
        assert await stream.text() == POEM
        assert stream.timing.attempts == 2
        assert client.limiter is not None
        assert client.limiter.in_flight == 0


async def test_silence_is_resumed_too(server: MockErnie) -> None:
    server.script(stall(3, of=reply(POEM, ids=True)), reply(POEM, ids=True))
    async with AsyncClient(
        "k", base_url=server.base_url, retry=QUICK, timeouts=Timeouts(idle=0.1)
    ) as client:
        stream = client.stream("背诗")
        assert await stream.text() == POEM
        assert "DeadlineError" in stream.resumes[0].error


async def test_an_error_that_is_told_is_passed_over_only_on_request(server: MockErnie) -> None:
    step = error_event(after_chunks=3, of=reply(POEM, ids=True))
    server.script(step)
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK) as client:
        with pytest.raises(ServerError):
            await client.stream("背诗").text()
        assert len(server.requests) == 1
        server.script(step, reply(POEM[6:]))
        stream = client.with_options(resume="continue").stream("背诗")
        assert await stream.text() == POEM


async def test_the_end_mark_alone_completes_a_resumed_stream(
    server: MockErnie, client: AsyncClient
) -> None:
    events = numbered(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n' * 3)
    server.script(raw(events, end="close"), raw([b"data: [DONE]\n\n"]))
    assert await client.stream("hi").text() == "aaa"


async def test_the_total_covers_resumes(server: MockErnie) -> None:
    server.script(cut(3, of=reply(POEM, ids=True)), stall())
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK) as client:
        with pytest.raises(DeadlineError) as caught:
            await client.stream("hi", timeouts=Timeouts(total=0.2)).text()
        assert caught.value.clock == "total"
        assert caught.value.partial is not None
        assert caught.value.partial.text == POEM[:6]


@pytest.mark.parametrize("how", ["cancel", "aclose", "task"])
@pytest.mark.parametrize("step", [stall(before_headers=True), stall(), refuse(429, retry_after=9)])
async def test_leaving_within_a_resume_leaves_nothing_behind(
    server: MockErnie, client: AsyncClient, step: Step, how: str
) -> None:
    server.script(cut(3, of=reply(POEM, ids=True)), step)
    stream = client.with_options(timeouts=Timeouts()).stream([user("hi")])

    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.ensure_future(read())
    await until(lambda: len(server.requests) == 2)
    await asyncio.sleep(0.02)
    if how == "task":
        task.cancel()
    elif how == "cancel":
        stream.cancel("enough")
    else:
        await stream.aclose()
    with anyio.fail_after(0.5), pytest.raises((InterruptedStreamError, asyncio.CancelledError)):
        await task
    # A connection that waits in the pool, as after a 429, is not left behind.
    await server.wait_idle(0.5, connections=isinstance(step, stall))


async def test_a_broken_continuation_is_resumed_by_its_own_server_ids(server: MockErnie) -> None:
    # The second request is another answer with ids of its own, and it breaks as well.
    server.script(
        cut(3, text=POEM),
        cut(3, of=reply(POEM[6:], ids=True)),
        reply(POEM[6:], ids=True),
    )
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        stream = client.stream("背诗")
        assert await stream.text() == POEM
    assert [resumed.how for resumed in stream.resumes] == ["emulated", "server"]
    assert server.requests[2].json == server.requests[1].json
    assert server.requests[2].headers["Last-Event-ID"] == "3"


async def test_a_repetition_that_is_cut_is_no_text(server: MockErnie) -> None:
    # The model repeats ten characters, and the line breaks after six of them.
    server.script(
        cut(20, of=reply(POEM, chunk_chars=1)),
        cut(6, of=reply(POEM[10:], chunk_chars=1)),
        reply(POEM[20:]),
    )
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, resume="continue") as client:
        stream = client.stream("背诗")
        assert await stream.text() == POEM
    assert [resumed.at for resumed in stream.resumes] == [20, 20]
