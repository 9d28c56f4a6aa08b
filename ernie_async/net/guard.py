"""What keeps one call from making an outage worse: its circuit, and its client's retry budget.

When a circuit opens and what a budget allows is decided in `sansio`. Here a call waits, is told
that it may not, and what becomes of it is told to both.
"""

import asyncio
from collections.abc import Callable
from random import Random
from time import monotonic

from ernie_async.errors import CircuitOpenError, ErnieError, RateLimitError
from ernie_async.net.desk import Desk
from ernie_async.net.hooks import CircuitChanged, RetryWithheld, brief, tell
from ernie_async.sansio.breaker import Circuit, is_outage

__all__ = ["Guard"]

_chance = Random()


class Guard:
    """Goes with one call, from its first request to its last.

    Args:
        desk: Who makes it: the retry budget, if there is one, the policy that says how long it may
            wait where it cannot be sent, and the hooks that are told.
        call: Its number.
        model: Its model, if any.
        started: When it began, on the clock of `time.monotonic`.
        ends_at: When it has to be over; `None` if it has no such moment.

    Attributes:
        circuit: That of its model; `None` if there is no breaker.
    """

    circuit: Circuit | None = None
    _epoch = 0  # of the circuit when the latest request went
    _entered_at: float | None = None  # when that was; `None` if it is over
    _has_taken = False  # a retry out of the budget, for the request under way
    _waited = 0.0

    def __init__(
        self, desk: Desk, call: int, model: str | None, started: float, ends_at: float | None
    ) -> None:
        self._desk = desk
        self._call = call
        self._model = model
        self._started = started
        self._ends_at = ends_at
        if desk.retry_budget is not None:
            desk.retry_budget.note_call(started)

    @property
    def is_closed(self) -> bool:
        """Whether there is nothing to wait for: asked first, since it costs less than to wait."""
        circuit = self.circuit
        return circuit is None or circuit.state == "closed"

    async def wait(self) -> float:
        """Wait until the circuit lets requests through; return the seconds that took.

        Raises:
            CircuitOpenError: That is later than this call may wait.
        """
        circuit, before = self.circuit, self._waited
        while circuit is not None and (seconds := circuit.wait(monotonic(), _chance)):
            await self.hold(seconds, self._open_error, is_quota=False)
        return self._waited - before

    def may_hold(self, seconds: float, *, is_quota: bool) -> bool:
        """Whether the policy has the patience to wait before a request, and the deadlines the time.

        Args:
            seconds: How long.
            is_quota: Whether it is a quota that it would wait for.
        """
        # Imported here for the same reason as in `call`: most programs never need it.
        from ernie_async.net.retrying import seconds_left

        policy = self._desk.retry
        over = monotonic() + seconds - self._started
        return (
            self._waited + seconds <= policy.patience(is_quota=is_quota)
            and (policy.time_budget is None or over <= policy.time_budget)
            and seconds < seconds_left(self._ends_at)
        )

    async def hold(
        self, seconds: float, error: Callable[[], ErnieError], *, is_quota: bool
    ) -> None:
        """Wait before a request, or raise an error that is made if it may not wait."""
        if not self.may_hold(seconds, is_quota=is_quota):
            raise error()
        self._waited += seconds
        await asyncio.sleep(seconds)

    def enter(self) -> bool:
        """Whether a request may go now; if so, it has to be told what became of it."""
        circuit = self.circuit
        if circuit is None:
            return True
        now = monotonic()
        if circuit.state != "closed":
            before = circuit.state
            if not circuit.enter(now):
                return False
            if circuit.state != before:
                self._tell(circuit)
        self._epoch = circuit.epoch
        self._entered_at = now
        return True

    def succeeded(self, *, is_stream: bool) -> None:
        """The request was answered, or its answer began."""
        if self._has_taken:
            self._has_taken = False
            if self._desk.retry_budget is not None:
                self._desk.retry_budget.give_back(monotonic())
        circuit = self.circuit
        # Streams that have only begun say little: they may all be cut at the same moment. As a
        # probe, to begin is enough.
        if circuit is not None and (not is_stream or circuit.state != "closed"):
            self.over()

    def failed(self, error: ErnieError, *, was_sent: bool) -> None:
        """The request failed, or did not even go."""
        self._has_taken = False
        if not was_sent:
            self._let_go()
        elif is_outage(error):
            self._blame(brief(error))
        else:
            self.over()

    def left(self, *, was_sent: bool) -> None:
        """The request was cancelled, be it because the call took too long."""
        ends_at, entered_at, now = self._ends_at, self._entered_at, monotonic()
        # A call that spent most of its time in line has no reason to complain.
        is_late = (
            ends_at is not None
            and entered_at is not None
            and now >= max(ends_at, 2 * entered_at - self._started)
        )
        if was_sent and is_late:
            self._blame("no answer in time (Timeouts.total)")
        else:
            self._let_go()

    def broke(self, error: ErnieError) -> None:
        """A stream broke after it had been answered."""
        if is_outage(error) and self.circuit is not None:
            self._entered_at = self._started
            self._blame(brief(error))

    def may_repeat(self, error: ErnieError, attempt: int) -> bool:
        """Whether the budget allows a retry. If not, the error says so."""
        budget, circuit = self._desk.retry_budget, self.circuit
        # A quota is not an outage, and it has its own pace. An open circuit has one, too: nothing
        # goes before the server was found well, so what goes then multiplies nothing.
        if budget is None or isinstance(error, RateLimitError):
            return True
        if circuit is not None and circuit.state != "closed":
            return True
        self._has_taken = budget.take(monotonic())
        if not self._has_taken:
            tell(self._desk.hooks, RetryWithheld(self._call, attempt, brief(error)))
            said = f"{error.message}; not tried again, since the retry budget is spent"
            error.args = (said, *error.args[1:])
        return self._has_taken

    def over(self) -> None:
        """The server did its part, be it that it refused. Told twice, it counts once."""
        circuit = self.circuit
        if circuit is not None and self._entered_at is not None:
            self._entered_at = None
            before = circuit.state
            circuit.succeeded(self._epoch, monotonic())
            if circuit.state != before:
                self._tell(circuit)

    def _blame(self, why: str) -> None:
        circuit = self.circuit
        if circuit is not None and self._entered_at is not None:
            self._entered_at = None
            before = circuit.epoch
            circuit.failed(self._epoch, monotonic(), _chance, why)
            if circuit.epoch != before:
                self._tell(circuit)

    def _let_go(self) -> None:
        if self.circuit is not None and self._entered_at is not None:
            self._entered_at = None
            self.circuit.let_go(self._epoch, monotonic())

    def _tell(self, circuit: Circuit) -> None:
        record = CircuitChanged(self._call, self._model, circuit.state, circuit.last_failure)
        tell(self._desk.hooks, record)

    def _open_error(self) -> CircuitOpenError:
        circuit = self.circuit
        assert circuit is not None
        seconds = circuit.opens_in(monotonic())
        return CircuitOpenError(
            f"not sent: too many requests to {self._model or 'this server'} failed; it is asked "
            f"again in {seconds:.1f} s; the last failure: {circuit.last_failure}",
            retry_after=seconds,
        )
