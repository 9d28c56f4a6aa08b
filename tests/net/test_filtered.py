"""A client with a content filter: streams, whole answers and prompts over a real connection."""

import asyncio
import json
import pickle
import time
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from ernie_async import (
    AsyncClient,
    BlockedError,
    Clause,
    Client,
    ConfigError,
    ContentFilter,
    ContentFiltered,
    InterruptedStreamError,
    Limits,
    Record,
    Term,
    TextChecker,
    TextPattern,
    Timeouts,
    system,
    user,
)
from ernie_async.testing import MockErnie, cut, raw, reply, stall
from ernie_async.toolbox import Toolbox

pytestmark = pytest.mark.anyio

TEXT = "今天说说敏感词，还有敏捷，最后是敏"
SHOWN = "今天说说***，还有敏捷，最后是敏"
WORDS = ContentFilter.from_terms(["敏感词"])


def filtered(client: AsyncClient, content_filter: ContentFilter) -> AsyncClient:
    return client.with_options(content_filter=content_filter)


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    chunk = {"id": "as-1", "choices": choices, **fields}
    return b"data: %s\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def says(text: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, **fields}


class TestStream:
    @pytest.mark.parametrize("chars", [1, 2, 5, 100])
    async def test_every_way_to_read_shows_the_filtered_text(
        self, server: MockErnie, client: AsyncClient, chars: int
    ) -> None:
        server.script(*[reply(TEXT, chunk_chars=chars)] * 4)
        client = filtered(client, WORDS)
        stream = client.stream("hi")
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.text for chunk in chunks) == SHOWN
        answer = await stream.final()
        assert (answer.text, answer.finish_reason) == (SHOWN, "stop")
        assert stream.snapshot().text == SHOWN
        assert await client.stream("hi").text() == SHOWN
        assert "".join([d async for d in client.stream("hi").text_deltas()]) == SHOWN
        branches = client.stream("hi").tee(2)

        async def read(branch: Any) -> str:
            return "".join([chunk.text async for chunk in branch])

        assert await asyncio.gather(*map(read, branches)) == [SHOWN, SHOWN]

    async def test_nothing_is_held_back_but_what_may_match(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply("今天敏捷，敏感词好", chunk_chars=1))
        texts = [c.text async for c in filtered(client, WORDS).stream("hi") if c.text]
        assert texts == ["今", "天", "敏捷", "，", "***好"]

    async def test_chunks_that_do_not_change_are_the_same_and_empty_ones_do_not_come(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(
            raw(
                event({"delta": {"role": "assistant", "content": ""}})
                + event(says("好"))
                + event(says("敏"))
                + event(says("感"), usage={"prompt_tokens": 1, "total_tokens": 3})
                + event(says("的", finish_reason="stop"))
                + event(usage={"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5})
                + b"data: [DONE]\n\n"
            )
        )
        stream = filtered(client, WORDS).stream("hi")
        chunks = [chunk async for chunk in stream]
        assert [chunk.text for chunk in chunks] == ["", "好", "", "敏感的", ""]
        assert chunks[3].finish_reason == "stop"
        assert chunks[2].usage is not None
        assert chunks[4].usage is not None
        assert stream.usage is not None
        assert stream.usage.total_tokens == 5

    async def test_what_is_held_when_there_is_no_finish_reason_comes_at_the_end(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        body = event(says("最后是敏")) + event(says("感", 1)) + event(says("敏", 1))
        server.script(raw(body + b"data: [DONE]\n\n"))
        stream = filtered(client, WORDS).stream("hi", n=2)
        answer = await stream.final()
        assert [choice.message.content for choice in answer.choices] == ["最后是敏", "感敏"]
        assert answer.id == "as-1"

    async def test_each_answer_and_channel_is_a_text_of_its_own(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(
            raw(
                event({"delta": {"reasoning_content": "想敏感"}}, says("说敏感", 1))
                + event({"delta": {"reasoning_content": "词，敏"}}, says("词", 1))
                + event(says("感词敏感"), says("，好", 1))
                + event(says("词", finish_reason="stop"), says("", 1, finish_reason="stop"))
                + b"data: [DONE]\n\n"
            )
        )
        stream = filtered(client, WORDS).stream("hi", n=2)
        chunks = [chunk async for chunk in stream]
        answer = await stream.final()
        # Thinking is over when the answer begins, so its rest does not wait for the end.
        assert [chunk.reasoning for chunk in chunks] == ["想", "***，", "敏", ""]
        assert answer.reasoning == "想***，敏"
        assert [choice.message.content for choice in answer.choices] == ["感词***", "说***，好"]

    async def test_channels_say_what_is_filtered(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        call = {"function": {"name": "f", "arguments": '{"词": "敏感词", "x": "敏"}'}}
        answer = reply("敏感词", reasoning="敏感词", tool_calls=[call], chunk_chars=1)
        for channels, wanted in {
            ("content",): ("***", "敏感词", '{"词": "敏感词", "x": "敏"}'),
            ("reasoning",): ("敏感词", "***", '{"词": "敏感词", "x": "敏"}'),
            ("tool_arguments",): ("敏感词", "敏感词", '{"词": "***", "x": "敏"}'),
        }.items():
            words = ContentFilter.from_terms(["敏感词", '敏"}x'], channels=channels)  # type: ignore[arg-type]
            for is_stream in (True, False):
                server.script(answer)
                chosen = filtered(client, words)
                got = await (chosen.stream("hi").final() if is_stream else chosen.chat("hi"))
                shown = (got.text, got.reasoning, got.tool_calls[0].function.arguments)
                assert shown == wanted
                assert got.tool_calls[0].function.name == "f"
                assert got.finish_reason == "tool_calls"

    async def test_logprobs_do_not_tell_what_is_hidden(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        probs = {"content": [{"token": "敏感词", "logprob": -0.1}]}
        choice = says("敏感词", finish_reason="stop", logprobs=probs)
        server.script(raw(event(choice) + b"data: [DONE]\n\n"))
        answer = await filtered(client, WORDS).stream("hi").final()
        assert "敏感词" not in answer.model_dump_json()
        whole = {"message": {"content": "敏感词"}, "logprobs": probs, "finish_reason": "stop"}
        body = json.dumps({"id": "x", "choices": [whole]}).encode()
        server.script(raw(body, content_type="application/json"))
        answer = await filtered(client, WORDS).chat("hi")
        assert "敏感词" not in answer.model_dump_json()
        assert answer.text == "***"

    async def test_full_shows_nothing_before_the_end(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        full = ContentFilter.from_terms(["敏感词"], mode="full")
        server.script(reply(TEXT, reasoning="敏感词"), stall(6, text=TEXT))
        chunks = [c async for c in filtered(client, full).stream("hi") if c.text or c.reasoning]
        assert [(chunk.text, chunk.reasoning) for chunk in chunks] == [(SHOWN, "***")]
        with pytest.raises(Exception, match="idle") as caught:
            await filtered(client, full).stream("hi").text()
        partial = getattr(caught.value, "partial", None)
        assert partial is None or partial.text == ""

    async def test_a_cut_stream_shows_nothing_that_was_held(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(cut(3, of=reply("说说敏感词", chunk_chars=1)))
        with pytest.raises(InterruptedStreamError) as caught:
            await filtered(client, WORDS).stream("hi").text()
        assert caught.value.partial is not None
        assert caught.value.partial.text == "说说"


class TestBlock:
    async def test_the_connection_is_closed_at_once_and_the_text_before_is_told(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        records: list[Record] = []
        block = ContentFilter([Term("敏感词", "politics", "block")])
        client = client.with_options(content_filter=block, hooks=[records.append])
        server.script(reply("好。敏感词，" + "字" * 2000, chunk_ms=5))
        stream = client.stream("hi")
        shown = ""
        began = time.monotonic()
        with pytest.raises(BlockedError) as caught:
            async for chunk in stream:
                shown += chunk.text
        await server.wait_idle(0.9, connections=True)
        assert time.monotonic() - began < 2
        assert server.requests[0].ended == "client_gone"
        error = caught.value
        assert shown == "好。"
        assert error.partial is not None
        assert (error.partial.text, error.partial.finish_reason) == ("好。", None)
        assert (error.term, error.flag, error.is_retracted) == ("敏感词", None, False)
        assert str(error) == "the content filter stopped the text (category politics)"
        assert error.request_id
        assert ContentFiltered("content", "block", "politics") in records
        with pytest.raises(InterruptedStreamError):
            await stream.final()
        assert pickle.loads(pickle.dumps(error)).term == "敏感词"

    @pytest.mark.parametrize("chars", [1, 3, 50])
    async def test_it_is_the_same_text_however_it_is_cut(
        self, server: MockErnie, client: AsyncClient, chars: int
    ) -> None:
        block = ContentFilter.from_terms(["敏感词"], action="block")
        server.script(reply("好敏。敏感词。", chunk_chars=chars))
        shown = ""
        with pytest.raises(BlockedError):
            async for chunk in filtered(client, block).stream("hi"):
                shown += chunk.text
        assert shown == "好敏。"

    async def test_at_the_very_end_the_answer_is_not_whole_either(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        block = ContentFilter.from_terms(["敏感词"], action="block")
        for body in (
            event(says("好敏感词", finish_reason="stop")) + b"data: [DONE]\n\n",
            event(says("好敏感词")) + b"data: [DONE]\n\n",
        ):
            server.script(raw(body))
            stream = filtered(client, block).stream("hi")
            with pytest.raises(BlockedError) as caught:
                await stream.text()
            assert caught.value.partial is not None
            assert caught.value.partial.text == "好"
            with pytest.raises(InterruptedStreamError):
                await stream.final()

    async def test_full_tells_nothing_of_a_blocked_answer(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        block = ContentFilter.from_terms(["敏感词"], action="block", mode="full")
        server.script(reply("好敏感词"))
        with pytest.raises(BlockedError) as caught:
            await filtered(client, block).stream("hi").text()
        assert caught.value.partial is not None
        assert caught.value.partial.text == ""

    async def test_live_shows_at_once_and_takes_back(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        live = ContentFilter.from_terms(["敏感词"], action="block", mode="live")
        server.script(reply("好敏感词", chunk_chars=1))
        shown = ""
        with pytest.raises(BlockedError) as caught:
            async for chunk in filtered(client, live).stream("hi"):
                shown += chunk.text
        assert shown == "好敏感词"
        assert caught.value.is_retracted
        with pytest.raises(ConfigError, match="in mode live"):
            filtered(client, ContentFilter.from_terms(["x"], mode="live"))

    async def test_the_service_has_the_last_word(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        for mode in ("window", "full"):
            words = ContentFilter.from_terms(["敏感词"], mode=mode)
            server.script(reply("好，敏", finish_reason="content_filter", chunk_chars=1))
            with pytest.raises(BlockedError, match="safety check") as caught:
                await filtered(client, words).stream("hi").text()
            assert caught.value.partial is not None
            assert caught.value.partial.text == ("好，" if mode == "window" else "")


class TestWhole:
    async def test_a_whole_answer_is_filtered(self, server: MockErnie, client: AsyncClient) -> None:
        server.script(reply(TEXT, reasoning="敏感词"), reply("好"), reply("好敏感词"))
        client = filtered(client, WORDS)
        answer = await client.chat("hi")
        assert (answer.text, answer.reasoning) == (SHOWN, "***")
        assert answer.request_id
        assert answer.timing.total > 0
        assert (await client.chat("hi")).text == "好"
        block = ContentFilter.from_terms(["敏感词"], action="block")
        with pytest.raises(BlockedError) as caught:
            await filtered(client, block).chat("hi")
        assert caught.value.request_id
        assert caught.value.partial is None

    async def test_parsed_answers_are_filtered(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        class Note(BaseModel):
            text: str

        server.script(*[reply('{"text": "敏感词！"}')] * 2)
        client = filtered(client, WORDS)
        assert (await client.parse("hi", Note)).text == "***！"
        assert (await client.stream_parse("hi", Note).final()).text == "***！"

    async def test_toolbox_and_the_sync_client_get_filtered_text(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(reply("敏感词"))
        run = await Toolbox().run(filtered(client, WORDS), "hi")
        assert run.text == "***"
        server.script(reply("敏感词"))

        def read() -> str:
            with Client("k", base_url=server.base_url, content_filter=WORDS) as sync:
                return sync.stream("hi").text()

        assert await anyio.to_thread.run_sync(read) == "***"

    async def test_the_filter_is_checked_and_can_be_taken_off(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        with pytest.raises(ConfigError, match="content_filter: expected ContentFilter"):
            AsyncClient("k", content_filter=["敏感词"])  # type: ignore[arg-type]
        async with AsyncClient("k", base_url=server.base_url, content_filter=WORDS) as strict:
            copied = pickle.loads(pickle.dumps(strict))
            server.script(*[reply("敏感词")] * 2)
            assert (await copied.chat("hi")).text == "***"
            loose = strict.with_options(content_filter=None)
            assert (await loose.chat("hi")).text == "敏感词"
            await copied.aclose()


class TestPrompt:
    async def test_what_the_user_says_is_filtered_before_it_is_sent(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        words = ContentFilter.from_terms(["敏感词"], channels=["prompt"])
        records: list[Record] = []
        client = client.with_options(content_filter=words, hooks=[records.append])
        server.script(reply("敏感词"), reply("好"))
        answer = await client.chat([system("不说敏感词"), user("说敏感词"), user(["敏感词？"])])
        assert [m["content"] for m in server.requests[0].json["messages"]] == [
            "不说敏感词",
            "说***",
            [{"type": "text", "text": "***？"}],
        ]
        assert answer.text == "敏感词"
        assert records.count(ContentFiltered("prompt", "mask", "")) == 2
        assert await client.stream("敏感词").text() == "好"
        assert server.requests[1].json["messages"][0]["content"] == "***"

    async def test_a_blocked_prompt_is_never_sent(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        for action in ("block", "drop"):
            words = ContentFilter.from_terms(["敏感词"], action=action, channels=["prompt"])
            with pytest.raises(BlockedError):
                await filtered(client, words).chat("敏感词")
            with pytest.raises(BlockedError):
                filtered(client, words).stream("敏感词")
        assert server.requests == []


class TestResume:
    async def test_a_model_goes_on_from_what_it_said_and_not_from_the_mask(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        server.script(cut(7, of=reply(TEXT, chunk_chars=1)), reply(TEXT[7:], chunk_chars=2))
        client = client.with_options(content_filter=WORDS, resume="continue")
        stream = client.stream("hi")
        assert await stream.text() == SHOWN
        assert server.requests[1].json["messages"][1]["content"] == TEXT[:7]
        assert [resumed.at for resumed in stream.resumes] == [7]

    @pytest.mark.parametrize("after", range(1, 8))
    async def test_a_match_across_a_break_is_found(
        self, server: MockErnie, client: AsyncClient, after: int
    ) -> None:
        answer = reply(TEXT, chunk_chars=1, ids=True)
        server.script(cut(after, of=answer), answer)
        assert await filtered(client, WORDS).stream("hi").text() == SHOWN

    async def test_tokens_are_counted_of_what_came(self, server: MockErnie) -> None:
        block = ContentFilter.from_terms(["敏感词"], action="drop")
        server.script(cut(9, of=reply("敏感词" * 9, chunk_chars=3)))
        async with AsyncClient(
            "k", base_url=server.base_url, content_filter=block, resume="never",
            limits=Limits(tokens_per_minute=100_000),
        ) as client:  # fmt: skip
            stream = client.stream("hi")
            with pytest.raises(InterruptedStreamError):
                await stream.text()
            assert stream.usage is not None
            assert stream.usage.completion_tokens > 9


# Those who judge


def checker(
    bad: str = "坏", *, seconds: float = 0.0, seen: list[Clause] | None = None, **options: Any
) -> TextChecker:
    async def check(clause: Clause) -> str | None:
        if seen is not None:
            seen.append(clause)
        await asyncio.sleep(seconds)
        if "炸" in clause.text:
            raise RuntimeError(clause.text)
        return "bad" if bad in clause.text else None

    return TextChecker(check, **options)


class TestChecker:
    async def test_a_stream_that_is_closed_while_its_prompt_is_judged_is_never_asked(
        self, server: MockErnie
    ) -> None:
        judged = ContentFilter(checkers=[checker(seconds=0.3)], channels={"prompt", "content"})
        async with AsyncClient("k", base_url=server.base_url, content_filter=judged) as client:
            stream = client.stream("你好吗。")
            reading = asyncio.create_task(anext(stream))
            await asyncio.sleep(0.05)
            await stream.aclose()
            with pytest.raises(InterruptedStreamError, match="closed"):
                await reading
        assert server.requests_made == 0

    @pytest.mark.parametrize("is_stream", [True, False])
    @pytest.mark.parametrize(
        ("action", "shown"),
        [("mask", "好。***再见"), ("drop", "好。再见"), ("flag", "好。坏的。再见")],
    )
    async def test_clauses_are_judged_and_treated(
        self, server: MockErnie, client: AsyncClient, action: Any, shown: str, *, is_stream: bool
    ) -> None:
        seen: list[Clause] = []
        records: list[Record] = []
        judged = ContentFilter(checkers=[checker(action=action, seen=seen)])
        client = client.with_options(content_filter=judged, hooks=[records.append])
        server.script(reply("好。坏的。再见", chunk_chars=1))
        answer = await (client.stream("hi").final() if is_stream else client.chat("hi"))
        assert answer.text == shown
        assert [(one.text, one.context) for one in seen] == [
            ("好。", ""),
            ("坏的。", "好。"),
            ("再见", "好。坏的。"),
        ]
        assert ContentFiltered("content", action, "bad") in records

    async def test_nothing_is_shown_before_it_is_judged(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        judged = ContentFilter(["敏感词"], checkers=[checker()])
        server.script(reply("一二三。四五敏感词。坏的六。七", chunk_chars=1))
        texts: list[str] = []
        with pytest.raises(BlockedError, match="bad") as caught:
            async for chunk in filtered(client, judged).stream("hi"):
                texts.append(chunk.text)
        assert list(filter(None, texts)) == ["一二三。", "四五***。"]
        assert caught.value.partial is not None
        assert caught.value.partial.text == "一二三。四五***。"

    @pytest.mark.parametrize("mode", ["window", "full"])
    async def test_a_checker_that_fails_or_hangs_blocks_unless_told_otherwise(
        self, server: MockErnie, client: AsyncClient, mode: Any
    ) -> None:
        for bad in ("炸", "慢"):
            slow = checker(seconds=0 if bad == "炸" else 5, timeout=0.1)
            server.script(*[reply(f"{bad}。好")] * 2)
            judged = ContentFilter(checkers=[slow], mode=mode)
            with pytest.raises(BlockedError, match="the check failed: ") as caught:
                await filtered(client, judged).stream("hi").text()
            assert bad not in str(caught.value)
            with pytest.raises(BlockedError, match="the check failed: "):
                await filtered(client, judged).chat("hi")
            records: list[Record] = []
            tolerant = ContentFilter(checkers=[slow._replace(on_error="allow")], mode=mode)
            server.script(reply(f"{bad}。好"))
            trusting = client.with_options(content_filter=tolerant, hooks=[records.append])
            assert await trusting.stream("hi").text() == f"{bad}。好"
            assert next(r.action for r in records if isinstance(r, ContentFiltered)) == "allow"

    async def test_two_are_under_way_at_a_time_and_results_keep_their_order(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        under_way = most = 0

        async def check(clause: Clause) -> str | None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.02 if int(clause.text[0]) % 2 else 0.001)
            under_way -= 1
            return None

        judged = ContentFilter(checkers=[TextChecker(check)])
        server.script(reply("1。2。3。4。5。", chunk_chars=50))
        assert await filtered(client, judged).stream("hi").text() == "1。2。3。4。5。"
        assert most == 2

    async def test_live_judges_what_was_shown(self, server: MockErnie, client: AsyncClient) -> None:
        live = ContentFilter(checkers=[checker()], mode="live")
        server.script(reply("好。坏的。" + "字" * 500, chunk_chars=1, chunk_ms=2))
        shown = ""
        with pytest.raises(BlockedError) as caught:
            async for chunk in filtered(client, live).stream("hi"):
                shown += chunk.text
        assert shown.startswith("好。坏的。")
        assert len(shown) < 100
        assert caught.value.is_retracted
        server.script(reply("好。坏的"), reply("好。好的"))
        stream = filtered(client, live).stream("hi")
        with pytest.raises(BlockedError):
            await stream.final()
        assert await filtered(client, live).stream("hi").text() == "好。好的"

    async def test_a_prompt_is_judged_before_it_is_sent(
        self, server: MockErnie, client: AsyncClient
    ) -> None:
        seen: list[Clause] = []
        judged = ContentFilter(checkers=[checker(seen=seen)], channels=["prompt"])
        client = filtered(client, judged)
        with pytest.raises(BlockedError, match="prompt"):
            await client.chat("坏")
        with pytest.raises(BlockedError, match="prompt"):
            await client.stream("坏").text()
        assert server.requests == []
        server.script(reply("坏"))
        assert await client.stream([user("坏"), user("好")]).text() == "坏"
        assert [(one.text, one.channel) for one in seen] == [
            ("坏", "prompt"),
            ("坏", "prompt"),
            ("好", "prompt"),
        ]

    @pytest.mark.parametrize("how", ["cancel", "task"])
    async def test_leaving_while_a_clause_is_judged_leaves_nothing_behind(
        self, server: MockErnie, client: AsyncClient, how: str
    ) -> None:
        judged = ContentFilter(checkers=[checker(seconds=0.3)])
        server.script(reply("好。" * 1000, chunk_ms=5))
        stream = filtered(client, judged).stream("hi")
        task = asyncio.ensure_future(stream.text())
        await asyncio.sleep(0.15)
        if how == "cancel":
            stream.cancel("enough")
        else:
            task.cancel()
        with anyio.fail_after(1), pytest.raises((InterruptedStreamError, asyncio.CancelledError)):
            await task
        await server.wait_idle(0.5, connections=True)


async def test_streams_at_once_keep_their_texts_apart(
    server: MockErnie, client: AsyncClient
) -> None:
    words = ContentFilter(["敏感词"], patterns=[TextPattern("1[0-9]{3}", 4, "1")])
    shared = client.with_options(content_filter=words, timeouts=Timeouts())

    def answer(number: int) -> str:
        return f"第{number:03d}个，敏感词，1{number:03d}敏"

    server.script(*(reply(answer(number), chunk_chars=1 + number % 5) for number in range(200)))
    texts = await asyncio.gather(*(shared.stream("hi").text() for _ in range(200)))
    assert sorted(texts) == sorted(
        answer(n).replace("敏感词", "***").replace(f"1{n:03d}敏", "****敏") for n in range(200)
    )
