"""Wait in front of a lane that processes share, and keep in touch with the server that has it.

One task for each lane and event loop: the courier. It asks for what is wanted, hands out what is
granted, and tells what calls have to tell. They do so in their cleanup, where nothing may wait: they
leave a note, and the courier takes it along with its next step, soon. It ends when there has been
nothing to do for a second. When it is cancelled it makes a last step, within the time of one; so a
loop that ends leaves nothing behind, whether or not the limiter was closed. Knows no Redis: it is
given a `Link`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

from ernie_async.errors import ConfigError, DeadlineError, LimiterError
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.sansio.shared_lane import Answer, Ask, SharedLane, SharedTicket

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
        """Wait till the bell rings, for a while; whether it did. Raises nothing."""
        ...

    async def hang_up(self) -> None:
        """There is no work any more."""


class SharedPermit(SharedTicket):
    """Room for one call, from a limiter that processes share. See `net.gate.Permit`.

    Attributes:
        tokens: What the call was estimated to use, or has used.
        waited: Seconds spent in line.
        on_wait: Called once, with this permit, if it has to wait in line; may be set until it is
            awaited.
    """

    __slots__ = (
        "_courier",
        "_held",
        "_is_used",
        "_local",
        "_max_wait",
        "future",
        "on_wait",
        "waited",
    )

    future: asyncio.Future[None]  # done when its turn has come

    def __init__(
        self,
        courier: Callable[[], "Courier"],
        tokens: int,
        *,
        is_batch: bool,
        max_wait: float | None,
    ) -> None:
        super().__init__(tokens, is_batch=is_batch)
        self._courier = courier
        self._max_wait = max_wait
        self._is_used = False
        self._held: list[Courier] = []  # one item while granted: a list gives it out only once
        self._local: Permit | None = None  # of the limiter of this process, if the server was down
        self.on_wait: Callable[[Any], None] | None = None
        self.waited = 0.0

    def __await__(self) -> Generator[Any, None, "SharedPermit"]:
        return self._acquire().__await__()

    async def __aenter__(self) -> "SharedPermit":
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    async def _acquire(self) -> "SharedPermit":
        if self._is_used:
            raise RuntimeError("a permit can be awaited once")
        self._is_used = True
        started = monotonic()
        courier = self._courier()
        most = courier.lane.most_tokens
        if self.tokens > most:
            raise ConfigError(
                f"tokens: expected at most the {most:g} that may be used in a minute "
                f"(tokens_per_minute), got {self.tokens}"
            )
        if self._max_wait is None:
            self._local = await courier.wait(self)
        else:
            self.gives_up_at = started + self._max_wait
            try:
                async with asyncio.timeout(self._max_wait):
                    self._local = await courier.wait(self)
            except TimeoutError as error:
                if isinstance(error, DeadlineError):
                    raise
            if self.granted_at == 0.0:
                raise _too_long(self._max_wait)
        self._held.append(courier)
        self.waited = monotonic() - started
        return self

    @property
    def position(self) -> int:
        """Place in line among the calls of this event loop: 1 is the next one, 0 is admitted."""
        return self._courier().lane.line.position(self)

    @property
    def estimated_wait(self) -> float:
        """Seconds that it still has to wait in line, as far as can be told now."""
        return self._courier().lane.wait_of(self, monotonic())
