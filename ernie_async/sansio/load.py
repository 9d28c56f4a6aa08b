"""What a failure says of the load: too much in a minute, too much at once, or nothing."""

from ernie_async.errors import (
    APIError,
    ConnectError,
    DeadlineError,
    ErnieError,
    InterruptedStreamError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.refusals import CODES

__all__ = ["is_congestion", "is_quota"]

# Timeout, unavailable, timeout of a gateway, overloaded.
CONGESTED = {408, 503, 504, 529}

# Codes of overload may come with any status, and inside of a good answer.
OVERLOAD = {
    code for code, meaning in CODES.items() if meaning is CODES["cluster_rate_limit_exceeded"]
}

# Clocks that measure the service.
CLOCKS = {"connect", "first_event", "idle"}


def is_quota(error: ErnieError) -> bool:
    """Whether the quota of a minute or a second is spent: whoever asks now is refused as well."""
    if not isinstance(error, RateLimitError) or error.code is None:
        return False
    code = error.code.lower()
    return code in CODES or "rate_limit" in code


def is_congestion(error: ErnieError) -> bool:
    """Whether fewer calls at once would have helped, as far as the error tells."""
    match error:
        case RateLimitError():
            # Without a code of a quota, it is the server's own queue that is full.
            return not is_quota(error)
        case ServerError():
            return error.status in CONGESTED or (error.code or "").lower() in OVERLOAD
        case APIError():
            return False
        case DeadlineError(clock=clock):
            return clock in CLOCKS
        case InterruptedStreamError():
            return error.reason is None
        case _:
            return isinstance(error, ConnectError)
