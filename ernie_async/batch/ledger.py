"""Who has which attempt, where others make them: each is answered once, whatever happens to whom.

Knows no engine. Attempts wait here until a worker takes them. What a worker held when it died is
answered for it, and what it says afterwards is not heard.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from ernie_async.batch.asking import Answer, Need
from ernie_async.batch.lines import Line

__all__ = ["Ledger", "Order"]


class Order(NamedTuple):
    """One attempt that somebody shall make."""

    ticket: int
    line: Line
    need: Need


class Ledger:
    """Serves one event loop."""

    def __init__(self) -> None:
        self.has_orders: asyncio.Event = asyncio.Event()
        self._tickets = count()
        self._waiting: deque[Order] = deque()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._end: Answer | Exception | None = None

    def __len__(self) -> int:
        return len(self._answers)

    async def make(self, line: Line, need: Need) -> Answer:
        """Have an attempt made, and wait for its answer.

        Raises:
            Exception: What `end` was given.
        """
        ticket = next(self._tickets)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = answer
        self._waiting.append(Order(ticket, line, need))
        if self._end is not None:
            self.end(self._end)
        self.has_orders.set()
        try:
            return await answer
        finally:
            del self._answers[ticket]

    def take(self, most: int) -> list[Order]:
        """Orders for a worker. Those whose caller has gone are dropped."""
        taken: list[Order] = []
        while self._waiting and len(taken) < most:
            order = self._waiting.popleft()
            if order.ticket in self._answers:
                taken.append(order)
        if not self._waiting:
            self.has_orders.clear()
        return taken

    def answer(self, ticket: int, answer: Answer) -> None:
        """What became of an attempt. Only the first answer counts."""
        future = self._answers.get(ticket)
        if future is not None and not future.done():
            future.set_result(answer)

    def lose(self, tickets: Iterable[int], answer: Answer) -> None:
        """A worker died, and with it all that it held."""
        for ticket in tickets:
            self.answer(ticket, answer)

    def end(self, end: Answer | Exception) -> None:
        """Answer whatever waits for a worker, now and later. A failure is for all."""
        self._end = end
        if isinstance(end, Answer):
            self.lose([order.ticket for order in self._waiting], end)
        else:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(end)
        self._waiting.clear()
