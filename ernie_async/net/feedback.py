"""What a limiter is told of an attempt, so that the calls after it fare better.

All of it has to be told before the permit is released.
"""

from ernie_async.errors import APIError, BudgetError, ConnectError, DeadlineError, ErnieError
from ernie_async.net.admission import AnyPermit
from ernie_async.sansio.load import is_congestion, is_quota
from ernie_async.types.usage import Usage

__all__ = ["settle_failed", "tell_failure", "tell_success"]

# The time of an answer shorter than this is spent on the way, and not on its tokens.
TOKENS_OF_A_PACE = 16


def tell_success(permit: AnyPermit, usage: Usage | None, seconds: float) -> None:
    """Tell of an answer that came whole.

    Args:
        permit: Of the attempt.
        usage: What the service told; `None` if nothing.
        seconds: How long it took.
    """
    tokens = 0 if usage is None else usage.completion_tokens
    permit.succeeded(seconds * 1000 / tokens if tokens >= TOKENS_OF_A_PACE else None)


def tell_failure(permit: AnyPermit, error: ErnieError, *, max_retry_after: float) -> bool:
    """Tell what an error means for others.

    Args:
        permit: Of the attempt.
        error: What it ended with.
        max_retry_after: Seconds. If the service asks to wait longer, nobody is held up: each call
            is told by the service itself, and fails.

    Returns:
        Whether others have to wait from now on, since the quota is spent.
    """
    if is_quota(error):
        assert isinstance(error, APIError)
        if error.retry_after is not None and error.retry_after > max_retry_after:
            return False
        permit.refused(error.retry_after)
        return True
    if is_congestion(error):
        permit.congested()
    return False


def settle_failed(permit: AnyPermit, error: ErnieError) -> None:
    """Put back what a failed attempt did not use."""
    match error:
        case ConnectError(was_sent=False) | DeadlineError(clock="connect") | BudgetError():
            never_sent = True
        case _:
            never_sent = False
    if never_sent:
        permit.give_back()
    elif isinstance(error, APIError):
        permit.settle(tokens=0)
