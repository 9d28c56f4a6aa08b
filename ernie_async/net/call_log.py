"""What one call tells: its observers as it goes, and the error that it ends with, if it fails."""

from collections.abc import Callable, Sequence
from typing import Literal

from ernie_async.errors import (
    APIError,
    ConfigError,
    ErnieError,
    FailedAttempt,
    NotFoundError,
)
from ernie_async.net.admission import AnyPermit
from ernie_async.net.hooks import (
    CallEnded,
    CallStarted,
    FellBack,
    Hook,
    LimiterPaused,
    Queued,
    RetryScheduled,
    brief,
    tell,
    tell_content,
)
from ernie_async.sansio.rest import Request
from ernie_async.types.completion import AnswerHead, ChatCompletion
from ernie_async.types.messages import Message
from ernie_async.types.usage import Timing, Usage

__all__ = ["CallLog"]


class CallLog:
    """The hooks of a call, and its attempts that failed.

    Args:
        number: The call's.
        hooks: Those of the client that makes it, whichever client's model is asked.
    """

    failures: tuple[FailedAttempt, ...] = ()
    _waited = 0.0  # before the attempt under way

    def __init__(self, number: int, hooks: Sequence[Hook]) -> None:
        self._number = number
        self._hooks = hooks

    def started(self, request: Request, *, server: str, base_url: str) -> None:
        """The call begins."""
        started = CallStarted(
            call=self._number,
            method=request.method,
            path=request.path,
            model=request.model,
            is_stream=request.is_stream,
            server=server,
            base_url=base_url,
        )
        tell(self._hooks, started)

    def queued(self, request: Request, permit: AnyPermit) -> None:
        """It has to wait in line."""
        queued = Queued(
            call=self._number,
            model=request.model,
            priority=request.priority,
            position=permit.position,
            estimated_wait=permit.estimated_wait,
        )
        tell(self._hooks, queued)

    def paused(self, model: str | None, seconds: float | None, reason: str) -> None:
        """It was told that a quota is spent."""
        tell(self._hooks, LimiterPaused(self._number, model, seconds, reason))

    def failed(
        self, error: ErnieError, request: Request, base_url: str, *, has_begun: bool
    ) -> None:
        """Add to the list of failed attempts, which the error then carries.

        Args:
            error: What happened.
            request: What was asked.
            base_url: Where it was asked.
            has_begun: Whether there was an attempt at all: in line, there is none.
        """
        if isinstance(error, NotFoundError) and error.code is None:
            # A bare 404 comes from a wrong base URL more often than not.
            path = request.path
            url = f"{base_url}{path}" if path.startswith("/") else path
            error.args = (f"{error.message}; there is nothing at {url}", *error.args[1:])
        if has_begun:
            refusal = error if isinstance(error, APIError) else None
            failure = FailedAttempt(
                error=brief(error),
                status=None if refusal is None else refusal.status,
                code=None if refusal is None else refusal.code,
                waited=self._waited,
                model=request.model,
            )
            self.failures += (failure,)
        error.attempts = self.failures
        if error.attempts:
            error.request_id = error.request_id or request.request_id

    def skipped(self, problem: ConfigError, error: ErnieError) -> None:
        """Another model was to be asked because of an error, and cannot be: the error lists it."""
        self.failures += (FailedAttempt(brief(problem), status=None, code=None, waited=0.0),)
        error.attempts = self.failures

    def retries(self, error: ErnieError, attempt: int, delay: float) -> None:
        """It waits, and is sent again."""
        self._waited = delay
        tell(self._hooks, RetryScheduled(self._number, attempt, delay, brief(error)))

    def fell_back(self, before: str, after: str, error: ErnieError) -> None:
        """It asks another model."""
        tell(self._hooks, FellBack(self._number, before, after, brief(error)))

    def ended(
        self,
        outcome: Literal["ok", "error", "cancelled"],
        *,
        error: ErnieError | None,
        request_id: str,
        timing: Timing,
        usage: Usage | None,
        asked: Sequence[Message],
        answer: AnswerHead,
        completion: Callable[[], ChatCompletion] | None,
    ) -> None:
        """The call is over. See `Call.end`."""
        if asked:
            tell_content(self._hooks, self._number, asked, completion)
        ended = CallEnded(
            call=self._number,
            outcome=outcome,
            error=None if error is None else brief(error),
            request_id=request_id,
            timing=timing,
            usage=usage,
            response_id=answer.id,
            model=answer.model,
            finish_reasons=answer.finish_reasons,
        )
        tell(self._hooks, ended)
