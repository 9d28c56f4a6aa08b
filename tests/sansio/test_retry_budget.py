"""The budget of retries, on a clock of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.breaker import BreakerPolicy
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.retry_budget import WINDOW_SECONDS, RetryBudget


def test_a_program_with_few_calls_retries_as_often_as_its_policy_says() -> None:
    policy = RetryPolicy()
    budget = RetryBudget(policy.budget_ratio or 0.0, policy.budget_floor, 0.0)
    for _ in range(5):
        budget.note_call(0.0)
        assert all(budget.take(0.0) for _ in range(policy.attempts - 1))


def test_a_thousand_calls_at_once_may_be_retried_a_hundred_times_and_the_floor() -> None:
    budget = RetryBudget(0.1, 20, 0.0)
    for _ in range(1000):
        budget.note_call(0.0)
    assert sum(budget.take(1.0) for _ in range(4000)) == 120


def test_what_calls_put_in_is_good_for_ten_seconds() -> None:
    budget = RetryBudget(1.0, 0, 0.0)
    for _ in range(100):
        budget.note_call(0.0)
    assert budget.left(4.9) == budget.left(9.9) == 100
    assert budget.left(10.0) == 0
    assert not budget.take(10.0)


def test_the_floor_comes_back() -> None:
    budget = RetryBudget(0.0, 3, 0.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(9.9)
    assert [budget.take(10.0) for _ in range(4)] == [True, True, True, False]


def test_a_retry_that_succeeded_costs_nothing() -> None:
    budget = RetryBudget(0.0, 1, 0.0)
    for _ in range(100):
        assert budget.take(0.0)
        assert not budget.take(0.0)
        budget.give_back(0.0)


def test_a_retry_that_succeeds_late_does_not_add_to_the_budget() -> None:
    budget = RetryBudget(0.0, 5, 0.0)
    assert budget.take(0.0)
    budget.give_back(100.0)
    assert budget.left(100.0) == 5


def test_a_circuit_opens_before_the_floor_is_spent() -> None:
    breaker = BreakerPolicy()
    assert RetryPolicy().budget_floor >= 2 * breaker.failures * breaker.share


def test_a_retry_that_succeeds_in_another_half_of_the_window_leaves_nothing_over() -> None:
    budget = RetryBudget(0.0, 1, 0.0)
    assert budget.take(2.0)
    budget.give_back(8.0)
    assert budget.left(8.0) == budget.left(11.0) == budget.left(16.0) == 1


@given(
    st.floats(0, 1),
    st.integers(0, 20),
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["call", "retry", "retry", "success"]))),
)
def test_failed_retries_are_never_more_than_the_share_and_the_floor(
    ratio: float, floor: int, happened: list[tuple[float, str]]
) -> None:
    budget, now = RetryBudget(ratio, floor, 0.0), 0.0
    calls: list[float] = []
    retries: list[float] = []
    for pause, what in happened:
        now += pause
        if what == "call":
            budget.note_call(now)
            calls.append(now)
        elif what == "retry" and budget.take(now):
            retries.append(now)
        elif what == "success" and retries:
            budget.give_back(now)
            retries.pop()  # the newest, as the budget does
        lately = sum(at > now - WINDOW_SECONDS / 2 for at in retries)
        paid = sum(at >= now - WINDOW_SECONDS * (1 + 1e-9) for at in calls)
        assert lately <= floor + ratio * paid + 1e-6


@pytest.mark.parametrize(
    "settings",
    [{"budget_ratio": -0.1}, {"budget_ratio": float("inf")}, {"budget_ratio": float("nan")},
     {"budget_floor": -1}, {"budget_floor": 1.5}],
)  # fmt: skip
def test_settings_of_the_budget_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        RetryPolicy(**settings)  # type: ignore[arg-type]
