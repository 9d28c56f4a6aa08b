"""Decide whether to ask again, and after how long.

Knows errors and arithmetic; knows no clock and no task. `net.retrying` has tenacity do the waiting.
"""

import math
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

from ernie_async.errors import (
    APIError,
    ConfigError,
    ConnectError,
    DeadlineError,
    ErnieError,
    InterruptedStreamError,
    LimiterError,
    RateLimitError,
    ServerError,
)

__all__ = ["RetryPolicy", "read_retry_after"]

# So long, and so often, a call is sent again besides its attempts while its quota is spent: it is
# refilled within 0 to 60 s.
QUOTA_SECONDS = 60.0
QUOTA_REFUSALS = 12

# A quota of the service is refilled within 0 to 60 s, so the first wait for one is longer.
QUOTA_FACTOR = 8

# More make no difference, and 2.0**1024 is an error.
MAX_DOUBLINGS = 64


class Chance(Protocol):
    """Where jitter comes from; `random.Random` is one."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how patiently, a failed call is tried again.

    The wait before attempt n + 1 is a random part of `min(max_delay, base_delay * 2**(n - 1))`
    seconds ("full jitter"), eight times longer after a quota refusal. What the service asked for in
    `Retry-After` is waited for, and up to `base_delay` longer: it asked others for the same.

    Attributes:
        attempts: Requests in all, at least 1; 1 means no retry. Where limits are set, waiting for
            a spent quota costs none.
        base_delay: Seconds; the longest first wait.
        max_delay: Seconds; no wait of our own choice is longer.
        max_retry_after: Seconds; if the service asks to wait longer, the error is raised at once.
        time_budget: Seconds since the call began after which no new attempt starts; `None` for no
            limit.
        budget_ratio: Retries that a client may make for each of its calls of the last ten seconds,
            those not counted that succeed or follow a `RateLimitError`; `None` for no limit.
        budget_floor: Retries that it may make in ten seconds besides.
    """

    attempts: int = 5
    base_delay: float = 0.5
    max_delay: float = 60.0
    max_retry_after: float = 60.0
    time_budget: float | None = None
    budget_ratio: float | None = 0.1
    # As many failures as open a circuit (`BreakerPolicy`), so that no call that could wait for the
    # end of an outage is given up before it opens.
    budget_floor: int = 30

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigError(f"attempts: expected a whole number, at least 1, got {self.attempts}")
        for name in ("base_delay", "max_delay", "max_retry_after", "time_budget"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name}: expected seconds, at least 0, got {value}")
        ratio, floor = self.budget_ratio, self.budget_floor
        if ratio is not None and not 0 <= ratio < float("inf"):
            raise ConfigError(f"budget_ratio: expected a number, at least 0, or None, got {ratio}")
        if not isinstance(floor, int) or floor < 0:
            raise ConfigError(f"budget_floor: expected a whole number, at least 0, got {floor}")

    def delay(
        self, error: ErnieError, attempt: int, elapsed: float, chance: Chance
    ) -> float | None:
        """Say how long to wait before asking again.

        Args:
            error: What the last attempt ended with, before anything was delivered.
            attempt: How many attempts were made, at least 1.
            elapsed: Seconds since the call began.
            chance: Where jitter comes from.

        Returns:
            Seconds to wait; `None` if the error is final.
        """
        if attempt >= self.attempts or not may_pass(error):
            return None
        asked = error.retry_after if isinstance(error, APIError | InterruptedStreamError) else None
        if asked is not None and asked > self.max_retry_after:
            return None
        is_quota = isinstance(error, RateLimitError) and asked is None
        delay = chance.uniform(0.0, self._longest(attempt, is_quota=is_quota))
        if asked is not None:
            delay = max(delay, asked + chance.uniform(0.0, self._longest(1, is_quota=False)))
        if self.time_budget is not None and elapsed + delay > self.time_budget:
            return None
        return delay

    def quota_delay(
        self, asked: float | None, *, guess: float, refusals: int, waited: float, elapsed: float
    ) -> float | None:
        """Say for how long to wait for a spent quota in line, at the cost of no attempt.

        Args:
            asked: Seconds that the service asks to wait, if it does.
            guess: Seconds that it may take, if it does not.
            refusals: How often the call was refused for this reason, this time included.
            waited: Seconds since the first of them.
            elapsed: Seconds since the call began.

        Returns:
            Seconds; `None` if this refusal counts like any other failure, as one does after which
            the service asks to wait for no time at all.
        """
        if asked == 0:
            return None
        delay = guess if asked is None else asked
        if self.attempts == 1 or (asked is not None and asked > self.max_retry_after):
            return None
        if refusals > QUOTA_REFUSALS or waited >= QUOTA_SECONDS:
            return None
        if self.time_budget is not None and elapsed + delay > self.time_budget:
            return None
        return delay

    def patience(self, *, is_quota: bool) -> float:
        """Seconds a call may wait in all where it cannot even be sent: its longest waits together.

        Args:
            is_quota: Whether it is a quota that it waits for.
        """
        waits = self.attempts - 1
        n_doubled = min(waits, MAX_DOUBLINGS)
        first = sum(self._longest(n, is_quota=is_quota) for n in range(1, n_doubled + 1))
        return first + (waits - n_doubled) * self._longest(MAX_DOUBLINGS + 1, is_quota=is_quota)

    def _longest(self, attempt: int, *, is_quota: bool) -> float:
        factor = QUOTA_FACTOR if is_quota else 1
        doublings = min(attempt - 1, MAX_DOUBLINGS)
        return min(self.max_delay, factor * self.base_delay * 2.0**doublings)


def may_pass(error: ErnieError) -> bool:
    """Whether the same request may succeed later, as far as the error tells.

    This is the whole table. The service's codes were made into classes before (`sansio.refusals`).
    """
    match error:
        case RateLimitError() | ServerError():
            return True
        case ConnectError() | InterruptedStreamError() | LimiterError():
            return True
        case DeadlineError(clock=clock):
            return clock not in {"total", "queue"}
        case _:
            return False


def read_retry_after(
    retry_after: str | None, retry_after_ms: str | None, *, utc_now: float
) -> float | None:
    """Read the headers in which a server says how long to wait.

    Args:
        retry_after: `Retry-After`: seconds, or an HTTP date.
        retry_after_ms: `Retry-After-Ms`: milliseconds; preferred, since it is finer.
        utc_now: Seconds since 1970, to measure a date against.

    Returns:
        Seconds, at least 0; `None` if neither header can be read.
    """
    for text, unit in ((retry_after_ms, 0.001), (retry_after, 1.0)):
        if text is not None:
            try:
                seconds = float(text) * unit
            except ValueError:
                continue
            if math.isfinite(seconds):
                return max(0.0, seconds)
    if retry_after is not None:
        try:
            moment = parsedate_to_datetime(retry_after)
            if moment.tzinfo is None:
                # An HTTP date is always UTC, whatever this machine's zone is.
                moment = moment.replace(tzinfo=UTC)
            return max(0.0, moment.timestamp() - utc_now)
        except (ValueError, OverflowError):
            return None
    return None
