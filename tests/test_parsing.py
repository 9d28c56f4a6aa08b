"""Answers of a type: asked for, read, mended, and streamed."""

import asyncio
import gc
import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from ernie_async import (
    AsyncClient,
    BadRequestError,
    Client,
    ConfigError,
    InterruptedStreamError,
    Limits,
    OutputError,
    ServerError,
)
from ernie_async.testing import MockErnie, cut, error_event, refuse, reply

pytestmark = pytest.mark.anyio


class Item(BaseModel):
    name: str
    count: int = Field(ge=0)


class Invoice(BaseModel):
    """An invoice."""

    title: str
    items: list[Item]


VALUE = {"title": "发票", "items": [{"name": "甲", "count": 1}, {"name": "乙", "count": 22}]}
TEXT = json.dumps(VALUE, ensure_ascii=False)
INVOICE = Invoice.model_validate(VALUE)
WRONG = TEXT.replace("22", "-22")


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"好的 {{注意}}，结果如下：\n\n{TEXT}\n\n还有 {{}} 问题吗？",
        f'第一版：{{"title": 1}}，更正：{TEXT}',
    ],
)
async def test_json_is_found_in_what_is_around_it(
    server: MockErnie, client: AsyncClient, text: str
) -> None:
    server.script(reply(text), reply(text, chunk_chars=2))
    assert await client.parse("hi", into=Invoice, reasks=0) == INVOICE
    assert await client.stream_parse("hi", into=Invoice, reasks=0).final() == INVOICE


@pytest.mark.parametrize(
    ("into", "text", "expected"),
    [
        (list[Item], json.dumps({"value": VALUE["items"]}), INVOICE.items),
        (list[Item], json.dumps(VALUE["items"]), INVOICE.items),
        (int, "7", 7),
        (Literal["好", "坏"], "好", "好"),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Invoice, '{"title": "two\nlines", "items": []}', Invoice(title="two\nlines", items=[])),
    ],
)
async def test_any_type_can_be_asked_for(
    server: MockErnie, client: AsyncClient, into: Any, text: str, expected: Any
) -> None:
    server.script(reply(text), reply(text, chunk_chars=1))
    assert await client.parse("hi", into=into, reasks=0) == expected
    assert await client.stream_parse("hi", into=into, reasks=0).final() == expected


async def test_the_form_is_asked_for_as_the_server_takes_it(server: MockErnie) -> None:
    for name, form in (("qianfan", "json_object"), ("vllm", "json_schema")):
        server.script(reply(TEXT))
        async with AsyncClient(
            "k",
            server=name,
            base_url=server.base_url,
            model="m",  # type: ignore[arg-type]
        ) as client:
            await client.parse("hi", into=Invoice)
        assert server.requests[-1].json["response_format"]["type"] == form
    schema = server.requests[-1].json["response_format"]["json_schema"]
    assert schema == {"name": "Invoice", "schema": Invoice.model_json_schema()}
    assert server.requests[-1].json["messages"] == [{"role": "user", "content": "hi"}]


async def test_the_schema_joins_the_system_message(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply(TEXT))
    conversation = [{"role": "system", "content": "你是会计。"}, {"role": "user", "content": "hi"}]
    await client.parse(conversation, into=Invoice, method="prompt")
    seen = server.requests[-1].json
    assert "response_format" not in seen
    [first, second] = seen["messages"]
    assert first["content"].startswith("你是会计。\n\n")
    assert json.dumps(Invoice.model_json_schema()) in first["content"]
    assert second == conversation[1]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_refused_form_is_asked_for_in_words_and_remembered(
    server: MockErnie, client: AsyncClient, streams: bool
) -> None:
    async def ask() -> Invoice:
        if streams:
            return await client.stream_parse("hi", into=Invoice).final()
        return await client.parse("hi", into=Invoice)

    server.script(refuse(400, "invalid_argument"), reply(TEXT), reply(TEXT))
    assert await ask() == INVOICE
    assert await ask() == INVOICE
    forms = [request.json.get("response_format") for request in server.requests]
    assert forms == [{"type": "json_object"}, None, None]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_request_that_is_wrong_otherwise_fails_as_usual(
    server: MockErnie, client: AsyncClient, streams: bool
) -> None:
    server.script(refuse(400), refuse(400))
    with pytest.raises(BadRequestError):
        if streams:
            await client.stream_parse("hi", into=Invoice).final()
        else:
            await client.parse("hi", into=Invoice)
    server.script(reply(TEXT))
    await client.parse("hi", into=Invoice)
    assert "response_format" in server.requests[-1].json, "nothing was learnt from it"


@pytest.mark.parametrize("streams", [False, True])
async def test_the_model_is_told_what_was_wrong(
    server: MockErnie, client: AsyncClient, streams: bool
) -> None:
    server.script(reply(WRONG, chunk_chars=3), reply("抱歉。", chunk_chars=3), reply(TEXT))
    if streams:
        stream = client.stream_parse("hi", into=Invoice, reasks=2)
        assert await stream.final() == INVOICE
        assert stream.usage is not None
        assert stream.usage.total_tokens > 3 * len(TEXT) // 4
    else:
        assert await client.parse("hi", into=Invoice, reasks=2) == INVOICE
    messages = server.requests[-1].json["messages"]
    assert [message["role"] for message in messages[2:]] == ["assistant", "user"] * 2
    assert messages[2]["content"] == WRONG
    assert "items.1.count: Input should be greater than or equal to 0" in messages[3]["content"]


@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_that_stays_wrong_is_an_error_with_its_text(
    server: MockErnie, client: AsyncClient, streams: bool
) -> None:
    server.script(reply(WRONG), reply(WRONG))
    with pytest.raises(OutputError, match=r"items\.1\.count") as caught:
        if streams:
            await client.stream_parse("hi", into=Invoice).final()
        else:
            await client.parse("hi", into=Invoice)
    assert caught.value.text == WRONG
    assert caught.value.request_id
    assert len(server.requests) == 2


async def test_an_answer_that_was_cut_off_is_not_asked_for_again(
    server: MockErnie, client: AsyncClient
) -> None:
    for _ in range(2):
        server.script(reply(TEXT[:30], finish_reason="length"))
    with pytest.raises(OutputError, match="max_completion_tokens"):
        await client.parse("hi", into=Invoice)
    with pytest.raises(OutputError, match="max_completion_tokens"):
        await client.stream_parse("hi", into=Invoice).final()
    assert len(server.requests) == 2


async def test_half_an_answer_is_typed_and_the_last_one_whole(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(reply(f"好的：\n```json\n{TEXT}\n```", chunk_chars=1))
    seen = []
    async for invoice in client.stream_parse("hi", into=Invoice):
        assert isinstance(invoice, Invoice)
        seen.append(repr(invoice))
    assert seen[:3] == ["Invoice()", "Invoice(title='发')", "Invoice(title='发票')"]
    assert repr(Invoice(title="发票", items=INVOICE.items[:1])) in seen
    assert invoice == INVOICE
    assert not any("count=2)" in text for text in seen), "a number that goes on is not shown"


async def test_items_come_one_by_one(server: MockErnie, client: AsyncClient) -> None:
    items = [{"name": f"第{n}", "count": n} for n in range(50)]
    server.script(reply(json.dumps({"value": items}, ensure_ascii=False), chunk_chars=5))
    async with client.stream_parse("hi", into=list[Item]) as stream:
        first = await anext(stream)
        assert first == Item(name="第0", count=0)
        others = [item async for item in stream]
        assert [first, *others] == [Item.model_validate(item) for item in items]
        assert await stream.final() == [first, *others]


async def test_a_wrong_item_is_mended_only_before_the_first(
    server: MockErnie, client: AsyncClient
) -> None:
    good, bad = {"name": "甲", "count": 1}, {"name": "乙", "count": -1}
    server.script(reply(json.dumps([bad, good])), reply(json.dumps([good])))
    assert await client.stream_parse("hi", into=list[Item]).final() == [Item(name="甲", count=1)]
    server.script(reply(json.dumps([good, bad]), chunk_chars=4))
    stream = client.stream_parse("hi", into=list[Item])
    assert await anext(stream) == Item(name="甲", count=1)
    with pytest.raises(OutputError, match="count"):
        await anext(stream)
    with pytest.raises(OutputError, match="count"):
        await stream.final()
    assert [item async for item in stream] == []


async def test_a_list_without_an_end_is_an_error(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply('[{"name": "甲", "count": 1}, {"name": "乙"', chunk_chars=4))
    stream = client.stream_parse("hi", into=list[Item])
    assert await anext(stream) == Item(name="甲", count=1)
    with pytest.raises(OutputError, match="no end"):
        await anext(stream)


async def test_breaks_are_those_of_a_stream(server: MockErnie, client: AsyncClient) -> None:
    server.script(cut(3, of=reply(TEXT, chunk_chars=5)))
    stream = client.with_options(resume="continue").stream_parse("hi", into=Invoice)
    with pytest.raises(InterruptedStreamError):
        await stream.final()
    with pytest.raises(InterruptedStreamError):
        await stream.final()
    server.script(refuse(503), reply(TEXT))
    assert await client.stream_parse("hi", into=Invoice).final() == INVOICE
    server.script(error_event(after_chunks=3, of=reply(TEXT, chunk_chars=5)))
    with pytest.raises(ServerError):
        await client.stream_parse("hi", into=Invoice).final()


async def test_leaving_frees_the_connection_and_the_permit(server: MockErnie) -> None:
    async with AsyncClient("k", base_url=server.base_url, limits=Limits(concurrency=1)) as client:
        gc.disable()  # a cycle that only the collector frees would not count
        try:
            for _ in range(3):
                server.script(reply(TEXT * 50, chunk_ms=20, chunk_chars=2))
                async for _invoice in client.stream_parse("hi", into=Invoice):
                    break
                await server.wait_idle(connections=True)
        finally:
            gc.enable()
        server.script(reply(TEXT * 50, chunk_ms=20, chunk_chars=2))
        task = asyncio.create_task(client.stream_parse("hi", into=Invoice).final())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.wait_idle(connections=True)
        assert client.limiter is not None
        assert client.limiter.in_flight == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "yaml"}, "method: expected auto"),
        ({"reasks": -1}, "reasks"),
        ({"n": 2}, "n: expected 1"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"temprature": 1}, "temperature"),
        ({"into": type("Odd", (), {})}, "into: no JSON schema"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    server: MockErnie, client: AsyncClient, options: dict[str, Any], told: str
) -> None:
    given = {"into": Invoice, **options}
    with pytest.raises(ConfigError, match=told):
        await client.parse("hi", **given)
    with pytest.raises(ConfigError, match=told):
        client.stream_parse("hi", **given)
    assert not server.requests


def test_without_await(mock_ernie: MockErnie) -> None:
    mock_ernie.script(*(reply(TEXT, chunk_chars=4) for _ in range(4)))
    with Client("k", base_url=mock_ernie.base_url) as client:
        assert client.parse("hi", into=Invoice) == INVOICE
        *_, last = client.stream_parse("hi", into=Invoice)
        assert last == INVOICE
        with client.stream_parse("hi", into=Invoice) as stream:
            next(stream)
            assert stream.final() == INVOICE
            assert stream.usage is not None
            assert stream.request_id
