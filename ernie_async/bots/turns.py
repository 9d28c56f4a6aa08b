"""Who is answered when: one answer at a time for each conversation.

Knows tasks and keys. Different keys never wait for each other.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from ernie_async.errors import ConfigError, ErnieError

__all__ = ["BusyError", "OnBusy", "StoppedError", "Turns"]

OnBusy = Literal["queue", "replace", "reject"]

QUEUED = 3


class BusyError(ErnieError):
    """This conversation waits for an answer already."""


class StoppedError(ErnieError):
    """The answer is not wanted any more.

    Attributes:
        reason: `stopped` by the user, `replaced` by a newer message, or `shutdown`.
    """

    def __init__(self, message: str = "the answer was stopped", *, reason: str = "stopped") -> None:
        super().__init__(message)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class _Line:
    """A conversation: whoever is being answered, and who waits for that."""

    def __init__(self) -> None:
        self.holder: asyncio.Task[object] | None = None
        self.reason: str | None = None
        self.waiting: deque[asyncio.Future[None]] = deque()

    def stop(self, reason: str) -> bool:
        """Cancel the answer under way; say whether there was one."""
        if self.holder is None or self.reason is not None:
            return False
        self.reason = reason
        self.holder.cancel()
        return True

    def drop_waiting(self, reason: str) -> None:
        for place in self.waiting:
            if not place.done():
                place.set_exception(StoppedError(reason=reason))


class Turns:
    """One answer at a time for each key. Serves one event loop.

    Args:
        on_busy: What becomes of a message that comes meanwhile: it waits (`"queue"`), cancels the
            answer under way (`"replace"`), or is refused (`"reject"`).
        queue: How many may wait.

    Raises:
        ConfigError: There is no such behaviour.
    """

    def __init__(self, on_busy: OnBusy = "queue", *, queue: int = QUEUED) -> None:
        if on_busy not in {"queue", "replace", "reject"}:
            raise ConfigError(f"on_busy: expected queue, replace or reject, got {on_busy!r}")
        self._on_busy = on_busy
        self._queue = queue
        self._lines: dict[str, _Line] = {}
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
        line = self._lines.setdefault(key, _Line())
        self._idle.clear()
        try:
            if line.holder is not None or line.waiting:
                await self._wait(line)
            task = asyncio.current_task()
            assert task is not None
            line.holder, line.reason = task, None
            cancelling = task.cancelling()
            try:
                yield
            except asyncio.CancelledError:
                reason = line.reason
                if reason is None or task.uncancel() > cancelling:
                    raise
                line.reason = None
                raise StoppedError(reason=reason) from None
            finally:
                if line.reason is not None:  # the block itself dealt with its cancellation
                    task.uncancel()
                line.holder = None
                self._call_next(line)
        finally:
            if line.holder is None and not line.waiting and self._lines.get(key) is line:
                del self._lines[key]
            if not self._lines:
                self._idle.set()

    def stop(self, key: str, reason: str = "stopped") -> bool:
        """Cancel the answer under way; say whether there was one."""
        line = self._lines.get(key)
        return line is not None and line.stop(reason)

    async def shut(self, seconds: float) -> None:
        """Stop everything, and wait up to so many seconds until nothing is under way."""
        for line in self._lines.values():
            line.drop_waiting("shutdown")
            line.stop("shutdown")
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return

    async def _wait(self, line: _Line) -> None:
        is_full = len(line.waiting) >= self._queue
        if self._on_busy == "reject" or (self._on_busy == "queue" and is_full):
            raise BusyError("an answer is being written already")
        if self._on_busy == "replace":
            line.drop_waiting("replaced")
            line.stop("replaced")
        place = asyncio.get_running_loop().create_future()
        line.waiting.append(place)
        try:
            await place
        except BaseException:
            is_called = place.done() and not place.cancelled() and place.exception() is None
            line.waiting.remove(place)
            if is_called:
                self._call_next(line)  # the turn came, and is not wanted any more
            raise
        line.waiting.remove(place)
        if self._on_busy == "replace" and line.waiting:
            self._call_next(line)  # somebody even newer
            raise StoppedError(reason="replaced")

    def _call_next(self, line: _Line) -> None:
        for place in line.waiting:
            if not place.done():
                place.set_result(None)
                return
