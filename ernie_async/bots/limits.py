"""How much each user, and each group, may ask: windows that slide.

Independent of the client's own limiter, which protects the key. Nothing here waits: a bot answers a
denial with a sentence.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Literal, NamedTuple

from ernie_async.bots.durations import parse_rate
from ernie_async.errors import ConfigError

__all__ = ["SlidingWindow", "UserLimiter", "Verdict"]

Rule = Literal["messages", "tokens", "concurrent", "group"]

# What to tell somebody who has to wait for an answer to end.
CONCURRENT_SECONDS = 5.0


class Verdict(NamedTuple):
    """Whether a message may be answered.

    Attributes:
        allowed: It may.
        rule: What it was denied by.
        retry_after: Seconds after which it is worth trying again.
    """

    allowed: bool
    rule: Rule | None = None
    retry_after: float = 0.0


class SlidingWindow:
    """At most so much in any stretch of time. Pure; time is an argument.

    Args:
        limit: How much.
        seconds: How long the stretch is.
    """

    __slots__ = ("_limit", "_seconds", "_taken", "_total")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._taken: deque[tuple[float, int]] = deque()
        self._total = 0

    def wait(self, now: float) -> float:
        """Seconds until something may be taken; 0 if it may be now."""
        self._expire(now)
        excess = self._total - self._limit
        for at, amount in self._taken:
            if excess < 0:
                break
            excess -= amount
            if excess < 0:
                return at + self._seconds - now
        return 0.0

    def take(self, amount: int, now: float) -> None:
        """Count something; the last one may go beyond the limit, since its size is known late."""
        self._taken.append((now, amount))
        self._total += amount

    def is_empty(self, now: float) -> bool:
        """Whether all that was taken is forgotten."""
        self._expire(now)
        return not self._taken

    def _expire(self, now: float) -> None:
        while self._taken and self._taken[0][0] + self._seconds <= now:
            self._total -= self._taken.popleft()[1]


class _Account:
    """What one user or group has used."""

    __slots__ = ("n_running", "windows")

    def __init__(self, windows: dict[Rule, SlidingWindow]) -> None:
        self.windows = windows
        self.n_running = 0

    def is_empty(self, now: float) -> bool:
        return not self.n_running and all(w.is_empty(now) for w in self.windows.values())


class UserLimiter:
    """Limits for each user and each group. Serves one event loop.

    ```python
    limiter = UserLimiter(messages="20/10m", tokens="50k/1d", concurrent=1, group="60/10m")
    verdict = limiter.check(user, group)
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
        if concurrent is not None and concurrent < 1:
            raise ConfigError(f"concurrent: expected at least 1, or None, got {concurrent!r}")
        self._user_rates: dict[Rule, tuple[int, float]] = {}
        if messages is not None:
            self._user_rates["messages"] = parse_rate(messages)
        if tokens is not None:
            self._user_rates["tokens"] = parse_rate(tokens)
        self._group_rates: dict[Rule, tuple[int, float]] = {}
        if group is not None:
            self._group_rates["group"] = parse_rate(group)
        self._concurrent = concurrent
        self._exempt = exempt
        self._clock = clock
        self._users: OrderedDict[Hashable, _Account] = OrderedDict()
        self._groups: OrderedDict[Hashable, _Account] = OrderedDict()

    def __len__(self) -> int:
        """Users and groups that are remembered."""
        return len(self._users) + len(self._groups)

    def check(self, user: Hashable, group: Hashable = None) -> Verdict:
        """Whether a message may be answered; if so, it counts, and `charge` has to follow.

        Args:
            user: Who asks.
            group: Where; `None` in a private chat.
        """
        if self._exempt is not None and self._exempt(user):
            return Verdict(True)
        now = self._clock()
        account = self._account(self._users, user, self._user_rates, now)
        if self._concurrent is not None and account.n_running >= self._concurrent:
            return Verdict(False, "concurrent", CONCURRENT_SECONDS)
        accounts = [account]
        if group is not None and self._group_rates:
            accounts.append(self._account(self._groups, group, self._group_rates, now))
        windows = [pair for account in accounts for pair in account.windows.items()]
        denials = [
            Verdict(False, rule, wait) for rule, window in windows if (wait := window.wait(now)) > 0
        ]
        if denials:
            return max(denials, key=lambda denial: denial.retry_after)
        for counted, window in windows:
            if counted != "tokens":
                window.take(1, now)
        account.n_running += 1
        return Verdict(True)

    def charge(self, user: Hashable, tokens: int = 0) -> None:
        """The answer is over, well or not.

        Args:
            user: Who had asked, and was allowed to.
            tokens: What it used.
        """
        account = self._users.get(user)
        if account is None:
            return  # exempt
        account.n_running = max(account.n_running - 1, 0)
        if tokens and "tokens" in account.windows:
            account.windows["tokens"].take(tokens, self._clock())

    def _account(
        self,
        accounts: OrderedDict[Hashable, _Account],
        key: Hashable,
        rates: dict[Rule, tuple[int, float]],
        now: float,
    ) -> _Account:
        # Those that were asked for longest ago are in front: two at a time keep up with one new.
        for _ in range(2):
            oldest = next(iter(accounts), None)
            if oldest is None or oldest == key:
                break
            if accounts[oldest].is_empty(now):
                del accounts[oldest]
            elif accounts[oldest].n_running:
                accounts.move_to_end(oldest)
            else:
                break
        account = accounts.get(key)
        if account is None:
            windows: dict[Rule, SlidingWindow] = {
                rule: SlidingWindow(*rate) for rule, rate in rates.items()
            }
            account = accounts[key] = _Account(windows)
        accounts.move_to_end(key)
        return account
