"""Who is next: first come, first served, and what may wait lets others go before it.

Order only: knows neither time nor room.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

__all__ = ["Line", "Ticket"]

# While calls of the batch wait, one of them goes after so many others: they are never starved.
TURNS = 8


class Ticket:
    """What is known of one call.

    Attributes:
        tokens: What it was estimated to use, or has used.
        is_batch: Whether it lets others go before.
        epoch: Of the concurrency, when it was admitted.
        pause: The number of the last pause, when it was admitted.
        granted_at: When it was admitted.
        missing: Requests and tokens that were missing to full buckets, when it was admitted.
    """

    __slots__ = ("epoch", "granted_at", "is_batch", "missing", "pause", "tokens")

    def __init__(self, tokens: int, *, is_batch: bool = False) -> None:
        self.tokens: int = tokens
        self.is_batch: bool = is_batch
        self.epoch: int = 0
        self.pause: int = 0
        self.granted_at: float = 0.0
        self.missing: tuple[float, float] = (0.0, 0.0)


class Line:
    """Two queues, one in front of the other, with a turn for the second after every eighth."""

    __slots__ = ("_ahead", "_batch", "_interactive", "_tokens")

    def __init__(self) -> None:
        self._interactive: OrderedDict[Ticket, None] = OrderedDict()
        self._batch: OrderedDict[Ticket, None] = OrderedDict()
        self._tokens = [0, 0]  # of those who wait, for either queue
        self._ahead = 0  # that went while the batch had somebody waiting, since its last turn

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def __contains__(self, waiter: Ticket) -> bool:
        return waiter in self._queue(waiter)

    def __iter__(self) -> Iterator[Ticket]:
        """All of them, in the order in which they go if nobody else comes."""
        ahead, batch = self._ahead, iter(self._batch)
        for waiter in self._interactive:
            if ahead >= TURNS:
                yield from islice(batch, 1)
                ahead = 0
            yield waiter
            ahead += 1
        yield from batch

    @property
    def tokens(self) -> int:
        """What all of them need."""
        return self._tokens[False] + self._tokens[True]

    def join(self, waiter: Ticket) -> None:
        """Stand at the end."""
        self._queue(waiter)[waiter] = None
        self._tokens[waiter.is_batch] += waiter.tokens

    def leave(self, waiter: Ticket) -> bool:
        """Be in line no more; whether it was."""
        queue = self._queue(waiter)
        if waiter not in queue:
            return False
        del queue[waiter]
        self._tokens[waiter.is_batch] -= waiter.tokens
        return True

    def first(self) -> Ticket | None:
        """Who is next; `None` if nobody is there."""
        is_turn_of_batch = self._batch and (not self._interactive or self._ahead >= TURNS)
        queue = self._batch if is_turn_of_batch else self._interactive
        return next(iter(queue), None)

    def pop(self, waiter: Ticket) -> None:
        """Take the first one off, since it goes."""
        self.leave(waiter)
        self._ahead = 0 if waiter.is_batch or not self._batch else self._ahead + 1

    def position(self, waiter: Ticket) -> int:
        """Its place, 1 for the first one; 0 if it is not in line. Counts from the nearer end."""
        queue = self._queue(waiter)
        if waiter not in queue:
            return 0
        before = next(
            n if one is waiter else len(queue) - 1 - n
            for n, (one, other) in enumerate(zip(queue, reversed(queue), strict=True))
            if waiter in (one, other)
        )
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

    def _queue(self, waiter: Ticket) -> OrderedDict[Ticket, None]:
        return self._batch if waiter.is_batch else self._interactive
