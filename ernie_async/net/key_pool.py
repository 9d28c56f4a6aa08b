"""Several keys as one credential: each call takes one, and goes on with another if it is refused.

Which one, and for how long one has to rest, is decided in `sansio.key_pool`.
"""

from collections.abc import Mapping, Sequence
from random import Random
from time import monotonic
from typing import TYPE_CHECKING

from ernie_async.errors import (
    APIError,
    AuthError,
    ConfigError,
    ErnieError,
    NoKeyError,
    RateLimitError,
)
from ernie_async.net.guard import Guard
from ernie_async.sansio.auth import TOKEN_REFUSED, ApiKey, IamKeys, MaskedStr
from ernie_async.sansio.key_pool import KeyHealth, KeyLanes, Lane, PooledKey

if TYPE_CHECKING:
    from ernie_async.net.credentials import IamTokens

__all__ = ["KeyPool", "KeyUse", "PoolTokens"]

# Those who wait for the same key do not come back all at once.
JITTER_SECONDS = 0.5

# An error names so many keys.
MOST_NAMED = 5


_chance = Random()


class KeyPool:
    """Several keys, to be used as one: `AsyncClient(KeyPool([...]))`.

    Each call takes the key with the fewest calls under way; calls with the same `user=` take the
    same one. A key whose quota is spent rests for a while, one that is expired, deleted or in
    arrears for long, and the call that found it out goes on with another at once. Give one pool to
    several clients, and they share what they know of its keys. Never printed; a pickle of it holds
    the keys, else a worker process could not use them, and not how they are.

    Args:
        keys: API keys, pairs, or either as a `PooledKey`, which says whose quota it uses.

    Raises:
        ConfigError: There is none, one is no key, or one comes twice.
    """

    def __init__(self, keys: Sequence[str | ApiKey | IamKeys | PooledKey]) -> None:
        if isinstance(keys, str):  # a Sequence, too: of keys of one letter
            del keys
            raise ConfigError("keys: expected a list of keys, got one text")
        given = [MaskedStr(key) if isinstance(key, str) else key for key in keys]
        del keys  # a traceback that shows what names hold has nothing to show
        if not given:
            raise ConfigError("keys: expected at least one key, got none")
        self._keys = [_pooled(key, f"key {n} of the pool") for n, key in enumerate(given, start=1)]
        names = [pooled.key.account for pooled in self._keys]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            places = [str(n) for n, name in enumerate(names, start=1) if name == twice]
            raise ConfigError(f"keys: {' and '.join(places)} of the pool are the same key")
        self.lanes: KeyLanes = KeyLanes(self._keys)

    def health(self) -> list[KeyHealth]:
        """How each key is at the moment, in the order of the pool."""
        return self.lanes.health(monotonic())

    def pairs(self) -> list[IamKeys]:
        """Those that are no keys themselves."""
        return [pooled.key for pooled in self._keys if isinstance(pooled.key, IamKeys)]

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        if not hasattr(self, "_keys"):  # shown by a traceback of its own construction
            return "KeyPool(unfinished)"
        return f"KeyPool({len(self._keys)} keys)"

    def __reduce__(self) -> tuple[type["KeyPool"], tuple[list[PooledKey]]]:
        return KeyPool, (self._keys,)

    def __deepcopy__(self, memo: object) -> "KeyPool":
        return self


def _pooled(key: object, where: str) -> PooledKey:
    if isinstance(key, PooledKey):
        return key
    if isinstance(key, str):
        return PooledKey(ApiKey(key, source=where))
    if isinstance(key, ApiKey | IamKeys):
        return PooledKey(key)
    raise ConfigError(f"{where}: expected a key, got {type(key).__name__}")


class PoolTokens:
    """A pool as one client uses it: with the tokens that its pairs of keys became."""

    def __init__(self, pool: KeyPool, tokens: "Mapping[IamKeys, IamTokens]") -> None:
        self.lanes: KeyLanes = pool.lanes
        self.tokens = tokens
        self._pool = pool

    def no_key(self, model: str | None) -> NoKeyError:
        """The error for a call that would have to wait for too long."""
        now = monotonic()
        seconds = self.lanes.ready_in(model, now)
        told = [f"{key.label}: {key.reason}" for key in self.lanes.health(now) if key.reason]
        more = f", and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
        return NoKeyError(
            f"not sent: no key of the pool can be used for another {seconds:.1f} s; "
            f"{', '.join(told[:MOST_NAMED])}{more}",
            retry_after=seconds,
        )

    async def aclose(self) -> None:
        """Close the running loop's connections to the IAM service."""
        for tokens in self.tokens.values():
            await tokens.aclose()

    def __repr__(self) -> str:
        return repr(self._pool)


class KeyUse:
    """The keys that one call uses, one after the other.

    Args:
        pool: Where they come from.
        guard: Of the call; waits for a key if there is none.
        model: The call's.
        user: For whom it is, if that was said.
    """

    __slots__ = (
        "_guard",
        "_hops",
        "_is_faulty",
        "_lane",
        "_model",
        "_pool",
        "_renewed",
        "_token",
        "_user",
    )

    def __init__(self, pool: PoolTokens, guard: Guard, model: str | None, user: str | None) -> None:
        self._pool = pool
        self._guard = guard
        self._model = model
        self._user = user
        self._lane: Lane | None = None
        self._hops = 0  # since the retry policy was asked
        self._is_faulty = False  # no token could be had
        self._token: MaskedStr | None = None
        self._renewed: set[Lane] = set()

    @property
    def has_key(self) -> bool:
        """Whether a key was taken, and not left yet."""
        return self._lane is not None

    async def take(self) -> float:
        """Take a key for one request, waiting for one if need be; return the seconds that took.

        Raises:
            NoKeyError: There is none for longer than this call may wait.
        """
        self.leave()
        lanes, waited = self._pool.lanes, 0.0
        while (lane := lanes.choose(self._model, self._user, monotonic())) is None:
            seconds = lanes.ready_in(self._model, monotonic())
            seconds += _chance.uniform(0.001, JITTER_SECONDS)
            await self._guard.hold(seconds, self._no_key, is_quota=True)
            waited += seconds
        lane.held.append(None)
        self._lane = lane
        return waited

    def _no_key(self) -> NoKeyError:
        return self._pool.no_key(self._model)

    @property
    def account(self) -> str:
        """Whose quota the key uses."""
        return "" if self._lane is None else self._lane.account

    @property
    def is_ready(self) -> bool:
        """Whether the key may still be used: others may have found out that it may not."""
        lane = self._lane
        return lane is not None and self._pool.lanes.is_ready(lane, self._model, monotonic())

    async def header(self, *, connect: float | None) -> MaskedStr:
        """The value of the `Authorization` header.

        Raises:
            ErnieError: There is no token for a pair of keys.
        """
        lane = self._lane
        assert lane is not None
        self._token = None
        if isinstance(lane.key, ApiKey):
            return lane.key.header()
        try:
            self._token = await self._pool.tokens[lane.key].header(connect=connect)
        except ErnieError as error:
            self._is_faulty = True
            if isinstance(error, AuthError):
                self._pool.lanes.quarantine(lane, error.code or "no token", monotonic())
            else:
                self._pool.lanes.cool(lane, "no token", monotonic())
            raise
        return self._token

    def refused(self, error: ErnieError) -> bool:
        """Whether the call may go on at once, with another key or another token."""
        lane, lanes = self._lane, self._pool.lanes
        if lane is None:
            return False
        self.leave()
        is_its_fault, self._is_faulty = self._is_faulty, False
        if not is_its_fault and isinstance(error, APIError):
            if error.code == TOKEN_REFUSED and self._renews(lane):
                return True
            is_its_fault = lanes.refused(lane, self._model, error, monotonic())
        if is_its_fault and self._may_go_on(error):
            return True
        self._hops = 0
        return False

    def _may_go_on(self, error: ErnieError) -> bool:
        """Whether there is another key now, or soon after an error that would be final."""
        lanes = self._pool.lanes
        self._hops += 1
        seconds = lanes.ready_in(self._model, monotonic())
        if not seconds:
            return self._hops < len(lanes.lanes)
        # How to wait for a quota is for the policy to say.
        is_quota = isinstance(error, RateLimitError)
        return not is_quota and self._guard.may_hold(seconds, is_quota=True)

    def _renews(self, lane: Lane) -> bool:
        """Whether a short-lived token was refused, and this call may ask for another one."""
        if self._token is None or lane in self._renewed or isinstance(lane.key, ApiKey):
            return False
        self._pool.tokens[lane.key].forget(self._token)
        self._renewed.add(lane)
        return True

    def answered(self) -> None:
        """The request was answered, or its answer began."""
        if self._lane is not None:
            self._pool.lanes.answered(self._lane, self._model, monotonic())

    def leave(self) -> None:
        """The request is over. May be called twice."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.held.pop()
