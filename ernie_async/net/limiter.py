"""Wait for room: requests per minute, tokens per minute and calls at once, in this process.

First come, first served, and nobody polls: one timer wakes whoever is first in line. The arithmetic
is in `sansio.bucket`.

One limiter may serve several clients, event loops and threads. Its state is changed in one place,
`_drain`, by whoever holds the lock; everyone else leaves a note in `_notes` and moves on. So
nothing here blocks a loop, and a permit that the garbage collector releases in the middle of
`_drain` does no harm.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Generator
from time import monotonic
from types import TracebackType

from ernie_async.sansio.bucket import Limits, TokenBucket

__all__ = ["Limiter", "Permit"]

# A timer fires a little late. Up to this many seconds are made good by granting as of the moment
# that was meant, else a bucket that holds a single request would give 41 a second instead of 50.
CATCH_UP = 0.02


class Permit:
    """Room for one call, from `Limiter.admit`. Await it, or use it in `async with`.

    Attributes:
        waited: Seconds spent in line.
    """

    __slots__ = (
        "_arrived",
        "_future",
        "_held",
        "_is_used",
        "_limiter",
        "_loop",
        "tokens",
        "waited",
    )

    # Set only for a permit that has to wait in line.
    _arrived: float
    _future: asyncio.Future[None]
    _loop: asyncio.AbstractEventLoop

    def __init__(self, limiter: "Limiter", tokens: int) -> None:
        self._limiter = limiter
        self._is_used = False
        self._held: list[None] = []  # one item while granted: a list gives it out only once
        self.tokens = tokens
        self.waited = 0.0

    def __await__(self) -> Generator[object, None, "Permit"]:
        return self._limiter._acquire(self).__await__()

    async def __aenter__(self) -> "Permit":
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def settle(self, *, tokens: int) -> None:
        """Tell what the call really used; the difference to the estimate is put back or taken."""
        self._limiter._note(0, 0.0, self.tokens - tokens)
        self.tokens = tokens

    def release(self) -> None:
        """The call is over: let the next one begin. May be called twice, and from any thread."""
        if self._let_go():
            self._limiter._note(-1, 0.0, 0.0)

    def give_back(self) -> None:
        """The call was never sent: put back the request and its tokens, and release."""
        if self._let_go():
            self._limiter._note(-1, 1.0, self.tokens)

    def _let_go(self) -> bool:
        """Whether it was held till now, and by this thread let go."""
        try:
            self._held.pop()
        except IndexError:
            return False
        return True


class Limiter:
    """A token bucket in front of every request. See `Limits` for what is limited.

    A request whose tokens exceed what the bucket can hold is let through when the bucket is full,
    and leaves a debt; it is never refused and never waits for ever.
    """

    def __init__(self, limits: Limits) -> None:
        now = monotonic()
        self.limits = limits
        rpm, tpm = limits.requests_per_minute, limits.tokens_per_minute
        self._requests = TokenBucket.per_minute(rpm, limits.burst, now) if rpm else None
        self._tokens = TokenBucket.per_minute(tpm, None, now) if tpm else None
        self._in_flight = 0
        self._line: deque[Permit] = deque()
        self._notes: deque[tuple[int, float, float]] = deque()
        self._lock = threading.Lock()
        self._is_stale = False
        self._last_grant = now
        self._alarm: _Alarm | None = None

    def __reduce__(self) -> tuple[type["Limiter"], tuple[Limits]]:
        # Another process starts with a full bucket of its own.
        return Limiter, (self.limits,)

    def __deepcopy__(self, memo: object) -> "Limiter":
        return self

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating the tokens of a call."""
        return self._tokens is not None

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and are not over."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return sum(1 for permit in list(self._line) if not permit._future.done())

    def admit(self, tokens: int = 0) -> Permit:
        """Ask for room for one call.

        Args:
            tokens: An estimate of what the call will use, prompt and answer together.

        Returns:
            A permit, to be awaited or entered. A wait that is cancelled takes nothing.
        """
        return Permit(self, tokens)

    async def _acquire(self, permit: Permit) -> Permit:
        if permit._is_used:
            raise RuntimeError("a permit can be awaited once")
        permit._is_used = True
        now = monotonic()
        if not self._line and self._lock.acquire(blocking=False):
            try:
                is_granted = self._grant_at(permit, now, now) is None
            finally:
                self._lock.release()
            if self._is_stale or self._notes or self._line:
                self._pump()  # for whoever came by while the lock was held
            if is_granted:
                return permit
        permit._loop = asyncio.get_running_loop()
        permit._future = permit._loop.create_future()
        permit._arrived = now
        self._line.append(permit)
        self._pump()
        try:
            await permit._future
        except BaseException:
            # Cancelled. It may have been granted in the same moment, then it is not needed.
            permit.give_back()
            self._pump()
            raise
        permit.waited = monotonic() - now
        return permit

    def _note(self, calls: int, requests: float, tokens: float) -> None:
        self._notes.append((calls, requests, tokens))
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
        while self._notes:
            calls, requests, tokens = self._notes.popleft()
            self._in_flight += calls
            if requests and self._requests is not None:
                self._requests.give(requests, now)
            if tokens and self._tokens is not None:
                self._tokens.give(tokens, now)
        while self._line:
            permit = self._line[0]
            if permit._future.done():  # cancelled
                self._line.popleft()
                continue
            meant = max(permit._arrived, self._last_grant, now - CATCH_UP)
            wait_until = self._grant_at(permit, min(meant, now), now)
            if wait_until is None:
                self._line.popleft()
                self._wake(permit)
                continue
            if wait_until < float("inf"):
                try:
                    self._arm(permit._loop, wait_until, now)
                except RuntimeError:  # that loop was closed, so nobody waits there any more
                    self._line.popleft()
                    continue
            return

    def _grant_at(self, permit: Permit, meant: float, now: float) -> float | None:
        """Grant as of `meant` or soon after; else say when to look again, infinity: on release."""
        if self.limits.concurrency is not None and self._in_flight >= self.limits.concurrency:
            return float("inf")
        at = meant
        if self._requests is not None:
            at = self._requests.ready_at(1.0, at)
        if self._tokens is not None:
            at = self._tokens.ready_at(permit.tokens, at)
        if at > now:
            return at
        if self._requests is not None:
            self._requests.take(1.0, at)
        if self._tokens is not None:
            self._tokens.take(permit.tokens, at)
        self._in_flight += 1
        self._last_grant = at
        permit._held.append(None)
        return None

    def _wake(self, permit: Permit) -> None:
        def wake() -> None:
            if permit._future.done():  # cancelled in the same moment
                permit.give_back()
            else:
                permit._future.set_result(None)

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
