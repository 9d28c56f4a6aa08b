"""Who is next: first come, first served, and what may wait lets others go before it.

Order only: knows neither time nor room.
"""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

__all__ = ["Line"]

# While calls of the batch wait, one of them goes after so many others: they are never starved.
TURNS = 8


class Waiter(Protocol):
    """Whoever can stand in line."""

    @property
    def is_batch(self) -> bool:
        """Whether it may wait."""
        ...

    @property
    def tokens(self) -> int:
        """What it needs besides one request."""
        ...


W = TypeVar("W", bound=Waiter)


class Line(Generic[W]):
    """Two queues, one in front of the other, with a turn for the second after every eighth."""

    __slots__ = ("_ahead", "_batch", "_interactive", "_tokens")

    def __init__(self) -> None:
        self._interactive: OrderedDict[W, None] = OrderedDict()
        self._batch: OrderedDict[W, None] = OrderedDict()
        self._tokens = [0, 0]  # of those who wait, for either queue
        self._ahead = 0  # that went while the batch had somebody waiting, since its last turn

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    @property
    def tokens(self) -> int:
        """What all of them need."""
        return self._tokens[False] + self._tokens[True]

    def join(self, waiter: W) -> None:
        """Stand at the end."""
        self._queue(waiter)[waiter] = None
        self._tokens[waiter.is_batch] += waiter.tokens

    def leave(self, waiter: W) -> bool:
        """Be in line no more; whether it was."""
        queue = self._queue(waiter)
        if waiter not in queue:
            return False
        del queue[waiter]
        self._tokens[waiter.is_batch] -= waiter.tokens
        return True

    def first(self) -> W | None:
        """Who is next; `None` if nobody is there."""
        is_turn_of_batch = self._batch and (not self._interactive or self._ahead >= TURNS)
        queue = self._batch if is_turn_of_batch else self._interactive
        return next(iter(queue), None)

    def pop(self, waiter: W) -> None:
        """Take the first one off, since it goes."""
        self.leave(waiter)
        self._ahead = 0 if waiter.is_batch or not self._batch else self._ahead + 1

    def position(self, waiter: W) -> int:
        """Its place, 1 for the first one; 0 if it is not in line. Counts them one by one."""
        queue = self._queue(waiter)
        if waiter not in queue:
            return 0
        before = next(place for place, other in enumerate(queue) if other is waiter)
        if waiter.is_batch:
            return before + 1 + min(len(self._interactive), TURNS * (before + 1) - self._ahead)
        return before + 1 + min(len(self._batch), (self._ahead + before) // TURNS)

    def before(self, *, is_batch: bool) -> tuple[int, float]:
        """How many go before one that joins now, and about how many tokens they need."""
        n_interactive, n_batch = len(self._interactive), len(self._batch)
        if is_batch:
            n_interactive = min(n_interactive, TURNS * (n_batch + 1) - self._ahead)
        else:
            n_batch = min(n_batch, (self._ahead + n_interactive) // TURNS)
        tokens = 0.0
        for n, queue, needed in (
            (n_interactive, self._interactive, self._tokens[False]),
            (n_batch, self._batch, self._tokens[True]),
        ):
            if n:
                tokens += needed * n / len(queue)
        return n_interactive + n_batch, tokens

    def _queue(self, waiter: W) -> OrderedDict[W, None]:
        return self._batch if waiter.is_batch else self._interactive
