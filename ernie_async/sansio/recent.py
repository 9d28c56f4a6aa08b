"""Two counts over the last few seconds, in constant space.

Knows no clock, and not what is counted.
"""

__all__ = ["Recent"]


class Recent:
    """Counts what happened lately. Each half of the span is forgotten as a whole.

    So the sums are those of the last `seconds`, or of up to a half less. Counts from several
    threads at once may lose one.
    """

    __slots__ = ("_ends", "_half", "_new_a", "_new_b", "_old_a", "_old_b")

    def __init__(self, seconds: float, now: float) -> None:
        self._half = seconds / 2
        self.clear(now)

    def clear(self, now: float) -> None:
        """Forget everything."""
        self._ends = now + self._half
        self._new_a = self._new_b = self._old_a = self._old_b = 0

    def add(self, now: float, a: int, b: int) -> None:
        """Count so many more."""
        if now >= self._ends:
            self._turn(now)
        self._new_a += a
        self._new_b += b

    def withdraw_b(self, now: float) -> None:
        """Count one `b` less, the newest first; nothing if all are forgotten."""
        if now >= self._ends:
            self._turn(now)
        if self._new_b > 0:
            self._new_b -= 1
        elif self._old_b > 0:
            self._old_b -= 1

    def sums(self, now: float) -> tuple[int, int]:
        """Both counts."""
        if now >= self._ends:
            self._turn(now)
        return self._new_a + self._old_a, self._new_b + self._old_b

    def _turn(self, now: float) -> None:
        if now >= self._ends + self._half:
            self.clear(now)
            return
        self._old_a, self._old_b = self._new_a, self._new_b
        self._new_a = self._new_b = 0
        self._ends += self._half
