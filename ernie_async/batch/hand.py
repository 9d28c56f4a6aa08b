"""A worker of another process, as the driver sees it. Each attempt is answered once, come what may.

Knows no engine. What a worker held when it died is answered for it.
"""

import asyncio
from collections.abc import Awaitable
from itertools import count
from typing import Any, TypeVar

from ernie_async.batch.answers import Answer
from ernie_async.batch.asking import Need
from ernie_async.batch.lines import Line
from ernie_async.batch.worker import Order, Told
from ernie_async.errors import ConnectError

__all__ = ["Hand"]

T = TypeVar("T")

# A worker that says nothing for so long is as good as dead; see also `worker.TELL_SECONDS`.
REPLY_SECONDS = 60.0


class Hand:
    """A worker as the driver sees it: what it was asked, and what it told last.

    Args:
        name: Shown in logs and errors.
        actor: A `Worker` somewhere: each method has a `remote` that returns an awaitable.
    """

    def __init__(self, name: str, actor: Any) -> None:
        self.told: Told | None = None
        self._name = name
        self._actor = actor
        self._tickets = count()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: list[Order] = []
        self._has_unsent = asyncio.Event()

    def __len__(self) -> int:
        return len(self._answers)

    async def make(self, line: Line, need: Need) -> Answer:
        """Have an attempt made, and wait for its answer."""
        ticket = next(self._tickets)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = answer
        self._unsent.append(Order(ticket, line._replace(metadata=None), need))
        self._has_unsent.set()
        try:
            return await answer
        finally:
            del self._answers[ticket]

    async def work(self) -> None:
        """Exchange questions and answers, until the worker dies.

        Raises:
            TimeoutError: It does not answer.
            Exception: What the engine raises of a worker that died.
        """
        ways = [asyncio.create_task(self._give()), asyncio.create_task(self._take())]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            # Nobody knows what the service did of it.
            lost = Answer(error=ConnectError(f"the worker {self._name} was lost"))
            for ticket in self._answers:
                self._answer(ticket, lost)

    def stop(self) -> None:
        """Have it send nothing more."""
        for order in self._unsent:
            self._answer(order.ticket, Answer(is_sent=False))
        self._unsent.clear()
        self._actor.stop.remote()

    def _answer(self, ticket: int, answer: Answer) -> None:
        future = self._answers.get(ticket)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _give(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            orders, self._unsent = self._unsent, []
            await _reply(self._actor.give.remote(orders))

    async def _take(self) -> None:
        while True:
            told: Told = await _reply(self._actor.take.remote())
            self.told = told
            for ticket, answer in told.answers:
                self._answer(ticket, answer)


async def _reply(call: Awaitable[T]) -> T:
    async with asyncio.timeout(REPLY_SECONDS):
        return await call
