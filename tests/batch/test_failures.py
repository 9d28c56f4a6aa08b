"""What an error means for a line."""

import pytest

from ernie_async import (
    APIError,
    AuthError,
    BlockedError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from ernie_async.batch.failures import code_of, may_be_billed, was_refused


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeadlineError("x"), "timeout"),
        (ConnectError("x"), "connection"),
        (DecodeError("x"), "invalid_answer"),
        (RateLimitError("x", code="rpm_rate_limit_exceeded"), "rate_limited"),
        (RefusedError("x", code="system_unsafe"), "content_filter"),
        (BlockedError("x"), "content_filter"),
        (AuthError("x", code="invalid_iam_token"), "invalid_iam_token"),
        (APIError("x", status=418), "http_418"),
        (ConfigError("x"), "invalid_request"),
    ],
)
def test_codes(error, code) -> None:
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("error", "is_refused", "is_billed"),
    [
        (ConnectError("x", was_sent=False), True, False),
        (ConnectError("x", was_sent=True), False, True),
        (DeadlineError("x", clock="connect"), True, False),
        (DeadlineError("x", clock="first_event"), False, True),
        (RateLimitError("x", status=429), True, False),
        (ServerError("x", status=503), True, False),
        (ServerError("x", status=500), False, False),
        (ServerError("x", status=500, code="cluster_rate_limit_exceeded"), True, False),
        (DecodeError("x"), False, False),
    ],
)
def test_whether_the_service_has_worked(error, is_refused, is_billed) -> None:
    assert (was_refused(error), may_be_billed(error)) == (is_refused, is_billed)
