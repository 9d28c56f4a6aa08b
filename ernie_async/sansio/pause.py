"""Nobody asks for a while, since the service said that its quota is spent.

Time is an argument. If the service names a time, it is obeyed. If not, one call at a time tries.
"""

__all__ = ["Pause"]

# The service refills a quota within 0 to 60 s and does not say when.
PROBE_SECONDS = 5.0
PROBING_SECONDS = 60.0


class Pause:
    """When calls may go again.

    Attributes:
        number: Counts the pauses of unknown length. A call that was admitted under an earlier
            number says nothing new about the quota.
        until: Nobody goes before; 0 if anybody may.
    """

    __slots__ = ("_probing_until", "number", "until")

    def __init__(self) -> None:
        self.number: int = 0
        self.until: float = 0.0
        self._probing_until = 0.0

    def is_over(self, now: float) -> bool:
        """Whether there is none."""
        return now >= self.until and now >= self._probing_until

    def is_probing(self, now: float) -> bool:
        """Whether single calls are sent to try."""
        return now < self._probing_until

    def went(self, at: float) -> None:
        """A call was admitted, not before `until`."""
        if at < self._probing_until:
            # The last probe is followed by the end of all patience.
            self.until = min(at + PROBE_SECONDS, self._probing_until)

    def refused(self, number: int, retry_after: float | None, now: float) -> None:
        """A call was refused.

        Args:
            number: Of the pause, when the call was admitted.
            retry_after: Seconds to wait, if the service said so.
            now: The clock.
        """
        if retry_after is not None:
            if self.is_probing(now):
                self.until = 0.0  # a guess of ours
            self.until = max(self.until, now + retry_after)
            self._probing_until = 0.0
        elif number == self.number and self.is_over(now):
            self._begin_probing(now)

    def spent(self, number: int, retry_after: float | None, now: float) -> None:
        """A call was answered, and was the last one that the quota had room for."""
        if retry_after is not None:
            self.refused(number, retry_after, now)
        elif number == self.number:
            # If this one was a probe, it was answered: patience starts anew.
            self._begin_probing(now)

    def succeeded(self, number: int) -> None:
        """A call was answered; if it was a probe, all may go."""
        if number == self.number and self._probing_until:
            self.until = self._probing_until = 0.0

    def _begin_probing(self, now: float) -> None:
        self.number += 1
        self.until = now + PROBE_SECONDS
        self._probing_until = now + PROBING_SECONDS
