"""Several keys as one credential.

Which one a call takes, and for how long one has to rest, is decided in `sansio.key_pool`.
"""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from ernie_async.errors import (
    ConfigError,
    NoKeyError,
)
from ernie_async.sansio.auth import ApiKey, IamKeys, MaskedStr
from ernie_async.sansio.key_pool import KeyHealth, KeyLanes, PooledKey

if TYPE_CHECKING:
    from ernie_async.net.credentials import IamTokens

__all__ = ["KeyPool", "PoolTokens"]

# An error names so many keys.
MOST_NAMED = 5


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
