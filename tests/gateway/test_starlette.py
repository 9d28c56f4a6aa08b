"""Routes of one's own, on servers that nobody here wrote: uvicorn, and hypercorn if it is there."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from ernie_async import AsyncClient
from ernie_async.gateway import MemoryStore, StreamHub
from ernie_async.testing import MockErnie, reply, stall

from .resets import reset_at_random

pytest.importorskip("starlette", reason="pip install starlette")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ernie_async.gateway.starlette import sse_response
from tests.waiting import until

pytestmark = pytest.mark.anyio

TEXT = "量子纠缠是两个粒子共享同一个状态的现象。"


def make(client: AsyncClient, hub: StreamHub) -> Starlette:
    async def chat(request: Request) -> Response:
        messages = (await request.json())["messages"]
        stream = await hub.start(
            lambda: client.stream(messages),
            on_disconnect=request.query_params.get("on_disconnect", "linger:60"),
        )
        return sse_response(stream, request)

    async def resume(request: Request) -> Response:
        return sse_response(await hub.open(request.path_params["stream_id"]), request)

    async def stop(request: Request) -> Response:
        await hub.cancel(request.path_params["stream_id"])
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/chat", chat, methods=["POST"]),
            Route("/chat/{stream_id}", resume),
            Route("/chat/{stream_id}/stop", stop, methods=["POST"]),
        ]
    )


@asynccontextmanager
async def on_uvicorn(app: Any) -> AsyncIterator[int]:
    uvicorn = pytest.importorskip("uvicorn", reason="pip install uvicorn")
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    task = asyncio.create_task(server._serve(sockets=[listener]))
    await until(lambda: server.started)
    yield listener.getsockname()[1]
    server.should_exit = True
    await task
    listener.close()


@asynccontextmanager
async def on_hypercorn(app: Any) -> AsyncIterator[int]:
    pytest.importorskip("hypercorn", reason="pip install hypercorn")
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "critical"
    config.keep_alive_timeout = config.graceful_timeout = 0.2
    over = asyncio.Event()
    task = asyncio.create_task(serve(app, config, shutdown_trigger=over.wait))

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return False
        writer.close()
        return True

    async with asyncio.timeout(5):
        while not await listens():
            await asyncio.sleep(0.02)
    yield port
    over.set()
    await task


@pytest.mark.parametrize("server", [on_uvicorn, on_hypercorn])
async def test_routes_of_ones_own(upstream: MockErnie, server: Any) -> None:
    upstream.script(reply(TEXT, chunk_ms=2), stall(after_chunks=1), stall(after_chunks=1))
    hub = StreamHub(MemoryStore(), heartbeat=0.2)
    async with (
        AsyncClient("k", base_url=upstream.base_url) as client,
        server(make(client, hub)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        body = {"messages": [{"role": "user", "content": "hi"}]}
        async with session.post("/chat", json=body) as answer:
            assert answer.headers["X-Accel-Buffering"] == "no"
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert "Content-Length" not in answer.headers
            stream_id = answer.headers["X-Stream-Id"]
            frames = (await answer.text()).split("\n\n")
        assert frames[0] == ": ok\nretry: 3000"
        first = frames[2].partition("id: ")[2].partition("\n")[0]
        headers = {"Last-Event-ID": first}
        async with session.get(f"/chat/{stream_id}", headers=headers) as answer:
            rest = await answer.text()
        told = [f.partition("data: ")[2] for f in [frames[2], *rest.split("\n\n")]]
        texts = [json.loads(data).get("text", "") for data in told if data]
        assert "".join(texts) == TEXT
        last = rest.rpartition("id: ")[2].partition("\n")[0]
        async with session.get(f"/chat/{stream_id}", headers={"Last-Event-ID": last}) as answer:
            assert answer.status == 204
        # Who leaves is noticed, and who stops is obeyed.
        async with session.post("/chat?on_disconnect=cancel", json=body) as answer:
            await answer.content.readany()
            answer.close()
        await until(lambda: hub.n_running == 0)
        async with session.post("/chat", json=body) as answer:
            await session.post(f"/chat/{answer.headers['X-Stream-Id']}/stop")
            assert '"cancelled":true' in await answer.text()
        await hub.aclose()
    await upstream.wait_idle()


@pytest.mark.parametrize("server", [on_uvicorn, on_hypercorn])
async def test_connections_reset_at_random_points_leave_nothing(
    upstream: MockErnie, server: Any
) -> None:
    upstream.default(reply(TEXT, chunk_ms=3))
    hub = StreamHub(heartbeat=0.2)
    async with (
        AsyncClient("k", base_url=upstream.base_url) as client,
        server(make(client, hub)) as port,
    ):
        before = len(asyncio.all_tasks()) - upstream.open_connections
        body = b'{"messages":[{"role":"user","content":"hi"}]}'
        await reset_at_random(port, "/chat?on_disconnect=cancel", body, n=60)
        await until(lambda: hub.n_running == hub.n_viewers == 0, 10)
        await upstream.wait_idle(5)
        # Each connection that the client keeps for later has a task of the mock.
        await until(lambda: len(asyncio.all_tasks()) - upstream.open_connections <= before, 10)
        await hub.aclose()
