"""The calls of a client that are under way: counted, timed, waited for, and stopped at the end.

Knows of a call its number, its loop, its time, and how to stop it. Calls may run in several loops
and threads.
"""

import asyncio
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import NamedTuple, Protocol

from ernie_async.errors import ConfigError, DrainError

__all__ = ["DrainReport", "Roster", "Stoppable"]

# A call that is stopped is over in a turn or two of its loop, unless that loop is stuck.
STOP_SECONDS = 1.0


class Stoppable(Protocol):
    """A call, as far as it has to be known to be stopped."""

    loop: asyncio.AbstractEventLoop
    number: int
    request_id: str

    @property
    def runs_out_at(self) -> float | None:
        """When to have it run out, on the clock of `time.monotonic`; `None` for never."""
        ...

    def stop(self, reason: str) -> None:
        """End it, in its own loop; does nothing if it is over."""
        ...

    def run_out(self) -> None:
        """Its time is over: end it, as `stop` does."""
        ...


class DrainReport(NamedTuple):
    """How a client was drained, from `AsyncClient.drain`.

    Attributes:
        finished: Calls that were under way and came to their end in time, well or not.
        cancelled: Of those that did not, what to quote to the service's support.
    """

    finished: int
    cancelled: tuple[str, ...]


class _Waiting(NamedTuple):
    """Somebody waits in `loop` until no call is left, in the loop `only` or in any."""

    loop: asyncio.AbstractEventLoop
    only: asyncio.AbstractEventLoop | None
    is_empty: asyncio.Event


class _Alarm(NamedTuple):
    """The timer of one loop."""

    rings_at: float
    timer: asyncio.TimerHandle


class Roster:
    """Who is calling, and whether anybody may. Serves one client and those made of it."""

    __slots__ = ("_alarms", "_calls", "_is_draining", "_waiting")

    def __init__(self) -> None:
        self._calls: dict[int, Stoppable] = {}
        self._alarms: dict[asyncio.AbstractEventLoop, _Alarm] = {}
        self._is_draining = False
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        """Calls under way."""
        return len(self._calls)

    def check(self) -> None:
        """Do nothing as long as calls may begin.

        Raises:
            DrainError: They may not any more.
        """
        if self._is_draining:
            raise DrainError("the client is being drained and takes no more calls")

    def enter(self, call: Stoppable) -> None:
        """A call begins, and runs out at its `runs_out_at`, unless it has left by then.

        All calls of a loop share one timer, for the earliest of these moments, also those that come
        after each other: a timer for each, which hardly ever rings, takes 2 % of a call.

        Raises:
            DrainError: It may not begin.
        """
        # In this order, since another thread may begin to drain in between.
        self._calls[call.number] = call
        if self._is_draining:
            self.leave(call)
            self.check()
        runs_out_at = call.runs_out_at
        if runs_out_at is None:
            return
        alarm = self._alarms.get(call.loop)
        if alarm is None or runs_out_at < alarm.rings_at:
            self._set_alarm(call.loop, runs_out_at)

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, rings_at: float) -> None:
        self._silence(loop)
        for other in list(self._alarms):
            if other.is_closed():
                self._alarms.pop(other, None)
        # In a context of its own: that of this call may hold what is to be gone soon.
        timer = loop.call_later(rings_at - monotonic(), self._ring, loop, context=Context())
        self._alarms[loop] = _Alarm(rings_at, timer)

    def _silence(self, loop: asyncio.AbstractEventLoop) -> None:
        alarm = self._alarms.pop(loop, None)
        if alarm is not None:
            alarm.timer.cancel()

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        del self._alarms[loop]
        now, later = monotonic(), None
        for call in list(self._calls.values()):
            runs_out_at = call.runs_out_at
            if call.loop is not loop or runs_out_at is None:
                continue
            if runs_out_at <= now:
                call.run_out()
            elif later is None or runs_out_at < later:
                later = runs_out_at
        if later is not None:
            self._set_alarm(loop, later)

    def leave(self, call: Stoppable) -> None:
        """A call is over. May be said twice."""
        self._calls.pop(call.number, None)
        for loop, only, is_empty in self._waiting:
            if not self._has_calls(only):
                with suppress(RuntimeError):  # that loop was closed, so nobody waits there
                    loop.call_soon_threadsafe(is_empty.set)

    def _has_calls(self, only: asyncio.AbstractEventLoop | None) -> bool:
        """Whether a call is under way, in one loop or in any."""
        return any(only in (None, call.loop) for call in list(self._calls.values()))

    async def drain(self, seconds: float | None) -> DrainReport:
        """Let no call begin, and wait until all are over; stop those that are not in time.

        Args:
            seconds: To wait; `None` for as long as it takes.

        Raises:
            ConfigError: `seconds` is no time.
        """
        if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
            raise ConfigError(f"timeout: expected seconds, at least 0, or None, got {seconds!r}")
        self._is_draining = True
        n_running = len(self._calls)
        await self._wait_until_empty(seconds)
        late = list(self._calls.values())
        reason = f"the client was drained, and this was not over within {seconds} s"
        for call in late:
            try:
                call.loop.call_soon_threadsafe(call.stop, reason)
            except RuntimeError:  # its loop was closed, so it is over, and nobody said so
                self.leave(call)
        await self._wait_until_empty(STOP_SECONDS)
        return DrainReport(n_running - len(late), tuple(call.request_id for call in late))

    async def stop_here(self, reason: str) -> None:
        """Stop the calls of the running loop; those of others go on."""
        loop = asyncio.get_running_loop()
        for call in list(self._calls.values()):
            if call.loop is loop:
                call.stop(reason)
        await self._wait_until_empty(STOP_SECONDS, only=loop)
        self._silence(loop)

    async def _wait_until_empty(
        self, seconds: float | None, *, only: asyncio.AbstractEventLoop | None = None
    ) -> None:
        mine = _Waiting(asyncio.get_running_loop(), only, asyncio.Event())
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(seconds):
                if self._has_calls(only):
                    await mine.is_empty.wait()
        except TimeoutError:
            pass  # and those are told below
        finally:
            self._waiting.remove(mine)
