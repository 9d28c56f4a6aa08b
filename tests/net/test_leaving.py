"""Calls that are left at every turn of the loop, whatever is switched on: nothing stays."""

import asyncio

import anyio
import pytest

from ernie_async import AsyncClient, BreakerPolicy, Hedging, KeyPool, Limits, PooledKey, RetryPolicy
from ernie_async.testing import MockErnie, cut, refuse, reply

KEYS = KeyPool([PooledKey(key, account="main") for key in "kl"])  # one lane of the limiter

FEATURES: dict[str, dict] = {
    "plain": {},
    "fallback": {"fallback": ["b"], "resume": "continue"},
    "hedging": {"hedge": Hedging(after=0.0, share=1.0)},
    "single flight": {"coalesce": True},
    "a circuit that opens": {
        "breaker": BreakerPolicy(failures=2, open_for=0.001, max_open=0.002),
        "hedge": Hedging(after=0.0, share=1.0),
    },
    "a pool of keys": {"api_key": KEYS, "hedge": Hedging(after=0.0, share=1.0)},
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
    # Most requests fail, which would stop them all.
    settings = {"api_key": "k", "breaker": None, **settings}
    url = server.base_url
    async with AsyncClient(base_url=url, limits=limits, retry=retry, **settings) as client:
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
            if client._desk.pool is not None:
                assert not any(lane.held for lane in client._desk.pool.lanes.lanes)
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
        patient = client.with_options(retry=RetryPolicy())
        await patient.chat("and still", coalesce=False)
    await server.wait_idle(connections=True)
