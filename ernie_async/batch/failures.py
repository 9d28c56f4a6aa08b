"""What an error means for a line, and for all of them. Pure."""

from ernie_async.errors import (
    APIError,
    AuthError,
    BlockedError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    NoKeyError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from ernie_async.sansio.breaker import is_outage
from ernie_async.sansio.load import OVERLOAD

__all__ = [
    "code_of",
    "hopeless",
    "may_be_billed",
    "was_answered",
    "was_refused",
    "was_unreached",
]

# With these a service says that it did not even begin.
REFUSING = {429, 503, 529}


def code_of(error: ErnieError) -> str:
    """Our code for a failed attempt."""
    match error:
        case DeadlineError():
            return "timeout"
        case ConfigError():
            return "invalid_request"
        case BlockedError() | RefusedError():
            return "content_filter"
        case RateLimitError() | NoKeyError():
            return "rate_limited"
        case APIError(code=str(code)):
            return code
        case APIError(status=status):
            return f"http_{status}"
        case DecodeError():
            return "invalid_answer"
        case ConnectError():
            return "connection"
        case _:
            return "internal"


def may_be_billed(error: ErnieError) -> bool:
    """Whether the service may have worked, and nobody heard of it."""
    match error:
        case ConnectError(was_sent=was_sent):
            return was_sent
        case DeadlineError(clock=clock):
            return clock != "connect"
        case _:
            return False


def was_unreached(error: ErnieError) -> bool:
    """Whether there was no connection, so that any other line would have met the same."""
    return isinstance(error, ConnectError | DeadlineError) and not may_be_billed(error)


def was_answered(error: ErnieError) -> bool:
    """Whether a server that is well said something, if only that it refuses."""
    return isinstance(error, APIError | BlockedError | DecodeError) and not is_outage(error)


def was_refused(error: ErnieError) -> bool:
    """Whether the service cannot have worked on the request."""
    match error:
        case _ if was_unreached(error):
            return True
        case RateLimitError() | NoKeyError():
            return True
        case ServerError(status=status, code=code):
            return status in REFUSING or (code or "").lower() in OVERLOAD
        case _:
            return False


def hopeless(error: ErnieError | None) -> str | None:
    """What a refusal says that all lines will meet; `None` if it is none of these."""
    if not isinstance(error, AuthError | NotFoundError | QuotaError):
        return None
    return f"{type(error).__name__} {error.status} {error.code}"
