"""How many retries a client may make, so that it does not multiply the load of a failing server.

Knows numbers and `now`; what a retry is, and what becomes of a call that may not make one, is for
`net` to know.
"""

from ernie_async.sansio.recent import Recent

__all__ = ["RetryBudget"]

# A call pays for retries soon after it: an hour of good answers saves nothing up for an outage.
WINDOW_SECONDS = 10.0


class RetryBudget:
    """A bucket of retries: each call puts a share of one in, each retry takes one out.

    What a call put in is good for some ten seconds, and `floor` retries are there besides in any
    ten seconds, so that a program with few calls is not held back. A retry that succeeded puts back
    what it took: a server that fails now and then can be retried, one that is down cannot be
    retried much. Serves one client, and those that `with_options` made of it.

    Args:
        ratio: What a call puts in; 0.1 allows one retry for ten calls.
        floor: Retries without any call.
        now: Seconds on a monotonic clock.
    """

    __slots__ = ("_recent", "floor", "ratio")

    def __init__(self, ratio: float, floor: int, now: float) -> None:
        self.ratio: float = ratio
        self.floor: int = floor
        self._recent = Recent(WINDOW_SECONDS, now)  # calls, and retries that did not succeed

    def note_call(self, now: float) -> None:
        """A call begins."""
        self._recent.add(now, 1, 0)

    def left(self, now: float) -> float:
        """Retries that may be made; below 1 means none."""
        calls, retries = self._recent.sums(now)
        return self.floor + self.ratio * calls - retries

    def take(self, now: float) -> bool:
        """Take one retry out; `False` if there is none."""
        if self.left(now) < 1.0:
            return False
        self._recent.add(now, 0, 1)
        return True

    def give_back(self, now: float) -> None:
        """The retry succeeded."""
        self._recent.withdraw_b(now)
