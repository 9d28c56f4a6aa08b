"""Wait for room: requests per minute, tokens per minute and calls at once, in this process.

The service counts for each account and model, and so does the limiter: each pair has a lane of its
own, made when it is first asked for. One limiter may serve several clients, event loops and
threads. How a lane admits is in `sansio.lane`, how one waits for it in `net.gate`.
"""

import threading
from time import monotonic
from weakref import WeakValueDictionary

from ernie_async.net.admission import LimiterSnapshot, Priority, is_batch
from ernie_async.net.gate import Gate, Permit
from ernie_async.sansio.bucket import Limits

__all__ = ["Limiter", "Permit"]

# Lanes that do not differ from new ones are forgotten when there are more than this. A gateway may
# be asked for any model, also for those that do not exist.
MANY_LANES = 256


class Limiter:
    """A token bucket in front of every request. See `Limits` for what is limited.

    A request whose tokens exceed what the bucket can hold is let through when the bucket is full,
    and leaves a debt; it never waits for ever. One that exceeds the quota of a whole minute is
    refused at once.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._gates: dict[tuple[str, str | None], Gate] = {}
        self._lock = threading.Lock()
        self._many = MANY_LANES
        # A permit may still be on its way to a lane that was forgotten.
        self._forgotten: WeakValueDictionary[tuple[str, str | None], Gate] = WeakValueDictionary()

    def __reduce__(self) -> tuple[type["Limiter"], tuple[Limits]]:
        # Another process starts with a full bucket of its own.
        return Limiter, (self.limits,)

    def __deepcopy__(self, memo: object) -> "Limiter":
        return self

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating the tokens of a call."""
        return self.limits.tokens_per_minute is not None

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and are not over."""
        return self.snapshot().in_flight

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return self.snapshot().waiting

    def admit(
        self,
        tokens: int = 0,
        *,
        model: str | None = None,
        account: str = "",
        priority: Priority = "interactive",
        max_wait: float | None = None,
    ) -> Permit:
        """Ask for room for one call.

        Args:
            tokens: An estimate of what the call will use, prompt and answer together.
            model: Whose quota it uses; `None` for a call that names no model.
            account: Whose quota it uses; no secret.
            priority: `"batch"` lets those that are `"interactive"` go before it; after eight of
                them it has a turn.
            max_wait: Seconds in line after which it is not worth it any more; `None` for no end.

        Returns:
            A permit, to be awaited or entered. A wait that is cancelled takes nothing.

        Raises:
            ConfigError: When it is awaited: the call would use more tokens than a minute's quota.
            DeadlineError: When it is awaited: the wait was, or would be, longer than `max_wait`.
        """
        pair = account, model
        gate = self._gates.get(pair) or self._open(pair)
        return Permit(gate, tokens, is_batch=is_batch(priority), max_wait=max_wait)

    def snapshot(self, model: str | None = None, account: str = "") -> LimiterSnapshot:
        """How things stand.

        Args:
            model: Only what concerns this one; `None` for all.
            account: Only what concerns this one; empty for all.
        """
        gates = [
            gate
            for (of_account, of_model), gate in list(self._gates.items())
            if model in (None, of_model) and account in ("", of_account)
        ]
        return LimiterSnapshot.of_all(
            [gate.look(LimiterSnapshot.of_lane) for gate in gates or [Gate(self.limits)]]
        )

    def _open(self, pair: tuple[str, str | None]) -> Gate:
        with self._lock:
            if len(self._gates) >= self._many:
                now = monotonic()
                for key, gate in list(self._gates.items()):
                    if gate.lane.is_at_rest(now):
                        self._forgotten[key] = self._gates.pop(key)
                self._many = max(MANY_LANES, 2 * len(self._gates))
            known = self._gates.get(pair) or self._forgotten.pop(pair, None)
            return self._gates.setdefault(pair, known or Gate(self.limits))
