"""What stands in front of every request, as the client knows it: any limiter, any permit.

`net.limiter` keeps its counts in this process; another may keep them elsewhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

from ernie_async.errors import ConfigError, shorten
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.rate_headers import RateHeaders

if TYPE_CHECKING:
    from ernie_async.sansio.lane import Lane
    from ernie_async.sansio.shared_lane import SharedLane

__all__ = ["AnyLimiter", "AnyPermit", "Held", "LimiterSnapshot", "Priority", "is_batch"]

Priority = Literal["interactive", "batch"]


def is_batch(priority: Priority) -> bool:
    """Whether a call lets others go before it.

    Raises:
        ConfigError: That is no priority.
    """
    if priority not in ("interactive", "batch"):
        raise ConfigError(f"priority: expected 'interactive' or 'batch', got {shorten(priority)}")
    return priority == "batch"


class LimiterSnapshot(NamedTuple):
    """How things stand at a limiter. Each account and model has counts of its own.

    Where several are asked for at once, calls are summed up, and of all else it is the worst.

    Attributes:
        in_flight: Calls that were admitted and are not over.
        waiting: Calls in line.
        requests: Requests that may go at once; below 0 when in debt; `None` if they are not
            limited.
        tokens: The same for tokens.
        concurrency: Calls that may be under way at once, at the moment; `None` for no limit.
        paused_for: Seconds until the service may be asked again; 0 if it may be asked now.
        estimated_wait: Seconds that a call would have to wait in line if it came now.
    """

    in_flight: int = 0
    waiting: int = 0
    requests: float | None = None
    tokens: float | None = None
    concurrency: int | None = None
    paused_for: float = 0.0
    estimated_wait: float = 0.0

    @classmethod
    def of_lane(cls, lane: "Lane | SharedLane[Any]", now: float) -> "LimiterSnapshot":
        """That of one lane."""
        requests, tokens = lane.levels(now)
        return cls(
            in_flight=lane.in_flight,
            waiting=len(lane.line),
            requests=requests,
            tokens=tokens,
            concurrency=lane.concurrency,
            paused_for=lane.paused_for(now),
            estimated_wait=lane.wait_of_next(0, now),
        )

    @classmethod
    def of_all(cls, views: Sequence["LimiterSnapshot"]) -> "LimiterSnapshot":
        """Several as one: calls summed up, and of all else the worst."""
        return cls(
            in_flight=sum(view.in_flight for view in views),
            waiting=sum(view.waiting for view in views),
            requests=min((v.requests for v in views if v.requests is not None), default=None),
            tokens=min((v.tokens for v in views if v.tokens is not None), default=None),
            concurrency=min(
                (v.concurrency for v in views if v.concurrency is not None), default=None
            ),
            paused_for=max(view.paused_for for view in views),
            estimated_wait=max(view.estimated_wait for view in views),
        )


class AnyPermit(Protocol):
    """Room for one call: awaited, or used in `async with`.

    What is told after the call, `settle` and what became of it, has to be told before `release`.

    Attributes:
        tokens: What the call was estimated to use, or has used.
        on_wait: Called once, with this permit, if it has to wait in line; may be set until it is
            awaited.
    """

    tokens: int
    on_wait: Callable[[Any], None] | None

    @property
    def waited(self) -> float:
        """Seconds spent in line."""
        ...

    @property
    def position(self) -> int:
        """Place in line: 1 is the next to be admitted, 0 is admitted."""
        ...

    @property
    def estimated_wait(self) -> float:
        """Seconds that it still has to wait in line, as far as can be told now."""
        ...

    def __await__(self) -> Generator[Any, None, Self]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def settle(self, *, tokens: int) -> None:
        """Tell what the call really used."""

    def release(self) -> None:
        """The call is over. May be called twice, and from any thread."""

    def give_back(self) -> None:
        """The call was never sent: put everything back, and release."""

    def succeeded(self, ms_per_token: float | None = None) -> None:
        """The call ended well.

        Args:
            ms_per_token: Milliseconds for each token of the answer, if that tells how quick the
                service is.
        """

    def congested(self) -> None:
        """The service was overloaded, or the connection broke, or it took too long."""

    def refused(self, retry_after: float | None) -> None:
        """The quota is spent: nobody is admitted for a while.

        Args:
            retry_after: Seconds to wait, if the service said so.
        """

    def learn(self, headers: RateHeaders) -> None:
        """What the answer told of the limits."""


class Held(ABC):
    """What permits have in common: they can be entered, and what they hold is let go once."""

    __slots__ = ()

    _held: list[None]  # one item while granted: a list gives it out only once, to any thread

    @abstractmethod
    def __await__(self) -> Generator[Any, None, Self]:
        """Wait for room."""

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    @abstractmethod
    def release(self) -> None:
        """The call is over."""

    def _let_go(self) -> bool:
        """Whether it was held till now, and by this thread let go."""
        try:
            self._held.pop()
        except IndexError:
            return False
        return True


@runtime_checkable
class AnyLimiter(Protocol):
    """Admits calls when there is room; what `AsyncClient(limits=...)` takes besides `Limits`."""

    @property
    def limits(self) -> Limits:
        """What each account and model may use."""
        ...

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating the tokens of a call."""
        ...

    def admit(
        self,
        tokens: int = 0,
        *,
        model: str | None = None,
        account: str = "",
        priority: Priority = "interactive",
        max_wait: float | None = None,
    ) -> AnyPermit:
        """Ask for room for one call.

        Args:
            tokens: An estimate of what it will use, prompt and answer together.
            model: Whose quota it uses; `None` for a call that names no model.
            account: Whose quota it uses; no secret.
            priority: `"batch"` waits for those that are `"interactive"`.
            max_wait: Seconds in line after which it is not worth it any more; `None` for no end.

        Returns:
            A permit, to be awaited or entered. A wait that is cancelled takes nothing.

        Raises:
            ConfigError: When it is awaited: one call would use more tokens than a minute's quota.
            DeadlineError: When it is awaited: the wait was, or would be, longer than `max_wait`.
        """
        ...

    def snapshot(self, model: str | None = None, account: str = "") -> LimiterSnapshot:
        """How things stand.

        Args:
            model: Only what concerns this one; `None` for all.
            account: Only what concerns this one; empty for all.
        """
        ...
