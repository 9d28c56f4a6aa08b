"""One event loop's part of a lane that processes share: who waits, what is promised, what to tell.

A lane is what has limits of its own: an account and a model. What all processes have in common is
kept by a server, which is asked in steps: `ask` says what to send, `hear` what the answer means,
`lost` that there was none. Knows no server and no clock; times are seconds of the caller's.

The server grants what can go at once, and promises a moment to one more. So each process has one
promise at most, whoever of its calls takes it, and processes that wait take turns.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from math import inf
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Answer", "Ask", "Note", "SharedLane", "Waiter"]

# Calls asked for in one step. More would only make the steps of others wait.
BATCH = 64

# Of the time a call has waited already, so much counts: the way to the server and a late timer do
# not lower the rate. See `CATCH_UP` in `net.limiter`.
CATCH_UP = 0.02

# What nobody waits for is told after so long, along with whatever came up in the meantime.
COMPANY_SECONDS = 0.01

# Batch work gets one turn after so many of interactive work.
TURNS = 4


class Waiter:
    """A call that waits for room.

    Attributes:
        tokens: What it is estimated to use.
        is_urgent: Whether it goes before those that are not.
        arrived: When.
        gives_up_at: When it would rather not go any more.
        is_over: It was granted, or does not want to go any more.
        is_probe: It was let through a pause, to see whether the service answers again.
    """

    __slots__ = ("arrived", "gives_up_at", "is_over", "is_probe", "is_urgent", "tokens")

    def __init__(self, tokens: int, *, is_urgent: bool) -> None:
        self.tokens = tokens
        self.is_urgent = is_urgent
        self.arrived = 0.0
        self.gives_up_at = inf
        self.is_over = False
        self.is_probe = False


W = TypeVar("W", bound=Waiter)


class Note(NamedTuple):
    """What a call has to tell: ended calls, and what it gives back or has learnt."""

    ended: int = 0
    requests: float = 0.0
    tokens: float = 0.0
    pause: float | None = None  # seconds; 0 lifts it
    probing: float = 0.0  # seconds
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class Ask(NamedTuple):
    """What to send: the calls held, what is put back, what was learnt, what is wanted."""

    held: int
    requests: float
    tokens: float
    promise: int  # the one that is given back; 0 for none
    pause: float | None
    probing: float
    requests_per_minute: float | None
    tokens_per_minute: float | None
    age: float  # of the first of those wanted
    wanted: list[tuple[int, float]]  # tokens, and seconds it would wait


class Answer(NamedTuple):
    """What the server says. `waits` has one item for each wanted call it dealt with.

    Attributes:
        waits: Seconds; negative if the call would not wait so long.
        promise: The latest moment promised, as the server knows it.
        others: Other processes in line.
        is_in_line: Whether this one is: for a call to end, or a pause.
        look_in: Seconds after which to ask again if it is; `None` if it is not.
        is_probe: Whether what was granted is a probe.
    """

    waits: list[float]
    promise: int
    others: int
    is_in_line: bool
    look_in: float | None
    is_probe: bool


class _Promise(NamedTuple, Generic[W]):
    at: float
    id: int
    waiter: W
    tokens: int
    is_probe: bool


class SharedLane(Generic[W]):
    """What one event loop knows of a lane. Served by one task; others only append to `notes`.

    Args:
        counts_calls: Whether calls under way are limited, so that their end has to be told.
        beat: Seconds after which to ask in any case, so that a lease goes on.

    Attributes:
        notes: What calls have to tell, from any thread.
        held: Calls under way.
        is_in_line: Whether the process is in line at the server.
    """

    def __init__(self, *, counts_calls: bool, beat: float) -> None:
        self.notes: deque[Note] = deque()
        self.held = 0
        self.is_in_line = False
        self._counts_calls = counts_calls
        self._beat = beat
        self._line: _Line[W] = _Line()
        self._asked: list[W] = []
        self._promise: _Promise[W] | None = None
        self._back_requests = 0.0
        self._back_tokens = 0.0
        self._back_promise = 0
        self._learnt = Note()
        self._tell_at = inf
        self._beat_at = inf
        self._look_at = inf
        self._has_others = False

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return self._line.n_waiting

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to wait for and nothing to tell."""
        holds = self._counts_calls and self.held > 0
        return not (
            self.notes or self._line.n_waiting or self._promise or holds or self._tell_at < inf
        )

    @property
    def has_news(self) -> bool:
        """Whether the server should hear something, soon if not now."""
        return self._tell_at < inf or self.is_in_line

    def join(self, waiter: W, now: float) -> None:
        """Get in line."""
        waiter.arrived = now
        self._line.append(waiter)

    def leave(self, waiter: W) -> None:
        """Leave the line without having been granted."""
        self._line.drop(waiter)

    def leave_all(self) -> list[W]:
        """Empty the line."""
        waiters = list(self._line)
        for waiter in waiters:
            self._line.drop(waiter)
        return waiters

    def rung(self) -> None:
        """The server lets this process know that its turn has come."""
        self._look_at = -inf

    def next_at(self) -> float:
        """When to come by again, if nothing happens before."""
        if self.notes or (self._line.n_waiting and not self._promise and not self.is_in_line):
            return -inf
        at = min(self._tell_at, self._beat_at)
        if self._promise is not None:
            at = min(at, self._promise.at)
        if self.is_in_line:
            at = min(at, self._look_at)
        return at

    def due(self, now: float) -> list[W]:
        """Take note of what happened; say who may go because a promise is due."""
        while self.notes:
            self._hear_of(self.notes.popleft(), now)
        promise = self._promise
        if promise is None:
            return []
        if promise.at > now:
            if self._line.n_waiting == 0:
                self._give_back_promise(now)
            return []
        self._promise = None
        return self._pass_on(promise.waiter, promise.tokens, now, is_probe=promise.is_probe)

    def must_ask(self, now: float) -> bool:
        """Whether a step is due, after `due`."""
        if min(self._tell_at, self._beat_at) <= now:
            return True
        if self._promise is not None or not self._line.n_waiting:
            # The last one of those in line has left.
            return self.is_in_line and not self._line.n_waiting
        return not self.is_in_line or self._look_at <= now

    def ask(self, now: float) -> Ask:
        """What to send. `hear` or `lost` comes next."""
        wanted = [] if self._promise is not None else list(islice(self._line, BATCH))
        self._asked = wanted
        learnt = self._learnt
        ask = Ask(
            held=self.held + (self._promise is not None),
            requests=self._back_requests,
            tokens=self._back_tokens,
            promise=self._back_promise,
            pause=learnt.pause,
            probing=learnt.probing,
            requests_per_minute=learnt.requests_per_minute,
            tokens_per_minute=learnt.tokens_per_minute,
            age=min(CATCH_UP, now - wanted[0].arrived) if wanted else 0.0,
            wanted=[(waiter.tokens, max(0.0, waiter.gives_up_at - now)) for waiter in wanted],
        )
        # Told once: if the answer is lost nobody knows whether it was heard, and what is put back
        # twice would let too much through.
        self._back_requests = self._back_tokens = 0.0
        self._back_promise = 0
        self._tell_at = inf
        self._look_at = inf
        return ask

    def hear(self, answer: Answer, now: float) -> tuple[list[W], list[W]]:
        """Take an answer.

        Returns:
            Those who may go, and those who would have to wait longer than they want.
        """
        self._learnt = Note()
        self._has_others = answer.others > 0
        self.is_in_line = answer.is_in_line
        self._look_at = inf if answer.look_in is None else now + answer.look_in
        granted: list[W] = []
        hopeless: list[W] = []
        for waiter, wait in zip(self._asked, answer.waits, strict=False):
            if wait < 0:
                if not waiter.is_over:
                    self._line.drop(waiter)
                    hopeless.append(waiter)
            elif wait > 0:
                self._promise = _Promise(
                    now + wait, answer.promise, waiter, waiter.tokens, answer.is_probe
                )
            else:
                granted += self._pass_on(waiter, waiter.tokens, now, is_probe=answer.is_probe)
        self._asked = []
        holds = self._counts_calls and (self.held > 0 or self._promise is not None)
        self._beat_at = now + self._beat if holds or self.is_in_line else inf
        return granted, hopeless

    def lost(self, now: float) -> None:
        """No answer came, and nobody knows whether the step was made."""
        self._asked = []
        self.is_in_line = False
        self._beat_at = now + self._beat if self._counts_calls and self.held else inf

    def _hear_of(self, note: Note, now: float) -> None:
        self.held -= note.ended
        self._back_requests += note.requests
        self._back_tokens += note.tokens
        if note.pause or note.requests_per_minute or note.tokens_per_minute or note.pause == 0:
            before = self._learnt
            self._learnt = Note(
                pause=before.pause if note.pause is None else note.pause,
                probing=note.probing or before.probing,
                requests_per_minute=note.requests_per_minute or before.requests_per_minute,
                tokens_per_minute=note.tokens_per_minute or before.tokens_per_minute,
            )
            self._tell_at = now
            if note.pause and self._promise is not None:
                self._give_back_promise(now)
        if (note.ended and self._counts_calls) or note.requests or note.tokens:
            is_awaited = self.is_in_line or self._has_others
            self._tell_at = min(self._tell_at, now if is_awaited else now + COMPANY_SECONDS)

    def _give_back_promise(self, now: float) -> None:
        promise, self._promise = self._promise, None
        assert promise is not None
        self._back_requests += 1
        self._back_tokens += promise.tokens
        self._back_promise = promise.id
        self._tell_at = now

    def _pass_on(self, meant: W, tokens: int, now: float, *, is_probe: bool) -> list[W]:
        """Whoever is first takes what was granted, if it is enough; else whoever it was meant for.

        Somebody may have come with higher priority, or the one it was meant for has left.
        """
        first = next(iter(self._line), None)
        waiter = first if first is not None and first.tokens <= tokens else meant
        if waiter.is_over:
            self._back_requests += 1
            self._back_tokens += tokens
            self._tell_at = now
            return []
        if waiter.tokens != tokens:
            self._back_tokens += tokens - waiter.tokens
            self._tell_at = min(self._tell_at, now + COMPANY_SECONDS)
        waiter.is_probe = is_probe
        self._line.serve(waiter)
        self.held += 1
        return [waiter]


class _Line(Generic[W]):
    """First come, first served; urgent ones before the others, but the others have their turns."""

    def __init__(self) -> None:
        self.n_waiting = 0
        self._urgent: deque[W] = deque()
        self._patient: deque[W] = deque()
        self._streak = 0  # urgent ones since one that was not

    def append(self, waiter: W) -> None:
        (self._urgent if waiter.is_urgent else self._patient).append(waiter)
        self.n_waiting += 1

    def drop(self, waiter: W) -> None:
        if not waiter.is_over:
            waiter.is_over = True
            self.n_waiting -= 1
            self._tidy()

    def serve(self, waiter: W) -> None:
        self._streak = self._streak + 1 if waiter.is_urgent and self._patient else 0
        self.drop(waiter)

    def __iter__(self) -> Iterator[W]:
        urgent = (waiter for waiter in self._urgent if not waiter.is_over)
        patient = (waiter for waiter in self._patient if not waiter.is_over)
        if self._streak >= TURNS:
            yield from islice(patient, 1)
        yield from urgent
        yield from patient

    def _tidy(self) -> None:
        for line in (self._urgent, self._patient):
            while line and line[0].is_over:
                line.popleft()
        if len(self._urgent) + len(self._patient) > 2 * self.n_waiting + BATCH:
            self._urgent = deque(waiter for waiter in self._urgent if not waiter.is_over)
            self._patient = deque(waiter for waiter in self._patient if not waiter.is_over)
