"""A limiter that several processes share, through Redis (5 or newer) or Valkey.

Needs the package redis (`pip install 'ernie-async[redis]'`). What the server does is in
`redis.lua`, what is said to it and by it in `sansio.shared_step`, what a process knows of it in
`sansio.shared_lane`, and who talks to it when in `net.courier`. Here is what is Redis' own: keys
and microseconds. The connections are those of `redis_server`.
"""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from ernie_async.errors import ConfigError, LimiterError, shorten
from ernie_async.net.admission import LimiterSnapshot, Priority, is_batch
from ernie_async.net.courier import Courier, SharedPermit
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.redis_server import (
    BEATS,
    LEASE,
    SHARE,
    TIMEOUT,
    RedisServer,
    WhenDown,
    check_settings,
    host_of,
    microseconds,
    seconds_of,
)
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.pause import PROBE_SECONDS, PROBING_SECONDS
from ernie_async.sansio.shared_lane import SharedLane
from ernie_async.sansio.shared_step import Answer, Ask

__all__ = ["RedisLimiter", "SharedPermit"]

SCRIPT = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")

# Lanes that nobody uses are forgotten when there are so many: see `net.limiter`.
MANY_LANES = 256

# Seconds that stand for "as long as it takes": the script has no infinity.
LONGEST_PATIENCE = 1e6

VERDICTS = {"refused": 1, "spent": 2, "succeeded": 3}


class RedisLimiter:
    """Limits that hold for all processes that use the same name in the same Redis.

    It opens a connection for each event loop that uses it, at the first use, and closes it when it
    was not needed for a second, at the end of the loop, or by `aclose`. It can be pickled and
    copied; a pickle holds the URL, with its password.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as the package redis reads it.
        limits: Of all processes together, and the same in all of them. If the concurrency is
            `Adaptive`, each process finds its own, and `max` bounds all of them together.
        name: Processes that say the same share the limits.
        when_down: What to do while Redis cannot be reached: `"local"` to ask a limiter of this
            process alone, with `share` of the limits; `"refuse"` to raise `LimiterError`.
        share: The part of the limits that this process takes while Redis is down, at most 1.
        lease: Seconds after which the calls of a process that died count no more.
        timeout: Seconds that Redis has to answer; at most a third of the lease.
        cluster: Whether the URL is that of a node of a Redis Cluster. All that concerns one account
            and model is on one node.

    Raises:
        ConfigError: An argument cannot be right.
    """

    def __init__(
        self,
        url: str,
        limits: Limits,
        *,
        name: str = "ernie",
        when_down: WhenDown = "local",
        share: float = SHARE,
        lease: float = LEASE,
        timeout: float = TIMEOUT,
        cluster: bool = False,
    ) -> None:
        check_settings(url, when_down=when_down, share=share, lease=lease, timeout=timeout)
        if not isinstance(limits, Limits):
            raise ConfigError(f"limits: expected Limits, got {shorten(limits)}")
        self.limits = limits
        self._url = url
        self._name = name
        self._when_down: WhenDown = when_down
        self._share = share
        self._lease = lease
        self._timeout = timeout
        self._cluster = cluster
        self._local = Limiter(_part(limits, share))
        self._members: dict[asyncio.AbstractEventLoop, _Member] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {
            "name": self._name,
            "when_down": self._when_down,
            "share": self._share,
            "lease": self._lease,
            "timeout": self._timeout,
            "cluster": self._cluster,
        }
        return _make, (self._url, self.limits, settings)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"RedisLimiter({host_of(self._url)!r}, {self.limits!r}, name={self._name!r})"

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating the tokens of a call."""
        return self.limits.tokens_per_minute is not None

    @property
    def in_flight(self) -> int:
        """Calls of this process that were admitted and are not over."""
        return self.snapshot().in_flight

    @property
    def waiting(self) -> int:
        """Calls of this process in line."""
        return self.snapshot().waiting

    def admit(
        self,
        tokens: int = 0,
        *,
        model: str | None = None,
        account: str = "",
        priority: Priority = "interactive",
        max_wait: float | None = None,
    ) -> SharedPermit:
        """Ask for room for one call, as `Limiter.admit` does; priorities hold within a process.

        Raises:
            LimiterError: When it is awaited: Redis is down, and `when_down` is `"refuse"`.
        """
        lane = account, model
        return SharedPermit(
            lambda: self._member().courier(lane),
            tokens,
            is_batch=is_batch(priority),
            max_wait=max_wait,
        )

    def snapshot(self, model: str | None = None, account: str = "") -> LimiterSnapshot:
        """How things stand, as far as this process knows: its own calls, and what Redis said last.

        Args:
            model: Only what concerns this one; `None` for all.
            account: Only what concerns this one; empty for all.
        """
        now = monotonic()
        views = [
            LimiterSnapshot.of_lane(courier.lane, now)._replace(in_flight=courier.in_flight)
            for member in list(self._members.values())
            for (of_account, of_model), courier in list(member.couriers.items())
            if model in (None, of_model) and account in ("", of_account)
        ]
        waiting_here = self._local.snapshot(model, account).waiting
        if not views:
            views = [LimiterSnapshot.of_lane(self._lane(), monotonic())]
        together = LimiterSnapshot.of_all(views)
        return together._replace(waiting=together.waiting + waiting_here)

    async def aclose(self) -> None:
        """Tell what is left to tell, and close the connections of the running loop.

        Calls in line get a `LimiterError`. If it is used again, it opens them again.
        """
        member = self._members.pop(asyncio.get_running_loop(), None)
        if member is not None:
            for courier in list(member.couriers.values()):
                await courier.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _member(self) -> "_Member":
        """Of the running loop. Changed by several threads, each for its own and in one step."""
        loop = asyncio.get_running_loop()
        member = self._members.get(loop)
        if member is None:
            for other in list(self._members):
                if other.is_closed():
                    self._members.pop(other, None)
            member = self._members[loop] = _Member(self)
        return member

    def _lane(self) -> SharedLane[SharedPermit]:
        return SharedLane(self.limits, beat=self._lease / BEATS, now=monotonic())

    def _ask_local(self, lane: tuple[str, str | None], permit: SharedPermit) -> Permit:
        account, model = lane
        priority: Priority = "batch" if permit.is_batch else "interactive"
        return self._local.admit(permit.tokens, model=model, account=account, priority=priority)


class _Member:
    """What one event loop has: a name, a server, and a courier for each lane.

    Attributes:
        n_links: Couriers that use the connections to the server.
    """

    def __init__(self, limiter: RedisLimiter) -> None:
        self.limiter = limiter
        self.name = uuid4().hex
        self.couriers: dict[tuple[str, str | None], Courier] = {}
        self.n_links = 0
        is_local = limiter._when_down == "local"
        alone = f"this process takes {limiter._share:g} of the limits"
        self.server = RedisServer(
            limiter._url,
            SCRIPT,
            timeout=limiter._timeout,
            until_then=alone if is_local else "calls are refused",
            cluster=limiter._cluster,
        )

    def courier(self, lane: tuple[str, str | None]) -> Courier:
        courier = self.couriers.get(lane)
        if courier is None:
            if len(self.couriers) >= MANY_LANES:
                busy = {key: other for key, other in self.couriers.items() if not other.is_at_rest}
                self.couriers = busy
            limiter = self.limiter
            account, model = lane
            # The braces keep all keys of a lane on one node of a cluster.
            link = _Link(self, f"{limiter._name}:{{{account}:{model or ''}}}")
            is_local = limiter._when_down == "local"
            courier = self.couriers[lane] = Courier(
                limiter._lane(),
                link,
                (lambda permit: limiter._ask_local(lane, permit)) if is_local else None,
            )
        return courier


class _Link:
    """The way of one lane to Redis. See `net.courier.Link`."""

    def __init__(self, member: _Member, lane: str) -> None:
        self._member = member
        self._keys = [f"{lane}:{key}" for key in ("room", "seen", "held", "line")]
        self._is_open = False

    @property
    def failure(self) -> LimiterError | None:
        return self._member.server.failure

    @property
    def try_at(self) -> float:
        return self._member.server.try_at

    async def step(self, ask: Ask) -> Answer:
        if not self._is_open:
            self._is_open = True
            self._member.n_links += 1
        raw = await self._member.server.run(self._keys, self._arguments(ask))
        waits, promise, others, is_in_line, look, number, pause, probing, *full, rpm, tpm = raw
        return Answer(
            waits=[seconds_of(wait) if wait >= 0 else -1.0 for wait in waits],
            promise=promise,
            others=others,
            is_in_line=bool(is_in_line),
            look_in=seconds_of(look),
            pause=number,
            paused_for=seconds_of(pause),
            is_probing=probing > 0,
            full_in=(seconds_of(full[0]), seconds_of(full[1])),
            told=(rpm if rpm > 0 else None, tpm if tpm > 0 else None),
        )

    def _arguments(self, ask: Ask) -> list[str | float]:
        """What the script takes, in its order."""
        limiter, limits, verdict = self._member.limiter, self._member.limiter.limits, ask.verdict
        calls = limits.concurrency
        waits = None if verdict is None else verdict.retry_after
        arguments: list[str | float] = [
            self._member.name,
            microseconds(limiter._lease),
            _or_none(calls.max if isinstance(calls, Adaptive) else calls),
            _or_none(limits.requests_per_minute),
            _or_none(limits.burst),
            _or_none(limits.tokens_per_minute),
            ask.held,
            ask.requests,
            ask.tokens,
            ask.promise,
            0 if verdict is None else VERDICTS[verdict.what],
            0 if verdict is None else verdict.pause,
            -1 if waits is None else microseconds(waits),
            *map(_or_none, ask.told),
            microseconds(PROBE_SECONDS),
            microseconds(PROBING_SECONDS),
            microseconds(ask.age),
        ]
        for tokens, patience in ask.wanted:
            arguments += (tokens, microseconds(min(patience, LONGEST_PATIENCE)))
        return arguments

    async def listen(self) -> bool:
        limiter = self._member.limiter
        seconds = math.ceil(limiter._lease / BEATS)
        bell = f"{self._keys[0]}:{self._member.name}"
        return await self._member.server.listen(bell, seconds)

    async def hang_up(self) -> None:
        if self._is_open:
            self._is_open = False
            self._member.n_links -= 1
            if self._member.n_links == 0:
                await self._member.server.aclose()


def _or_none(number: float | None) -> float:
    """How the script is told that there is none."""
    return -1 if number is None else number


def _part(limits: Limits, share: float) -> Limits:
    """What one process takes while Redis is down."""
    rpm, tpm, calls = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency
    return replace(
        limits,
        requests_per_minute=None if rpm is None else rpm * share,
        tokens_per_minute=None if tpm is None else tpm * share,
        burst=None if limits.burst is None else max(1.0, limits.burst * share),
        concurrency=max(1, int(calls * share)) if isinstance(calls, int) else calls,
    )


def _make(url: str, limits: Limits, settings: dict[str, Any]) -> RedisLimiter:
    return RedisLimiter(url, limits, **settings)
