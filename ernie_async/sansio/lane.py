"""One quota, that of one account and model: what it has room for, who waits, and what it learnt.

Arithmetic and order only; time is an argument, and grows. `net.gate` does the waiting.
"""

from math import inf

from ernie_async.sansio.adaptive import Adaptive, ConcurrencyControl
from ernie_async.sansio.bucket import Limits, TokenBucket
from ernie_async.sansio.line import Line, Ticket
from ernie_async.sansio.pause import Pause
from ernie_async.sansio.rate_headers import RateHeaders

__all__ = ["Lane"]

# How long calls take is an average that forgets within about so many of them.
HOLDS = 16


class Lane:
    """Buckets, concurrency, a pause and a line, all for one quota.

    Attributes:
        limits: What was configured.
        line: Who waits.
        in_flight: Calls that were admitted and are not over.
        control: If the concurrency adapts itself.
        told: The limits that the service told last, of requests and of tokens.
    """

    __slots__ = (
        "_hold",
        "_most",
        "_pause",
        "_requests",
        "_tokens",
        "control",
        "in_flight",
        "limits",
        "line",
        "told",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits: Limits = limits
        rpm, tpm, calls = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency
        self._requests = TokenBucket.per_minute(rpm, limits.burst, now) if rpm else None
        self._tokens = TokenBucket.per_minute(tpm, None, now) if tpm else None
        self._pause = Pause()
        self._hold = 0.0
        self._most = None if isinstance(calls, Adaptive) else calls
        self.control: ConcurrencyControl | None = (
            ConcurrencyControl(calls, now) if isinstance(calls, Adaptive) else None
        )
        self.in_flight: int = 0
        self.line: Line = Line()
        self.told: tuple[float | None, float | None] = (None, None)

    @property
    def concurrency(self) -> int | None:
        """Calls that may be under way at once; `None` for no limit."""
        return self._most if self.control is None else self.control.limit

    @property
    def most_tokens(self) -> float:
        """What one call can use at most: the quota of a minute."""
        tpm = self.limits.tokens_per_minute
        return inf if tpm is None else min(tpm, self.told[1] or inf)

    def grant(self, ticket: Ticket, meant: float, now: float) -> float | None:
        """Admit it as of `meant` or soon after, if there is room.

        Who stands in line before it is not asked.

        Returns:
            `None` if it was admitted; else when to look again: infinity for when a call ends.
        """
        control = self.control
        calls = self._most if control is None else control.limit
        if calls is not None and self.in_flight >= calls:
            return inf
        at = max(meant, self._pause.until)
        if self._requests is not None:
            at = self._requests.ready_at(1.0, at)
        if self._tokens is not None:
            at = self._tokens.ready_at(ticket.tokens, at)
        if at > now:
            return at
        requests, tokens = self._requests, self._tokens
        ticket.missing = (
            0.0 if requests is None else requests.take(1.0, at),
            0.0 if tokens is None else tokens.take(ticket.tokens, at),
        )
        if self._pause.until:
            self._pause.went(at)
        self.in_flight += 1
        if control is not None:
            ticket.epoch = control.started()
        ticket.pause = self._pause.number
        ticket.granted_at = at
        return None

    # What is told of a call: each takes the ticket, a value, and the time.

    def ended(self, ticket: Ticket, is_unsent: bool, now: float) -> None:
        """It is over; if it was never sent, what it took is put back."""
        self.in_flight -= 1
        if is_unsent:
            (requests, tokens), at = ticket.missing, ticket.granted_at
            if self._requests is not None:
                self._requests.take_back(1.0, requests, at, now)
            if self._tokens is not None:
                self._tokens.take_back(ticket.tokens, tokens, at, now)
            return
        hold = max(0.0, now - ticket.granted_at)
        self._hold = hold if not self._hold else self._hold + (hold - self._hold) / HOLDS

    def settled(self, _: Ticket, tokens: int, now: float) -> None:
        """It used so many tokens less than was thought; fewer than 0: more."""
        if self._tokens is not None:
            self._tokens.give(tokens, now)

    def succeeded(self, ticket: Ticket, ms_per_token: float | None, now: float) -> None:
        """It ended well."""
        self._pause.succeeded(ticket.pause)
        if self.control is not None:
            self.control.succeeded(ticket.epoch, self.in_flight, now, ms_per_token)

    def congested(self, ticket: Ticket, _: None, now: float) -> None:
        """There was too much under way for the service."""
        if self.control is not None:
            self.control.congested(ticket.epoch, now)

    def refused(self, ticket: Ticket, retry_after: float | None, now: float) -> None:
        """The quota is spent."""
        self._pause.refused(ticket.pause, retry_after, now)

    def learnt(self, ticket: Ticket, headers: RateHeaders, now: float) -> None:
        """The limits that the service told; those that were not configured stay unlimited."""
        requests, tokens = self.told
        requests = requests if headers.limit_requests is None else headers.limit_requests
        tokens = tokens if headers.limit_tokens is None else headers.limit_tokens
        if self.told != (requests, tokens):
            self.told = requests, tokens
            limits = self.limits
            if self._requests is not None:
                most, burst = limits.requests_per_minute or inf, limits.burst
                rpm = min(most, requests or inf)
                if burst is not None and rpm < most:
                    # It was meant for more: let it be a minute's worth of less, at most.
                    burst = min(burst, max(1.0, rpm))
                self._requests.change_quota(rpm, burst, now)
            if self._tokens is not None:
                tpm = min(limits.tokens_per_minute or inf, tokens or inf)
                self._tokens.change_quota(tpm, None, now)
        if headers.is_spent:
            self._pause.spent(ticket.pause, headers.retry_after, now)

    # How things stand.

    def levels(self, now: float) -> tuple[float | None, float | None]:
        """Requests and tokens that may go at once; `None` for what is not limited."""
        return (
            None if self._requests is None else self._requests.level(now),
            None if self._tokens is None else self._tokens.level(now),
        )

    def paused_for(self, now: float) -> float:
        """Seconds until the service may be asked again."""
        return max(0.0, self._pause.until - now)

    def listens(self, now: float) -> bool:
        """Whether the success of a call makes a difference."""
        return self.control is not None or self._pause.is_probing(now)

    def is_at_rest(self, now: float) -> bool:
        """Whether a new lane would do the same, except for what was learnt."""
        is_full = all(
            bucket is None or bucket.level(now) >= bucket.capacity
            for bucket in (self._requests, self._tokens)
        )
        return is_full and not (self.in_flight or self.line) and self._pause.is_over(now)

    def wait_of(self, ticket: Ticket, now: float) -> float:
        """Seconds that one in line still has to wait, as far as can be told; 0 if it is not."""
        place = self.line.position(ticket)
        if not place:
            return 0.0
        before = self.line.tokens * (place - 1) / len(self.line)
        return self._wait(place, before, ticket.tokens, now)

    def wait_of_next(self, tokens: int, now: float, *, is_batch: bool = False) -> float:
        """Seconds that one who came now would have to wait, as far as can be told."""
        n, before = self.line.before(is_batch=is_batch)
        return self._wait(n + 1, before, tokens, now)

    def _wait(self, place: int, tokens_before: float, tokens: int, now: float) -> float:
        """Seconds until the one in this place is admitted."""
        waits = [0.0, self._pause.until - now]
        if self._requests is not None:
            waits.append((place - self._requests.level(now)) / self._requests.rate)
        if self._tokens is not None:
            needed = tokens_before + min(tokens, self._tokens.capacity)
            waits.append((needed - self._tokens.level(now)) / self._tokens.rate)
        calls = self.concurrency
        if calls is not None:
            # One after the other they end, each after as long as they take on average.
            waits.append((self.in_flight + place - calls) * self._hold / calls)
        return max(waits)
