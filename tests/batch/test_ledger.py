"""Each attempt is answered once, whoever has it and whatever happens to them."""

import asyncio

import pytest

from ernie_async.batch.asking import Answer, Need
from ernie_async.batch.ledger import Ledger
from ernie_async.batch.lines import Line
from ernie_async.errors import ConnectError

pytestmark = pytest.mark.anyio


def line(n: int) -> Line:
    return Line(n, f"r{n}", "/chat/completions", {}, "key")


async def begin(ledger: Ledger, n: int) -> list[asyncio.Task[Answer]]:
    tasks = [asyncio.create_task(ledger.make(line(i), Need())) for i in range(n)]
    async with asyncio.timeout(5):
        await ledger.has_orders.wait()
    return tasks


async def test_first_answer_counts() -> None:
    ledger = Ledger()
    (task,) = await begin(ledger, 1)
    (order,) = ledger.take(10)
    ledger.answer(order.ticket, Answer(status=200))
    ledger.answer(order.ticket, Answer(status=500))
    assert (await task).status == 200
    ledger.answer(order.ticket, Answer(status=500))  # from one that was given up
    assert len(ledger) == 0


async def test_orders_are_taken_once_and_in_order() -> None:
    ledger = Ledger()
    tasks = await begin(ledger, 5)
    first, second = ledger.take(3), ledger.take(3)
    assert [order.line.number for order in first + second] == list(range(5))
    assert not ledger.has_orders.is_set()
    assert ledger.take(3) == []
    ledger.lose([order.ticket for order in first], Answer(error=ConnectError("lost")))
    for order in second:
        ledger.answer(order.ticket, Answer(status=200))
    answers = await asyncio.gather(*tasks)
    assert [answer.status for answer in answers] == [None] * 3 + [200] * 2


async def test_nobody_is_asked_for_a_caller_who_has_gone() -> None:
    ledger = Ledger()
    tasks = await begin(ledger, 2)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    (order,) = ledger.take(10)
    assert order.line.number == 1
    ledger.answer(order.ticket, Answer())
    await tasks[1]


async def test_the_end_of_those_that_wait() -> None:
    ledger = Ledger()
    tasks = await begin(ledger, 3)
    (under_way,) = ledger.take(1)
    ledger.end(Answer(is_sent=False))
    later = asyncio.create_task(ledger.make(line(9), Need()))
    assert [(await task).is_sent for task in (*tasks[1:], later)] == [False] * 3
    assert not tasks[0].done()
    ledger.answer(under_way.ticket, Answer())
    assert (await tasks[0]).is_sent


async def test_a_failure_is_for_all() -> None:
    ledger = Ledger()
    tasks = await begin(ledger, 2)
    ledger.take(1)
    ledger.end(ZeroDivisionError())
    tasks.append(asyncio.create_task(ledger.make(line(9), Need())))
    for task in tasks:
        with pytest.raises(ZeroDivisionError):
            await task
