"""What all calls of a client share.

Plain data: who has a desk, makes calls with `net.answer` or reads a stream with `net.source`.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ernie_async.net.admission import AnyLimiter, AnyPermit
from ernie_async.net.hooks import Hook
from ernie_async.net.key_pool import PoolTokens
from ernie_async.net.roster import Roster
from ernie_async.net.transport import Transport
from ernie_async.sansio.auth import ApiKey
from ernie_async.sansio.breaker import Breaker
from ernie_async.sansio.ledger import Ledger
from ernie_async.sansio.read_buffer import ReadBuffer
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import ResumePolicy
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.retry_budget import RetryBudget
from ernie_async.sansio.servers import Server
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import OutputEstimate, estimate_usage
from ernie_async.types.usage import Usage

if TYPE_CHECKING:
    # Imported by whoever has a pair of keys: most programs have one key.
    from ernie_async.net.credentials import IamTokens
    from ernie_async.sansio.content_filter import ContentFilter

__all__ = ["AnyHedger", "Desk"]

T = TypeVar("T")


class AnyHedger(Protocol):
    """Makes attempts of which a second one may be under way beside the first: `net.hedging`."""

    def attempt(
        self,
        call: Any,
        start: Callable[[AnyPermit | None], Coroutine[Any, Any, T]],
        *,
        drop: Callable[[T], None],
    ) -> Coroutine[Any, Any, T]:
        """Make one attempt of a `Call`, or two; `drop` leaves an answer that is one too many."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """What all calls of a client share."""

    transport: Transport
    key: "ApiKey | IamTokens | None"
    pool: PoolTokens | None  # instead of a key
    limiter: AnyLimiter | None
    account: str  # whose quota is used, and no secret
    retry: RetryPolicy
    retry_budget: RetryBudget | None
    breaker: Breaker | None
    server: Server
    resume: ResumePolicy
    read_buffer: ReadBuffer
    timeouts: Timeouts
    hooks: Sequence[Hook]
    output: OutputEstimate
    ledger: Ledger
    max_event_bytes: int
    content_filter: "ContentFilter | None"
    formless_models: set[str]  # refused `response_format`
    roster: Roster
    flights: dict[Any, Any]  # calls under way that others may share, see `net.flights`
    hedger: "AnyHedger | None"
    fallback: Sequence[Any]  # see `settings.FallbackModel`
    is_coalescing: bool

    def learn(self, request: Request, usage: Usage) -> None:
        """Compare what was estimated with what the service told."""
        if request.estimate and request.model is not None:
            self.ledger.correction.note(
                request.model, estimated=request.estimate, real=usage.prompt_tokens
            )

    def estimate(self, request: Request, answer: str) -> Usage:
        """What a call consumed, by our own count and what was learnt of the model."""
        ratio = self.ledger.correction.ratio(request.model)
        return estimate_usage(request.messages, answer, ratio=ratio)

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        if not isinstance(self.key, ApiKey | None):
            await self.key.aclose()
        if self.pool is not None:
            await self.pool.aclose()
        await self.transport.aclose()
