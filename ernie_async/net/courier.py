"""Keep one event loop's part of a shared lane in touch with the server that has the whole of it.

One task for each lane and loop. It asks for what is wanted, hands out what is granted, and tells
what came back. What a call tells in its cleanup is a note, written without waiting: the task takes
it along with its next step. It ends when there has been nothing to do for a second, and after it
was cancelled it tells what is left to tell, within the time of one step; so nothing is left behind
by a loop that ends, closed or not. Knows no Redis: it is given a `Link`.
"""

import asyncio
from time import monotonic
from typing import Protocol

from ernie_async.errors import DeadlineError, LimiterError
from ernie_async.sansio.shared_lane import Answer, Ask, Note, SharedLane, Waiter

__all__ = ["Courier", "Link", "Turn"]

# A courier without work waits for more of it, so that calls one after the other find it ready.
LINGER = 1.0

# Seconds; nothing is due so late, but no clock takes infinity.
LONGEST_SLEEP = 60.0

# When a loop ends, its calls are cancelled in the same moment: they may give back first.
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
        """Wait till the bell rings, a while at most. Raises nothing."""
        ...

    async def hang_up(self) -> None:
        """The courier has no work any more."""
        ...


class Turn(Waiter):
    """A call that waits for its turn; `future` is done when it has come."""

    __slots__ = ("future",)

    future: asyncio.Future[None]


class Courier:
    """Serves one lane on the loop that runs now."""

    def __init__(self, lane: SharedLane[Turn], link: Link) -> None:
        self.lane = lane
        self.link = link
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._bell: asyncio.Task[None] | None = None

    async def wait(self, turn: Turn) -> None:
        """Wait for room. A wait that is cancelled takes nothing.

        Raises:
            LimiterError: The server cannot be reached.
            DeadlineError: It would take longer than the call would wait.
        """
        turn.future = self._loop.create_future()
        self.lane.join(turn, monotonic())
        self.probe()
        try:
            await turn.future
        except BaseException:
            is_granted = turn.future.done() and not turn.future.cancelled()
            if is_granted and turn.future.exception() is None:
                self.note(Note(ended=1, requests=1.0, tokens=turn.tokens))
            else:
                self.lane.leave(turn)
                self._wake.set()
            raise

    def probe(self) -> None:
        """See to it that the server is asked, or tried if it was down."""
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run())

    def note(self, note: Note) -> None:
        """Have the server told, soon. From any thread, and never waits."""
        self.lane.notes.append(note)
        if asyncio._get_running_loop() is self._loop:
            self._go_on()
            return
        try:
            self._loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:
            pass  # that loop was closed, and its lease ends by itself

    def _go_on(self) -> None:
        # If the task was cancelled the loop is about to end, and a new one would be left in it.
        if self._task is None or not self._task.cancelled():
            self.probe()

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
            now = monotonic()
            self._hand_out(self.lane.due(now))
            is_down = self.link.failure is not None
            if self.link.try_at <= now if is_down else self.lane.must_ask(now):
                await self._step()
                continue
            at = self.link.try_at if is_down else self.lane.next_at()
            is_idle = self.lane.is_idle
            try:
                async with asyncio.timeout(min(at - now, LINGER if is_idle else LONGEST_SLEEP)):
                    await self._wake.wait()
            except TimeoutError:
                if is_idle:
                    return

    async def _step(self) -> None:
        ask = self.lane.ask(monotonic())
        try:
            answer = await self.link.step(ask)
        except LimiterError as error:
            self.lane.lost(monotonic())
            self._turn_away(error.message)
            return
        except BaseException:
            self.lane.lost(monotonic())
            raise
        granted, hopeless = self.lane.hear(answer, monotonic())
        self._hand_out(granted)
        for turn in hopeless:
            if not turn.future.done():
                turn.future.set_exception(
                    DeadlineError("the limiter has no room so soon (max_wait)", clock="max_wait")
                )
        if self.lane.is_in_line and (self._bell is None or self._bell.done()):
            self._bell = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        if await self.link.listen():
            self.lane.rung()
        self._wake.set()

    def _hand_out(self, granted: list[Turn]) -> None:
        for turn in granted:
            if turn.future.done():  # cancelled in the same moment
                self.note(Note(ended=1, requests=1.0, tokens=turn.tokens))
            else:
                turn.future.set_result(None)

    def _turn_away(self, message: str) -> None:
        for turn in self.lane.leave_all():
            if not turn.future.done():
                turn.future.set_exception(LimiterError(message))

    async def _finish(self) -> None:
        """Make a last step if there is something to tell."""
        self._turn_away("the limiter was closed")
        self.lane.due(monotonic())
        if self.link.failure is None and self.lane.has_news:
            try:
                await self.link.step(self.lane.ask(monotonic()))
            except LimiterError:
                pass  # leases end by themselves

    async def _hang_up(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.cancel()
            await asyncio.wait([bell])
        await self.link.hang_up()
