"""Decide whether another model is asked instead, in one table of errors.

Knows what went wrong; knows neither models nor connections. By the time it is asked, the retry
policy has given up on the model at hand.
"""

from ernie_async.errors import (
    CircuitOpenError,
    ConnectError,
    DeadlineError,
    ErnieError,
    InterruptedStreamError,
    NoKeyError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import ResumePolicy, continuations

__all__ = ["falls_back", "may_hand_over"]


def falls_back(error: ErnieError) -> bool:
    """Whether another model may answer what this one could not.

    This is the whole table. Not in it is what no other model would mend: a wrong request, a wrong
    key, a text that the service refuses, a budget that is spent.
    """
    match error:
        case ServerError() | ConnectError():
            return True  # overload, `cluster_...` among it, and a host that is not there
        case CircuitOpenError() | NoKeyError():
            return True  # circuits and most rests of keys are of one model
        case RateLimitError() | QuotaError():
            return True  # limits and prices are counted by the model
        case NotFoundError(code=code):
            return code is not None  # a bare 404 is a wrong base URL
        case DeadlineError(clock=clock):
            return clock != "total"  # the whole call has no time left
        case InterruptedStreamError(reason=reason):
            return reason is None  # somebody wanted it to end
        case _:
            return False


def may_hand_over(
    policy: ResumePolicy,
    request: Request,
    answer: Accumulator,
    error: ErnieError,
    *,
    n_resumes: int,
) -> bool:
    """Whether another model may go on with an answer that was delivered in part.

    Args:
        policy: The caller's wish.
        request: What was asked.
        answer: What was delivered.
        error: What broke the stream.
        n_resumes: How often this stream was resumed already.
    """
    if policy.mode != "continue" or n_resumes >= policy.most or not falls_back(error):
        return False
    return bool(continuations(policy, request, answer))
