"""Answers in one piece are answers under way like the others: counted, waited for, and stopped."""

import asyncio

import pytest

from ernie_async.gateway import GatewaySettings, StreamLimits, Tenant
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie, reply, stall
from tests.waiting import until

from .conftest import Serve

pytestmark = pytest.mark.anyio

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


async def test_drain_waits_for_them(serve: Serve, upstream: MockErnie) -> None:
    upstream.script(reply("好", first_ms=300))
    async with serve() as gateway:
        asking = asyncio.create_task(gateway.post(CHAT, ASK))
        await until(lambda: upstream.requests_made)
        assert gateway.hub.n_running == 1
        await gateway.hub.drain(5)
        assert gateway.hub.n_running == 0
        status, answer = await asking
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "好")
        status, error = await gateway.post(CHAT, ASK)
        assert (status, error["error"]["code"]) == (503, "shutting_down")
        assert [ended.ending for ended in gateway.ended] == ["done"]
        assert upstream.requests_made == 1


async def test_what_is_left_after_the_drain_is_told_so(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(stall(before_headers=True))
    async with serve() as gateway:
        asking = [asyncio.create_task(gateway.post(CHAT, ASK)) for _ in range(3)]
        await until(lambda: gateway.hub.n_running == 3)
        await gateway.hub.drain(0.1)
        assert gateway.hub.n_running == 0
        for status, error in await asyncio.wait_for(asyncio.gather(*asking), 1):
            assert (status, error["error"]["code"]) == (503, "shutting_down")
        assert [ended.ending for ended in gateway.ended] == ["error"] * 3
        await upstream.wait_idle()


async def test_they_share_the_room_of_the_process(serve: Serve, upstream: MockErnie) -> None:
    upstream.default(stall(before_headers=True))
    token = {"Authorization": "Bearer t"}
    tenant = Tenant(name="a", token_sha256=token_hash("t"), streams=9)
    settings = GatewaySettings(tenants=(tenant,), limits=StreamLimits(streams=2))
    async with serve(settings) as gateway:
        _, started = await gateway.post("/v1/streams", ASK, **token)
        asking = asyncio.create_task(gateway.post(CHAT, ASK, **token))
        await until(lambda: gateway.hub.n_running == 2)
        for is_stream in (True, False):
            status, error = await gateway.post(CHAT, {**ASK, "stream": is_stream}, **token)
            assert (status, error["error"]["code"]) == (503, "overloaded")
        await gateway.post(f"/v1/streams/{started['stream_id']}/cancel", None, **token)
        asking.cancel()
        await until(lambda: gateway.hub.n_running == 0)
        upstream.default(reply("好"))
        assert (await gateway.post(CHAT, ASK, **token))[0] == 200
        # One that was refused is no answer, and took nothing of its tenant's.
        endings = sorted(ended.ending for ended in gateway.ended)
        assert endings == ["cancelled", "disconnected", "done"]
