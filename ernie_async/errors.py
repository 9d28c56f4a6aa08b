"""Everything that can go wrong, as one tree. The branch says whose turn it is.

    ErnieError
      ConfigError               the caller's mistake, found before any byte is sent
      TransportError            no usable answer came
        ConnectError            no connection, or it broke              .was_sent
        DeadlineError           a named clock ran out                    .clock .seconds .partial
        InterruptedStreamError  the stream ended before its end   .partial .last_event_id .reason
        DecodeError             bytes that the protocol does not allow   .body
        CircuitOpenError        not sent: the server has been failing      .retry_after
        NoKeyError              not sent: no key of the pool is usable     .retry_after
        LimiterError            the limiter that processes share is down, so nothing was sent
      APIError                  the service said no     .status .code .request_id .retry_after
        AuthError               credential missing, wrong, expired, or of the wrong kind
        BadRequestError         the request is not acceptable
        NotFoundError           no such model or path
        RateLimitError          too much at the moment; waiting helps
        QuotaError              nothing left to spend; waiting does not help
        RefusedError            the service's own safety check
        ServerError             the service's fault; waiting may help
      BlockedError              the answer must not be shown .partial .term .flag .ban_round
      BudgetError               a budget of this program is spent        .tokens .cost .partial
      DrainError                this client takes no more calls
      OutputError               the answer did not fit the asked model   .text
      ToolLoopError             rounds or time used up before an answer  .messages

Knows the types an error may carry, and nothing of how errors come about. All of them can be
pickled, and none holds a credential: a raw error of the HTTP library, which holds the request's
headers, is never chained.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message

__all__ = [
    "APIError",
    "AuthError",
    "BadRequestError",
    "BlockedError",
    "BudgetError",
    "CircuitOpenError",
    "ConfigError",
    "ConnectError",
    "DeadlineError",
    "DecodeError",
    "DrainError",
    "ErnieError",
    "FailedAttempt",
    "InterruptedStreamError",
    "LimiterError",
    "NoKeyError",
    "NotFoundError",
    "OutputError",
    "QuotaError",
    "RateLimitError",
    "RefusedError",
    "ServerError",
    "ToolLoopError",
    "TransportError",
    "shorten",
]


# The service's safety class "take back what was shown".
RETRACT_FLAG = 4


class FailedAttempt(NamedTuple):
    """One request that failed, or a model that could not be asked, as the final error lists it.

    Attributes:
        error: The error's class and its short message.
        status: HTTP status, `None` if no answer came.
        code: The service's code, `None` if it sent none.
        waited: Seconds waited before this attempt.
        model: The model that was asked, if any.
    """

    error: str
    status: int | None
    code: str | None
    waited: float
    model: str | None = None


def shorten(value: object, limit: int = 80) -> str:
    """A value as an error message shows it: its `repr`, at most `limit` characters of it."""
    shown = repr(value)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


class ErnieError(Exception):
    """Base of every error of this library.

    Attributes:
        attempts: Every attempt of this call that failed, oldest first; empty if there was none,
            since it ended in line or before.
        request_id: What to quote to the service's support: the service's own id, else the one we
            sent as `X-Request-Id`; `None` if there was no attempt.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.attempts: tuple[FailedAttempt, ...] = ()
        self.request_id: str | None = None

    @property
    def message(self) -> str:
        """The message alone, without the list of attempts."""
        return str(self.args[0])

    def __str__(self) -> str:
        if len(self.attempts) < 2:
            return self.message
        n_attempts = len(self.attempts)
        has_fallen_back = len({attempt.model for attempt in self.attempts}) > 1
        different = dict.fromkeys(
            f"{attempt.model}: {attempt.error}"
            if has_fallen_back and attempt.model is not None
            else attempt.error
            for attempt in self.attempts
        )
        if len(different) == 1:
            return f"{self.message} [{n_attempts} attempts, all the same]"
        return f"{self.message} [{n_attempts} attempts: {'; '.join(different)}]"


class ConfigError(ErnieError, ValueError):
    """The caller's mistake, found before any byte is sent."""


class TransportError(ErnieError):
    """No usable answer came."""


class ConnectError(TransportError):
    """No connection could be made, or it broke before an answer could be used.

    Attributes:
        was_sent: Whether the service may have got the request; `False` if there was no connection.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class DeadlineError(TransportError, TimeoutError):
    """A named clock ran out.

    Attributes:
        clock: `connect`, `first_event`, `idle` or `total`, see `Timeouts`; or `queue`: the line
            of the limiter was longer than `max_wait`, and nothing was sent.
        seconds: How long that clock had.
        partial: What a stream had delivered; `None` if nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        clock: str = "total",
        seconds: float = 0.0,
        partial: ChatCompletion | None = None,
    ) -> None:
        super().__init__(message)
        self.clock = clock
        self.seconds = seconds
        self.partial = partial


class InterruptedStreamError(TransportError):
    """The stream ended with neither a finish reason nor `[DONE]`, or was left before its end.

    Attributes:
        partial: What had been delivered; `None` if nothing.
        last_event_id: The last `id:` the server sent; `None` if it sends none.
        retry_after: Seconds the server asks to wait before it is asked again, from its `retry:`;
            `None` if it does not say.
        reason: What `ChatStream.cancel` was given; `None` if nobody cancelled.
    """

    def __init__(
        self,
        message: str,
        *,
        partial: ChatCompletion | None = None,
        last_event_id: str | None = None,
        retry_after: float | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.last_event_id = last_event_id
        self.retry_after = retry_after
        self.reason = reason


class DecodeError(TransportError):
    """Bytes came that the protocol does not allow.

    Attributes:
        body: The start of them, at most 2,000 bytes. Shown by `str`, but not part of `message`, so
            that a log of messages holds no text of an answer.
        partial: What a stream had delivered before; `None` if nothing.
    """

    def __init__(
        self, message: str, *, body: bytes = b"", partial: ChatCompletion | None = None
    ) -> None:
        super().__init__(message)
        self.body: bytes = body[:2000]
        self.partial = partial

    def __str__(self) -> str:
        shown = f"; it begins {shorten(self.body[:200], 200)}" if self.body else ""
        return super().__str__() + shown


class CircuitOpenError(TransportError):
    """Not sent, since most of the last requests to this server and model failed.

    Attributes:
        retry_after: Seconds until the server is asked again.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoKeyError(TransportError):
    """Not sent, since every key of the pool was refused or has to wait.

    Attributes:
        retry_after: Seconds until the first of them is tried again.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LimiterError(TransportError):
    """The limiter that processes share cannot be reached, so the request was not sent."""


class APIError(ErnieError):
    """The service said no.

    Attributes:
        status: HTTP status; 200 when the refusal came inside a good answer.
        code: The service's own word, such as `rpm_rate_limit_exceeded`; `None` if it sent none.
        retry_after: Seconds the service asks to wait; `None` if it does not say.
        remedy: What to do about this code, in English; empty if the code is not known.
        remedy_zh: The same in Chinese.
        partial: What a stream had delivered before the error; `None` if nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        remedy: str = "",
        remedy_zh: str = "",
        partial: ChatCompletion | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.remedy = remedy
        self.remedy_zh = remedy_zh
        self.partial = partial


class AuthError(APIError):
    """The credential is missing, wrong, expired, or not of the kind this address takes."""


class BadRequestError(APIError):
    """The service does not accept this request as it is."""


class NotFoundError(APIError):
    """No such model or path, or no right to it."""


class RateLimitError(APIError):
    """Too much at the moment; waiting helps."""


class QuotaError(APIError):
    """Nothing left to spend, or no subscription; waiting does not help."""


class RefusedError(APIError):
    """The service's own safety check refused the input."""


class ServerError(APIError):
    """The service failed; the same request may succeed later."""


class BlockedError(ErnieError):
    """The answer, or the rest of it, must not be shown.

    Attributes:
        partial: What had been delivered; `None` if nothing.
        term: What our own filter found; `None` if it must not be told.
        flag: The service's safety class, 3 or 4; `None` if it only said `content_filter`.
        ban_round: Where the service sees the problem: the round, or -1 for this question.
        is_retracted: Whether also what was delivered, `partial`, has to be taken back.
    """

    def __init__(
        self,
        message: str,
        *,
        partial: ChatCompletion | None = None,
        term: str | None = None,
        flag: int | None = None,
        ban_round: int | None = None,
        is_retracted: bool = False,
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.term = term
        self.flag = flag
        self.ban_round = ban_round
        self.is_retracted: bool = is_retracted or flag == RETRACT_FLAG


class BudgetError(ErnieError):
    """A budget of this program is spent; see `AsyncClient.budget`.

    Attributes:
        tokens: What was used of it; estimated in part, as long as calls are under way.
        cost: The same in CNY, as far as the models have a price.
        partial: What a stream had delivered when it was cut; `None` if nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        tokens: int = 0,
        cost: float = 0.0,
        partial: ChatCompletion | None = None,
    ) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.cost = cost
        self.partial = partial


class DrainError(ErnieError):
    """The client is drained or closed: it takes no more calls, or this one was not over in time."""


class OutputError(ErnieError):
    """The answer did not fit the model that was asked for.

    Attributes:
        text: The answer as it came.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class ToolLoopError(ErnieError):
    """Rounds or time were used up before there was an answer.

    Attributes:
        messages: The conversation so far.
    """

    def __init__(self, message: str, *, messages: Sequence[Message] = ()) -> None:
        super().__init__(message)
        self.messages: tuple[Message, ...] = tuple(messages)
