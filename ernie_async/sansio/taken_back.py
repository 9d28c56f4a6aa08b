"""Where a text that was shown at once has to be changed, after parts of it were changed before.

Knows places only, and no text.
"""

from bisect import insort
from typing import NamedTuple

__all__ = ["ShownText"]


class _Change(NamedTuple):
    start: int
    end: int
    length: int  # characters that stand there now


class ShownText:
    """One text as its readers have it. Places are those of the text as it came."""

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: list[_Change] = []  # none touches another

    def take_back(self, start: int, end: int, length: int) -> tuple[int, int] | None:
        """Have something else stand there.

        Args:
            start: Where it begins.
            end: Where it ends.
            length: Characters that stand there from now on.

        Returns:
            From where to where that is in what the readers have; `None` if all of it was taken
            back before.
        """
        for change in self._changes:
            if change.start <= start < change.end:
                start = change.end
            if change.start < end < change.end:
                end = change.end
        if start >= end:
            return None
        first, last = self._shown(start), self._shown(end)
        self._changes = [one for one in self._changes if one.end <= start or one.start >= end]
        insort(self._changes, _Change(start, end, length))
        return first, last

    def _shown(self, place: int) -> int:
        return place + sum(
            length - (end - start) for start, end, length in self._changes if end <= place
        )
