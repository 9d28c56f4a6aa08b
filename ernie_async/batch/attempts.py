"""Where attempts are made: here, behind the limiters of this process, or by others elsewhere.

Knows limiters and what they have to be told. What becomes of a line is decided in `flow`.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from ernie_async.batch.answers import Answer
from ernie_async.batch.asking import Asker, Need
from ernie_async.batch.lines import Line
from ernie_async.errors import ConfigError
from ernie_async.net.admission import AnyLimiter, AnyPermit, LimiterSnapshot
from ernie_async.net.feedback import settle_failed, tell_failure, tell_success

__all__ = ["AnyAttempts", "Attempts"]


class AnyAttempts(Protocol):
    """Makes attempts at lines."""

    async def make(self, line: Line, need: Need, begin: Callable[[], Awaitable[None]]) -> Answer:
        """Make one attempt, when there is room for it.

        Args:
            line: What to ask.
            need: What it will take, roughly.
            begin: Awaited before anything is sent.
        """
        ...

    def view(self) -> LimiterSnapshot:
        """How things stand at the limiters."""
        ...

    @property
    def waiting(self) -> int:
        """Attempts that have begun, and wait in a line elsewhere."""
        return 0

    def stop(self) -> None:
        """Send nothing more. What was begun and not sent is answered with `is_sent` false."""
        return

    def opened(self) -> AbstractAsyncContextManager[None]:
        """What has to be entered before the first attempt, and left after the last."""
        return nullcontext()


class Attempts(AnyAttempts):
    """Those of this process. To stop them, cancel who makes them.

    Args:
        asker: Makes them.
        limiters: Asked before each attempt, in this order.
        max_retry_after: Seconds; a service that asks for a longer pause gets none.
    """

    def __init__(
        self, asker: Asker, limiters: Sequence[AnyLimiter], max_retry_after: float
    ) -> None:
        self._asker = asker
        self._limiters = limiters
        self._max_retry_after = max_retry_after

    async def make(self, line: Line, need: Need, begin: Callable[[], Awaitable[None]]) -> Answer:
        """Make one attempt, when the limiters let it pass; see `AnyAttempts`."""
        permits: list[AnyPermit] = []
        is_sent = False
        try:
            for limiter in self._limiters:
                permit = limiter.admit(
                    need.tokens, model=line.model, account=self._asker.account, priority="batch"
                )
                permits.append(await permit)
            await begin()
            is_sent = True
            answer = await self._asker.ask(line)
            for permit in permits:
                _tell_of(permit, answer, self._max_retry_after)
            return answer
        except ConfigError as error:
            return Answer(error=error)  # more tokens than a minute has
        finally:
            for permit in permits:
                if is_sent:
                    permit.release()
                else:
                    permit.give_back()

    def view(self) -> LimiterSnapshot:
        """How things stand at the limiters."""
        return LimiterSnapshot.of_all([limiter.snapshot() for limiter in self._limiters])


def _tell_of(permit: AnyPermit, answer: Answer, max_retry_after: float) -> None:
    """Tell a limiter what became of a call."""
    if answer.limits is not None:
        permit.learn(answer.limits)
    if answer.error is not None:
        settle_failed(permit, answer.error)
        tell_failure(permit, answer.error, max_retry_after=max_retry_after)
        return
    usage = answer.usage
    if usage is not None:
        permit.settle(tokens=usage.total_tokens)
    told = None if usage is None or usage.is_estimate else usage
    tell_success(permit, told, answer.seconds)
