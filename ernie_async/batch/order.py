"""Results in the order of their lines, however they come. Pure."""

from typing import Generic, TypeVar

__all__ = ["Order"]

T = TypeVar("T")


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
