"""Waiting for a server that grants, whatever happens in the same moment. The server is a double."""

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from ernie_async.errors import DeadlineError, LimiterError
from ernie_async.net.courier import Courier, SharedPermit
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.shared_lane import SharedLane
from ernie_async.sansio.shared_step import Answer, Ask
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Server:
    """Grants everything that is asked for; `before_answer` is called in between."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.before_answer: Callable[[], object] = lambda: None
        self.failure: LimiterError | None = None
        self.try_at = 0.0
        self.hung_up = 0

    async def step(self, ask: Ask) -> Answer:
        self.asks.append(ask)
        await asyncio.sleep(0)
        self.before_answer()
        return Answer(
            waits=[0.0] * len(ask.wanted),
            promise=0,
            others=0,
            is_in_line=False,
            look_in=0.0,
            pause=0,
            paused_for=0.0,
            is_probing=False,
            full_in=(60.0, 60.0),
            told=(None, None),
        )

    async def listen(self) -> bool:
        await asyncio.sleep(60)
        return True

    async def hang_up(self) -> None:
        self.hung_up += 1


def courier_of(server: Server) -> Courier:
    limits = Limits(requests_per_minute=60, tokens_per_minute=600, concurrency=9)
    return Courier(SharedLane(limits, beat=5, now=monotonic()), server, None)


def permit_of(courier: Courier, max_wait: float | None = None) -> SharedPermit:
    return SharedPermit(lambda: courier, 5, is_batch=False, max_wait=max_wait)


async def cancelled(server: Server, how: Callable[[asyncio.Task[SharedPermit]], object]) -> None:
    courier = courier_of(server)
    task = asyncio.ensure_future(permit_of(courier)._acquire())
    server.before_answer = lambda: how(task)
    with pytest.raises(asyncio.CancelledError):
        await task
    server.before_answer = lambda: None
    await courier.aclose()
    assert courier.in_flight == 0
    told = server.asks[1:]
    assert sum(ask.requests for ask in told) == 1
    assert sum(ask.tokens for ask in told) == 5
    assert told[-1].held == 0


async def test_who_is_cancelled_just_before_the_grant_gives_it_back() -> None:
    await cancelled(Server(), lambda task: task.cancel())


async def test_who_is_cancelled_just_after_the_grant_gives_it_back() -> None:
    # The grant wakes the task in the next round of the loop, and this comes first in it.
    await cancelled(Server(), lambda task: asyncio.get_running_loop().call_soon(task.cancel))


async def test_a_step_that_fails_in_an_unknown_way_leaves_nobody_waiting() -> None:
    server = Server()
    courier = courier_of(server)

    def fail() -> None:
        raise RuntimeError("a bug")

    server.before_answer = fail
    loop = asyncio.get_running_loop()
    said = []
    loop.set_exception_handler(lambda _, context: said.append(context))
    async with asyncio.timeout(2):
        with pytest.raises(LimiterError):
            await permit_of(courier)
    await courier.aclose()
    loop.set_exception_handler(None)


async def test_what_is_told_at_once_goes_in_one_step() -> None:
    server = Server()
    courier = courier_of(server)
    permits = await asyncio.gather(*(permit_of(courier)._acquire() for _ in range(9)))
    n = len(server.asks)
    for permit in permits:
        permit.settle(tokens=3)
        permit.release()
        permit.release()
    assert courier.in_flight == 0
    await until(lambda: len(server.asks) > n)
    await asyncio.sleep(0.05)
    assert [(ask.held, ask.tokens) for ask in server.asks[n:]] == [(0, 18)]
    await courier.aclose()
    assert server.hung_up


async def test_a_wait_ends_in_time_though_the_server_says_nothing() -> None:
    server = Server()
    courier = courier_of(server)
    never = asyncio.Event()

    async def step(ask: Ask) -> Answer:
        await never.wait()
        raise LimiterError("no answer")

    server.step = step  # type: ignore[method-assign]
    with pytest.raises(DeadlineError, match="max_wait") as caught:
        await permit_of(courier, max_wait=0.05)
    assert (caught.value.clock, caught.value.seconds) == ("queue", 0.05)
    assert len(courier.lane.line) == 0
    closing = asyncio.create_task(courier.aclose())
    await asyncio.sleep(0.05)
    never.set()
    await closing
