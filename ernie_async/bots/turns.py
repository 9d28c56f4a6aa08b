"""Who is answered when: one answer at a time for each conversation.

Knows tasks and keys. Different keys never wait for each other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from ernie_async.errors import ConfigError, ErnieError

__all__ = ["BusyError", "OnBusy", "StoppedError", "Turns"]

OnBusy = Literal["queue", "replace", "reject"]

QUEUED = 3


class BusyError(ErnieError):
    """This conversation waits for an answer already."""


class StoppedError(ErnieError):
    """The answer is not wanted any more: by the user, for a newer message, or for a shutdown."""


class _Line:
    """The tasks of a conversation, in order: the first is being answered, the others wait."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.lock = asyncio.Lock()


class Turns:
    """One answer at a time for each key: see `Memory`. Serves one event loop."""

    def __init__(self, on_busy: OnBusy = "queue", *, queue: int = QUEUED) -> None:
        if on_busy not in {"queue", "replace", "reject"}:
            raise ConfigError(f"on_busy: expected queue, replace or reject, got {on_busy!r}")
        self._on_busy = on_busy
        self._most = queue if on_busy == "queue" else 0
        self._lines: dict[str, _Line] = {}
        self._reasons: dict[asyncio.Task[Any], str] = {}  # of those that were told to stop
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def one(self, key: str) -> AsyncIterator[None]:
        """Wait for one's turn, which lasts as long as the block.

        Raises:
            BusyError: It is somebody else's turn, and there is no waiting.
            StoppedError: In the block, or while waiting: `stop` was called for this key, or a
                newer message came. Every other cancellation stays what it is.
        """
        task = asyncio.current_task()
        assert task is not None
        line = self._lines.setdefault(key, _Line())
        if self._on_busy == "replace":
            for other in line.tasks:
                self._stop(other, "replaced by a newer one")
        elif len(line.tasks) > self._most:
            raise BusyError("an answer is being written already")
        line.tasks.append(task)
        self._idle.clear()
        cancelling = task.cancelling()
        try:
            async with line.lock:
                yield
        except asyncio.CancelledError:
            reason = self._reasons.pop(task, None)
            if reason is None or task.uncancel() > cancelling:
                raise
            raise StoppedError(f"the answer was {reason}") from None
        finally:
            if self._reasons.pop(task, None):  # the block itself dealt with its cancellation
                task.uncancel()
            line.tasks.remove(task)
            if not line.tasks:
                del self._lines[key]
            if not self._lines:
                self._idle.set()

    def stop(self, key: str) -> bool:
        """Cancel the answer under way; say whether there was one."""
        line = self._lines.get(key)
        return line is not None and self._stop(line.tasks[0], "stopped by the user")

    async def shut(self, seconds: float) -> None:
        """Stop everything, and wait up to so many seconds until nothing is under way."""
        for line in self._lines.values():
            for task in line.tasks:
                self._stop(task, "stopped for a shutdown")
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def _stop(self, task: asyncio.Task[Any], reason: str) -> bool:
        if task in self._reasons:
            return False
        self._reasons[task] = reason
        return task.cancel()
