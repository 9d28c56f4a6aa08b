"""When the next call to a platform may be made: the arithmetic.

Pure: time is an argument, seconds on one monotonic clock. `traffic` does the waiting.
"""

__all__ = ["BotPace", "ChatPace"]

# After a flood answer the interval is doubled, up to this many seconds, and every minute without
# another one takes back half of it.
MOST_SECONDS = 10.0
QUIET_SECONDS = 60.0


class ChatPace:
    """The calls of one chat.

    Args:
        interval: Seconds between two calls as long as the platform does not complain.
    """

    __slots__ = ("_complained_at", "_interval", "_learnt", "_ready_at")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._learnt = interval
        self._complained_at = float("-inf")
        self._ready_at = float("-inf")

    def interval(self, now: float) -> float:
        """Seconds between two calls, at this moment."""
        if self._learnt <= self._interval:
            return self._interval
        quiet_minutes = (now - self._complained_at) // QUIET_SECONDS
        return max(self._learnt * 0.5 ** int(min(quiet_minutes, 60)), self._interval)

    def wait(self, now: float) -> float:
        """Seconds until a call may be made; 0 if it may be made now."""
        return max(self._ready_at - now, 0.0)

    def called(self, now: float) -> None:
        """A call is over, well or not. Counted from its end: it may have arrived that late."""
        self._ready_at = max(self._ready_at, now + self.interval(now))

    def flooded(self, now: float, retry_after: float) -> None:
        """The platform complained; no call is made for `retry_after` seconds."""
        doubled = 2 * self.interval(now)
        self._learnt = max(min(doubled, MOST_SECONDS), self._interval)
        self._complained_at = now
        self._ready_at = max(self._ready_at, now + max(retry_after, self._learnt))

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        return self.wait(now) == 0 and self.interval(now) == self._interval


class BotPace:
    """The calls of one bot, in all its chats: evenly spaced, first come, first served.

    Args:
        per_second: How many.
    """

    __slots__ = ("_next", "_step")

    def __init__(self, per_second: float) -> None:
        self._step = 1 / per_second
        self._next = float("-inf")

    def book(self, now: float) -> float:
        """Take the next place in line; return the seconds until it is there."""
        at = max(now, self._next)
        self._next = at + self._step
        return at - now
