"""How much each user, and each group, may ask: windows that slide.

Independent of the client's own limiter, which protects the key. Nothing here waits: a bot answers a
denial with a sentence.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from math import inf
from time import monotonic
from typing import NamedTuple, Protocol

from ernie_async.bots.durations import parse_rate
from ernie_async.errors import ConfigError

__all__ = ["AnyUserLimiter", "UserLimiter", "Verdict", "Who", "Windows", "parse_rules"]

Who = str | int

# What to tell somebody who has to wait for an answer to end.
CONCURRENT_SECONDS = 5.0


class Verdict(NamedTuple):
    """Whether a message may be answered.

    Attributes:
        allowed: It may.
        rule: What it was denied by: `messages`, `tokens`, `concurrent` or `group`.
        retry_after: Seconds after which it is worth trying again.
    """

    allowed: bool
    rule: str | None = None
    retry_after: float = 0.0


class AnyUserLimiter(Protocol):
    """What a `ChatResponder` asks: a `UserLimiter`, a `RedisUserLimiter`, or one of your own."""

    async def check(self, user: Who, group: Who | None = None) -> Verdict:
        """Whether a message may be answered; if so, it counts, and `charge` has to follow.

        Args:
            user: Who asks.
            group: Where; `None` in a private chat.

        Raises:
            LimiterError: It cannot be told, and nobody is answered in doubt.
        """
        ...

    def charge(self, user: Who, tokens: int = 0) -> None:
        """The answer is over, well or not; in the middle of a cancellation, perhaps.

        Args:
            user: Who had asked, and was allowed to.
            tokens: What it used.
        """


def parse_rules(
    messages: str | None, tokens: str | None, group: str | None, concurrent: int | None
) -> dict[str, tuple[int, float]]:
    """The rules that there are: how many, and in how many seconds.

    Raises:
        ConfigError: A rate is written wrongly, or nobody might ever be answered.
    """
    if concurrent is not None and concurrent < 1:
        raise ConfigError(f"concurrent: expected at least 1, or None, got {concurrent!r}")
    rates = {"messages": messages, "tokens": tokens, "group": group}
    return {rule: parse_rate(rate) for rule, rate in rates.items() if rate is not None}


class Windows:
    """For each of many: at most so much in any stretch of seconds. Pure; time is an argument."""

    def __init__(self, rate: tuple[int, float]) -> None:
        self._limit, self._seconds = rate
        # Whoever took something last is at the end, so what can be forgotten is in front.
        self._taken: OrderedDict[Hashable, deque[tuple[float, int]]] = OrderedDict()

    def __len__(self) -> int:
        """Those of whom something is remembered."""
        return len(self._taken)

    def wait(self, who: Hashable, now: float) -> float:
        """Seconds until something may be taken; 0 if it may be now."""
        total = 0
        for at, amount in reversed(self._taken.get(who, ())):
            total += amount
            if total >= self._limit:
                return max(at + self._seconds - now, 0.0)
        return 0.0

    def take(self, who: Hashable, amount: int, now: float) -> None:
        """Count something; the last one may go beyond the limit, since its size is known late."""
        taken = self._taken.setdefault(who, deque())
        taken.append((now, amount))
        while taken[0][0] + self._seconds <= now:
            taken.popleft()
        self._taken.move_to_end(who)
        while next(iter(self._taken.values()))[-1][0] + self._seconds <= now:
            self._taken.popitem(last=False)


class UserLimiter:
    """Limits for each user and each group, counted in this process. Serves one event loop.

    ```python
    limiter = UserLimiter(messages="20/10m", tokens="50k/1d", concurrent=1, group="60/10m")
    verdict = await limiter.check(user, group)
    ```

    Args:
        messages: Of one user, as `"20/10m"`; `None` for no limit.
        tokens: Of one user, prompts and answers, as `"50k/1d"`.
        concurrent: Answers to one user under way at a time.
        group: Messages of all users of one group.
        exempt: Says of a user that there are no limits.
        clock: Seconds that only grow.

    Raises:
        ConfigError: A rate is written wrongly.
    """

    def __init__(
        self,
        messages: str | None = None,
        *,
        tokens: str | None = None,
        concurrent: int | None = None,
        group: str | None = None,
        exempt: Callable[[Hashable], bool] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        rules = parse_rules(messages, tokens, group, concurrent)
        self._rules: dict[str, Windows] = {rule: Windows(rate) for rule, rate in rules.items()}
        self._concurrent = concurrent or inf
        self._running: Counter[Hashable] = Counter()
        self._exempt = exempt
        self._clock = clock

    async def check(self, user: Hashable, group: Hashable = None) -> Verdict:
        """Whether a message may be answered: see `AnyUserLimiter`, which this is. Never raises."""
        if self._exempt is not None and self._exempt(user):
            return Verdict(True)
        if self._running[user] >= self._concurrent:
            return Verdict(False, "concurrent", CONCURRENT_SECONDS)
        now = self._clock()
        asking: dict[str, Hashable] = {"messages": user, "tokens": user, "group": group}
        rules = [rule for rule in self._rules if asking[rule] is not None]
        waits = {rule: self._rules[rule].wait(asking[rule], now) for rule in rules}
        longest = max(waits, key=lambda rule: waits[rule], default=None)
        if longest is not None and waits[longest] > 0:
            return Verdict(False, longest, waits[longest])
        for rule in rules:
            if rule != "tokens":
                self._rules[rule].take(asking[rule], 1, now)
        self._running[user] += 1
        return Verdict(True)

    def charge(self, user: Hashable, tokens: int = 0) -> None:
        """The answer is over, well or not."""
        if not self._running[user]:
            return  # exempt
        self._running[user] -= 1
        if not self._running[user]:
            del self._running[user]
        if tokens and "tokens" in self._rules:
            self._rules["tokens"].take(user, tokens, self._clock())
