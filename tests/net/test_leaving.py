"""Calls that are left at every turn of the loop, whatever is switched on: nothing stays."""

import asyncio

import anyio
import pytest

from ernie_async import AsyncClient, Hedging, Limits, RetryPolicy
from ernie_async.testing import MockErnie, cut, refuse, reply

FEATURES: dict[str, dict] = {
    "plain": {},
    "fallback": {"fallback": ["b"], "resume": "continue"},
    "hedging": {"hedge": Hedging(after=0.0, share=1.0)},
    "single flight": {"coalesce": True},
    "all": {
        "fallback": ["b"],
        "resume": "continue",
        "hedge": Hedging(after=0.001, share=1.0),
        "coalesce": True,
    },
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["chat", "stream"])
@pytest.mark.parametrize("settings", FEATURES.values(), ids=FEATURES.keys())
async def test_cancelled_at_every_turn(server: MockErnie, settings, kind: str) -> None:
    limits = Limits(concurrency=3)
    retry = RetryPolicy(attempts=2, base_delay=0.001)
    # Most of these calls fail, which a breaker would notice.
    settings = {"limits": limits, "retry": retry, "breaker": None, **settings}
    async with AsyncClient("k", base_url=server.base_url, **settings) as client:
        await client.list_models()
        before = len(asyncio.all_tasks())
        budget = client.budget(tokens=10**9)

        async def ask(question: str) -> None:
            async with budget:
                if kind == "chat":
                    await client.chat(question)
                else:
                    await client.stream(question).text()

        for turns in range(0, 60, 2):
            server.script(refuse(500), refuse(500), cut(after_chunks=2), reply("好" * 6))
            tasks = [asyncio.create_task(ask(f"{turns} {n // 2}")) for n in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert client.limiter is not None
            with anyio.fail_after(2):  # a call that was shared ends a few turns after its readers
                while client.limiter.in_flight or client._desk.roster._calls:
                    await asyncio.sleep(0)
            assert client.limiter.waiting == 0
            assert not client._desk.flights
            used = budget.tokens
            await asyncio.sleep(0.002)
            assert budget.tokens == used
            await server.wait_idle()
            server._script.clear()
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        for _ in range(50):  # the server's own tasks end a moment later
            if len(asyncio.all_tasks()) <= before:
                break
            await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) <= before + 3
        await client.chat("and still", coalesce=False)
    await server.wait_idle(connections=True)
