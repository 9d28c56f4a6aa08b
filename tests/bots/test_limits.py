"""What a user may ask: sliding windows, verdicts, and a memory that does not grow."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.bots.durations import parse_duration, parse_rate
from ernie_async.bots.limits import UserLimiter, Verdict, Windows
from ernie_async.errors import ConfigError

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def remembered(limiter: UserLimiter) -> int:
    return len(limiter._running) + sum(map(len, limiter._rules.values()))


@given(st.lists(st.floats(0, 30), max_size=100), st.integers(1, 5))
def test_a_window_is_never_exceeded_and_never_too_strict(steps: list[float], limit: int) -> None:
    windows, taken, now = Windows((limit, 60.0)), deque[float](), 0.0
    for step in steps:
        now += step
        while taken and taken[0] + 60 <= now:
            taken.popleft()
        wait = windows.wait("a", now)
        assert (wait == 0) == (len(taken) < limit)
        if wait:
            assert wait == pytest.approx(taken[-limit] + 60 - now)
        else:
            windows.take("a", 1, now)
            taken.append(now)


async def test_messages_tokens_and_groups_have_rules_of_their_own() -> None:
    clock = Clock()
    limiter = UserLimiter(messages="2/10m", tokens="1k/1d", group="3/10m", clock=clock)
    assert await limiter.check("a", "g") == Verdict(True)
    clock.now = 60
    assert (await limiter.check("a", "g")).allowed
    assert await limiter.check("a", "g") == Verdict(False, "messages", 540)
    assert (await limiter.check("b", "g")).allowed
    assert await limiter.check("c", "g") == Verdict(False, "group", 540)
    assert (await limiter.check("c")).allowed  # in private
    limiter.charge("c", 1000)
    assert await limiter.check("c") == Verdict(False, "tokens", 86_400)
    clock.now = 600
    assert (await limiter.check("a", "g")).allowed
    assert await limiter.check("a", "g") == Verdict(False, "messages", 60)
    # Several rules: the one that lasts longest.
    limiter.charge("a", 1000)
    assert await limiter.check("a", "g") == Verdict(False, "tokens", 86_400)


async def test_answers_under_way_are_counted() -> None:
    limiter = UserLimiter(concurrent=1)
    assert (await limiter.check("a")).allowed
    assert (await limiter.check("a")).rule == "concurrent"
    assert (await limiter.check("b")).allowed
    limiter.charge("a")
    assert (await limiter.check("a")).allowed


async def test_some_users_have_no_limits() -> None:
    limiter = UserLimiter(messages="1/1d", exempt=lambda user: user == "owner")
    for _ in range(9):
        assert (await limiter.check("owner")).allowed
    limiter.charge("owner", 5)
    assert remembered(limiter) == 0


async def test_100_000_users_are_remembered_only_as_long_as_it_matters() -> None:
    """Acceptance 5."""
    clock = Clock()
    limiter = UserLimiter(messages="20/10m", concurrent=1, group="60/10m", clock=clock)
    for n in range(100_000):
        clock.now += 0.1
        assert (await limiter.check(n, n % 1000)).allowed
        limiter.charge(n, 100)
    # Ten minutes are 6,000 users and 1,000 groups.
    assert remembered(limiter) <= 7_002


async def test_whoever_is_being_answered_is_not_forgotten() -> None:
    clock = Clock()
    limiter = UserLimiter(messages="20/10m", concurrent=1, clock=clock)
    await limiter.check("slow")
    for n in range(100):
        clock.now += 3600
        assert (await limiter.check(n)).allowed
        limiter.charge(n)
    assert (await limiter.check("slow")).rule == "concurrent"
    assert remembered(limiter) < 5


@pytest.mark.parametrize(
    "text", ["", "20", "20/", "/10m", "0/10m", "20/10", "20/0m", "x/10m", "20/10w"]
)
def test_wrong_rates_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a"):
        UserLimiter(messages=text)


def test_rates_and_durations_are_read() -> None:
    assert parse_rate("50k/1d") == (50_000, 86_400)
    assert parse_rate("2m/1.5h") == (2_000_000, 5_400)
    assert [parse_duration(text) for text in ("1s", "10m")] == [1, 600]


async def test_random_traffic_never_beats_the_limit() -> None:
    clock, rng = Clock(), random.Random(7)
    limiter = UserLimiter(messages="5/1m", clock=clock)
    answered: dict[int, list[float]] = {}
    for _ in range(5000):
        clock.now += rng.random()
        user = rng.randrange(10)
        if (await limiter.check(user)).allowed:
            answered.setdefault(user, []).append(clock.now)
            limiter.charge(user)
    for times in answered.values():
        assert all(b - a >= 60 - 1e-9 for a, b in zip(times, times[5:], strict=False))
