"""A worker of a batch that many processes share: makes attempts, and tells what became of them.

Runs where an engine puts it, as an actor whose methods are called one at a time or at once. Knows
no engine.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ernie_async.batch.answers import Answer
from ernie_async.batch.asking import Asker, Need
from ernie_async.batch.attempts import Attempts
from ernie_async.batch.lines import Line
from ernie_async.client import AsyncClient
from ernie_async.net.admission import AnyLimiter, LimiterSnapshot
from ernie_async.types.prices import Prices

__all__ = ["Order", "Setup", "Told", "Worker"]

# It tells at least so often what is new.
TELL_SECONDS = 2.0


class Setup(NamedTuple):
    """What a worker is made of."""

    client: AsyncClient
    limiters: list[AnyLimiter]
    prices: Prices | None
    is_once: bool
    max_retry_after: float

    def __repr__(self) -> str:
        return "Setup(...)"  # prices and proxies are nobody's business


class Order(NamedTuple):
    """One attempt that it shall make."""

    ticket: int
    line: Line
    need: Need


class Told(NamedTuple):
    """What it tells: answers by ticket, calls under way, and how its limits are."""

    answers: list[tuple[int, Answer]]
    under_way: int
    view: LimiterSnapshot


class Worker:
    """Makes attempts for a driver. Its calls return within `TELL_SECONDS`."""

    def __init__(self, name: str, setup: Setup) -> None:
        self._name = name
        self._client = setup.client
        self._limiters = setup.limiters
        asker = Asker(setup.client, setup.prices, is_once=setup.is_once)
        self._attempts = Attempts(asker, setup.limiters, setup.max_retry_after)
        self._tasks: dict[int, asyncio.Task[Answer]] = {}
        self._waiting: set[int] = set()
        self._ready: list[tuple[int, Answer]] = []
        self._failure: BaseException | None = None
        self._has_news = asyncio.Event()

    def __repr__(self) -> str:
        return self._name  # Ray puts this in front of all that is logged

    async def open(self) -> None:
        """Returns when there is a process, and all this in it."""

    async def give(self, orders: list[Order]) -> None:
        """Begin attempts."""
        for order in orders:
            self._waiting.add(order.ticket)
            task = asyncio.create_task(self._make(order))
            self._tasks[order.ticket] = task
            task.add_done_callback(partial(self._finish, order.ticket))

    async def take(self) -> Told:
        """What is new, as soon as something is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await self._has_news.wait()
        self._has_news.clear()
        if self._failure is not None:
            raise self._failure
        answers, self._ready = self._ready, []
        return Told(answers, len(self._tasks) - len(self._waiting), self._attempts.view())

    async def stop(self) -> None:
        """Send nothing more."""
        for ticket in self._waiting:
            self._tasks[ticket].cancel()

    async def aclose(self) -> None:
        """Break off what is under way, and close all connections."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        await self._client.aclose()
        for limiter in self._limiters:
            if isinstance(limiter, AbstractAsyncContextManager):  # one that others share
                await limiter.__aexit__(None, None, None)

    async def _make(self, order: Order) -> Answer:
        async def begin() -> None:
            self._waiting.discard(order.ticket)
            self._has_news.set()

        return await self._attempts.make(order.line, order.need, begin)

    def _finish(self, ticket: int, task: asyncio.Task[Answer]) -> None:
        del self._tasks[ticket]
        self._has_news.set()
        if task.cancelled():
            self._ready.append((ticket, Answer(is_sent=ticket not in self._waiting)))
        elif (error := task.exception()) is not None:
            self._failure = error
        else:
            self._ready.append((ticket, replace(task.result(), limits=None)))
        self._waiting.discard(ticket)
