"""Programs that others wrote, pointed at MockErnie as they are: LangChain, and a bot's plugin."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from ernie_async.testing import MockErnie, cut, refuse, reply

INSTALL = "pip install '.[interop]'"

TOOL_CALL = {"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}


@pytest.fixture
def settings(mock_ernie: MockErnie) -> Iterator[dict[str, Any]]:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(trust_env=False) as http_client:
        yield {"base_url": mock_ernie.base_url, "api_key": "k", "http_client": http_client}


@pytest.fixture
def langchain(settings: dict[str, Any]) -> Any:
    library = pytest.importorskip("langchain_openai", reason=INSTALL)
    return library.ChatOpenAI(model="ernie-5.1", **settings)


def test_langchain_chats_and_streams(mock_ernie: MockErnie, langchain: Any) -> None:
    mock_ernie.script(reply("量子纠缠"), reply("量子纠缠", chunk_chars=1))
    answer = langchain.invoke("你好")
    assert answer.content == "量子纠缠"
    assert answer.usage_metadata["total_tokens"] > 0
    assert "".join(chunk.content for chunk in langchain.stream("你好")) == "量子纠缠"


def test_langchain_calls_tools(mock_ernie: MockErnie, langchain: Any) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    mock_ernie.script(reply(tool_calls=[TOOL_CALL]))
    answer = langchain.bind_tools([add]).invoke("一加二？")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
        ("add", {"a": 1, "b": 2})
    ]
    assert mock_ernie.requests[0].json["tools"][0]["function"]["name"] == "add"


def test_langchain_retries_and_fails(mock_ernie: MockErnie, langchain: Any) -> None:
    mock_ernie.script(refuse(429, retry_after=0.01), reply("好"))
    assert langchain.invoke("你好").content == "好"
    mock_ernie.script(cut(2))
    with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
        list(langchain.stream("你好"))


def test_langchain_embeds(settings: dict[str, Any]) -> None:
    library = pytest.importorskip("langchain_openai", reason=INSTALL)
    # Else it would send token numbers of another model's tokenizer instead of texts.
    embeddings = library.OpenAIEmbeddings(
        model="embedding-v1", check_embedding_ctx_length=False, **settings
    )
    assert len(embeddings.embed_documents(["一", "二"])) == 2


PLUGIN = """
import asyncio, json, sys
import nonebot
nonebot.init(driver="~none", wenxin_api_key="k", wenxin_base_url=sys.argv[1], log_level="ERROR")
nonebot.load_plugin("nonebot_plugin_ernie")
from nonebot_plugin_ernie import ErnieAPIError, client

async def main():
    told = []
    told.append((await client.chat("你好")).content)
    for ask in (client.chat("你好"), client.chat("你好")):
        try:
            await ask
        except ErnieAPIError as error:
            told.append([error.code, str(error)])
    told.append(await client.text_to_image("一只猫"))
    await client.aclose()
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.mark.skipif(find_spec("nonebot_plugin_ernie") is None, reason=INSTALL)
def test_the_plugin_of_a_bot(mock_ernie: MockErnie) -> None:
    mock_ernie.script(reply("量子纠缠"), refuse(401), reply("不", flag=3))
    done = subprocess.run(
        [sys.executable, "-c", PLUGIN, mock_ernie.base_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    text, (code, refused), (_, blocked), url = json.loads(done.stdout.splitlines()[-1])
    assert text == "量子纠缠"
    assert code == "invalid_iam_token"
    assert "API Key" in refused
    assert "安全策略" in blocked
    assert url.startswith(mock_ernie.base_url.removesuffix("/v2"))
