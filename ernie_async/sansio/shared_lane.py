"""One event loop's part of a lane that processes share: who waits, what is promised, what to tell.

What all processes have in common is kept by a server, which is asked in steps: `ask` says what to
send, `hear` what the answer means, `lost` that there was none. What is sent and what comes back
stands in `sansio.shared_step`. Knows no server and no clock; times are seconds of the caller's.
What a lane is that nobody shares, is in `sansio.lane`.

The server grants what can go at once, and promises a moment to one call more. So each process has
one promise at most, whoever of its calls takes it, and processes that wait take turns.
"""

from itertools import islice
from math import inf
from typing import Generic, NamedTuple, TypeVar, cast

from ernie_async.sansio.adaptive import Adaptive, ConcurrencyControl
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.line import Line, Ticket
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.sansio.shared_step import Answer, Ask, Verdict, shared_quota

__all__ = ["SharedLane", "SharedTicket"]

# Calls asked for in one step. More would only make the steps of others wait.
BATCH = 64

# Of the time a call has waited already, so much counts: the way to the server and a late timer do
# not lower the rate. `net.gate` does the same.
CATCH_UP = 0.02

# What nobody waits for is told after so long, along with whatever came up in the meantime.
COMPANY_SECONDS = 0.01


class SharedTicket(Ticket):
    """What a shared lane knows of one call.

    Attributes:
        arrived: When it got in line.
        gives_up_at: When it would rather not go any more.
        full_at: When the buckets of requests and of tokens were to be full, after it was granted.
    """

    __slots__ = ("arrived", "full_at", "gives_up_at")

    def __init__(self, tokens: int, *, is_batch: bool = False) -> None:
        super().__init__(tokens, is_batch=is_batch)
        self.arrived: float = 0.0
        self.gives_up_at: float = inf
        self.full_at: tuple[float, float] = (inf, inf)


T = TypeVar("T", bound=SharedTicket)


class _Promise(NamedTuple, Generic[T]):
    at: float
    id: int
    ticket: T
    tokens: int
    full_at: tuple[float, float]


class SharedLane(Generic[T]):
    """What one event loop knows of a lane. Belongs to one task.

    Args:
        limits: Of all processes together.
        beat: Seconds after which to ask in any case, so that a lease goes on.
        now: The clock.

    Attributes:
        line: Who waits.
        in_flight: Calls of this loop that were admitted and are not over.
        is_in_line: Whether the process is in line at the server.
        told: The limits that the service told last, of requests and of tokens.
    """

    def __init__(self, limits: Limits, *, beat: float, now: float) -> None:
        self.limits = limits
        self.line: Line = Line()
        self.in_flight: int = 0
        self.is_in_line: bool = False
        self.told: tuple[float | None, float | None] = (None, None)
        calls = limits.concurrency
        self._control = ConcurrencyControl(calls, now) if isinstance(calls, Adaptive) else None
        self._beat = beat
        self._asked: list[T] = []
        self._promise: _Promise[T] | None = None
        self._back_requests = 0.0
        self._back_tokens = 0.0
        self._back_promise = 0
        self._verdict: Verdict | None = None
        self._told_by_us: tuple[float | None, float | None] = (None, None)
        self._tell_at = inf
        self._beat_at = inf
        self._look_at = inf
        self._others = 0
        self._pause = 0
        self._paused_until = 0.0
        self._is_probing = False
        self._full_at = (now, now)

    # What is told of a call: each takes the ticket, a value, and the time. See `sansio.lane`.

    def ended(self, ticket: T, is_unsent: bool, now: float) -> None:
        """It is over; if it was never sent, what it took is put back."""
        self.in_flight -= 1
        if is_unsent:
            # What a full bucket would not have kept meanwhile is lost. See `TokenBucket.take_back`.
            self._put_back(
                self._kept(0, 1.0, ticket, now), self._kept(1, ticket.tokens, ticket, now), now
            )
        elif self.limits.concurrency is not None:
            self._tell_soon(now)

    def settled(self, _: T, tokens: int, now: float) -> None:
        """It used so many tokens less than was thought; fewer than 0: more."""
        if tokens:
            self._put_back(0.0, tokens, now)

    def succeeded(self, ticket: T, ms_per_token: float | None, now: float) -> None:
        """It ended well."""
        if self._is_probing:
            self._judge(Verdict("succeeded", ticket.pause), now)
        if self._control is not None:
            self._control.succeeded(ticket.epoch, self.in_flight, now, ms_per_token)

    def congested(self, ticket: T, _: None, now: float) -> None:
        """There was too much under way for the service."""
        if self._control is not None:
            self._control.congested(ticket.epoch, now)

    def refused(self, ticket: T, retry_after: float | None, now: float) -> None:
        """The quota is spent."""
        self._judge(Verdict("refused", ticket.pause, retry_after), now)

    def learnt(self, ticket: T, headers: RateHeaders, now: float) -> None:
        """The limits that the service told."""
        news = self.news_of(headers)
        if news != (None, None):
            self._told_by_us = news
            self._tell_at = now
        if headers.is_spent:
            self._judge(Verdict("spent", ticket.pause, headers.retry_after), now)

    # Being served.

    def waiting(self, most: int | None = None) -> list[T]:
        """Those in line, the next one first."""
        return cast("list[T]", list(islice(self.line, most)))

    def next_at(self) -> float:
        """When to come by again, if nothing happens before."""
        at = min(self._tell_at, self._beat_at)
        if self._promise is not None:
            return min(at, self._promise.at)
        if self._wanted():
            return min(at, self._look_at) if self.is_in_line else -inf
        return at

    def due(self, now: float) -> list[T]:
        """Who may go because a promise is due."""
        promise = self._promise
        if promise is None:
            return []
        if promise.at <= now:
            self._promise = None
            return self._pass_on(promise.ticket, promise.tokens, promise.full_at, now)
        if not self.line:
            self._give_back_promise(now)
        return []

    def must_ask(self, now: float) -> bool:
        """Whether a step is due, after `due`."""
        is_left = self.is_in_line and not self.line  # the last one has left
        return is_left or self.next_at() <= now

    @property
    def has_news(self) -> bool:
        """Whether the server should hear something, soon if not now."""
        return self._tell_at < inf or self.is_in_line

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to wait for and nothing to tell."""
        return not (self.line or self._promise or self.has_news or self._beat_at < inf)

    def rung(self) -> None:
        """The server lets this process know that its turn has come."""
        self._look_at = -inf

    def ask(self, now: float) -> Ask:
        """What to send. `hear` or `lost` comes next."""
        self._asked = wanted = self.waiting(self._wanted())
        ask = Ask(
            held=self.in_flight + (self._promise is not None),
            requests=self._back_requests,
            tokens=self._back_tokens,
            promise=self._back_promise,
            verdict=self._verdict,
            told=self._told_by_us,
            age=min(CATCH_UP, now - wanted[0].arrived) if wanted else 0.0,
            wanted=[(ticket.tokens, max(0.0, ticket.gives_up_at - now)) for ticket in wanted],
        )
        # Told once: if the answer is lost nobody knows whether it was heard, and what is put back
        # twice would let too much through.
        self._back_requests = self._back_tokens = 0.0
        self._back_promise = 0
        self._verdict = None
        self._told_by_us = (None, None)
        self._tell_at = self._look_at = inf
        return ask

    def hear(self, answer: Answer, now: float) -> tuple[list[T], list[T]]:
        """Take an answer.

        Returns:
            Those who may go, and those who would have to wait longer than they want.
        """
        self.is_in_line = answer.is_in_line
        self._look_at = now + answer.look_in if answer.is_in_line else inf
        self._others = answer.others
        self._pause = answer.pause
        self._paused_until = now + answer.paused_for
        self._is_probing = answer.is_probing
        self._full_at = now + answer.full_in[0], now + answer.full_in[1]
        self.told = answer.told
        granted: list[T] = []
        hopeless: list[T] = []
        for ticket, wait, full_at in self._dealt(answer.waits):
            tokens = ticket.tokens
            if wait < 0:
                if self.line.leave(ticket):
                    hopeless.append(ticket)
            elif wait > 0:
                self._promise = _Promise(now + wait, answer.promise, ticket, tokens, full_at)
            else:
                granted += self._pass_on(ticket, tokens, full_at, now)
        self._asked = []
        self._expect_beat(now)
        return granted, hopeless

    def lost(self, now: float) -> None:
        """No answer came, and nobody knows whether the step was made."""
        self._asked = []
        self.is_in_line = False
        if self.limits.concurrency is not None:
            self._tell_at = now  # calls may have been granted that nobody began
        self._expect_beat(now)

    # How things stand, as far as this process knows.

    @property
    def concurrency(self) -> int | None:
        """Calls that may be under way at once; `None` for no limit."""
        calls = self.limits.concurrency
        if isinstance(calls, Adaptive):
            assert self._control is not None
            return self._control.limit
        return calls

    @property
    def most_tokens(self) -> float:
        """What one call can use at most: the quota of a minute."""
        tpm = self.limits.tokens_per_minute
        return inf if tpm is None else min(tpm, self.told[1] or inf)

    def listens(self) -> bool:
        """Whether the success of a call makes a difference."""
        return self._control is not None or self._is_probing

    def news_of(self, headers: RateHeaders) -> tuple[float | None, float | None]:
        """The limits in them that the server does not know yet; `None` for one that it knows."""
        requests, tokens = headers.limit_requests, headers.limit_tokens
        return (
            None if requests == self.told[0] else requests,
            None if tokens == self.told[1] else tokens,
        )

    def paused_for(self, now: float) -> float:
        """Seconds until the service may be asked again."""
        return max(0.0, self._paused_until - now)

    def levels(self, now: float) -> tuple[float | None, float | None]:
        """Requests and tokens that may go at once, all processes together; `None`: no limit."""
        return self._level(0, now), self._level(1, now)

    def wait_of(self, ticket: T, now: float) -> float:
        """Seconds that one in line still has to wait, as far as can be told; 0 if it is not."""
        place = self.line.position(ticket)
        return self._wait(place, self.line.tokens * place / len(self.line), now) if place else 0.0

    def wait_of_next(self, tokens: int, now: float) -> float:
        """Seconds that one who came now would have to wait, as far as can be told."""
        return self._wait(len(self.line) + 1, self.line.tokens + tokens, now)

    def _wait(self, place: int, tokens: float, now: float) -> float:
        waits = [0.0, self._paused_until - now]
        if self._promise is not None:
            waits.append(self._promise.at - now)
            place -= 1  # it has been taken already
        for which, needed in ((0, place), (1, tokens)):
            level = self._level(which, now)
            if level is not None:
                waits.append((needed - level) * 60 / self._quota(which)[0])
        # Processes in line take turns.
        return max(waits) * (1 + self._others)

    def _level(self, which: int, now: float) -> float | None:
        quota, burst = self._quota(which)
        return None if quota == inf else burst - max(0.0, self._full_at[which] - now) * quota / 60

    def _quota(self, which: int) -> tuple[float, float]:
        limits = self.limits
        if which == 0:
            return shared_quota(limits.requests_per_minute, limits.burst, self.told[0])
        return shared_quota(limits.tokens_per_minute, None, self.told[1])

    def _wanted(self) -> int:
        """How many to ask for."""
        if self._promise is not None:
            return 0
        own = BATCH if self._control is None else self._control.limit - self.in_flight
        return max(0, min(BATCH, own, len(self.line)))

    def _expect_beat(self, now: float) -> None:
        is_counted = self.limits.concurrency is not None
        holds = is_counted and (self.in_flight > 0 or self._promise is not None)
        self._beat_at = now + self._beat if holds or self.is_in_line else inf

    def _dealt(self, waits: list[float]) -> list[tuple[T, float, tuple[float, float]]]:
        """Those asked for, what the server says to each, and when the buckets are full after it."""
        requests, tokens = self._full_at
        dealt = []
        for ticket, wait in reversed(list(zip(self._asked, waits, strict=False))):
            dealt.append((ticket, wait, (requests, tokens)))
            if wait >= 0:
                requests -= 60 / self._quota(0)[0]
                tokens -= ticket.tokens * 60 / self._quota(1)[0]
        return dealt[::-1]

    def _kept(self, which: int, amount: float, ticket: T, now: float) -> float:
        """How much a bucket would still have of what was taken from it for nothing."""
        quota, _ = self._quota(which)
        return (
            0.0
            if quota == inf
            else max(0.0, min(amount, (ticket.full_at[which] - now) * quota / 60))
        )

    def _judge(self, verdict: Verdict, now: float) -> None:
        kept = self._verdict
        if kept is None or (verdict.pause, verdict.retry_after or 0) >= (
            kept.pause,
            kept.retry_after or 0,
        ):
            self._verdict = verdict
        self._tell_at = now
        if verdict.what != "succeeded" and self._promise is not None:
            self._give_back_promise(now)

    def _put_back(self, requests: float, tokens: float, now: float) -> None:
        self._back_requests += requests
        self._back_tokens += tokens
        self._tell_soon(now)

    def _tell_soon(self, now: float) -> None:
        is_awaited = self.is_in_line or self._others > 0
        self._tell_at = min(self._tell_at, now if is_awaited else now + COMPANY_SECONDS)

    def _give_back_promise(self, now: float) -> None:
        promise, self._promise = self._promise, None
        assert promise is not None
        self._back_promise = promise.id
        self._put_back(1.0, promise.tokens, now)
        self._tell_at = now

    def _pass_on(self, meant: T, tokens: int, full_at: tuple[float, float], now: float) -> list[T]:
        """Whoever is first takes what was granted, if it is enough; else whoever it was meant for.

        Somebody may have come who goes before, or the one it was meant for has left.
        """
        first = cast("T | None", self.line.first())
        ticket = first if first is not None and first.tokens <= tokens else meant
        if ticket not in self.line:
            self._put_back(1.0, tokens, now)
            self._tell_at = now
            return []
        if ticket.tokens != tokens:
            self._put_back(0.0, tokens - ticket.tokens, now)
        self.line.pop(ticket)
        self.in_flight += 1
        if self._control is not None:
            ticket.epoch = self._control.started()
        ticket.pause = self._pause
        ticket.full_at = full_at
        ticket.granted_at = now
        return [ticket]
