"""Which failures are of the load, and of which kind of load."""

import pytest

from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    CircuitOpenError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    QuotaError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.load import is_congestion, is_quota


@pytest.mark.parametrize(
    "code",
    [
        "rpm_rate_limit_exceeded",
        "TPM_Rate_Limit_Exceeded",
        "new_rate_limit_of_theirs",
        "18",
        "336501",
    ],
)
def test_a_refusal_with_the_code_of_a_quota_is_one(code: str) -> None:
    error = RateLimitError("no", status=429, code=code)
    assert is_quota(error)
    assert not is_congestion(error), "fewer calls at once would not have helped"


@pytest.mark.parametrize("code", [None, "", "queue_full"])
def test_without_such_a_code_it_is_a_queue_that_is_full(code: str | None) -> None:
    error = RateLimitError("no", status=429, code=code)
    assert not is_quota(error)
    assert is_congestion(error)


@pytest.mark.parametrize(
    "error",
    [
        *(ServerError("no", status=status) for status in (408, 503, 504, 529)),
        ServerError("no", status=200, code="cluster_rate_limit_exceeded"),
        ServerError("no", status=200, code="Cluster_Rate_Limit_Exceeded"),
        ServerError("no", status=500, code="336100"),
        *(DeadlineError("late", clock=clock) for clock in ("connect", "first_event", "idle")),
        InterruptedStreamError("cut"),
        ConnectError("no"),
        ConnectError("no", was_sent=False),
    ],
)
def test_what_too_many_calls_at_once_may_have_caused(error: ErnieError) -> None:
    assert is_congestion(error)
    assert not is_quota(error)


@pytest.mark.parametrize(
    "error",
    [
        ServerError("no", status=500),
        ServerError("no", status=500, code="internal_error"),
        *(kind("no", status=503) for kind in (APIError, AuthError, BadRequestError, QuotaError)),
        QuotaError("no", status=429, code="rpm_rate_limit_exceeded"),
        *(DeadlineError("late", clock=clock) for clock in ("total", "queue")),
        InterruptedStreamError("left", reason="the user went"),
        DecodeError("garbage"),
        CircuitOpenError("closed"),
        ErnieError("odd"),
    ],
)
def test_what_they_have_not(error: ErnieError) -> None:
    assert not is_congestion(error)
    assert not is_quota(error)
