"""How many calls may be under way at once, found out by trying: up while it works, down when not.

Arithmetic only; time is an argument, and who is in flight is counted elsewhere. What congestion is,
and that a spent quota is none, is for the caller to know.
"""

from collections import deque
from dataclasses import dataclass

from ernie_async.errors import ConfigError

__all__ = ["Adaptive", "ConcurrencyControl"]

# What is left of the limit after congestion, and after answers became slow.
CUT = 0.6
SOFT_CUT = 0.9

# Using less than this part of what is allowed says nothing about whether more would be too much.
BUSY = 0.8

# For so many seconds it is remembered how much was too much.
CEILING_SECONDS = 30.0

# Answers are slow when the median of so many takes more than twice the best median seen.
PACE_ANSWERS = 50
SLOW_FACTOR = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """A bound of concurrency that follows the service, instead of a fixed number.

    Attributes:
        start: Calls at once in the beginning; `max`, if that is less.
        min: It never falls below.
        max: It never grows beyond.
    """

    start: int = 8
    min: int = 1
    max: int = 256

    def __post_init__(self) -> None:
        for name in ("start", "min", "max"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if self.max < self.min:
            raise ConfigError(f"max: expected at least min, {self.min}, got {self.max}")


class ConcurrencyControl:
    """Additive increase, multiplicative decrease, once for each epoch.

    An epoch lasts from one decrease to the next. A call that was started in an earlier one has met
    the congestion that was answered already, and causes no further decrease.

    Attributes:
        epoch: Counts the decreases.
    """

    __slots__ = (
        "_best_pace",
        "_ceiling",
        "_ceiling_until",
        "_is_slow_start",
        "_limit",
        "_max",
        "_min",
        "_paces",
        "epoch",
    )

    def __init__(self, adaptive: Adaptive, now: float) -> None:
        self._min, self._max = adaptive.min, adaptive.max
        self._limit = float(max(adaptive.min, min(adaptive.start, adaptive.max)))
        self._is_slow_start = True
        self._ceiling = adaptive.max
        self._ceiling_until = now
        self._paces: deque[float] = deque(maxlen=PACE_ANSWERS)
        self._best_pace = float("inf")
        self.epoch: int = 0

    @property
    def limit(self) -> int:
        """Calls that may be under way at once."""
        # The fraction is kept inside: seen from outside, 3.9 admits 3 and nobody is ever busy.
        return int(self._limit)

    def admits(self, in_flight: int) -> bool:
        """Whether one more may start beside so many."""
        return in_flight < self.limit

    def started(self) -> int:
        """A call starts: the epoch it has to name at its end."""
        return self.epoch

    def succeeded(
        self, epoch: int, in_flight: int, now: float, ms_per_token: float | None = None
    ) -> None:
        """A call ended well.

        Args:
            epoch: What `started` said.
            in_flight: Calls under way, this one included.
            now: On the clock of the constructor.
            ms_per_token: Milliseconds for each token of the answer, if that tells how quick the
                service is.
        """
        if ms_per_token is not None and self._is_slow(ms_per_token):
            self._paces.clear()  # judged once, and then by answers that know the new limit
            self._decrease(epoch, SOFT_CUT, now)
            return
        if in_flight < BUSY * self.limit:
            return
        step = 1.0 if self._is_slow_start else max(1.0, self._limit / 16) / self._limit
        grown = min(self._limit + step, float(self._max))
        if now >= self._ceiling_until or int(grown) <= self._ceiling:
            self._limit = grown

    def congested(self, epoch: int, now: float) -> None:
        """A call was refused as one too many, or its connection broke, or it took too long.

        Args:
            epoch: What `started` said.
            now: On the clock of the constructor.
        """
        self._decrease(epoch, CUT, now)

    def _decrease(self, epoch: int, factor: float, now: float) -> None:
        if epoch != self.epoch:
            return
        self.epoch += 1
        self._is_slow_start = False
        self._ceiling = max(self._min, self.limit - 1)
        self._ceiling_until = now + CEILING_SECONDS
        self._limit = max(float(self._min), self._limit * factor)

    def _is_slow(self, ms_per_token: float) -> bool:
        self._paces.append(ms_per_token)
        if len(self._paces) < PACE_ANSWERS:
            return False
        pace = sorted(self._paces)[(PACE_ANSWERS - 1) // 2]
        self._best_pace = min(self._best_pace, pace)
        return pace > SLOW_FACTOR * self._best_pace
