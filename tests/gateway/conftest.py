"""A gateway on loopback in front of a mock, in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from ernie_async import AsyncClient, RetryPolicy
from ernie_async.gateway import GATEWAY, GatewaySettings, StreamEnded, StreamHub, make_app
from ernie_async.sansio.sse import EventDecoder, ServerSentEvent
from ernie_async.testing import MockErnie
from tests.waiting import until


class Running(NamedTuple):
    """A gateway that runs."""

    url: str
    hub: StreamHub
    ended: list[StreamEnded]
    session: aiohttp.ClientSession
    port: int
    app: web.Application

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Post JSON; the status and the JSON that came."""
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """The status and the JSON that came."""
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def read(
        self, path: str, *, last: str | None = None, n: int | None = None, **headers: str
    ) -> list[ServerSentEvent]:
        """The events of a stream; at most `n`, then the connection is cut."""
        if last is not None:
            headers["Last-Event-ID"] = last
        events: list[ServerSentEvent] = []
        decoder = EventDecoder()
        async with self.session.get(self.url + path, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            async for packet in answer.content.iter_any():
                events += decoder.feed(packet)
                if n is not None and len(events) >= n:
                    answer.close()
                    return events[:n]
        return events


Serve = Callable[..., Any]


@asynccontextmanager
async def running(
    upstream: MockErnie, settings: GatewaySettings | None = None, **options: Any
) -> AsyncIterator[Running]:
    """A gateway that leaves nothing open: no stream, no task, no connection."""
    client_options = options.pop("client", {})
    is_alone = options.pop("is_alone", True)
    before = len(asyncio.all_tasks())
    ended: list[StreamEnded] = []
    async with AsyncExitStack() as stack:
        client = AsyncClient(
            client_options.pop("api_key", "k"),
            base_url=upstream.base_url,
            retry=RetryPolicy(attempts=2, base_delay=0.001),
            **client_options,
        )
        await stack.enter_async_context(client)
        app = make_app(client, settings, on_end=[ended.append], **options)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        port = runner.addresses[0][1]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{port}"
        yield Running(url, app[GATEWAY].hub, ended, session, port, app)
        await session.close()
    if not is_alone:
        return
    await upstream.wait_idle(connections=True)
    await until(lambda: len(asyncio.all_tasks()) <= before)


@pytest.fixture
async def upstream() -> AsyncIterator[MockErnie]:
    """The model's service."""
    async with MockErnie() as mock:
        yield mock


@pytest.fixture
def serve(upstream: MockErnie) -> Serve:
    """Runs a gateway in front of `upstream`."""
    return lambda settings=None, **options: running(upstream, settings, **options)
