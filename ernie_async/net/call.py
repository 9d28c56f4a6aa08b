"""One call made properly: admitted, authorised, retried, observed.

Knows what every call has in common, whole or streamed. What one attempt does is handed in.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import cached_property, partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ernie_async.errors import (
    APIError,
    AuthError,
    ConfigError,
    DeadlineError,
    DrainError,
    ErnieError,
    FailedAttempt,
)
from ernie_async.net.admission import AnyPermit
from ernie_async.net.budget import charge_of
from ernie_async.net.call_log import CallLog
from ernie_async.net.desk import Desk
from ernie_async.net.feedback import tell_failure
from ernie_async.net.guard import Guard
from ernie_async.net.hooks import brief, headers_of, is_heard
from ernie_async.net.reply import Reply
from ernie_async.sansio.auth import TOKEN_REFUSED, ApiKey, MaskedStr
from ernie_async.sansio.budget import Charge
from ernie_async.sansio.fallback import falls_back
from ernie_async.sansio.load import is_quota
from ernie_async.sansio.pause import PROBE_SECONDS
from ernie_async.sansio.rate_headers import RateHeaders, read_rate_headers
from ernie_async.sansio.rest import Request, Ways
from ernie_async.sansio.retry import RetryPolicy, may_pass
from ernie_async.types.completion import AnswerHead, ChatCompletion
from ernie_async.types.usage import Timing, Usage

if TYPE_CHECKING:
    from ernie_async.net.key_use import KeyUse

__all__ = ["Call"]

T = TypeVar("T")

TOO_MANY = 429

_numbers = itertools.count(1)


class Call:
    """One call while it runs: its clock and its attempts. What is told of them is its log's.

    Attributes:
        desk: Who makes the next attempt; changes when another client's model is asked.
        request: What the next attempt asks; changes when a stream is resumed, or another model
            asked.
        total: Seconds that the whole call may take.
        ends_at: When it has to be over, on the clock of `time.monotonic`.
        fallback: Ways to ask other models, the next one first.
        charge: What the budgets know of it; `None` outside of any.
        request_id: Once it is over, what the service calls it; until then, what we sent.
    """

    # What most calls never change is the class's own, which takes less than to set it in each.
    fell_back_from: tuple[str, ...] = ()
    queued: float = 0.0
    first_token: float | None = None
    sent: int = 0
    _token: MaskedStr | None = None  # the header that a short-lived token became
    _has_renewed = False
    _begun = 0  # attempts that waited for nothing of ours any more
    _was_under_way = False  # one of them was cancelled
    _refusals = 0  # for want of quota
    _refused_since = 0.0
    _keys: "KeyUse | None"
    _stop: Callable[[str], None] | None = None
    _stopped: str | None = None

    def __init__(self, desk: Desk, request: Request) -> None:
        roster = desk.roster
        roster.check()
        self.charge: Charge | None = charge_of(roster, desk.ledger, request)
        self.desk: Desk = desk
        self.request: Request = request
        self._asked = request.messages  # whatever a resumed stream asks in the end
        self.request_id: str = request.request_id
        self.fallback: Ways = request.fallback
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.number: int = next(_numbers)
        self.started: float = monotonic()
        self.total: float | None = desk.timeouts.total_for(stream=request.is_stream)
        self.ends_at: float | None = None if self.total is None else self.started + self.total
        self._equip()
        self._roster = roster
        roster.enter(self)
        self._is_heard = is_heard(desk.hooks)
        if self._is_heard:
            self._log.started(request, server=desk.server.name, base_url=desk.transport.base_url)

    @cached_property  # most calls have nothing to tell
    def _log(self) -> CallLog:
        return CallLog(self.number, self.desk.hooks)

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """Its attempts that failed so far."""
        return self._log.failures

    def _equip(self) -> None:
        """Take what goes with the requests of `desk`: a guard, and the keys of its pool, if any."""
        desk, request = self.desk, self.request
        self._is_home = is_home = desk.transport.is_home(request.path)
        self._guard = Guard(desk, self.number, request.model, self.started, self.ends_at)
        if desk.breaker is not None and is_home:
            url = desk.transport.base_url
            self._guard.circuit = desk.breaker.circuit(url, request.model, self.started)
        self._keys = None
        if desk.pool is not None and is_home:
            from ernie_async.net.key_use import KeyUse  # most clients have one key

            self._keys = KeyUse(desk.pool, self._guard, request.model, request.user)

    def answer_of(self, attempt: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """Make attempts as the retry policy allows, and then with other models, if some are named.

        Args:
            attempt: Makes one with `desk` and `request`, whatever they are then.
        """
        if self.fallback:
            return self._by_any_model(attempt)
        return self.until_it_works(attempt)

    async def _by_any_model(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await self.until_it_works(attempt)
            except ErnieError as error:
                if not falls_back(error) or not self.turn_to_next(error):
                    raise

    def turn_to_next(self, error: ErnieError) -> bool:
        """Ask the next model from now on, because of an error; says whether there is one."""
        while self.fallback:
            ask, *others = self.fallback
            self.fallback = tuple(others)
            try:
                desk, request = ask()
                self._turn_to(desk, request, error)
            except ConfigError as problem:  # this server does not take such a request
                self._log.skipped(problem, error)
            else:
                return True
        return False

    def _turn_to(self, desk: Desk, request: Request, error: ErnieError) -> None:
        if self.charge is not None:
            self.charge.turn_to(desk.ledger.prices, request.model)
        before, after = self.request.model or "", request.model or ""
        self.fell_back_from += (before,)
        self.desk, self.request = desk, request
        self._token, self._has_renewed = None, False
        self._equip()
        self._log.fell_back(before, after, error)

    @property
    def is_over_time(self) -> bool:
        """Whether the whole call has no time left."""
        return self.ends_at is not None and monotonic() >= self.ends_at

    async def resume(self, error: ErnieError, attempt: Callable[[], Awaitable[T]]) -> T:
        """Wait as after any failure, and make attempts of their own count to go on.

        Args:
            error: What broke the stream.
            attempt: Makes one more.
        """
        # The break counts as an attempt that failed, besides those that the policy allows.
        policy = replace(self.desk.retry, attempts=self.desk.retry.attempts + 1)
        try:
            return await self._again(error, attempt, policy, monotonic())
        finally:
            del error  # its traceback holds this frame: left here, they would hold each other

    async def _again(
        self,
        first: ErnieError,
        attempt: Callable[[], Awaitable[T]],
        policy: RetryPolicy,
        started: float,
    ) -> T:
        # Imported here, since most programs never need it and tenacity takes 10 ms.
        from ernie_async.net.retrying import again

        try:
            return await again(
                first,
                partial(self.until_it_works, attempt, retries=False),
                policy,
                started=started,
                ends_at=self.ends_at,
                may_repeat=self._guard.may_repeat,
                before_wait=self._log.retries,
            )
        finally:
            del first

    async def until_it_works(
        self, attempt: Callable[[], Awaitable[T]], *, retries: bool = True
    ) -> T:
        """Make attempts as the retry policy allows; the final error lists them all.

        Args:
            attempt: Makes one.
            retries: Else there is one that counts, and those that cost none of the policy's.
        """
        while True:
            begun, sent = self._begun, self.sent
            try:
                answer = await attempt()
            except ErnieError as error:
                if self._goes_on(error, begun, sent):
                    continue
                if not retries or not may_pass(error):
                    raise
                first = error
            except BaseException:
                self._was_under_way = self._begun > begun
                self._guard.left(was_sent=self.sent > sent)
                self.leave_key()
                raise
            else:
                self._guard.succeeded(is_stream=self.request.is_stream)
                if self._keys is not None:
                    self._keys.answered()
                    if not self.request.is_stream:  # a stream goes on
                        self._keys.leave()
                return answer
            try:
                return await self._again(first, attempt, self.desk.retry, self.started)
            finally:
                del first  # as above

    def _goes_on(self, error: ErnieError, begun: int, sent: int) -> bool:
        """Note an attempt that failed; say whether another one goes at once.

        With another key or token, or in line until there is quota again: that is no failure of the
        service's, so it costs no attempt of the policy.

        Args:
            error: What happened.
            begun: Attempts that had begun before it.
            sent: Requests that had been sent before it.
        """
        self.note_failure(error, has_begun=self._begun > begun)
        self._guard.failed(error, was_sent=self.sent > sent)
        return (
            self._renews(error)
            or (self._keys is not None and self._keys.refused(error))
            or self._queues_again(error)
        )

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

    def _queues_again(self, error: ErnieError) -> bool:
        """Whether a quota was spent, and this call may wait for it where all the others do."""
        if self.desk.limiter is None or not is_quota(error):
            return False
        # Imported here like the rest of its module.
        from ernie_async.net.retrying import seconds_left

        assert isinstance(error, APIError)
        now = monotonic()
        if not self._refusals:
            self._refused_since = now
        self._refusals += 1
        delay = self.desk.retry.quota_delay(
            error.retry_after,
            guess=PROBE_SECONDS,
            refusals=self._refusals,
            waited=now - self._refused_since,
            elapsed=now - self.started,
        )
        if delay is None or delay >= seconds_left(self.ends_at):
            return False
        self._log.retries(error, len(self._log.failures), delay)
        return True

    def goes_at_once(self) -> bool:
        """Whether there is nothing to wait for: asked first, since it costs less than to wait.

        If so, an attempt has begun, without a permit.
        """
        return self.desk.limiter is None and self._keys is None and self._guard.enter()

    async def admit(self) -> AnyPermit | None:
        """Wait for room for one attempt; `None` if nothing is limited."""
        guard, keys = self._guard, self._keys
        # A second request beside one that is late uses the same key.
        takes = keys is not None and not keys.has_key
        while True:
            if not guard.is_closed:
                self.queued += await guard.wait()
            if keys is not None and takes:
                self.queued += await keys.take()
            permit = await self._room()
            # While it was in line, its key may have been refused, or the circuit have opened.
            if (keys is None or not takes or keys.is_ready) and guard.enter():
                return permit
            if permit is not None:
                permit.give_back()

    async def _room(self) -> AnyPermit | None:
        limiter = self.desk.limiter
        if limiter is None:
            return None
        request = self.request
        permit = limiter.admit(
            request.prompt_tokens + request.answer_tokens,
            model=request.model,
            account=self.desk.account if self._keys is None else self._keys.account,
            priority=request.priority,
            max_wait=request.max_wait,
        )
        permit.on_wait = partial(self._log.queued, request)
        try:
            await permit
        finally:
            self.queued += permit.waited
        return permit

    def learn(self, permit: AnyPermit, reply: Reply) -> None:
        """Have the limiter learn from the head of an answer."""
        told = read_rate_headers(reply.headers, utc_now=time())
        if told is None:
            return
        if reply.status == TOO_MANY:  # whether to wait is told by its body
            told = RateHeaders(told.limit_requests, told.limit_tokens)
        elif told.retry_after is not None and told.retry_after > self.desk.retry.max_retry_after:
            told = told._replace(retry_after=None)
        permit.learn(told)
        if told.is_spent:
            self._log.paused(self.request.model, told.retry_after, "nothing is left of the quota")

    def report(self, permit: AnyPermit, error: ErnieError) -> None:
        """Have the limiter learn from an error of the service or the network."""
        if tell_failure(permit, error, max_retry_after=self.desk.retry.max_retry_after):
            seconds = getattr(error, "retry_after", None)
            self._log.paused(self.request.model, seconds, brief(error))

    def send(self) -> Coroutine[Any, Any, Reply]:
        """Send the request once, and wait for the head of an answer."""
        if self.charge is not None:
            self.charge.send()
        self._begun += 1
        key = self.desk.key if self._is_home else None
        if self._keys is None and (key is None or isinstance(key, ApiKey)):
            return self._open(None if key is None else key.header())
        return self._fetch_token_and_open()

    async def _fetch_token_and_open(self) -> Reply:
        """Send it with a key out of a pool, or with a token that has to be had first."""
        connect = self.desk.timeouts.connect
        if self._keys is not None:
            return await self._open(await self._keys.header(connect=connect))
        key = self.desk.key
        assert key is not None
        assert not isinstance(key, ApiKey)
        self._token = None  # of an earlier attempt
        self._token = await key.header(connect=connect)
        return await self._open(self._token)

    def _open(self, authorization: str | None) -> Coroutine[Any, Any, Reply]:
        desk, request = self.desk, self.request
        headers = {"X-Request-Id": request.request_id, **request.headers}
        if authorization is not None:
            headers["Authorization"] = authorization
        if desk.hooks and self._is_home:
            headers |= headers_of(desk.hooks, self.number)
        self.sent += 1
        return desk.transport.open(
            request.method,
            request.path,
            body=request.body,
            headers=headers,
            connect=desk.timeouts.connect,
            is_once=request.is_once,
        )

    def leave_key(self) -> None:
        """The request is over, and its key free for others."""
        if self._keys is not None:
            self._keys.leave()

    def timing(self) -> Timing:
        """Where the time went so far."""
        total = monotonic() - self.started
        # What `Timing` itself would do, in half the time.
        return tuple.__new__(Timing, (self.queued, self.first_token, total, self.sent))

    def stop_with(self, stop: Callable[[str], None]) -> None:
        """Have `stop` call this, in the call's own loop."""
        self._stop = stop

    def stop(self, reason: str) -> None:
        """End the call, in its own loop; does nothing if it is over."""
        if self._stop is not None:
            self._stopped = reason
            self._stop(reason)

    @property
    def runs_out_at(self) -> float | None:
        """When the roster ends it. A stream looks at the time by itself, with each chunk."""
        return None if self.request.is_stream else self.ends_at

    def run_out(self) -> None:
        """End it as `stop` does, because its time is over."""
        if self._stop is not None:
            self._stop("its time is over")

    def clock_ran_out(self) -> ErnieError:
        """The error for a call that took too long as a whole, or was stopped."""
        failure: ErnieError = (
            DeadlineError(
                f"the call was not over within {self.total:g} s (Timeouts.total)",
                clock="total",
                seconds=self.total or 0.0,
            )
            if self._stopped is None
            else DrainError(self._stopped)
        )
        self.note_failure(failure, has_begun=self._was_under_way)
        return failure

    def charge_with(self, usage: Usage) -> None:
        """Tell the budgets what the answer used in the end, or a part of it."""
        if self.charge is not None:
            self.charge.settle(usage)

    def end(
        self,
        outcome: Literal["ok", "error", "cancelled"],
        *,
        error: ErnieError | None = None,
        usage: Usage | None = None,
        request_id: str | None = None,
        answer: Callable[[], AnswerHead] = AnswerHead,
        completion: Callable[[], ChatCompletion] | None = None,
    ) -> Timing:
        """Tell that the call is over.

        Args:
            outcome: How it ended.
            error: Why it failed.
            usage: What it used, as told or estimated.
            request_id: What the service calls it.
            answer: Makes what observers shall know of the answer.
            completion: Makes the answer of a chat, for hooks that want to see it.
        """
        if outcome == "ok" and self.request.is_stream:
            self._guard.over()
        timing = self.timing()
        self.request_id = (error and error.request_id) or request_id or self.request.request_id
        self._stop = None
        self._roster.leave(self)
        if self.charge is not None:
            self.charge.close()
        if self._is_heard:
            self._log.ended(
                outcome,
                error=error,
                request_id=self.request_id,
                timing=timing,
                usage=usage,
                asked=self._asked,
                answer=answer(),
                completion=completion,
            )
        return timing

    def note_break(self, error: ErnieError) -> None:
        """Add an answer that broke after it had begun to the list of failed attempts."""
        self.note_failure(error, has_begun=True)
        self._guard.broke(error)

    def note_failure(self, error: ErnieError, *, has_begun: bool) -> None:
        """Add to the list of failed attempts, which the error then carries. See `CallLog`."""
        base_url = self.desk.transport.base_url
        self._log.failed(error, self.request, base_url, has_begun=has_begun)
