"""Wait in front of a lane that processes share, and keep in touch with the server that has it.

For each lane and event loop one task, the courier, asks for what is wanted and hands out what is
granted. What calls have to tell they tell in their cleanup, where nothing may wait: they leave a
note, and the courier takes it along with its next step, a hundredth of a second later at most. It
ends when there has been nothing to do for a second. When it is cancelled it makes a last step, in
the time that any step has; so a loop that ends leaves nothing behind, whether or not the limiter
was closed. Knows no Redis: it is given a `Link`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from time import monotonic
from typing import Any, Protocol

from ernie_async.errors import ConfigError, DeadlineError, LimiterError
from ernie_async.net.admission import Held
from ernie_async.net.limiter import Permit
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.sansio.shared_lane import SharedLane, SharedTicket
from ernie_async.sansio.shared_step import Answer, Ask

__all__ = ["Courier", "Link", "SharedPermit"]

# A courier without work waits for more of it, so that calls one after the other find it ready.
LINGER = 1.0

# Seconds; nothing is due so late, but no clock takes infinity.
LONGEST_SLEEP = 60.0

# When a loop ends, its calls are cancelled in the same moment as the courier: they may tell first.
LAST_NOTES = 0.01


class Link(Protocol):
    """The way to the server for one lane.

    Attributes:
        failure: Why the server cannot be reached; `None` while it can.
        try_at: When to try again if it cannot.
    """

    @property
    def failure(self) -> LimiterError | None: ...  # noqa: D102
    @property
    def try_at(self) -> float: ...  # noqa: D102

    async def step(self, ask: Ask) -> Answer:
        """Make one step.

        Raises:
            LimiterError: No answer came in time.
        """
        ...

    async def listen(self) -> bool:
        """Wait for a while till the bell rings; whether to ask now. Raises nothing."""
        ...

    async def hang_up(self) -> None:
        """There is no work any more."""


class SharedPermit(Held, SharedTicket):
    """Room for one call, from a limiter that processes share. See `net.gate.Permit`.

    Attributes:
        tokens: What the call was estimated to use, or has used.
        waited: Seconds spent in line.
        on_wait: Called once, with this permit, if it has to wait in line; may be set until it is
            awaited.
    """

    __slots__ = (
        "_courier",
        "_find",
        "_held",
        "_is_used",
        "_local",
        "_max_wait",
        "future",
        "on_wait",
        "waited",
    )

    # Set when it is awaited: by whom it is served, and what is done when its turn has come.
    _courier: "Courier"
    future: asyncio.Future[None]

    def __init__(
        self,
        find: Callable[[], "Courier"],
        tokens: int,
        *,
        is_batch: bool,
        max_wait: float | None,
    ) -> None:
        super().__init__(tokens, is_batch=is_batch)
        self._find = find
        self._max_wait = max_wait
        self._is_used = False
        self._held = []
        self._local: Permit | None = None  # of the limiter of this process, if the server was down
        self.on_wait: Callable[[Any], None] | None = None
        self.waited: float = 0.0

    def __await__(self) -> Generator[Any, None, "SharedPermit"]:
        return self._acquire().__await__()

    async def _acquire(self) -> "SharedPermit":
        if self._is_used:
            raise RuntimeError("a permit can be awaited once")
        self._is_used = True
        started = monotonic()
        courier = self._courier = self._find()
        most = courier.lane.most_tokens
        if self.tokens > most:
            raise ConfigError(
                f"tokens: expected at most the {most:g} that may be used in a minute "
                f"(tokens_per_minute), got {self.tokens}"
            )
        if self._max_wait is not None:
            self.gives_up_at: float = started + self._max_wait
        try:
            async with asyncio.timeout(self._max_wait):
                self._local = await courier.wait(self)
        except TimeoutError as error:
            if isinstance(error, DeadlineError):
                raise
        else:
            self._held.append(None)
            return self
        finally:
            self.waited = monotonic() - started
        # Raised outside the handler: the cancellation inside is no news to the caller.
        raise _too_long(self._max_wait)

    @property
    def position(self) -> int:
        """Place in line among the calls of this event loop: 1 is the next one, 0 is admitted."""
        return self._courier.lane.line.position(self) if self._is_used else 0

    @property
    def estimated_wait(self) -> float:
        """Seconds that it still has to wait in line, as far as can be told now."""
        return self._courier.lane.wait_of(self, monotonic()) if self._is_used else 0.0

    def settle(self, *, tokens: int) -> None:
        """Tell what the call really used; the difference to the estimate is put back or taken."""
        if self._local is not None:
            self._local.settle(tokens=tokens)
        else:
            self._courier.note(SharedLane.settled, self, self.tokens - tokens)
        self.tokens = tokens

    def succeeded(self, ms_per_token: float | None = None) -> None:
        """Tell that the call ended well. See `net.gate.Permit`, as for what follows."""
        if self._local is not None:
            self._local.succeeded(ms_per_token)
        elif self._courier.lane.listens():
            self._courier.note(SharedLane.succeeded, self, ms_per_token)

    def congested(self) -> None:
        """Tell that the service was overloaded, or the connection broke, or it took too long."""
        if self._local is not None:
            self._local.congested()
        else:
            self._courier.note(SharedLane.congested, self, None)

    def refused(self, retry_after: float | None) -> None:
        """Tell that the quota is spent: nobody is admitted for a while, in any process."""
        if self._local is not None:
            self._local.refused(retry_after)
        else:
            self._courier.note(SharedLane.refused, self, retry_after)

    def learn(self, headers: RateHeaders) -> None:
        """Tell what the answer told of the limits."""
        if self._local is not None:
            self._local.learn(headers)
        elif headers.is_spent or self._courier.lane.news_of(headers) != (None, None):
            self._courier.note(SharedLane.learnt, self, headers)

    def release(self) -> None:
        """The call is over: let the next one begin. May be called twice, and from any thread."""
        if self._let_go():
            if self._local is not None:
                self._local.release()
            self._courier.note(SharedLane.ended, self, False)

    def give_back(self) -> None:
        """The call was never sent: put back the request and its tokens, and release."""
        if self._let_go():
            if self._local is not None:
                self._local.give_back()
            # What the limiter of this process gave was not the server's.
            self._courier.note(SharedLane.ended, self, self._local is None)


class Courier:
    """Serves one lane on the event loop that runs now.

    Args:
        lane: What this loop knows of it.
        link: The way to the server.
        local: Asks a limiter of this process instead, while the server cannot be reached; `None` to
            raise a `LimiterError`.
    """

    def __init__(
        self,
        lane: SharedLane[SharedPermit],
        link: Link,
        local: Callable[[SharedPermit], Permit] | None,
    ) -> None:
        self.lane = lane
        self._link = link
        self._local = local
        self._notes: deque[tuple[Callable[..., None], SharedPermit, Any]] = deque()
        self._newcomers: list[SharedPermit] = []  # with somebody to be told that they wait
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._bell: asyncio.Task[None] | None = None

    @property
    def is_at_rest(self) -> bool:
        """Whether another courier would do the same, except for what was learnt."""
        return self.lane.in_flight == 0 and (self._task is None or self._task.done())

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and are not over, those that just ended left out."""
        ended = sum(what is SharedLane.ended for what, _, _ in list(self._notes))
        return self.lane.in_flight - ended

    async def wait(self, permit: SharedPermit) -> Permit | None:
        """Wait for room. A wait that is cancelled takes nothing.

        Returns:
            `None`, or the permit of the limiter of this process.

        Raises:
            LimiterError: The server cannot be reached.
            DeadlineError: It would take longer than the call would wait.
        """
        failure = self._link.failure
        # The one who comes when it is time to try again finds out.
        if failure is None or self._link.try_at <= monotonic():
            try:
                await self._wait(permit)
            except LimiterError:
                failure = self._link.failure
                if failure is None:  # closed
                    raise
            else:
                return None
        if self._local is None:
            raise LimiterError(failure.message)
        local = self._local(permit)
        local.on_wait = permit.on_wait and (lambda _: _tell(permit))
        await local
        self.lane.in_flight += 1  # counted when the server is there again
        return local

    async def _wait(self, permit: SharedPermit) -> None:
        permit.future = self._loop.create_future()
        permit.arrived = monotonic()
        self.lane.line.join(permit)
        if permit.on_wait is not None:
            self._newcomers.append(permit)
        self._begin()
        try:
            await permit.future
        except LimiterError:
            raise
        except BaseException:
            if permit.future.done() and not permit.future.cancelled():
                # Granted in the same moment; or turned away, then it holds nothing.
                if permit.future.exception() is None:
                    self.note(SharedLane.ended, permit, True)
            elif self.lane.line.leave(permit):
                self._wake.set()
            raise

    def note(self, what: Callable[..., None], permit: SharedPermit, value: Any) -> None:
        """Have the lane told: `what` is one of its methods that take a ticket and a value.

        From any thread, and never waits.
        """
        self._notes.append((what, permit, value))
        if what is SharedLane.ended and not value and self.lane.limits.concurrency is None:
            return  # nobody waits for the end of a call
        if asyncio._get_running_loop() is self._loop:
            self._go_on()
            return
        with contextlib.suppress(RuntimeError):  # that loop was closed: its lease ends by itself
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        # If the task was cancelled the loop is about to end, and a new one would be left in it.
        if self._task is None or not self._task.cancelled():
            self._begin()

    def _begin(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run())

    async def aclose(self) -> None:
        """Tell what is left to tell, and end. Whoever waits gets a `LimiterError`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        try:
            while True:
                await self._serve()
                await self._hang_up()
                if not self._wake.is_set():
                    return
        except asyncio.CancelledError:
            await asyncio.sleep(LAST_NOTES)
            await self._finish()
            raise
        finally:
            self._turn_away("the limiter was closed")
            await self._hang_up()

    async def _serve(self) -> None:
        """Until there has been nothing to do for a while."""
        while True:
            self._wake.clear()
            now = self._catch_up()
            is_down = self._link.failure is not None
            if self._link.try_at <= now if is_down else self.lane.must_ask(now):
                await self._step()
                continue
            self._tell_newcomers()
            is_idle = self.lane.is_idle
            at = self._link.try_at if is_down else self.lane.next_at()
            try:
                async with asyncio.timeout(min(at - now, LINGER if is_idle else LONGEST_SLEEP)):
                    await self._wake.wait()
            except TimeoutError:
                if is_idle:
                    return

    def _catch_up(self) -> float:
        """Take note of what calls have told, and of what is due."""
        now = monotonic()
        while self._notes:
            what, permit, value = self._notes.popleft()
            what(self.lane, permit, value, now)
        self._hand_out(self.lane.due(now))
        return now

    async def _step(self) -> None:
        ask = self.lane.ask(monotonic())
        try:
            answer = await self._link.step(ask)
        except LimiterError as error:
            self.lane.lost(monotonic())
            self._turn_away(error.message)
            return
        except BaseException:
            self.lane.lost(monotonic())
            raise
        granted, hopeless = self.lane.hear(answer, monotonic())
        self._hand_out(granted)
        for permit in hopeless:
            if not permit.future.done():
                permit.future.set_exception(_too_long(permit._max_wait))
        if self.lane.is_in_line and (self._bell is None or self._bell.done()):
            self._bell = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        if await self._link.listen():
            self.lane.rung()
        self._wake.set()

    def _hand_out(self, granted: list[SharedPermit]) -> None:
        for permit in granted:
            if permit.future.done():  # cancelled in the same moment
                self.note(SharedLane.ended, permit, True)
            else:
                permit.future.set_result(None)

    def _tell_newcomers(self) -> None:
        newcomers, self._newcomers = self._newcomers, []
        for permit in newcomers:
            if permit in self.lane.line:
                _tell(permit)

    def _turn_away(self, message: str) -> None:
        for permit in self.lane.waiting():
            self.lane.line.leave(permit)
            if not permit.future.done():
                permit.future.set_exception(LimiterError(message))

    async def _finish(self) -> None:
        """Make a last step if there is something to tell."""
        self._turn_away("the limiter was closed")
        self._catch_up()
        if self._link.failure is None and self.lane.has_news:
            with contextlib.suppress(LimiterError):  # leases end by themselves
                await self._link.step(self.lane.ask(monotonic()))

    async def _hang_up(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.cancel()
            await asyncio.wait([bell])
        await self._link.hang_up()


def _tell(permit: SharedPermit) -> None:
    on_wait, permit.on_wait = permit.on_wait, None
    if on_wait is not None:
        on_wait(permit)


def _too_long(max_wait: float | None) -> DeadlineError:
    seconds = max_wait or 0.0
    return DeadlineError(
        f"not admitted within {seconds:g} s (max_wait)", clock="queue", seconds=seconds
    )
