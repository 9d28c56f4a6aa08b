"""Run a failed call again, as its policy says. tenacity waits; `sansio.retry` decides.

Entered only after a first failure: tenacity around every call would cost each of them 40 µs.
"""

from collections.abc import Awaitable, Callable
from random import Random
from time import monotonic
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, stop_never

from ernie_async.errors import ErnieError
from ernie_async.sansio.retry import RetryPolicy

__all__ = ["again", "seconds_left"]

T = TypeVar("T")

_chance = Random()


def seconds_left(ends_at: float | None) -> float:
    """Seconds until the earliest deadline of the running task that can be known."""
    # That of `asyncio.timeout` cannot; it cancels the wait when it comes.
    outer = anyio.current_effective_deadline() - anyio.current_time()
    return outer if ends_at is None else min(outer, ends_at - monotonic())


async def again(
    first: ErnieError,
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    started: float,
    ends_at: float | None,
    may_repeat: Callable[[ErnieError, int], bool],
    before_wait: Callable[[ErnieError, int, float], None],
) -> T:
    """Go on after a first failure until an attempt succeeds or the policy gives up.

    Args:
        first: What the first attempt ended with.
        attempt: Makes one more.
        policy: Says whether, and after how long.
        started: When the call began, on the clock of `time.monotonic`.
        ends_at: When it has to be over, on the same clock; `None` if it has no such moment. A
            deadline that the caller set with anyio is heeded besides.
        may_repeat: Asked last, with the error and the number of attempts made: has the last word.
        before_wait: Told the error, the number of attempts made, and the seconds to wait.

    Raises:
        ErnieError: The last attempt's error.
    """
    failure: ErnieError | None = first
    delay = 0.0

    async def attempt_after_first() -> T:
        # tenacity counts the attempt that was made before it came in.
        nonlocal failure
        if failure is not None:
            earlier, failure = failure, None
            raise earlier
        return await attempt()

    def may_go_on(state: RetryCallState) -> bool:
        nonlocal delay
        error = state.outcome and state.outcome.exception()
        if not isinstance(error, ErnieError):
            return False
        elapsed = monotonic() - started
        wanted = policy.delay(error, state.attempt_number, elapsed, _chance)
        delay = wanted or 0.0
        # To wait for a moment when nobody listens any more would only hide the real error.
        if wanted is None or wanted >= seconds_left(ends_at):
            return False
        return may_repeat(error, state.attempt_number)

    def tell(state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if isinstance(error, ErnieError):
            # Its frames refer back to it; left so, the cycle would keep a dropped stream open
            # until the garbage collector comes by.
            error.__traceback__ = None
            before_wait(error, state.attempt_number, delay)

    # The policy knows when to stop, so one question is asked instead of three.
    retrying = AsyncRetrying(
        retry=may_go_on,
        stop=stop_never,
        wait=lambda _: delay,
        before_sleep=tell,
        reraise=True,
    )
    return await retrying(attempt_after_first)
