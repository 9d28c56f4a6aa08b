"""Which errors are worth asking another model, and when one may go on for another."""

import pytest

from ernie_async.errors import (
    AuthError,
    BadRequestError,
    BlockedError,
    BudgetError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    DrainError,
    ErnieError,
    InterruptedStreamError,
    NoKeyError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.fallback import falls_back, may_hand_over
from ernie_async.sansio.refusals import CODES, refusal
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import ResumePolicy
from ernie_async.types.chunk import ChatChunk

YES: list[ErnieError] = [
    ServerError("x"),
    ConnectError("x"),
    RateLimitError("x"),
    QuotaError("x"),
    NotFoundError("x", code="invalid_model"),
    CircuitOpenError("x"),
    NoKeyError("x"),
    DeadlineError("x", clock="first_event"),
    DeadlineError("x", clock="connect"),
    DeadlineError("x", clock="idle"),
    InterruptedStreamError("x"),
]
NO: list[ErnieError] = [
    NotFoundError("x"),
    DeadlineError("x", clock="total"),
    InterruptedStreamError("x", reason="left"),
    AuthError("x"),
    BadRequestError("x"),
    BlockedError("x"),
    BudgetError("x"),
    ConfigError("x"),
    DecodeError("x"),
    DrainError("x"),
    RefusedError("x"),
]


@pytest.mark.parametrize("error", YES, ids=repr)
def test_another_model_may_help(error: ErnieError) -> None:
    assert falls_back(error)


@pytest.mark.parametrize("error", NO, ids=repr)
def test_no_other_model_would_help(error: ErnieError) -> None:
    assert not falls_back(error)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("model_offline", True),
        ("invalid_model", True),
        ("account_overdue", True),
        ("coding_plan_month_quota_exceeded", True),
        ("cluster_rpm_rate_limit_exceeded", True),
        ("tpm_rate_limit_exceeded", True),
        ("internal_error", True),
        ("invalid_iam_token", False),
        ("tokens_too_long", False),
        ("system_unsafe", False),
    ],
)
def test_codes_of_the_service(code: str, expected: bool) -> None:
    assert code in CODES
    assert falls_back(refusal(403, {"error": {"code": code}}, {}, utc_now=0.0)) is expected


REQUEST = Request("POST", "/chat/completions", b'{"messages":[]}', {}, "ea-1", model="a")


def answer_with(delta: dict[str, object]) -> Accumulator:
    answer = Accumulator()
    answer.feed(ChatChunk.model_validate({"choices": [{"delta": delta}]}))
    return answer


@pytest.mark.parametrize(
    ("policy", "delta", "error", "n_resumes", "expected"),
    [
        (ResumePolicy(mode="continue"), {"content": "字"}, ServerError("x"), 0, True),
        (ResumePolicy(mode="continue"), {"content": "字"}, QuotaError("x"), 0, True),
        (ResumePolicy(mode="continue"), {"content": "字"}, BadRequestError("x"), 0, False),
        (ResumePolicy(mode="continue", most=1), {"content": "字"}, ServerError("x"), 1, False),
        (ResumePolicy(mode="server"), {"content": "字"}, ServerError("x"), 0, False),
        (ResumePolicy(mode="never"), {"content": "字"}, ServerError("x"), 0, False),
        (ResumePolicy(mode="continue"), {"reasoning_content": "字"}, ServerError("x"), 0, False),
        (
            ResumePolicy(mode="continue"),
            {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
            ServerError("x"),
            0,
            False,
        ),
    ],
)
def test_another_model_goes_on_only_if_it_may(
    policy: ResumePolicy, delta, error: ErnieError, n_resumes: int, expected: bool
) -> None:
    answer = answer_with(delta)
    assert may_hand_over(policy, REQUEST, answer, error, n_resumes=n_resumes) is expected
