"""The keys of a pool that one call uses: it goes on with another if one is refused."""

from random import Random
from time import monotonic

from ernie_async.errors import APIError, AuthError, ErnieError, NoKeyError, RateLimitError
from ernie_async.net.guard import Guard
from ernie_async.net.key_pool import PoolTokens
from ernie_async.sansio.auth import TOKEN_REFUSED, ApiKey, MaskedStr
from ernie_async.sansio.key_pool import KeyLane

__all__ = ["KeyUse"]

# Those who wait for the same key do not come back all at once.
JITTER_SECONDS = 0.5

_chance = Random()


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
        self._lane: KeyLane | None = None
        self._hops = 0  # since the retry policy was asked
        self._is_faulty = False  # no token could be had
        self._token: MaskedStr | None = None
        self._renewed: set[KeyLane] = set()

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

    def _renews(self, lane: KeyLane) -> bool:
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
