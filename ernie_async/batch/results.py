"""What `BatchRunner.map` returns: results as they are ready, no faster than they are taken."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import monotonic
from typing import Any, Self

from ernie_async.batch.flow import Flow, Item, Tell
from ernie_async.batch.records import BatchResult
from ernie_async.batch.stopping import StopReason

__all__ = ["BatchResults"]


class BatchResults:
    """An async iterator of `BatchResult`. Leaving it early breaks off what is under way.

    Args:
        make_flow: Makes what does the work, given where it puts its results. It begins with the
            first result that is asked for.
        items: Makes its input.
    """

    def __init__(
        self,
        make_flow: Callable[[Tell], Flow],
        items: Callable[[], AsyncGenerator[Item, None]],
    ) -> None:
        # One result waits here, others in the workers that have made them; `None` is the end.
        self._queue = asyncio.Queue[BatchResult | None](1)
        self._flow = make_flow(self._queue.put)
        self._items = items
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    @property
    def reason(self) -> StopReason | None:
        """What stopped it before the end; `None` if nothing did."""
        return self._flow.reason

    @property
    def progress(self) -> dict[str, Any]:
        """How it goes, as the summary of a file has it."""
        return self._flow.progress.snapshot(self._flow.gauges(), monotonic())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        if self._is_over:
            raise StopAsyncIteration
        queue = self._queue
        if self._task is None:
            self._task = asyncio.create_task(_fill(self._flow, self._items))
            self._task.add_done_callback(lambda _: tell_the_end(queue))
        result = None if self._task.done() and queue.empty() else await queue.get()
        if result is not None:
            return result
        self._is_over = True
        if not self._task.cancelled():  # by `aclose`, while somebody waited here
            await self._task
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Break off what is under way, and leave nothing behind. May be called twice."""
        self._is_over = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Dropped by a `break`: the task knows nothing of this object, so it would run on for ever.
        if self._task is not None and not self._task.done():
            loop = self._task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._task.cancel)


def tell_the_end(queue: "asyncio.Queue[BatchResult | None]") -> None:
    """Tell who waits for a result. If one is there, he does not wait, and will look for himself."""
    if queue.empty():
        queue.put_nowait(None)


async def _fill(flow: Flow, items: Callable[[], AsyncGenerator[Item, None]]) -> None:
    async with aclosing(items()) as each:
        await flow.run(each)
    if flow.failure is not None and flow.reason in {"input", "damaged", "internal"}:
        raise flow.failure
