"""`MockErnie` through openai-python, a client that nobody here wrote."""

from base64 import b64decode
from collections.abc import AsyncIterator

import pytest

from ernie_async.testing import MockErnie, cut, error_event, refuse, reply

openai = pytest.importorskip("openai")

pytestmark = [pytest.mark.anyio, pytest.mark.real]

ASK = {"model": "ernie-5.1", "messages": [{"role": "user", "content": "你好"}]}


@pytest.fixture
async def server() -> AsyncIterator[MockErnie]:
    async with MockErnie(api_key="x") as server:
        yield server


@pytest.fixture
async def client(server: MockErnie) -> AsyncIterator["openai.AsyncOpenAI"]:
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key="x", max_retries=0, timeout=5
    ) as client:
        yield client


async def test_chat(server, client) -> None:
    server.script(reply("你好！", reasoning="想"))
    answer = await client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "你好！"
    assert answer.choices[0].message.reasoning_content == "想"
    assert answer.usage.total_tokens == 6


async def test_stream(server, client) -> None:
    server.script(reply("量子纠缠现象"))
    options = {"include_usage": True}
    stream = await client.chat.completions.create(**ASK, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "量子纠缠现象"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 6


async def test_streamed_tool_calls(server, client) -> None:
    function = {"name": "weather", "arguments": {"city": "上海"}}
    server.script(reply(tool_calls=[{"function": function}]))
    async with client.chat.completions.stream(**ASK) as stream:
        answer = await stream.get_final_completion()
    (call,) = answer.choices[0].message.tool_calls
    assert (call.id, call.function.name) == ("call_0", "weather")
    assert call.function.arguments == '{"city":"上海"}'
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_wrong_key_is_an_authentication_error(server) -> None:
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key="wrong", max_retries=0
    ) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(**ASK)
    assert caught.value.code == "invalid_iam_token"


async def test_429_is_a_rate_limit_error(server, client) -> None:
    server.script(refuse(429, retry_after=2))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**ASK)
    assert caught.value.code == "rpm_rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.request_id.startswith("as-")


async def test_a_retry_takes_the_next_step(server) -> None:
    server.script(refuse(429, retry_after=0.01), reply("好"))
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=1) as client:
        answer = await client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "好"
    assert len(server.requests) == 2


async def test_an_error_event_raises(server, client) -> None:
    server.script(error_event(after_chunks=1))
    stream = await client.chat.completions.create(**ASK, stream=True)
    with pytest.raises(openai.APIError, match="Internal error"):
        async for _ in stream:
            pass


async def test_a_cut_raises(server, client) -> None:
    server.script(cut(after_chunks=1))
    stream = await client.chat.completions.create(**ASK, stream=True)
    with pytest.raises(openai.APIConnectionError):
        async for _ in stream:
            pass


async def test_embeddings(server, client) -> None:
    answer = await client.embeddings.create(model="embedding-v1", input=["上海天气", "天气"])
    assert [item.index for item in answer.data] == [0, 1]
    assert [len(item.embedding) for item in answer.data] == [384, 384]
    assert answer.usage.total_tokens == 6
    again = await client.embeddings.create(
        model="embedding-v1", input="天气", encoding_format="float"
    )
    assert again.data[0].embedding == answer.data[1].embedding
    with pytest.raises(openai.BadRequestError, match="empty"):
        await client.embeddings.create(model="embedding-v1", input=[""])


async def test_files(server, client) -> None:
    file = await client.files.create(file=("a.jsonl", b"{}\n" * 1000), purpose="batch")
    assert (file.filename, file.bytes, file.purpose) == ("a.jsonl", 3000, "batch")
    assert (await client.files.content(file.id)).content == b"{}\n" * 1000
    assert [held.id async for held in client.files.list(purpose="batch")] == [file.id]
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.content(file.id)


async def test_images(server, client) -> None:
    answer = await client.images.generate(model="qwen-image", prompt="小狗", size="1024x1024")
    assert answer.data[0].url.startswith(server.base_url.removesuffix("/v2"))
    inline = await client.images.generate(model="m", prompt="小狗", response_format="b64_json")
    assert b64decode(inline.data[0].b64_json).startswith(b"\x89PNG")


async def test_the_models_are_listed(client) -> None:
    assert "ernie-5.1" in [model.id async for model in client.models.list()]
