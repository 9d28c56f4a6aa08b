"""When to stop asking a server that fails, and how to find out that it is back.

Knows outcomes and `now`; waits for nothing and sends nothing. What is done with the answer is in
`net.guard`.
"""

from dataclasses import dataclass
from typing import Literal

from ernie_async.errors import (
    ConfigError,
    ConnectError,
    DeadlineError,
    ErnieError,
    InterruptedStreamError,
    ServerError,
)
from ernie_async.sansio.recent import Recent
from ernie_async.sansio.retry import Chance

__all__ = ["Breaker", "BreakerPolicy", "Circuit", "CircuitState", "is_outage"]

CircuitState = Literal["closed", "open", "half-open"]

# Far more than a program names models. A gateway that passes on the names of strangers stays small.
MAX_CIRCUITS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When the requests to one model of one server are stopped, and for how long.

    Requests fail in the sense of this policy if the server does not answer, breaks off, or says
    that it is overloaded or broken; not if it refuses a quota, a key or a request.

    Attributes:
        failures: Within `window`, at least 1; fewer never open the circuit.
        share: Of the latest requests, twice `failures` of them at most; if fewer of them failed,
            the circuit stays closed. Up to 1.
        window: Seconds.
        open_for: Seconds until the first probe. After each probe that fails it is twice as long.
        max_open: Seconds; the longest time between two probes.
        successes: Probes that have to succeed, one after the other, before all may go again.
    """

    failures: int = 20
    share: float = 0.75
    window: float = 10.0
    open_for: float = 1.0
    max_open: float = 10.0
    successes: int = 2

    def __post_init__(self) -> None:
        for name in ("failures", "successes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: expected a whole number, at least 1, got {value!r}")
        for name in ("share", "window", "open_for", "max_open"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name}: expected a number above 0, got {value!r}")
        if self.share > 1:
            raise ConfigError(f"share: expected at most 1, got {self.share}")


def is_outage(error: ErnieError) -> bool:
    """Whether an error says that the server is not well, and not that it refused this request."""
    if isinstance(error, DeadlineError):
        return error.clock in {"connect", "first_event", "idle"}  # that measure the server
    return isinstance(error, ServerError | ConnectError | InterruptedStreamError)


class Circuit:
    """What is known of one model of one server.

    Closed, everything may go. Open, nothing. Then it is half-open: one request at a time goes as a
    probe; a probe that takes long makes room for the next one after as long as the circuit was
    open. May be asked by several threads: what they can spoil is a count, or one probe more.

    Attributes:
        state: `closed`, `open` or `half-open`.
        epoch: Counts the changes. What ends in another epoch than it began in tells nothing.
        last_failure: In short.
    """

    __slots__ = (
        "_interval",
        "_latest",
        "_mask",
        "_n_good",
        "_n_latest",
        "_n_opened",
        "_policy",
        "_recent",
        "_until",
        "epoch",
        "last_failure",
        "state",
    )

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self._policy = policy
        self._recent = Recent(policy.window, now)  # failures
        # How the latest requests ended, one bit for each. Not those of a time: at a high rate, the
        # good answers before an outage would hide it for seconds.
        self._mask = (1 << 2 * policy.failures) - 1
        self._latest = 0
        self._n_latest = 0
        self._until = now  # nothing, or no other probe, before that
        self._interval = 0.0
        self._n_opened = 0  # in a row
        self._n_good = 0
        self.state: CircuitState = "closed"
        self.epoch: int = 0
        self.last_failure: str = ""

    def opens_in(self, now: float) -> float:
        """Seconds until a request may go; 0.0 if one may go now."""
        return 0.0 if self.state == "closed" else max(0.0, self._until - now)

    def wait(self, now: float, chance: Chance) -> float:
        """Seconds until it is worth to ask again; 0.0 if a request may go now.

        A random part of it keeps those who wait from coming back all at once.
        """
        seconds = self.opens_in(now)
        if not seconds:
            return 0.0
        if self.state == "half-open":  # things may change soon
            return min(seconds, self._policy.open_for) * chance.uniform(0.5, 1.0)
        return seconds + chance.uniform(0.0, self._policy.open_for)

    def enter(self, now: float) -> bool:
        """Whether a request may go right now. It must be told how it ended."""
        if self.state == "closed":
            return True
        if now < self._until:
            return False
        if self.state == "open":
            self.state = "half-open"
            self._n_good = 0
        self._until = now + self._interval
        return True

    def succeeded(self, epoch: int, now: float) -> None:
        """A request that began in `epoch` was answered, be it with a refusal."""
        if epoch != self.epoch:
            return
        if self.state == "closed":
            if self._latest or self._n_latest < 2 * self._policy.failures:
                self._note(is_failure=False)  # else it changes nothing
            return
        self._until = now
        self._n_good += 1
        if self._n_good >= self._policy.successes:
            self.state = "closed"
            self.epoch += 1
            self._n_opened = 0
            self._recent.clear(now)
            self._latest = self._n_latest = 0

    def failed(self, epoch: int, now: float, chance: Chance, why: str) -> None:
        """A request that began in `epoch` failed; see `is_outage`."""
        if epoch != self.epoch:
            return
        self.last_failure = why
        if self.state == "closed":
            self._recent.add(now, 1, 0)
            self._note(is_failure=True)
            is_little = self._recent.sums(now)[0] < self._policy.failures
            if is_little or self._latest.bit_count() < self._policy.share * self._n_latest:
                return
        # The exponent is bounded because 2.0**1024 is an error.
        longest = self._policy.open_for * 2.0 ** min(self._n_opened, 64)
        self._interval = min(self._policy.max_open, longest) * chance.uniform(0.75, 1.0)
        self._until = now + self._interval
        self._n_opened += 1
        self.state = "open"
        self.epoch += 1

    def _note(self, *, is_failure: bool) -> None:
        self._latest = (self._latest << 1 | is_failure) & self._mask
        self._n_latest = min(self._n_latest + 1, 2 * self._policy.failures)

    def let_go(self, epoch: int, now: float) -> None:
        """A request that began in `epoch` was left before its end, which tells nothing."""
        if epoch == self.epoch and self.state == "half-open":
            self._until = now


class Breaker:
    """The circuits of a client, one for each base URL and model.

    Give one to several clients, and what one of them finds out holds for all. A copy that is
    pickled begins anew.
    """

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self.policy: BreakerPolicy = policy or BreakerPolicy()
        self._circuits: dict[tuple[str, str | None], Circuit] = {}

    def circuit(self, base_url: str, model: str | None, now: float) -> Circuit:
        """That of one model; `None` as model for requests that have none."""
        circuit = self._circuits.get((base_url, model))
        if circuit is None:
            if len(self._circuits) >= MAX_CIRCUITS:
                self._circuits.clear()  # at worst an outage is found out once more
            circuit = self._circuits[base_url, model] = Circuit(self.policy, now)
        return circuit

    def states(self) -> dict[tuple[str, str | None], CircuitState]:
        """The state of every circuit, by base URL and model."""
        return {where: circuit.state for where, circuit in list(self._circuits.items())}

    def __reduce__(self) -> tuple[type["Breaker"], tuple[BreakerPolicy]]:
        return Breaker, (self.policy,)

    def __deepcopy__(self, memo: object) -> "Breaker":
        return self
