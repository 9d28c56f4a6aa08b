"""Wait in front of one lane. Nobody polls: one timer wakes whoever is first in line.

The arithmetic and the order are in `sansio.lane`. A gate may be used from several event loops and
threads. Its lane is changed in one place, `_drain`, by whoever holds the lock; everyone else leaves
a note in `_notes` and moves on. So no call blocks its loop here, and a permit that the garbage
collector releases in the middle of `_drain` does no harm.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator
from time import monotonic
from typing import Any, TypeVar

from ernie_async.errors import ConfigError, DeadlineError
from ernie_async.net.admission import Held
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.lane import Lane
from ernie_async.sansio.line import Ticket
from ernie_async.sansio.rate_headers import RateHeaders

__all__ = ["Gate", "Permit"]

T = TypeVar("T")

# A timer fires a little late. Up to this many seconds are made good by granting as of the moment
# that was meant, else a bucket that holds a single request would give 41 a second instead of 50.
CATCH_UP = 0.02


class Permit(Held, Ticket):
    """Room for one call, from `Limiter.admit`. Await it, or use it in `async with`.

    What is told after the call, `settle` and what became of it, has to be told before `release`.

    Attributes:
        tokens: What the call was estimated to use, or has used.
        waited: Seconds spent in line.
        on_wait: Called once, with this permit, if it has to wait in line; may be set until it is
            awaited.
    """

    __slots__ = (
        "_future",
        "_gate",
        "_held",
        "_is_used",
        "_loop",
        "_max_wait",
        "arrived",
        "on_wait",
        "waited",
    )

    # Set only for a permit that has to wait in line.
    arrived: float
    _future: asyncio.Future[bool]
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self, gate: "Gate", tokens: int, *, is_batch: bool = False, max_wait: float | None = None
    ) -> None:
        super().__init__(tokens, is_batch=is_batch)
        self._gate = gate
        self._is_used = False
        self._held = []
        self._max_wait = max_wait
        self.on_wait: Callable[[Permit], None] | None = None
        self.waited: float = 0.0

    def __await__(self) -> Generator[object, None, "Permit"]:
        return self._gate.acquire(self).__await__()

    @property
    def position(self) -> int:
        """Place in line: 1 is the next to be admitted, 0 is admitted."""
        return self._gate.look(lambda lane, _: lane.line.position(self))

    @property
    def estimated_wait(self) -> float:
        """Seconds that it still has to wait in line, as far as can be told now."""
        return self._gate.look(lambda lane, now: lane.wait_of(self, now))

    def settle(self, *, tokens: int) -> None:
        """Tell what the call really used; the difference to the estimate is put back or taken."""
        self._gate.note(Lane.settled, self, self.tokens - tokens)
        self.tokens = tokens

    def succeeded(self, ms_per_token: float | None = None) -> None:
        """Tell that the call ended well.

        Args:
            ms_per_token: Milliseconds for each token of the answer, if that tells how quick the
                service is.
        """
        if self._gate.lane.listens(monotonic()):
            self._gate.note(Lane.succeeded, self, ms_per_token)

    def congested(self) -> None:
        """Tell that the service was overloaded, or the connection broke, or it took too long."""
        self._gate.note(Lane.congested, self, None)

    def refused(self, retry_after: float | None) -> None:
        """Tell that the quota is spent: nobody is admitted for a while.

        Args:
            retry_after: Seconds to wait, if the service said so; else one call tries every 5 s, for
                at most 60 s.
        """
        self._gate.note(Lane.refused, self, retry_after)

    def learn(self, headers: RateHeaders) -> None:
        """Tell what the answer told of the limits."""
        if headers.is_spent or self._gate.lane.told != headers[:2]:
            self._gate.note(Lane.learnt, self, headers)

    def release(self) -> None:
        """The call is over: let the next one begin. May be called twice, and from any thread."""
        if self._let_go():
            self._gate.note(Lane.ended, self, False)

    def give_back(self) -> None:
        """The call was never sent: put back the request and its tokens, and release."""
        if self._let_go():
            self._gate.note(Lane.ended, self, True)


class Gate:
    """One lane, and those who wait for it."""

    __slots__ = ("__weakref__", "_alarm", "_is_stale", "_last_grant", "_lock", "_notes", "lane")

    def __init__(self, limits: Limits) -> None:
        now = monotonic()
        self.lane: Lane = Lane(limits, now)
        self._notes: deque[tuple[Callable[[Lane, Any, Any, float], object], Permit, Any]] = deque()
        self._lock = threading.Lock()
        self._is_stale = False
        self._last_grant = now
        self._alarm: _Alarm | None = None

    async def acquire(self, permit: Permit) -> Permit:
        """Wait till there is room."""
        if permit._is_used:
            raise RuntimeError("a permit can be awaited once")
        permit._is_used = True
        if permit.tokens > self.lane.most_tokens:
            raise ConfigError(
                f"tokens: expected at most the {self.lane.most_tokens:g} that may be used in a "
                f"minute (tokens_per_minute), got {permit.tokens}"
            )
        now = monotonic()
        if not self.lane.line and self._lock.acquire(blocking=False):
            try:
                is_granted = self._grant(permit, now, now) is None
            finally:
                self._lock.release()
            if self._is_stale or self._notes or self.lane.line:
                self._pump()  # for whoever came by while the lock was held
            if is_granted:
                return permit
        try:
            await self._wait(permit, now)
        finally:
            permit.waited = monotonic() - now
        return permit

    async def _wait(self, permit: Permit, now: float) -> None:
        max_wait = permit._max_wait
        if max_wait is not None:
            tokens, is_batch = permit.tokens, permit.is_batch
            wait = self.look(lambda lane, _: lane.wait_of_next(tokens, now, is_batch=is_batch))
            if wait > max_wait:
                raise _too_long(max_wait, f"it would take about {wait:.1f} s")
        loop = permit._loop = asyncio.get_running_loop()
        future = permit._future = loop.create_future()
        permit.arrived = now
        self.note(_join, permit, None)
        timer = None if max_wait is None else loop.call_later(max_wait, _give_up, future)
        try:
            on_wait, permit.on_wait = permit.on_wait, None
            if on_wait is not None and not future.done():
                on_wait(permit)
            is_granted = await future
        except BaseException:
            future.cancel()  # not by the one that waits, if `on_wait` failed
            self._leave(permit)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not is_granted:
            self._leave(permit)
            raise _too_long(max_wait or 0.0, "there was no room in all that time")

    def _leave(self, permit: Permit) -> None:
        """Wait no more. It may have been granted in the same moment, then it is not needed."""
        permit.give_back()
        self.note(_quit, permit, None)

    def look(self, question: Callable[[Lane, float], T]) -> T:
        """How things stand."""
        with self._lock:
            answer = question(self.lane, monotonic())
        if self._is_stale:
            self._pump()
        return answer

    def note(
        self, what: Callable[[Lane, Any, Any, float], object], permit: Permit, value: Any
    ) -> None:
        """Have the lane told: `what` is one of its methods that take a ticket and a value."""
        self._notes.append((what, permit, value))
        self._pump()

    def _pump(self) -> None:
        """Bring the state up to date, or leave that to whoever is doing it right now."""
        self._is_stale = True
        while self._is_stale and self._lock.acquire(blocking=False):
            try:
                self._is_stale = False
                self._drain(monotonic())
            finally:
                self._lock.release()

    def _drain(self, now: float) -> None:
        lane = self.lane
        while self._notes:
            what, ticket, value = self._notes.popleft()
            what(lane, ticket, value, now)
        while (permit := lane.line.first()) is not None:
            assert isinstance(permit, Permit)
            if permit._future.done():  # cancelled, and its note is on the way
                lane.line.leave(permit)
                continue
            meant = max(permit.arrived, self._last_grant, now - CATCH_UP)
            wait_until = self._grant(permit, min(meant, now), now)
            if wait_until is None:
                lane.line.pop(permit)
                self._wake(permit)
                continue
            if wait_until < float("inf"):
                try:
                    self._arm(permit._loop, wait_until, now)
                except RuntimeError:  # that loop was closed, so nobody waits there any more
                    lane.line.leave(permit)
                    continue
            return

    def _grant(self, permit: Permit, meant: float, now: float) -> float | None:
        wait_until = self.lane.grant(permit, meant, now)
        if wait_until is None:
            self._last_grant = permit.granted_at
            permit._held.append(None)
        return wait_until

    def _wake(self, permit: Permit) -> None:
        def wake() -> None:
            if permit._future.done():  # cancelled in the same moment
                permit.give_back()
            else:
                permit._future.set_result(True)

        if permit._loop is asyncio._get_running_loop():
            wake()
            return
        try:
            permit._loop.call_soon_threadsafe(wake)
        except RuntimeError:  # that loop was closed, so nobody waits there any more
            permit.give_back()

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float, now: float) -> None:
        """Have the loop of the first in line look again at `at`."""
        alarm = self._alarm
        if alarm is not None and alarm.loop is loop and alarm.at <= at:
            return  # it looks again in time
        running = asyncio._get_running_loop()
        if alarm is not None and alarm.loop is running and alarm.handle is not None:
            alarm.handle.cancel()
        self._alarm = alarm = _Alarm(loop, at)
        if loop is running:
            alarm.handle = loop.call_later(at - now, self._look_again, alarm)
        else:
            # A timer can only be set by its own loop: have it come by at once.
            alarm.at = now
            loop.call_soon_threadsafe(self._look_again, alarm)

    def _look_again(self, alarm: "_Alarm") -> None:
        if self._alarm is alarm:
            self._alarm = None
        self._pump()


class _Alarm:
    """The one timer, and whose it is."""

    __slots__ = ("at", "handle", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self.loop = loop
        self.at = at
        self.handle: asyncio.TimerHandle | None = None


def _join(lane: Lane, permit: Permit, _: None, __: float) -> None:
    lane.line.join(permit)


def _quit(lane: Lane, permit: Permit, _: None, __: float) -> None:
    lane.line.leave(permit)


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


def _too_long(max_wait: float, why: str) -> DeadlineError:
    return DeadlineError(
        f"not admitted within {max_wait:g} s (max_wait): {why}", clock="queue", seconds=max_wait
    )
