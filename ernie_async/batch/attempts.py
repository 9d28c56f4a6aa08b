"""Where attempts are made: here, behind the limiters of this process, or by others elsewhere.

Knows limiters and what they have to be told. What becomes of a line is decided in `flow`.
"""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from ernie_async.batch.asking import Answer, Asker, Need
from ernie_async.batch.lines import Line
from ernie_async.errors import ConfigError
from ernie_async.net.admission import AnyLimiter, AnyPermit, LimiterSnapshot
from ernie_async.net.feedback import settle_failed, tell_failure, tell_success

__all__ = ["AnyAttempts", "Attempts"]


class AnyAttempts(Protocol):
    """Makes attempts at lines, between entering and leaving it."""

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating the tokens of a line."""
        ...

    @property
    def waiting(self) -> int:
        """Attempts that have begun, and wait in a line elsewhere."""
        ...

    def need(self, line: Line, /) -> Need:
        """Estimate what a line will take."""
        ...

    def has_price(self, line: Line, /) -> bool:
        """Whether it is known what the line costs."""
        ...

    def views(self) -> Sequence[LimiterSnapshot]:
        """How things stand at the limiters."""
        ...

    async def make(self, line: Line, need: Need, begin: Callable[[], Awaitable[None]]) -> Answer:
        """Make one attempt, when there is room for it.

        Args:
            line: What to ask.
            need: What it will take, roughly.
            begin: Awaited before anything is sent.
        """
        ...

    def stop(self) -> None:
        """Send nothing more. What was begun and not sent is answered with `is_sent` false."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Attempts:
    """Those of this process.

    Args:
        asker: Makes them.
        limiters: Asked before each attempt, in this order.
        max_retry_after: Seconds; a service that asks for a longer pause gets none.
    """

    def __init__(
        self, asker: Asker, limiters: Sequence[AnyLimiter], max_retry_after: float
    ) -> None:
        self.need: Callable[[Line], Need] = asker.need
        self.has_price: Callable[[Line], bool] = asker.has_price
        self.waiting = 0
        self.counts_tokens: bool = any(limiter.counts_tokens for limiter in limiters)
        self._asker = asker
        self._limiters = limiters
        self._max_retry_after = max_retry_after

    def views(self) -> list[LimiterSnapshot]:
        """How things stand at the limiters."""
        return [limiter.snapshot() for limiter in self._limiters]

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

    def stop(self) -> None:
        """Whoever makes an attempt cancels it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


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
