"""The gateway with programs that nobody here wrote: openai-python, and nginx before it."""

import asyncio
import itertools
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from ernie_async import ContentFilter
from ernie_async.gateway import GatewaySettings
from ernie_async.testing import MockErnie, refuse, reply, stall

from .conftest import Serve

pytestmark = [pytest.mark.real, pytest.mark.anyio]

SAY = [{"role": "user", "content": "hi"}]
TEXT = "量子纠缠是两个粒子共享同一个状态的现象。"
CALL = {"function": {"name": "look", "arguments": {"at": "天气"}}}


@pytest.fixture
async def openai(serve: Serve):
    library = pytest.importorskip("openai", reason="pip install openai")
    words = ContentFilter.from_terms(["坏词"], action="block")
    async with (
        serve(client={"content_filter": words}) as gateway,
        library.AsyncOpenAI(api_key="x", base_url=f"{gateway.url}/v1", max_retries=0) as client,
    ):
        yield client


async def test_openai_streams(openai, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT, reasoning="嗯", chunk_ms=1))
    stream = await openai.chat.completions.create(
        model="m", messages=SAY, stream=True, stream_options={"include_usage": True}
    )
    text, reasons, usage = "", [], None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons.append(choice.finish_reason)
    assert text == TEXT
    assert [reason for reason in reasons if reason] == ["stop"]
    assert usage.completion_tokens == len(TEXT) + 1


async def test_openai_chats_calls_tools_and_lists_models(openai, upstream: MockErnie) -> None:
    upstream.script(reply(TEXT), reply(tool_calls=[CALL]))
    answer = await openai.chat.completions.create(model="m", messages=SAY)
    assert answer.choices[0].message.content == TEXT
    async with openai.chat.completions.stream(model="m", messages=SAY) as stream:
        async for _ in stream:
            pass
        whole = await stream.get_final_completion()
    (call,) = whole.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"at": "天气"})
    assert whole.choices[0].finish_reason == "tool_calls"
    assert [model.id async for model in openai.models.list()]


async def test_openai_understands_errors(openai, upstream: MockErnie) -> None:
    import openai as library

    upstream.script(*[refuse(429, retry_after=0)] * 4, reply("一个坏词。"))
    with pytest.raises(library.RateLimitError) as caught:
        await openai.chat.completions.create(model="m", messages=SAY)
    assert caught.value.code == "rate_limited"
    with pytest.raises(library.APIError, match="busy"):
        async for _ in await openai.chat.completions.create(model="m", messages=SAY, stream=True):
            pass
    with pytest.raises(library.BadRequestError, match="base_url"):
        await openai.chat.completions.create(
            model="m", messages=SAY, extra_body={"base_url": "http://evil"}
        )
    stream = await openai.chat.completions.create(model="m", messages=SAY, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "一个"
    assert chunks[-1].choices[0].finish_reason == "content_filter"


NGINX = """
daemon off; pid {home}/pid; error_log {home}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{to}; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_read_timeout 1s;
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(tmp_path: Path, to: int) -> AsyncIterator[str]:
    """An nginx with its default buffering, and a read timeout of a second."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no nginx: apt-get install nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(home=tmp_path, port=port, to=to))
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(config), "-p", str(tmp_path), stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def times(session: aiohttp.ClientSession, url: str) -> tuple[list[float], bytes]:
    """When the pieces of an answer came, and all of it."""
    began, moments, body = monotonic(), [], b""
    async with session.get(url, headers={"Accept-Encoding": "gzip"}) as answer:
        assert "Content-Encoding" not in answer.headers
        async for packet in answer.content.iter_any():
            moments.append(monotonic() - began)
            body += packet
    return moments, body


async def test_nginx_with_its_defaults_does_not_hold_the_text_back(
    serve: Serve, upstream: MockErnie, tmp_path: Path
) -> None:
    upstream.default(reply("字" * 20, chunk_chars=1, chunk_ms=50))
    ask = {"model": "m", "messages": SAY}
    async with serve() as gateway, nginx(tmp_path, gateway.port) as url:
        _, started = await gateway.post("/v1/streams", ask)
        moments, body = await times(gateway.session, url + started["events_url"])
        assert body.count("字".encode()) == 20
        assert moments[0] < 0.5
        assert len(moments) > 10
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        assert max(gaps) < 0.5


async def test_heartbeats_keep_a_silent_connection_through_nginx(
    serve: Serve, upstream: MockErnie, tmp_path: Path
) -> None:
    upstream.script(stall(after_chunks=1))
    ask = {"model": "m", "messages": SAY}
    # As 50 s of silence, 15 s of heartbeat and 20 s of patience, a twentieth of it.
    settings = GatewaySettings(heartbeat=0.75)
    async with serve(settings) as gateway, nginx(tmp_path, gateway.port) as url:
        _, started = await gateway.post("/v1/streams", ask)
        stop = asyncio.get_running_loop().call_later(
            2.5, lambda: [p.stop("cancelled") for p in gateway.hub._running.values()]
        )
        moments, body = await times(gateway.session, url + started["events_url"])
        stop.cancel()
        assert b'"cancelled":true' in body
        assert body.count(b": hb\n\n") >= 2
        assert moments[-1] > 2.4
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        assert max(gaps) < 1
