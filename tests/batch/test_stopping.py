"""When a run stops before its end."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async import AuthError, ConfigError, NotFoundError, QuotaError, ServerError
from ernie_async.batch.stopping import BatchError, Budget, Losses

WRONG_KEY = AuthError("x", status=401, code="invalid_iam_token")
NO_MODEL = NotFoundError("x", status=404, code="invalid_model")


def first_stop(errors, max_errors=None) -> tuple[int, str] | None:
    losses = Losses(max_errors)
    for number, error in enumerate(errors, 1):
        reason = losses.note(error, failed=error is not None)
        if reason is not None:
            return number, reason
    return None


def test_the_first_twenty_with_one_refusal_stop() -> None:
    assert first_stop([WRONG_KEY] * 100) == (20, "auth")
    assert first_stop([NO_MODEL] * 100) == (20, "auth")
    assert first_stop([WRONG_KEY] * 10 + [NO_MODEL] * 30) is None
    assert first_stop([ServerError("x", status=500)] * 100) is None


def test_fifty_in_a_row_stop_later() -> None:
    assert first_stop([None, *[WRONG_KEY] * 100]) == (51, "auth")
    assert first_stop(([WRONG_KEY] * 49 + [None]) * 3, "100%") == (20, "auth")
    assert first_stop([None, *([WRONG_KEY] * 49 + [None]) * 3]) is None


def test_money_that_is_gone_is_hopeless_too() -> None:
    assert first_stop([QuotaError("x", status=403, code="account_overdue")] * 60) == (20, "auth")


@pytest.mark.parametrize(
    ("text", "stop"), [(2, 3), ("2", 3), ("0", 1), ("5%", 100), ("100%", None), (None, None)]
)
def test_max_errors(text, stop) -> None:
    found = first_stop([ServerError("x")] * 200, text)
    assert found == (None if stop is None else (stop, "errors"))


@pytest.mark.parametrize("text", ["x", "-1", "101%", "5 %x"])
def test_max_errors_is_checked(text) -> None:
    with pytest.raises(ConfigError, match="max_errors"):
        Losses(text)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40))
def test_what_is_spent_never_exceeds_the_budget_by_more_than_the_estimates_were_wrong(
    calls,
) -> None:
    budget = Budget(None, 100, tokens=10)
    for estimate, extra in calls:
        if budget.reserve(0.0, estimate):
            budget.release(0.0, estimate)
            budget.spend(0.0, estimate + extra)
    assert budget.tokens <= 100 + 7


def test_reservations_count() -> None:
    budget = Budget(1.0, None, cost=0.5)
    assert budget.reserve(0.3, 10)
    assert not budget.reserve(0.3, 10)
    budget.release(0.3, 10)
    assert budget.reserve(0.3, 10)


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(BatchError("x", "locked")))
    assert (error.message, error.reason) == ("x", "locked")
