"""When a request is late, and how many may be sent twice. Time is an argument here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.hedging import LEAST_SAMPLES, MAX_MODELS, WINDOW_SECONDS, HedgePlan, Hedging


def test_nothing_is_late_before_enough_was_seen() -> None:
    plan = HedgePlan(Hedging())
    for n in range(LEAST_SAMPLES):
        assert plan.begin("m", 0.0) is None
        plan.note("m", n / 10, 0.0)
    assert plan.begin("m", 0.0) == 1.8
    assert plan.begin("other", 0.0) is None


def test_what_is_old_says_nothing() -> None:
    plan = HedgePlan(Hedging())
    for _ in range(LEAST_SAMPLES):
        plan.note("m", 1.0, 0.0)
    assert plan.begin("m", WINDOW_SECONDS) == 1.0
    assert plan.begin("m", WINDOW_SECONDS + 1) is None


def test_models_of_strangers_are_forgotten() -> None:
    plan = HedgePlan(Hedging())
    for number in range(3 * MAX_MODELS):
        plan.note(number, 1.0, 0.0)
    assert len(plan._seen) <= MAX_MODELS


def test_seconds_are_taken_as_they_are() -> None:
    assert HedgePlan(Hedging(after=2)).begin("m", 0.0) == 2


def test_a_place_that_was_not_used_is_given_back() -> None:
    plan = HedgePlan(Hedging(after=1, share=0.5))
    assert plan.may_send()
    assert not plan.may_send()
    plan.give_back()
    assert plan.may_send()


@pytest.mark.parametrize(
    "wrong", [{"after": "p99"}, {"after": -1}, {"share": 0}, {"share": 2}, {"after": None}]
)
def test_wrong_settings_are_clear_errors(wrong) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}: expected"):
        Hedging(**wrong)


@given(st.lists(st.floats(0, 100), min_size=LEAST_SAMPLES, max_size=400))
def test_at_most_one_in_twenty_is_later(samples: list[float]) -> None:
    plan = HedgePlan(Hedging())
    for seconds in samples:
        plan.note("m", seconds, 0.0)
    late = plan.begin("m", 0.0)
    assert late is not None
    newest = samples[-200:]
    assert sum(seconds > late for seconds in newest) <= len(newest) / 20


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_never_more_than_the_share_is_sent_twice(wishes: list[bool], share: float) -> None:
    plan = HedgePlan(Hedging(after=0, share=share))
    sent = 0
    for n, wish in enumerate(wishes, 1):
        plan.begin("m", 0.0)
        sent += wish and plan.may_send()
        assert sent <= 1 + n * share + 1e-6
