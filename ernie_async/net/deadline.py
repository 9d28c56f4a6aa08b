"""A moment at which the running task stops waiting."""

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Deadline"]


class Deadline:
    """Use it in `with`: raises `TimeoutError` there if the block is not over in time.

    What `asyncio.timeout` does, with its rules for a task that is cancelled by others besides, at
    half its cost: that has two coroutines and can be put off, and every call enters one or two.

    Args:
        seconds: From the start of the block; `None` for no end but by `expire`.

    Attributes:
        is_over: Whether the block was stopped.
    """

    _handle: asyncio.Handle | None = None
    _task: asyncio.Task[object] | None = None  # while it is in the block
    _n_cancelled = 0  # before the block
    is_over: bool = False

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = self._task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a client has to be used inside a task")
        self._n_cancelled = task.cancelling()
        if self._seconds is not None:
            self._handle = loop.call_at(loop.time() + self._seconds, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        task, self._task = self._task, None
        if self.is_over:
            assert task is not None
            # If others wanted it to stop as well, it is theirs to be told.
            if task.uncancel() <= self._n_cancelled and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def expire(self) -> None:
        """Have the block stopped in the next turn of the loop, unless it is over by then."""
        if self._task is not None and not self.is_over:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._task.get_loop().call_soon(self._stop)

    def _stop(self) -> None:
        assert self._task is not None
        self._handle = None
        self.is_over = True
        self._task.cancel()
