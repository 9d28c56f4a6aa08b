"""Decide when a request that is late is sent a second time: from how long others took.

Knows durations and the time as an argument; sends nothing. A plan serves one client.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from math import ceil
from typing import Literal

from ernie_async.errors import ConfigError

__all__ = ["HedgePlan", "Hedging"]

# The newest so many first tokens of a model, if they are not too old to tell anything of now.
WINDOW = 200
WINDOW_SECONDS = 600.0

# From fewer, the slowest of twenty cannot be known.
LEAST_SAMPLES = 20

# Far more than a program names models. A gateway that passes on the names of strangers stays small.
MAX_MODELS = 1000

# Late requests come in bunches: so many may be sent at once after a calm time.
MOST_SAVED = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """When to send a request a second time, because its first token is late.

    Attributes:
        after: `"p95"`: once it takes longer than 95 of 100 requests to this model took; not before
            20 have been seen. Or seconds.
        share: At most this part of all requests is sent twice, so that a service that slows down
            is not asked twice as much.
    """

    after: Literal["p95"] | float = "p95"
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.after != "p95" and not (isinstance(self.after, int | float) and self.after >= 0):
            raise ConfigError(f'after: expected "p95" or seconds, at least 0, got {self.after!r}')
        if not (isinstance(self.share, int | float) and 0 < self.share <= 1):
            raise ConfigError(f"share: expected a number above 0, at most 1, got {self.share!r}")


class HedgePlan:
    """What was seen of each model, and how many second requests may be sent."""

    __slots__ = ("_saved", "_seen", "policy")

    def __init__(self, policy: Hedging) -> None:
        self.policy: Hedging = policy
        self._seen: dict[Hashable, deque[tuple[float, float]]] = {}  # (when, seconds)
        self._saved = 1.0

    def begin(self, key: Hashable, now: float) -> float | None:
        """A request is sent: say after how many seconds it is late; `None` if nobody can tell.

        Args:
            key: What is asked, a model and whether the answer is streamed.
            now: Seconds on the caller's monotonic clock.
        """
        self._saved = min(MOST_SAVED, self._saved + self.policy.share)
        if self.policy.after != "p95":
            return self.policy.after
        seen = self._seen.get(key, deque())
        while seen and seen[0][0] < now - WINDOW_SECONDS:
            seen.popleft()
        if len(seen) < LEAST_SAMPLES:
            return None
        ordered = sorted(seconds for _, seconds in seen)
        return ordered[ceil(len(ordered) * 0.95) - 1]

    def may_send(self) -> bool:
        """Whether one more request may be sent twice; it counts as sent if so."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True

    def give_back(self) -> None:
        """There was no room for the request that `may_send` allowed."""
        self._saved += 1.0

    def note(self, key: Hashable, seconds: float, now: float) -> None:
        """A first token came after so long, or had not come when the other request answered."""
        if key not in self._seen and len(self._seen) >= MAX_MODELS:
            self._seen.clear()
        self._seen.setdefault(key, deque(maxlen=WINDOW)).append((now, seconds))
