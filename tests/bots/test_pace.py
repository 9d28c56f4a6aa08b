"""How often a platform is called: pure arithmetic."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.bots.pace import BotPace, ChatPace


def test_calls_are_an_interval_apart() -> None:
    pace = ChatPace(1.1)
    assert pace.wait(5.0) == 0
    pace.called(5.0)
    assert abs(pace.wait(5.5) - 0.6) < 1e-9
    assert pace.wait(6.2) == 0


def test_a_flood_answer_holds_all_calls_and_doubles_the_interval() -> None:
    pace = ChatPace(1.0)
    pace.flooded(0.0, 30.0)
    pace.called(0.0)
    assert pace.wait(0.0) == 30.0
    assert pace.interval(30.0) == 2.0
    for _ in range(5):
        pace.flooded(30.0, 1.0)
    assert pace.interval(30.0) == 10.0
    assert pace.wait(30.0) == 10.0  # asked for less than the interval


def test_quiet_minutes_take_it_back() -> None:
    pace = ChatPace(1.0)
    for _ in range(4):
        pace.flooded(0.0, 0.0)
    assert [pace.interval(t) for t in (0, 59, 60, 120, 180, 240, 1e9)] == [
        10,
        10,
        5,
        2.5,
        1.25,
        1,
        1,
    ]
    assert not pace.is_idle(100.0)
    assert pace.is_idle(241.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20), st.booleans()), max_size=40))
def test_no_call_is_ever_early(steps: list[tuple[float, float, bool]]) -> None:
    pace, now, allowed = ChatPace(1.0), 0.0, 0.0
    for idle, penalty, floods in steps:
        now += idle
        now += pace.wait(now)
        assert now >= allowed - 1e-9
        if floods:
            pace.flooded(now, penalty)
            allowed = now + penalty
        pace.called(now)
        allowed = max(allowed, now + 1.0)


def test_a_bot_s_calls_are_spread() -> None:
    pace, rng = BotPace(30), random.Random(1)
    now, moments = 0.0, []
    for _ in range(300):
        now += rng.random() / 50
        moments.append(now + pace.book(now))
    assert all(b - a >= 1 / 30 - 1e-9 for a, b in itertools.pairwise(moments))
