"""Clients of servers that are not Baidu's: addresses, keys, models, and what they stream."""

import json
import pickle
from pathlib import Path

import pytest

from ernie_async import (
    APIError,
    AsyncClient,
    Client,
    ConfigError,
    ResumePolicy,
    RetryPolicy,
    Server,
)
from ernie_async.testing import MockErnie, cut, raw, reply

FIXTURES = Path(__file__).parent / "fixtures" / "compatible_servers"
SECRET = "bce-v3/ALTAK-planted/0"


@pytest.fixture(autouse=True)
def rich_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of Qianfan that are none of another server's business."""
    monkeypatch.setenv("QIANFAN_API_KEY", SECRET)
    monkeypatch.setenv("QIANFAN_BASE_URL", "http://127.0.0.1:1/v2")
    monkeypatch.setenv("QIANFAN_MODEL", "ernie-of-environment")
    monkeypatch.delenv("AI_STUDIO_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("name", "url", "model"),
    [
        ("qianfan", "http://127.0.0.1:1/v2", "ernie-of-environment"),
        ("fastdeploy", "http://127.0.0.1:8000/v1", "default"),
        ("vllm", "http://127.0.0.1:8000/v1", None),
        ("sglang", "http://127.0.0.1:30000/v1", "default"),
        ("llama.cpp", "http://127.0.0.1:8080/v1", "default"),
    ],
)
def test_each_server_has_its_address_and_model(name, url: str, model: str | None) -> None:
    client = AsyncClient(server=name)
    assert (client.base_url, client.model) == (url, model)
    again = pickle.loads(pickle.dumps(client))
    assert (again.base_url, again.model) == (url, model)
    with Client(server=name) as sync:
        assert sync.base_url == url


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["fastdeploy", "vllm", "sglang", "llama.cpp"])
async def test_key_of_qianfan_goes_to_nobody_else(server: MockErnie, name) -> None:
    async with AsyncClient(server=name, base_url=server.base_url, model="m") as client:
        await client.chat("hi")
    assert "Authorization" not in server.requests[0].headers


@pytest.mark.anyio
async def test_ai_studio_has_a_key_of_its_own(server: MockErnie, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="AI_STUDIO_API_KEY"):
        AsyncClient(server="aistudio")
    monkeypatch.setenv("AI_STUDIO_API_KEY", "studio-token")
    assert AsyncClient(server="aistudio").base_url == "https://aistudio.baidu.com/llm/lmapi/v3"
    async with AsyncClient(server="aistudio", base_url=server.base_url) as client:
        await client.list_models()
        with pytest.raises(ConfigError, match="model: name the one that aistudio serves"):
            await client.chat("hi")
    assert server.requests[0].headers["Authorization"] == "Bearer studio-token"
    # Only who asks for that server gets that key.
    monkeypatch.delenv("QIANFAN_API_KEY")
    with pytest.raises(ConfigError, match="QIANFAN_API_KEY"):
        AsyncClient(base_url="https://qianfan.baidubce.com/v2")


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["vllm", "sglang"])
async def test_broken_stream_goes_on_in_the_servers_own_way(server: MockErnie, name) -> None:
    server.script(cut(after_chunks=3, of=reply("量子纠缠现象")), reply("现象"))
    retry = RetryPolicy(base_delay=0.001)
    async with AsyncClient(
        server=name, base_url=server.base_url, model="m", resume="continue", retry=retry
    ) as client:
        async with client.stream("hi", enable_thinking=False) as stream:
            await stream.final()
        assert [resumed.how for resumed in stream.resumes] == ["final_message"]
        assert client.with_options(resume="continue")._desk.resume.continuation == "final_message"
        own = ResumePolicy(mode="continue", continuation="prefix")
        assert client.with_options(resume=own)._desk.resume == own
    sent = server.requests[1].json
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["messages"][-1]["role"] == "assistant"


STREAMS = {
    "fastdeploy_reasoning.sse": ("你好！", "用户在打招呼"),
    "fastdeploy_repeated_index.sse": ("你好！", ""),
    "vllm_reasoning_new_field.sse": None,
    "vllm_reasoning_old_field.sse": None,
}


@pytest.mark.anyio
@pytest.mark.parametrize("file", STREAMS)
async def test_what_servers_stream_is_read_as_a_whole(server: MockErnie, file: str) -> None:
    server.script(raw((FIXTURES / file).read_bytes()))
    name = "fastdeploy" if file.startswith("fastdeploy") else "vllm"
    async with AsyncClient(server=name, base_url=server.base_url, model="m") as client:
        async with client.stream("hi") as stream:
            answer = await stream.final()
    assert answer.text
    if STREAMS[file] is None:
        assert answer.reasoning
    else:
        assert (answer.text, answer.reasoning) == STREAMS[file]


@pytest.mark.anyio
@pytest.mark.parametrize("file", ["fastdeploy_stream_error.sse", "fastdeploy_stream_error_old.sse"])
async def test_done_after_an_error_is_no_success(server: MockErnie, file: str) -> None:
    server.default(raw((FIXTURES / file).read_bytes()))
    once = RetryPolicy(attempts=1)
    async with AsyncClient(server="fastdeploy", base_url=server.base_url, retry=once) as client:
        with pytest.raises(APIError):
            async for _ in client.stream("hi"):
                pass


def test_a_server_of_ones_own() -> None:
    mine = Server(name="mine", base_url="http://127.0.0.1:5/v1", model="ernie-4.5-0.3b")
    client = AsyncClient(server=mine)
    assert (client.base_url, client.model) == (mine.base_url, "ernie-4.5-0.3b")
    assert json.dumps(repr(mine))
