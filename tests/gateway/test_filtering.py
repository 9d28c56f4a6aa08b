"""The content filter of a hub: in every mode, and with words taken back."""

import asyncio
import json
import random

import pytest

from ernie_async import (
    AsyncClient,
    BlockedError,
    Clause,
    ConfigError,
    ContentFilter,
    ContentFiltered,
    Term,
    TextChecker,
)
from ernie_async.gateway import GatewaySettings, StreamEnded, StreamHub
from ernie_async.sansio.replay import StreamEvent
from ernie_async.testing import MockErnie, reply
from tests.waiting import until

from .conftest import Serve

pytestmark = pytest.mark.anyio

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TERMS = [Term("敏感词", "rude"), Term("坏", "bad", "drop"), Term("敏捷", action="flag")]


@pytest.fixture
async def client(upstream: MockErnie):
    async with AsyncClient("k", base_url=upstream.base_url) as client:
        yield client


async def watch(stream) -> list[StreamEvent]:
    events = []
    with stream.view() as viewer:
        while not viewer.is_over:
            events += await viewer.wait()
    return events


def seen(events: list[StreamEvent]) -> dict[str, str]:
    """What stands on the screen of somebody who obeys all events."""
    shown = {"text": "", "reasoning": ""}
    for _, kind, told in events:
        if kind == "delta":
            for name in shown:
                shown[name] += told.get(name, "")
        elif kind == "reset":
            shown |= {"text": told["text"], "reasoning": told.get("reasoning", "")}
        elif kind == "retract":
            name = told.get("channel", "text")
            old = shown[name]
            shown[name] = old[: told["from_char"]] + told["replacement"] + old[told["to_char"] :]
    return shown


@pytest.mark.parametrize("mode", ["window", "full", "live"])
@pytest.mark.parametrize("chars", [1, 3, 100])
async def test_every_mode_ends_with_the_filtered_text(
    client: AsyncClient, upstream: MockErnie, mode: str, chars: int
) -> None:
    text, thought = "说敏感词，敏捷，坏人，敏感词。敏感", "想坏的敏感词"
    upstream.script(reply(text, reasoning=thought, chunk_chars=chars, chunk_ms=1))
    words = ContentFilter(TERMS, replacement="[x]", mode=mode)  # type: ignore[arg-type]
    found: list[ContentFiltered] = []
    hub = StreamHub(hooks=[found.append])
    stream = await hub.start(lambda: client.stream("hi"), content_filter=words)
    events = await watch(stream)
    shown = {"text": words.apply(text), "reasoning": words.apply(thought)}
    assert shown == {"text": "说[x]，敏捷，人，[x]。敏感", "reasoning": "想的[x]"}
    assert seen(events) == shown
    assert (stream.log.text, stream.log.reasoning) == (shown["text"], shown["reasoning"])
    assert seen(await watch(stream)) == shown  # who comes late
    assert "敏感词" not in str(await watch(stream))
    assert sorted(one.action for one in found) == ["drop"] * 2 + ["flag"] + ["mask"] * 3
    retractions = [event.payload for event in events if event.kind == "retract"]
    if mode != "live":
        assert retractions == []
    elif chars == 1:
        assert retractions[-2:] == [
            {"from_char": 8, "to_char": 9, "replacement": "", "reason": "bad"},
            {"from_char": 10, "to_char": 13, "replacement": "[x]", "reason": "rude"},
        ]
    await hub.aclose()


async def test_random_texts_end_alike_live_and_held_back(
    client: AsyncClient, upstream: MockErnie
) -> None:
    chance = random.Random(7)
    letters = ["甲", "乙", "e", "e\u0301", "丙", "😀"]
    hub = StreamHub()
    for _ in range(60):
        actions = [chance.choice(["mask", "drop", "flag", "block"]) for _ in range(4)]
        words = ["".join(chance.choices(letters, k=chance.randint(1, 4))) for _ in actions]
        terms = [Term(word, action=action) for word, action in zip(words, actions, strict=True)]
        text = "".join(chance.choices([*letters, "丁"], k=60))
        live = ContentFilter(terms, mode="live", replacement=chance.choice(["*", "", "[no]"]))
        part = live.open()
        wanted = part.feed(text) + part.close()
        upstream.script(reply(text, chunk_chars=chance.randint(1, 9)))
        stream = await hub.start(lambda: client.stream("hi"), content_filter=live)
        assert seen(await watch(stream))["text"] == stream.log.text == wanted
        assert stream.log.status == ("error" if part.blocked else "done")
    await hub.aclose()


async def test_blocked_words_are_taken_back_and_the_model_is_stopped(
    client: AsyncClient, upstream: MockErnie
) -> None:
    words = ContentFilter.from_terms(["敏感词"], action="block", mode="live")
    upstream.script(reply("这是敏感词。还有" * 100, chunk_chars=1, chunk_ms=20))
    ended: list[StreamEnded] = []
    hub = StreamHub(on_end=[ended.append])
    stream = await hub.start(lambda: client.stream("hi"), content_filter=words)
    events = await watch(stream)
    assert [event.kind for event in events[-2:]] == ["retract", "error"]
    assert seen(events)["text"] == stream.log.text == "这是"
    assert events[-1].payload["code"] == "content_filter"
    await upstream.wait_idle(1)
    await until(lambda: ended)
    assert ended[0].ending == "filtered"
    await hub.aclose()


async def moderate(clause: Clause) -> str | None:
    await asyncio.sleep(0.01)
    return "insult" if "笨" in clause.text else None


@pytest.mark.parametrize("mode", ["window", "full", "live"])
async def test_clauses_are_judged_before_or_after_they_are_shown(
    client: AsyncClient, upstream: MockErnie, mode: str
) -> None:
    judged = ContentFilter(
        ["坏"], checkers=[TextChecker(moderate, action="mask")], replacement="-", mode=mode
    )
    upstream.script(reply("你好。你坏又笨。再见。真笨", chunk_chars=1, chunk_ms=2))
    hub = StreamHub()
    stream = await hub.start(lambda: client.stream("hi"), content_filter=judged)
    events = await watch(stream)
    assert seen(events)["text"] == stream.log.text == "你好。-----再见。--"
    reasons = [event.payload["reason"] for event in events if event.kind == "retract"]
    assert reasons == (["content_filter", "insult", "insult"] if mode == "live" else [])
    await hub.aclose()


async def test_heartbeats_go_on_while_everything_is_withheld(
    serve: Serve, upstream: MockErnie
) -> None:
    words = ContentFilter.from_terms(["敏感词"], mode="full")
    upstream.script(reply("这是敏感词。", chunk_chars=1, chunk_ms=60))
    async with serve(GatewaySettings(heartbeat=0.1), content_filter=words) as gateway:
        _, started = await gateway.post("/v1/streams", ASK)
        async with gateway.session.get(gateway.url + started["events_url"]) as answer:
            body = (await answer.read()).decode()
        assert body.partition("delta")[0].count(": hb\n\n") >= 2
        assert body.count("event: delta") == 1
        assert "这是***。" in body


async def test_application_filters_every_route(serve: Serve, upstream: MockErnie) -> None:
    words = ContentFilter.from_terms(
        ["敏感词"], mode="live", channels=["content", "reasoning", "prompt"]
    )
    upstream.default(reply("这是敏感词。", chunk_ms=2))
    async with serve(content_filter=words) as gateway:
        ask = {**ASK, "messages": [{"role": "user", "content": "敏感词"}]}
        _, started = await gateway.post("/v1/streams", ask)
        kinds = [event.event for event in await gateway.read(started["events_url"])]
        assert "retract" in kinds
        # OpenAI's form has no word for taking back, so there nothing is shown too early.
        chat = gateway.url + "/v1/chat/completions"
        async with gateway.session.post(chat, json={**ask, "stream": True}) as answer:
            body = await answer.text()
        chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
        texts = [one["choices"][0]["delta"].get("content") or "" for one in chunks]
        assert "".join(texts) == "这是***。"
        _, whole = await gateway.post("/v1/chat/completions", ask)
        assert whole["choices"][0]["message"]["content"] == "这是***。"
        assert "敏感词" not in str([request.body for request in upstream.requests])
        async with gateway.session.get(gateway.url + "/metrics") as answer:
            assert 'filtered_total{action="mask"} 6' in await answer.text()


async def test_filters_that_cannot_be_obeyed_are_refused(client: AsyncClient, serve: Serve) -> None:
    hub = StreamHub()
    for options in (
        {"channels": ["prompt"]},
        {"mode": "live", "channels": ["content", "tool_arguments"]},
    ):
        words = ContentFilter(["x"], **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="content_filter"):
            await hub.start(lambda: client.stream("hi"), content_filter=words)
    with pytest.raises(ConfigError, match="tool_arguments"):
        async with serve(content_filter=words):
            pass
    blocked = ContentFilter(["x"], action="block", channels=["prompt"])
    with pytest.raises(BlockedError):
        await hub.start(lambda: client.with_options(content_filter=blocked).stream("x"))
    await hub.aclose()
