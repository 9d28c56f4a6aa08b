"""What to do next: lines that wait for another attempt and are due, and then new ones.

Pure; time is an argument. A waiting line holds nothing but its place here.
"""

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

__all__ = ["Agenda", "Order"]

T = TypeVar("T")


class Agenda(Generic[T]):
    """New lines in their order, and lines that are due at a moment, which go first."""

    def __init__(self) -> None:
        self._fresh: deque[T] = deque()
        self._waiting: list[tuple[float, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._waiting)

    @property
    def waiting(self) -> int:
        """Lines that wait for a moment."""
        return len(self._waiting)

    def add(self, item: T) -> None:
        """A new line."""
        self._fresh.append(item)

    def add_at(self, item: T, due: float) -> None:
        """A line for a later moment."""
        heappush(self._waiting, (due, next(self._numbers), item))

    def peek(self, now: float) -> T | None:
        """What comes next; `None` if nothing can begin now."""
        if self._waiting and self._waiting[0][0] <= now:
            return self._waiting[0][2]
        return self._fresh[0] if self._fresh else None

    def pop(self, now: float) -> T:
        """Take what `peek` showed."""
        if self._waiting and self._waiting[0][0] <= now:
            return heappop(self._waiting)[2]
        return self._fresh.popleft()

    def next_due(self) -> float | None:
        """When a waiting line is due; `None` if none waits."""
        return self._waiting[0][0] if self._waiting else None

    def clear(self) -> list[T]:
        """Take everything, in the order of its coming up."""
        left = [item for _, _, item in sorted(self._waiting)] + list(self._fresh)
        self._waiting.clear()
        self._fresh.clear()
        return left


class Order(Generic[T]):
    """Puts results that come as they please into the order of their lines.

    Args:
        window: How far the newest line may be ahead of the oldest that is not over.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._begun = 0
        self._oldest = 0
        self._over: dict[int, T | None] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more line may begin."""
        return self._begun - self._oldest < self._window

    def begin(self) -> int:
        """A line begins: its place."""
        self._begun += 1
        return self._begun - 1

    def end(self, place: int, result: T | None) -> list[T]:
        """A line is over: the results that may be told now. `None` leaves no gap."""
        self._over[place] = result
        told: list[T] = []
        while self._oldest in self._over:
            held = self._over.pop(self._oldest)
            self._oldest += 1
            if held is not None:
                told.append(held)
        return told
