"""A token bucket: how soon may the next so-many be taken?

Arithmetic only; time is an argument. `net.limiter` does the waiting.
"""

from dataclasses import dataclass

from ernie_async.errors import ConfigError
from ernie_async.sansio.adaptive import Adaptive

__all__ = ["Limits", "TokenBucket", "default_burst"]

# The service's minute begins at an unknown moment, so at most this much quota may go at once.
BURST_SECONDS = 5.0

# Levels are sums of floats: a millionth of a token short counts as enough.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may ask of the service, for each account and model. `None` means no limit.

    Attributes:
        requests_per_minute: Requests, retries included. Below 1 works as well.
        tokens_per_minute: Prompt and completion tokens together.
        concurrency: Calls under way at once; a stream counts until it ends. `Adaptive()` finds out
            how many the service bears.
        burst: Requests that may go at once after a pause; `None` for five seconds' worth, at
            least 1. Tokens always have five seconds' worth.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | Adaptive | None = None
    burst: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name}: expected a number above 0, or None, got {value}")
        if self.burst is not None and not 1 <= self.burst < float("inf"):
            raise ConfigError(f"burst: expected a number of at least 1, or None, got {self.burst}")
        calls = self.concurrency
        if isinstance(calls, Adaptive | None):
            return
        if not isinstance(calls, int) or calls < 1:
            raise ConfigError(
                "concurrency: expected a whole number of at least 1, Adaptive(...), or None, "
                f"got {calls!r}"
            )

    @property
    def is_unlimited(self) -> bool:
        """Whether there is nothing to wait for."""
        return (
            self.requests_per_minute is None
            and self.tokens_per_minute is None
            and self.concurrency is None
        )


def default_burst(quota: float) -> float:
    """What may go at once of a quota per minute, unless it is set: five seconds' worth."""
    return max(1.0, quota / 60.0 * BURST_SECONDS)


class TokenBucket:
    """Holds up to `capacity`, refilled at `rate` per second; may be in debt. Starts full.

    Something larger than the capacity is let through when the bucket is full and leaves a debt,
    so nothing waits for ever.
    """

    __slots__ = ("_changed", "_level", "_stamp", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate: float = rate
        self.capacity: float = capacity
        self._level = capacity
        self._stamp = now
        self._changed = now

    @classmethod
    def per_minute(cls, quota: float, burst: float | None, now: float) -> "TokenBucket":
        """A bucket for a quota per minute; `burst` `None` means five seconds' worth."""
        bucket = cls(0.0, 0.0, now)
        bucket.change_quota(quota, burst, now)
        bucket._level = bucket.capacity
        return bucket

    def change_quota(self, quota: float, burst: float | None, now: float) -> None:
        """Go on with another quota per minute. What was there stays, if it still fits in."""
        self._level, self._stamp = self.level(now), max(now, self._stamp)
        self._changed = now
        self.rate = quota / 60.0
        self.capacity = default_burst(quota) if burst is None else burst

    def level(self, now: float) -> float:
        """How much may be taken at `now`; below zero when in debt."""
        return min(self.capacity, self._level + max(0.0, now - self._stamp) * self.rate)

    def ready_at(self, amount: float, now: float) -> float:
        """The first moment, not before `now`, at which `amount` may be taken."""
        missing = min(amount, self.capacity) - self.level(now)
        return now if missing <= TOLERANCE else now + missing / self.rate

    def take(self, amount: float, now: float) -> float:
        """Take `amount`, into debt if need be.

        Returns:
            How much is missing to a full bucket, for `take_back`.
        """
        self._level = self.level(now) - amount
        self._stamp = max(now, self._stamp)
        return self.capacity - self._level

    def take_back(self, amount: float, missing: float, taken: float, now: float) -> None:
        """Put back what was taken for nothing, as if it had stayed there all the time.

        A full bucket would have run over meanwhile, and what runs over is lost. Otherwise calls
        that were admitted long ago and never sent could all be made up for at once.

        Args:
            amount: What was taken.
            missing: What `take` said.
            taken: When.
            now: The clock.
        """
        if taken >= self._changed:
            worth = missing - max(0.0, now - taken) * self.rate
            self.give(max(0.0, min(amount, worth)), now)

    def give(self, amount: float, now: float) -> None:
        """Put back `amount` that was taken and not used; a negative amount takes more."""
        self.take(-amount, now)
