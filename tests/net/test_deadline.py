"""The library's own clock for a wait: it has to do what `asyncio.timeout` does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ernie_async.net.deadline import Deadline

pytestmark = pytest.mark.anyio

Block = Callable[[], Coroutine[Any, Any, object]]


async def by_deadline(seconds: float | None, block: Block) -> object:
    with Deadline(seconds):
        return await block()


async def by_timeout(seconds: float | None, block: Block) -> object:
    async with asyncio.timeout(seconds):
        return await block()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def ended_by(coroutine: Coroutine[Any, Any, object], *, cancels: bool = False) -> Any:
    """What a task comes to: its result or its error, and how often it is still to be cancelled."""

    async def run() -> tuple[object, int]:
        this = asyncio.current_task()
        assert this is not None
        try:
            came = await coroutine
        except BaseException as error:  # noqa: BLE001 - to be compared, whatever it is
            came = type(error)
        return came, this.cancelling()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    if cancels:
        task.cancel()
    return await task


async def test_block_is_over_in_time() -> None:
    assert await ended_by(by_deadline(60, lambda: asyncio.sleep(0, "answer"))) == ("answer", 0)


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
async def test_block_is_late(seconds: float) -> None:
    ended = await ended_by(by_deadline(seconds, forever))
    assert ended == (TimeoutError, 0) == await ended_by(by_timeout(seconds, forever))


async def test_cancelled_by_others() -> None:
    ended = await ended_by(by_deadline(60, forever), cancels=True)
    assert ended == (asyncio.CancelledError, 1)
    assert ended == await ended_by(by_timeout(60, forever), cancels=True)


async def test_cancelled_by_others_in_the_turn_in_which_it_is_late() -> None:
    async def both() -> None:
        this = asyncio.current_task()
        assert this is not None
        with Deadline(None) as deadline:
            deadline.expire()
            asyncio.get_running_loop().call_soon(this.cancel)
            await forever()

    assert await ended_by(both()) == (asyncio.CancelledError, 1)


async def test_other_errors_pass_also_when_it_is_late() -> None:
    async def fails_when_stopped() -> None:
        try:
            await forever()
        finally:
            raise KeyError("its own")

    for timed in by_deadline, by_timeout:
        assert await ended_by(timed(0.01, fails_when_stopped)) == (KeyError, 0)


@pytest.mark.parametrize(("outer", "inner", "at"), [(0.01, 60, "outer"), (60, 0.01, "inner")])
async def test_one_within_another(outer: float, inner: float, at: str) -> None:
    stopped = []
    try:
        with Deadline(outer) as outside:
            try:
                with Deadline(inner) as inside:
                    await forever()
            except TimeoutError:
                stopped.append("inner")
    except TimeoutError:
        stopped.append("outer")
    assert stopped == [at]
    assert (outside.is_over, inside.is_over) == (at == "outer", at == "inner")


async def test_expired_by_hand() -> None:
    with pytest.raises(TimeoutError):
        with Deadline(None) as deadline:
            asyncio.get_running_loop().call_soon(deadline.expire)
            await forever()
    assert deadline.is_over


async def test_expired_twice() -> None:
    with pytest.raises(TimeoutError):
        with Deadline(60) as deadline:
            deadline.expire()
            deadline.expire()
            await forever()
    this = asyncio.current_task()
    assert this is not None
    assert this.cancelling() == 0


async def test_expired_once_more_while_it_is_left() -> None:
    with pytest.raises(TimeoutError):
        with Deadline(0) as deadline:
            try:
                await forever()
            finally:
                deadline.expire()
                await asyncio.sleep(0)
    this = asyncio.current_task()
    assert this is not None
    assert this.cancelling() == 0


async def test_what_is_over_cannot_be_stopped_any_more() -> None:
    with Deadline(0.01) as deadline:
        deadline.expire()
    deadline.expire()
    await asyncio.sleep(0.02)
    assert not deadline.is_over


def test_outside_of_a_task() -> None:
    loop = asyncio.new_event_loop()
    told: list[BaseException] = []

    def enter() -> None:
        try:
            with Deadline(1):
                pass
        except RuntimeError as error:
            told.append(error)
        loop.stop()

    try:
        loop.call_soon(enter)
        loop.run_forever()
    finally:
        loop.close()
    assert "inside a task" in str(told[0])
