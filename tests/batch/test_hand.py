"""Each attempt is answered once, whatever becomes of who makes it. A worker here is a task."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ernie_async import AsyncClient, Limits
from ernie_async.batch.answers import Answer
from ernie_async.batch.asking import Need
from ernie_async.batch.hand import Hand
from ernie_async.batch.lines import Line
from ernie_async.batch.worker import Setup, Worker
from ernie_async.net.limiter import Limiter
from ernie_async.testing import MockErnie, reply
from tests.waiting import until

pytestmark = pytest.mark.anyio


class DiedError(Exception):
    pass


class Method:
    def __init__(self, actor, name) -> None:
        self._actor, self._method = actor, getattr(actor.worker, name)

    def remote(self, *given):
        return asyncio.ensure_future(self._call(*given))

    async def _call(self, *given):
        if self._actor.is_dead.is_set():
            raise DiedError
        death = asyncio.create_task(self._actor.is_dead.wait())
        call = asyncio.create_task(self._method(*given))
        await asyncio.wait({death, call}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not call.done():
            call.cancel()
            raise DiedError
        return call.result()


class Actor:
    """As an engine would have it; it may die at any moment."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.is_dead = asyncio.Event()

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


@asynccontextmanager
async def employed(server: MockErnie, **limits) -> AsyncIterator[tuple[Hand, Actor, asyncio.Task]]:
    client = AsyncClient("k", base_url=server.base_url)
    limiter = Limiter(Limits(**limits))
    actor = Actor(Worker("w", Setup(client, [limiter], None, False, 300.0)))
    hand = Hand("w", actor)
    work = asyncio.create_task(hand.work())
    yield hand, actor, work
    work.cancel()
    await asyncio.wait({work})
    await actor.worker.aclose()


def ask(hand: Hand, n: int) -> list[asyncio.Task[Answer]]:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    lines = [Line(i, f"r{i}", "/chat/completions", body, "key") for i in range(n)]
    return [asyncio.create_task(hand.make(line, Need())) for line in lines]


async def test_answers_come_to_who_asked(server) -> None:
    server.default(reply("好", first_ms=20))
    async with employed(server, concurrency=5) as (hand, _, _):
        tasks = ask(hand, 20)
        answers = await asyncio.gather(*tasks)
        assert {answer.status for answer in answers} == {200}
        assert len(hand) == 0
        assert hand.told is not None
        assert hand.told.view.concurrency == 5
    assert server.requests_made == 20


async def test_what_a_dead_worker_held_is_lost(server) -> None:
    server.default(reply("好", first_ms=5000))
    async with employed(server) as (hand, actor, work):
        tasks = ask(hand, 3)
        await until(lambda: server.requests_made >= 3)
        tasks[0].cancel()
        actor.is_dead.set()
        with pytest.raises(DiedError):
            await work
        answers = await asyncio.gather(*tasks[1:])
        assert [str(answer.error) for answer in answers] == ["the worker w was lost"] * 2
        assert len(hand) == 0


async def test_a_stop_answers_what_was_not_sent(server) -> None:
    server.default(reply("好", first_ms=300))
    async with employed(server, concurrency=2) as (hand, _, _):
        tasks = ask(hand, 5)
        await until(lambda: server.requests_made >= 2)
        late = ask(hand, 1)
        await asyncio.sleep(0)
        hand.stop()
        answers = await asyncio.gather(*tasks, *late)
        assert sorted(answer.is_sent for answer in answers) == [False] * 4 + [True] * 2
    assert server.requests_made == 2
