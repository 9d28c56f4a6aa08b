"""One call made properly: admitted, authorised, retried, observed.

Knows what every call has in common, whole or streamed. What one attempt does is handed in.
"""

import asyncio
import itertools
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import monotonic, time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from ernie_async.errors import (
    APIError,
    AuthError,
    ConnectError,
    DeadlineError,
    ErnieError,
    FailedAttempt,
    NotFoundError,
)
from ernie_async.net.body import read_body
from ernie_async.net.hooks import CallEnded, CallStarted, Hook, RetryScheduled, tell
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.net.transport import Reply, Transport
from ernie_async.sansio.auth import ApiKey, MaskedStr
from ernie_async.sansio.ledger import Ledger
from ernie_async.sansio.read_buffer import ReadBuffer
from ernie_async.sansio.rest import Request, read_answer
from ernie_async.sansio.resume import ResumePolicy
from ernie_async.sansio.retry import RetryPolicy, may_pass
from ernie_async.sansio.servers import Server
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import OutputEstimate, estimate_usage
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage

if TYPE_CHECKING:
    # Imported by whoever has a pair of keys: most programs have one key.
    from ernie_async.net.credentials import IamTokens
    from ernie_async.sansio.content_filter import ContentFilter

__all__ = ["Call", "Desk", "brief", "settle_failed"]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

# The service says this of a token that has expired, as of one that was never good.
TOKEN_REFUSED = "invalid_iam_token"  # noqa: S105 - no secret

_numbers = itertools.count(1)


class Desk(NamedTuple):
    """What all calls of a client share."""

    transport: Transport
    key: "ApiKey | IamTokens | None"
    limiter: Limiter | None
    retry: RetryPolicy
    server: Server
    resume: ResumePolicy
    read_buffer: ReadBuffer
    timeouts: Timeouts
    hooks: Sequence[Hook]
    output: OutputEstimate
    ledger: Ledger
    max_event_bytes: int
    content_filter: "ContentFilter | None"
    formless_models: set[str]  # refused `response_format`

    async def answer(
        self, request: Request, model: type[M], *, check: Callable[[M], M] | None = None
    ) -> M:
        """Make a call whose answer comes in one piece, and read it.

        Args:
            request: What to ask.
            model: What the answer is.
            check: Puts an answer in order, or says what is wrong with it.

        Raises:
            ErnieError: See the tree in `errors`.
        """

        async def receive(reply: Reply) -> M:
            body = await read_body(reply)
            answer = read_answer(model, reply.status, reply.headers, body, utc_now=time())
            return answer if check is None else check(answer)

        return await self.fetch(request, receive)

    async def fetch(self, request: Request, receive: Callable[[Reply], Awaitable[T]]) -> T:
        """Make a call whose answer comes in one piece, whatever it is.

        Args:
            request: What to ask.
            receive: Reads an answer to its end, or says what is wrong with it; once for each
                attempt.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        call = Call(self, request)
        try:
            async with asyncio.timeout(call.total):
                answer = await call.until_it_works(lambda: _one_answer(call, receive))
        except ErnieError as error:
            call.end("error", error=error)
            raise
        except TimeoutError:
            failure = call.total_ran_out()
        except BaseException as error:
            call.end("cancelled" if isinstance(error, asyncio.CancelledError) else "error")
            raise
        else:
            usage = _told_usage(answer)
            if not isinstance(answer, ChatCompletion):
                call.end("ok", usage=usage)
                return answer
            if usage is None:
                usage = self.estimate(request, answer.reasoning + answer.text)
            else:
                self.output.note(usage.completion_tokens)
                self.learn(request, usage)
            self.ledger.note(request.model, usage)
            timing = call.end("ok", usage=usage, request_id=answer.request_id)
            answer.observed(request_id=request.request_id, timing=timing, usage=usage)
            return answer
        # Raised outside the handler: the cancellation inside is no news to the caller.
        call.end("error", error=failure)
        raise failure

    def learn(self, request: Request, usage: Usage) -> None:
        """Compare what was estimated with what the service told."""
        if request.estimate and request.model is not None:
            self.ledger.correction.note(
                request.model, estimated=request.estimate, real=usage.prompt_tokens
            )

    def estimate(self, request: Request, answer: str) -> Usage:
        """What a call consumed, by our own count and what was learnt of the model."""
        ratio = self.ledger.correction.ratio(request.model)
        return estimate_usage(request.messages, answer, ratio=ratio)

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        if not isinstance(self.key, ApiKey | None):
            await self.key.aclose()
        await self.transport.aclose()


class Call:
    """One call while it runs: its clock, its attempts, and what observers hear of them.

    Attributes:
        request: What the next attempt asks; changes when a stream is resumed.
    """

    __slots__ = (
        "_has_renewed",
        "_token",
        "_waits",
        "desk",
        "failures",
        "first_token",
        "number",
        "queued",
        "request",
        "sent",
        "started",
    )

    def __init__(self, desk: Desk, request: Request) -> None:
        self.desk = desk
        self.request = request
        self.number = next(_numbers)
        self.started = monotonic()
        self.queued = 0.0
        self.first_token: float | None = None
        self.sent = 0
        self.failures: list[FailedAttempt] = []
        self._waits = [0.0]
        self._token: MaskedStr | None = None  # the header that a short-lived token became
        self._has_renewed = False
        tell(
            desk.hooks,
            CallStarted(
                call=self.number,
                method=request.method,
                path=request.path,
                model=request.model,
                is_stream=request.is_stream,
            ),
        )

    @property
    def total(self) -> float | None:
        """Seconds the whole call may take."""
        return self.desk.timeouts.total_for(stream=self.request.is_stream)

    @property
    def ends_at(self) -> float | None:
        """When the whole call has to be over, on the clock of `time.monotonic`."""
        return None if self.total is None else self.started + self.total

    async def until_it_works(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make attempts as the retry policy allows; the final error lists them all."""

        noted = self._noting(attempt)
        try:
            return await noted()
        except ErnieError as error:
            if not may_pass(error):
                raise
            first = error
        try:
            return await self._again(first, noted, self.desk.retry, self.started)
        finally:
            del first  # its traceback holds this frame: left here, they would hold each other

    async def resume(self, error: ErnieError, attempt: Callable[[], Awaitable[T]]) -> T:
        """Wait as after any failure, and make attempts of their own count to go on.

        Args:
            error: What broke the stream.
            attempt: Makes one more.
        """
        # The break counts as an attempt that failed, besides those that the policy allows.
        policy = replace(self.desk.retry, attempts=self.desk.retry.attempts + 1)
        try:
            return await self._again(error, self._noting(attempt), policy, monotonic())
        finally:
            del error  # as above

    async def _again(
        self,
        first: ErnieError,
        attempt: Callable[[], Awaitable[T]],
        policy: RetryPolicy,
        started: float,
    ) -> T:
        # Imported here, since most programs never need it and tenacity takes 10 ms.
        from ernie_async.net.retrying import again  # noqa: PLC0415

        try:
            return await again(
                first,
                attempt,
                policy,
                started=started,
                ends_at=self.ends_at,
                before_wait=self._before_wait,
            )
        finally:
            del first

    def _noting(self, attempt: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        async def noted() -> T:
            try:
                return await attempt()
            except ErnieError as error:
                self.note_failure(error)
                if not self._renews(error):
                    raise
            # Once more at once, with another token: no failure of the service's, so it costs no
            # attempt of the policy.
            try:
                return await attempt()
            except ErnieError as error:
                self.note_failure(error)
                raise

        return noted

    def _renews(self, error: ErnieError) -> bool:
        """Whether a short-lived token was refused, and this call may ask for another one."""
        key = self.desk.key
        is_refused = isinstance(error, AuthError) and error.code == TOKEN_REFUSED
        if not is_refused or self._has_renewed or self._token is None or key is None:
            return False
        assert not isinstance(key, ApiKey)
        key.forget(self._token)
        self._has_renewed = True
        return True

    async def admit(self) -> Permit | None:
        """Wait for room for one attempt; `None` if nothing is limited."""
        if self.desk.limiter is None:
            return None
        request = self.request
        permit = await self.desk.limiter.admit(request.prompt_tokens + request.answer_tokens)
        self.queued += permit.waited
        return permit

    async def send(self) -> Reply:
        """Send the request once, and wait for the head of an answer."""
        request = self.request
        headers = {"X-Request-Id": request.request_id, **request.headers}
        if isinstance(request.body, bytes):
            headers["Content-Type"] = "application/json"
        key = self.desk.key
        if key is not None and self.desk.transport.is_home(request.path):
            if isinstance(key, ApiKey):
                headers["Authorization"] = key.header()
            else:
                self._token = None  # of an earlier attempt
                self._token = await key.header(connect=self.desk.timeouts.connect)
                headers["Authorization"] = self._token
        self.sent += 1
        return await self.desk.transport.open(
            request.method,
            request.path,
            body=request.body,
            headers=headers,
            connect=self.desk.timeouts.connect,
        )

    def timing(self) -> Timing:
        """Where the time went so far."""
        return Timing(
            queued=self.queued,
            first_token=self.first_token,
            total=monotonic() - self.started,
            attempts=self.sent,
        )

    def total_ran_out(self) -> DeadlineError:
        """The error for a call that took too long as a whole."""
        failure = DeadlineError(
            f"the call was not over within {self.total:g} s (Timeouts.total)",
            clock="total",
            seconds=self.total or 0.0,
        )
        self.note_failure(failure)
        return failure

    def end(
        self,
        outcome: Literal["ok", "error", "cancelled"],
        *,
        error: ErnieError | None = None,
        usage: Usage | None = None,
        request_id: str | None = None,
    ) -> Timing:
        """Tell that the call is over."""
        timing = self.timing()
        tell(
            self.desk.hooks,
            CallEnded(
                call=self.number,
                outcome=outcome,
                error=None if error is None else brief(error),
                request_id=(error and error.request_id) or request_id or self.request.request_id,
                timing=timing,
                usage=usage,
            ),
        )
        return timing

    def note_failure(self, error: ErnieError) -> None:
        """Add to the list of failed attempts, which the error then carries."""
        if isinstance(error, NotFoundError) and error.code is None:
            # A bare 404 comes from a wrong base URL more often than not.
            path = self.request.path
            url = f"{self.desk.transport.base_url}{path}" if path.startswith("/") else path
            error.args = (f"{error.message}; there is nothing at {url}", *error.args[1:])
        refusal = error if isinstance(error, APIError) else None
        self.failures.append(
            FailedAttempt(
                error=brief(error),
                status=None if refusal is None else refusal.status,
                code=None if refusal is None else refusal.code,
                waited=self._waits[-1],
            )
        )
        error.attempts = tuple(self.failures)
        error.request_id = error.request_id or self.request.request_id

    def _before_wait(self, error: ErnieError, attempt: int, delay: float) -> None:
        self._waits.append(delay)
        tell(
            self.desk.hooks,
            RetryScheduled(call=self.number, attempt=attempt, delay=delay, error=brief(error)),
        )


def brief(error: ErnieError) -> str:
    """What happened, in one line."""
    return f"{type(error).__name__}: {textwrap.shorten(error.message, 200)}"


async def _one_answer(call: Call, receive: Callable[[Reply], Awaitable[T]]) -> T:
    permit = await call.admit()
    try:
        reply = await call.send()
        try:
            answer = await receive(reply)
        finally:
            reply.close()
    except ErnieError as error:
        if permit is not None:
            settle_failed(permit, error)
        raise
    finally:
        if permit is not None:
            permit.release()
    usage = _told_usage(answer)
    if permit is not None and usage is not None:
        permit.settle(tokens=usage.total_tokens)
    return answer


def _told_usage(answer: object) -> Usage | None:
    """The usage that an answer tells; `None` if it tells none."""
    if not isinstance(answer, BaseModel) or "usage" not in answer.model_fields_set:
        return None
    usage = answer.__dict__.get("usage")  # one of unknown form is no field
    return usage if isinstance(usage, Usage) and not usage.is_estimate else None


def settle_failed(permit: Permit, error: ErnieError) -> None:
    """Put back what a failed attempt did not use."""
    if isinstance(error, ConnectError) and not error.was_sent:
        permit.give_back()
    elif isinstance(error, APIError):
        permit.settle(tokens=0)
