"""A limiter that several processes share, through Redis (5 or newer) or Valkey.

Needs the package redis (`pip install 'ernie-async[redis]'`). What the server does is in
`redis.lua`, what a process knows of it in `sansio.shared_lane`, and who talks to it when in
`net.courier`. Here is what is Redis' own: connections, keys, microseconds.
"""

import asyncio
import hashlib
import logging
import math
import random
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

try:
    from redis import RedisError
    from redis.asyncio import Redis
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError
except ImportError as error:
    raise ImportError(
        "ernie_async.redis needs redis: pip install 'ernie-async[redis]'", name="redis"
    ) from error

from ernie_async.errors import ConfigError, DeadlineError, LimiterError
from ernie_async.net.courier import Courier, Turn
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.sansio.bucket import Limits, default_burst
from ernie_async.sansio.shared_lane import Answer, Ask, Note, SharedLane

__all__ = ["RedisLimiter", "SharedPermit"]

logger = logging.getLogger("ernie_async")

SCRIPT = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

# A process that dies holds its calls for so long. It says that it is alive three times as often,
# so one answer may be lost, and one be late.
LEASE = 15.0
BEATS = 3

# A local Redis answers within a millisecond. One that takes this long is as good as down.
TIMEOUT = 1.0

# After a failure, Redis is tried again after 0.5 to 1 s: not by all processes in one moment.
TRY_AGAIN = (0.5, 1.0)

# A fleet of ten processes keeps its limit while Redis is down.
SHARE = 0.1

# After a refusal that does not say how long to wait, one call tries after so many seconds.
PROBE_EVERY = 5.0

# Seconds; the script has no infinity.
LONGEST_PATIENCE = 1e6

MICROSECONDS = 1_000_000


class RedisLimiter:
    """Limits that hold for all processes that use the same name in the same Redis.

    It opens a connection at its first use, for each event loop that uses it. Close it with `aclose`
    or use it in `async with`; a loop that ends closes what is left. It can be pickled and copied;
    the pickle holds the URL, with its password.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as the package redis reads it.
        limits: Of all processes together, and the same in all of them.
        name: Processes that say the same share the limits.
        when_down: What to do while Redis cannot be reached: `"local"` for a limiter of this
            process alone, with `share` of the limits; `"refuse"` for a `LimiterError`.
        share: The part of the limits this process takes while Redis is down, above 0, at most 1.
        lease: Seconds after which calls of a process that died count no more.
        timeout: Seconds Redis has to answer.

    Raises:
        ConfigError: An argument cannot be right.
    """

    def __init__(
        self,
        url: str,
        limits: Limits,
        *,
        name: str = "ernie",
        when_down: Literal["local", "refuse"] = "local",
        share: float = SHARE,
        lease: float = LEASE,
        timeout: float = TIMEOUT,
    ) -> None:
        _check_url(url)
        if when_down not in ("local", "refuse"):
            raise ConfigError(f"when_down: expected 'local' or 'refuse', got {when_down!r}")
        if not 0 < share <= 1:
            raise ConfigError(f"share: expected a number above 0, at most 1, got {share}")
        for what, seconds in (("lease", lease), ("timeout", timeout)):
            if not 0 < seconds < float("inf"):
                raise ConfigError(f"{what}: expected seconds above 0, got {seconds}")
        if timeout * BEATS > lease:
            raise ConfigError(
                f"lease: expected at least {BEATS} times the timeout of {timeout:g} s, got {lease}"
            )
        self.limits = limits
        self._url = url
        self._name = name
        self._when_down = when_down
        self._share = share
        self._lease = lease
        self._timeout = timeout
        self._local = Limiter(_part(limits, share))
        self._members: dict[asyncio.AbstractEventLoop, _Member] = {}

    def __reduce__(self) -> tuple[object, ...]:
        settings = {
            "name": self._name,
            "when_down": self._when_down,
            "share": self._share,
            "lease": self._lease,
            "timeout": self._timeout,
        }
        return _make, (self._url, self.limits, settings)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"RedisLimiter({_host(self._url)!r}, {self.limits!r}, name={self._name!r})"

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating the tokens of a call."""
        return self.limits.tokens_per_minute is not None

    @property
    def in_flight(self) -> int:
        """Calls of this process that were admitted and are not over."""
        return sum(c.lane.held for m in list(self._members.values()) for c in m.couriers())

    @property
    def waiting(self) -> int:
        """Calls of this process in line."""
        shared = sum(c.lane.waiting for m in list(self._members.values()) for c in m.couriers())
        return shared + self._local.waiting

    def admit(
        self,
        tokens: int = 0,
        *,
        model: str | None = None,
        account: str = "",
        priority: Literal["interactive", "batch"] = "interactive",
        max_wait: float | None = None,
    ) -> "SharedPermit":
        """Ask for room for one call.

        Args:
            tokens: An estimate of what the call will use, prompt and answer together.
            model: The limits are for each model,
            account: and for each account.
            priority: Interactive calls of a process go before its batch calls, which get one turn
                in five as long as both wait.
            max_wait: Seconds; `None` to wait as long as it takes.

        Returns:
            A permit, to be awaited or entered. A wait that is cancelled takes nothing. It raises
            `DeadlineError` after `max_wait`, and `LimiterError` if Redis is down and `when_down`
            says so.
        """
        return SharedPermit(self, tokens, (account, model or ""), priority, max_wait)

    async def aclose(self) -> None:
        """Tell what is left to tell and close the connections of the running loop.

        Calls in line get a `LimiterError`. A limiter that is used again opens them again.
        """
        member = self._members.pop(asyncio.get_running_loop(), None)
        if member is not None:
            await member.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _courier(self, lane: tuple[str, str]) -> Courier:
        loop = asyncio.get_running_loop()
        member = self._members.get(loop)
        if member is None:
            for other in list(self._members):
                if other.is_closed():
                    self._members.pop(other, None)
            member = self._members[loop] = _Member(self)
        return member.courier(lane)


class SharedPermit:
    """Room for one call, from `RedisLimiter.admit`. Await it, or use it in `async with`.

    Attributes:
        waited: Seconds spent in line.
    """

    __slots__ = (
        "_courier",
        "_held",
        "_inner",
        "_is_used",
        "_lane",
        "_limiter",
        "_max_wait",
        "_priority",
        "_turn",
        "tokens",
        "waited",
    )

    def __init__(
        self,
        limiter: RedisLimiter,
        tokens: int,
        lane: tuple[str, str],
        priority: str,
        max_wait: float | None,
    ) -> None:
        self.tokens = tokens
        self.waited = 0.0
        self._limiter = limiter
        self._lane = lane
        self._max_wait = max_wait
        self._turn = Turn(tokens, is_urgent=priority == "interactive")
        self._is_used = False
        self._held: list[None] = []  # one item while granted: a list gives it out only once
        self._inner: Permit | None = None  # if Redis was down

    def __await__(self) -> Generator[object, None, "SharedPermit"]:
        return self._acquire().__await__()

    async def __aenter__(self) -> "SharedPermit":
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    async def _acquire(self) -> "SharedPermit":
        if self._is_used:
            raise RuntimeError("a permit can be awaited once")
        self._is_used = True
        started = time.monotonic()
        self._courier = self._limiter._courier(self._lane)
        if self._max_wait is None:
            await self._wait()
        else:
            self._turn.gives_up_at = started + self._max_wait
            try:
                async with asyncio.timeout(self._max_wait):
                    await self._wait()
            except TimeoutError as error:
                if isinstance(error, DeadlineError):
                    raise
                raise DeadlineError(
                    f"the limiter had no room within {self._max_wait:g} s (max_wait)",
                    clock="max_wait",
                    seconds=self._max_wait,
                ) from None
        self._held.append(None)
        self.waited = time.monotonic() - started
        return self

    async def _wait(self) -> None:
        link = self._courier.link
        failure = link.failure
        if failure is None or link.try_at <= time.monotonic():
            try:
                await self._courier.wait(self._turn)
            except LimiterError as error:
                failure = error
            else:
                return
        if self._limiter._when_down == "refuse":
            raise LimiterError(failure.message)
        self._inner = await self._limiter._local.admit(self.tokens)
        self._courier.lane.held += 1  # to be told when Redis is there again

    def settle(self, *, tokens: int) -> None:
        """Tell what the call really used; the difference to the estimate is put back or taken."""
        if self._inner is not None:
            self._inner.settle(tokens=tokens)
        elif tokens != self.tokens:
            self._courier.note(Note(tokens=self.tokens - tokens))
        self.tokens = tokens

    def release(self) -> None:
        """The call is over: let the next one begin. May be called twice, and from any thread."""
        if self._let_go():
            if self._inner is not None:
                self._inner.release()
            self._courier.note(Note(ended=1))

    def give_back(self) -> None:
        """The call was never sent: put back the request and its tokens, and release."""
        if self._let_go():
            if self._inner is not None:
                self._inner.give_back()
                self._courier.note(Note(ended=1))
            else:
                self._courier.note(Note(ended=1, requests=1.0, tokens=self.tokens))

    def _let_go(self) -> bool:
        """Whether it was held till now, and by this thread let go."""
        try:
            self._held.pop()
        except IndexError:
            return False
        return True


class _Member:
    """What one event loop has: a connection, a name of its own, and a courier for each lane."""

    def __init__(self, limiter: RedisLimiter) -> None:
        self.limiter = limiter
        self.name = uuid.uuid4().hex[:16]
        self.failure: LimiterError | None = None
        self.try_at = 0.0
        self._couriers: dict[tuple[str, str], Courier] = {}
        self.n_links = 0  # that use the client
        self._client: Redis | None = None

    def couriers(self) -> list[Courier]:
        return list(self._couriers.values())

    def courier(self, lane: tuple[str, str]) -> Courier:
        courier = self._couriers.get(lane)
        if courier is None:
            settings = self.limiter
            part = SharedLane[Turn](
                counts_calls=settings.limits.concurrency is not None,
                beat=settings._lease / BEATS,
            )
            # The braces keep all keys of a lane on one node of a cluster.
            room = f"{settings._name}:{{{lane[0]}:{lane[1]}}}"
            courier = self._couriers[lane] = Courier(part, _Link(self, room))
        return courier

    async def aclose(self) -> None:
        for courier in self.couriers():
            await courier.aclose()

    def client(self) -> Redis:
        if self._client is None:
            self._client = Redis.from_url(
                self.limiter._url,
                # Deadlines and second tries are ours: a script that is sent twice takes twice.
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    async def hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def fell(self, error: BaseException) -> LimiterError:
        """Take note that Redis cannot be reached."""
        low, high = TRY_AGAIN
        self.try_at = time.monotonic() + random.uniform(low, high)
        why = str(error) or f"no answer within {self.limiter._timeout:g} s"
        host = _host(self.limiter._url)
        failure = LimiterError(f"the limiter's Redis at {host} cannot be used: {why}")
        if self.failure is None:
            local = f"this process takes {self.limiter._share:g} of the limits"
            then = local if self.limiter._when_down == "local" else "calls are refused"
            logger.warning("%s; until it can, %s", failure.message, then)
        self.failure = failure
        return failure

    def rose(self) -> None:
        """Take note that Redis answers."""
        if self.failure is not None:
            logger.warning("the limiter's Redis at %s answers again", _host(self.limiter._url))
            self.failure = None


class _Link:
    """The way of one lane to Redis. See `net.courier.Link`."""

    def __init__(self, member: _Member, room: str) -> None:
        self._member = member
        self._room = room
        self._is_open = False
        self._keys = [f"{room}:{key}" for key in ("room", "seen", "held", "line")]

    @property
    def failure(self) -> LimiterError | None:
        return self._member.failure

    @property
    def try_at(self) -> float:
        return self._member.try_at

    async def step(self, ask: Ask) -> Answer:
        member, timeout = self._member, self._member.limiter._timeout
        if member.failure is not None:
            # Nobody else tries while this one does: they would wait for nothing.
            member.try_at = time.monotonic() + timeout + TRY_AGAIN[1]
        try:
            async with asyncio.timeout(timeout):
                raw = await self._run(self._arguments(ask))
        except (RedisError, OSError) as error:  # a timeout too
            raise member.fell(error) from None
        member.rose()
        waits, promise, others, is_in_line, look, is_probe, *_ = raw
        return Answer(
            waits=[wait / MICROSECONDS if wait >= 0 else -1.0 for wait in waits],
            promise=promise,
            others=others,
            is_in_line=bool(is_in_line),
            look_in=look / MICROSECONDS if is_in_line else None,
            is_probe=bool(is_probe),
        )

    async def _run(self, arguments: list[str | float]) -> list[Any]:
        if not self._is_open:
            self._is_open = True
            self._member.n_links += 1
        client = self._member.client()
        try:
            return await client.execute_command("EVALSHA", SHA, *counted)
        except NoScriptError:
            return await client.execute_command("EVAL", SCRIPT, *counted)

    def _arguments(self, ask: Ask) -> list[str | float]:
        """What the script takes, in its order."""
        settings = self._member.limiter
        limits = settings.limits
        rpm, tpm = limits.requests_per_minute, limits.tokens_per_minute
        pause = -1 if ask.pause is None else round(ask.pause * MICROSECONDS)
        arguments: list[str | float] = [
            self._member.name,
            round(settings._lease * MICROSECONDS),
            -1 if limits.concurrency is None else limits.concurrency,
            *_bucket(rpm, limits.burst),
            *_bucket(tpm, None),
            ask.held,
            ask.requests,
            ask.tokens,
            ask.promise,
            pause,
            round(ask.probing * MICROSECONDS),
            round(PROBE_EVERY * MICROSECONDS),
            ask.requests_per_minute or -1,
            ask.tokens_per_minute or -1,
            round(ask.age * MICROSECONDS),
        ]
        for tokens, patience in ask.wanted:
            arguments += (tokens, round(min(patience, LONGEST_PATIENCE) * MICROSECONDS))
        return arguments

    async def listen(self) -> bool:
        member = self._member
        seconds = math.ceil(member.limiter._lease / BEATS)
        try:
            async with asyncio.timeout(seconds + member.limiter._timeout):
                rung = await member.client().blpop([f"{self._room}:room:{member.name}"], seconds)  # type: ignore[misc]
        except (RedisError, OSError):
            return False  # the next step will tell
        return rung is not None

    async def hang_up(self) -> None:
        if self._is_open:
            self._is_open = False
            self._member.n_links -= 1
            if self._member.n_links == 0:
                await self._member.hang_up()


def _bucket(quota: float | None, burst: float | None) -> tuple[float, float]:
    """Microseconds for one unit, 0 for no limit, and what may go at once."""
    if quota is None:
        return 0, 0
    return 60 * MICROSECONDS / quota, default_burst(quota) if burst is None else burst


def _part(limits: Limits, share: float) -> Limits:
    """What one process takes while Redis is down."""
    rpm, tpm, calls = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency
    return Limits(
        requests_per_minute=None if rpm is None else rpm * share,
        tokens_per_minute=None if tpm is None else tpm * share,
        concurrency=None if calls is None else max(1, int(calls * share)),
        burst=None if limits.burst is None else max(1.0, limits.burst * share),
    )


def _check_url(url: str) -> None:
    try:
        parse_url(url)
    except ValueError as error:
        raise ConfigError(f"url: {error}") from None


def _host(url: str) -> str:
    """Where it leads, without the password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def _make(url: str, limits: Limits, settings: dict[str, Any]) -> RedisLimiter:
    return RedisLimiter(url, limits, **settings)
