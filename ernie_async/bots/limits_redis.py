"""What each user may ask, counted by all processes of a bot in Redis or Valkey (extra `redis`).

What the server does is in `limits_redis.lua`. What has to be told there is kept here until it was:
that an answer is over is learnt in cleanup, where nothing may be awaited.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Self
from uuid import uuid4
from weakref import WeakValueDictionary

from ernie_async.bots.durations import parse_rate
from ernie_async.bots.limits import CONCURRENT_SECONDS, UserLimiter, Verdict, Who, parse_rules
from ernie_async.errors import LimiterError
from ernie_async.redis_server import (
    BEATS,
    LEASE,
    SHARE,
    TIMEOUT,
    RedisServer,
    WhenDown,
    check_settings,
    microseconds,
    seconds_of,
)

__all__ = ["RedisUserLimiter"]

SCRIPT = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")


class RedisUserLimiter:
    """Limits for each user and each group that hold for all processes with the same name.

    Serves one event loop. Close it with `aclose`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as the package redis reads it.
        messages: As `UserLimiter` takes it, and so the next four; the same in all processes.
        tokens: Likewise.
        concurrent: Likewise.
        group: Likewise.
        exempt: Likewise.
        name: Processes that say the same share the limits.
        when_down: What to do while Redis cannot be reached: `"local"` to ask a `UserLimiter` of
            this process alone, with `share` of the limits; `"refuse"` to raise `LimiterError`.
        share: The part of the limits that this process gives while Redis is down, at most 1;
            of each limit at least one.
        lease: Seconds after which the answers of a process that died count no more.
        timeout: Seconds that Redis has to answer; at most a third of the lease.

    Raises:
        ConfigError: An argument cannot be right.
    """

    def __init__(
        self,
        url: str,
        messages: str | None = None,
        *,
        tokens: str | None = None,
        concurrent: int | None = None,
        group: str | None = None,
        exempt: Callable[[Who], bool] | None = None,
        name: str = "ernie",
        when_down: WhenDown = "local",
        share: float = SHARE,
        lease: float = LEASE,
        timeout: float = TIMEOUT,
    ) -> None:
        check_settings(url, when_down=when_down, share=share, lease=lease, timeout=timeout)
        self._rules = parse_rules(messages, tokens, group, concurrent)
        self._concurrent = concurrent
        self._exempt = exempt
        self._name = name
        self._is_local = when_down == "local"
        self._lease = lease
        self._process = uuid4().hex
        alone = f"this process takes {share:g} of the limits"
        self._server = RedisServer(
            url,
            SCRIPT,
            timeout=timeout,
            until_then=alone if self._is_local else "messages are refused",
        )
        self._local = UserLimiter(
            _part(messages, share),
            tokens=_part(tokens, share),
            concurrent=None if concurrent is None else max(1, int(concurrent * share)),
            group=_part(group, share),
        )
        self._running: Counter[Who] = Counter()  # answers that Redis has allowed
        self._owed: dict[Who, int] = {}  # tokens of answers that ended, which Redis is not told yet
        self._news = asyncio.Event()
        self._teller: asyncio.Task[None] | None = None
        # The steps of one user follow each other, so that each of them tells the truth.
        self._lines: WeakValueDictionary[Who, asyncio.Lock] = WeakValueDictionary()

    async def check(self, user: Who, group: Who | None = None) -> Verdict:
        """Whether a message may be answered: see `AnyUserLimiter`, which this is.

        Raises:
            LimiterError: Redis is down, and `when_down` is `"refuse"`.
        """
        if self._exempt is not None and self._exempt(user):
            return Verdict(True)
        try:
            return await self._step(user, group, wants=True)
        except LimiterError:
            if not self._is_local:
                raise
            return await self._local.check(user, group)
        finally:
            self._see_to_it()

    def charge(self, user: Who, tokens: int = 0) -> None:
        """The answer is over, well or not. Redis is told at once, or when it answers again."""
        if not self._running[user]:  # exempt, or allowed while Redis was down
            self._local.charge(user, tokens)
            return
        self._running[user] -= 1
        if not self._running[user]:
            del self._running[user]
        self._owe(user, tokens)
        self._see_to_it()

    async def aclose(self) -> None:
        """Tell what is left to tell, and close the connections. Used again, it opens them again."""
        teller, self._teller = self._teller, None
        if teller is not None:
            teller.cancel()
            await asyncio.wait({teller})
        with suppress(LimiterError):
            for user in list(self._owed):
                await self._step(user)
        await self._server.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _step(self, user: Who, group: Who | None = None, *, wants: bool = False) -> Verdict:
        """Have Redis count what ended, and perhaps ask for one more answer."""
        asking = {"messages": user, "tokens": user, "group": group}
        logs = {rule: asking[rule] for rule in self._rules if asking[rule] is not None}
        async with self._lines.setdefault(user, asyncio.Lock()):
            self._server.raise_if_down()
            tokens = self._owed.pop(user, 0)
            arguments: list[str | float] = [
                self._process,
                microseconds(self._lease),
                -1 if self._concurrent is None else self._concurrent,
                self._running[user],
                int(wants),
            ]
            for rule in logs:
                limit, seconds = self._rules[rule]
                at_once, later = (tokens, 0) if rule == "tokens" else (0, 1)
                arguments += [limit, microseconds(seconds), at_once, later]
            keys = ["seen", f"running:{user}", *(f"{rule}:{who}" for rule, who in logs.items())]
            try:
                told, wait = await self._server.run(
                    [f"{self._name}:user:{key}" for key in keys], arguments
                )
            except BaseException:
                self._owe(user, tokens)  # and with it, that nothing began
                raise
            if wants and told == 0:
                self._running[user] += 1
        if told == 0:
            return Verdict(True)
        if told < 0:
            return Verdict(False, "concurrent", CONCURRENT_SECONDS)
        return Verdict(False, list(logs)[told - 1], seconds_of(wait))

    def _owe(self, user: Who, tokens: int) -> None:
        if self._concurrent is not None or (tokens and "tokens" in self._rules):
            self._owed[user] = self._owed.get(user, 0) + tokens
            self._news.set()

    @property
    def _has_to_tell(self) -> bool:
        return bool(self._owed or (self._running and self._concurrent is not None))

    def _see_to_it(self) -> None:
        if self._has_to_tell and (self._teller is None or self._teller.done()):
            self._teller = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        """What ended, at once; and in time that this process lives, as each step does."""
        while self._has_to_tell:
            self._news.clear()
            with suppress(LimiterError):
                for user in list(self._owed) or list(self._running)[:1]:
                    await self._step(user)
            again = self._server.try_at - monotonic() if self._owed else self._lease / BEATS
            with suppress(TimeoutError):
                async with asyncio.timeout(max(again, 0)):
                    await self._news.wait()


def _part(rate: str | None, share: float) -> str | None:
    """What one process gives while Redis is down."""
    if rate is None:
        return None
    count, seconds = parse_rate(rate)
    return f"{max(1, int(count * share))}/{seconds}s"
