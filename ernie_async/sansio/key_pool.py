"""Which key of several to use next, and for how long not to use one that was refused.

Knows keys by their names, refusals, and `now`; sends nothing and waits for nothing.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

from ernie_async.errors import APIError, AuthError, ConfigError, QuotaError, RateLimitError
from ernie_async.sansio.auth import ApiKey, IamKeys, MaskedStr
from ernie_async.sansio.refusals import CODES

__all__ = ["KeyHealth", "KeyLane", "KeyLanes", "PooledKey", "blame"]

# A quota is refilled within 0 to 60 s.
COOL_SECONDS = (5.0, 60.0)

# A key that was deleted, or an account in arrears, stays so for long; but somebody may mend it, and
# to find that out costs one request that is refused.
QUARANTINE_SECONDS = (600.0, 3600.0)

# `AuthError`s that blame a field of the request: another key would be refused as well.
OF_THE_REQUEST = {"invalid_appid", "no_parameter_permission"}

Blame = Literal["key", "account", "quota"]


class PooledKey:
    """One key of a `KeyPool`, and whose quota it uses.

    Args:
        key: An API key or a pair.
        account: The same for all keys of one account, which share its quotas; no secret. `None` if
            the key has an account of its own.
    """

    __slots__ = ("account", "key")

    def __init__(
        self,
        key: str | ApiKey | IamKeys,
        *,
        account: str | None = None,
    ) -> None:
        given = MaskedStr(key) if isinstance(key, str) else key
        del key  # a traceback that shows what names hold has nothing to show
        if not isinstance(given, str | ApiKey | IamKeys):
            kind = type(given).__name__
            raise ConfigError(f"key: expected a str, an ApiKey or IamKeys, got {kind}")
        self.key: ApiKey | IamKeys = ApiKey(given) if isinstance(given, str) else given
        self.account: str = account or self.key.account

    def __repr__(self) -> str:
        if not hasattr(self, "account"):  # shown by a traceback of its own construction
            return "PooledKey(unfinished)"
        return f"PooledKey({self.key!r}, account={self.account!r})"


class KeyHealth(NamedTuple):
    """How one key of a pool is.

    Attributes:
        label: Its place in the pool and a short hash of it; no secret.
        account: Whose quota it uses, as the limiter knows it.
        state: `ready`; `cooling` after a refusal for want of quota, for one model at least; or
            `quarantined` after a refusal that will not heal soon.
        in_flight: Calls that use it.
        retry_after: Seconds until it is used again; 0 if it is ready.
        reason: What it was refused with, in a word; empty if it is ready.
    """

    label: str
    account: str
    state: Literal["ready", "cooling", "quarantined"]
    in_flight: int
    retry_after: float
    reason: str


class _Rest:
    """A time of not being used, longer each time."""

    __slots__ = ("_n", "reason", "until")

    def __init__(self) -> None:
        self._n = 0
        self.until: float = 0.0
        self.reason: str = ""

    def begin(
        self, now: float, bounds: tuple[float, float], asked: float | None, reason: str
    ) -> None:
        if asked is not None:
            self.until = max(self.until, now + asked)
        elif now >= self.until:  # else many calls were refused at once, which is one refusal
            first, longest = bounds
            self.until = now + min(longest, first * 2.0 ** min(self._n, 16))
            self._n += 1
        self.reason = reason


class KeyLane:
    """One key, and how it is.

    Attributes:
        name: A hash of the key, the same in every process.
        held: One item for each call that uses it. To add and to take one is safe at any moment,
            also where the garbage collector does it.
        used: Counts up over all lanes; the larger, the later it was chosen.
    """

    __slots__ = ("account", "held", "key", "label", "name", "rest", "used")

    def __init__(self, number: int, pooled: PooledKey) -> None:
        self.key: ApiKey | IamKeys = pooled.key
        self.account: str = pooled.account
        self.name: str = pooled.key.account
        self.label: str = f"key {number} ({self.name[:8]})"
        self.held: list[None] = []
        self.rest: _Rest | None = None  # in quarantine, or out of it and not proven yet
        self.used: int = 0

    def __repr__(self) -> str:
        return f"KeyLane({self.label!r})"


class KeyLanes:
    """All keys of a pool. May be shared by clients, loops and threads."""

    def __init__(self, keys: Sequence[PooledKey]) -> None:
        self.lanes: tuple[KeyLane, ...] = tuple(
            KeyLane(number, key) for number, key in enumerate(keys, start=1)
        )
        # Of an account and a model, as quotas are.
        self._cooling: dict[tuple[str, str | None], _Rest] = {}
        self._n_chosen = 0

    def choose(self, model: str | None, user: str | None, now: float) -> KeyLane | None:
        """The key for a call; `None` if there is none at the moment.

        That with the fewest calls under way; of equals, the one that was not used for longest. For
        a `user` it is the same key each time, as long as that is ready, in every process.
        """
        ready = [lane for lane in self.lanes if self._ready_at(lane, model) <= now]
        # One that was refused is tried by one call, while there are others.
        sure = [lane for lane in ready if not (lane.held and self._is_on_trial(lane, model))]
        ready = sure or ready
        if not ready:
            return None
        if user is None:
            lane = min(ready, key=lambda lane: (len(lane.held), lane.used))
        else:
            lane = max(ready, key=lambda lane: _score(user, lane.name))
        self._n_chosen += 1
        lane.used = self._n_chosen
        return lane

    def is_ready(self, lane: KeyLane, model: str | None, now: float) -> bool:
        """Whether it may be used now."""
        return self._ready_at(lane, model) <= now

    def ready_in(self, model: str | None, now: float) -> float:
        """Seconds until the first of the keys may be used."""
        return max(0.0, min(self._ready_at(lane, model) for lane in self.lanes) - now)

    def refused(self, lane: KeyLane, model: str | None, error: APIError, now: float) -> bool:
        """A call was refused. Say whether that was for its key, which then has to rest."""
        why = blame(error)
        reason = error.code or f"status {error.status}"
        if why == "quota":
            rest = self._cooling.setdefault((lane.account, model), _Rest())
            rest.begin(now, COOL_SECONDS, error.retry_after, reason)
        elif why is not None:
            self.quarantine(lane, reason, now, is_account=why == "account")
        return why is not None

    def quarantine(
        self, lane: KeyLane, reason: str, now: float, *, is_account: bool = False
    ) -> None:
        """Do not use a key for long, or all keys of its account."""
        for other in self.lanes if is_account else (lane,):
            if other.account == lane.account:
                other.rest = other.rest or _Rest()
                other.rest.begin(now, QUARANTINE_SECONDS, None, reason)

    def cool(self, lane: KeyLane, reason: str, now: float) -> None:
        """Do not use a key for a while, for no fault of its own."""
        lane.rest = lane.rest or _Rest()
        lane.rest.begin(now, COOL_SECONDS, None, reason)

    def answered(self, lane: KeyLane, model: str | None, now: float) -> None:
        """A call with this key was answered."""
        if lane.rest is not None and now >= lane.rest.until:
            lane.rest = None
        rest = self._cooling.get((lane.account, model))
        if rest is not None and now >= rest.until:
            self._cooling.pop((lane.account, model), None)

    def health(self, now: float) -> list[KeyHealth]:
        """How each key is, in the order of the pool."""
        return [self._health_of(lane, now) for lane in self.lanes]

    def _health_of(self, lane: KeyLane, now: float) -> KeyHealth:
        state: Literal["ready", "cooling", "quarantined"] = "ready"
        rests = [
            rest for (account, _), rest in list(self._cooling.items()) if account == lane.account
        ]
        rest = max(rests, key=lambda rest: rest.until, default=None)
        if rest is not None and rest.until > now:
            state = "cooling"
        if lane.rest is not None and lane.rest.until > now:
            state, rest = "quarantined", lane.rest
        if state == "ready" or rest is None:
            return KeyHealth(lane.label, lane.account, "ready", len(lane.held), 0.0, "")
        return KeyHealth(
            lane.label, lane.account, state, len(lane.held), rest.until - now, rest.reason
        )

    def _ready_at(self, lane: KeyLane, model: str | None) -> float:
        rest = self._cooling.get((lane.account, model))
        cool = rest.until if rest is not None else 0.0
        return cool if lane.rest is None else max(cool, lane.rest.until)

    def _is_on_trial(self, lane: KeyLane, model: str | None) -> bool:
        return lane.rest is not None or (lane.account, model) in self._cooling


def blame(error: APIError) -> Blame | None:
    """What of a key a refusal is about; `None` if another key would be refused as well.

    The code decides, since 401 also means "no such model". Without any code, 401 is the key's.
    """
    if isinstance(error, RateLimitError):
        return "quota"
    if isinstance(error, QuotaError):
        return "account"
    if not isinstance(error, AuthError):
        return None
    code = (error.code or "").lower()
    if code in {"", str(error.status)}:
        return "key" if error.status == 401 else None
    return "key" if code in CODES and code not in OF_THE_REQUEST else None


def _score(user: str, name: str) -> bytes:
    """Of all keys, a user's is the one with the highest score: if another goes, nothing changes."""
    return blake2b(f"{name} {user}".encode("utf-8", "replace"), digest_size=8).digest()
