"""Where the chunks of an answer come from: attempts, one after the other, until it is whole.

Decides nothing of its own: the retry policy says when to ask again, `sansio.resume` whether and how
to go on after a break. Hands over whole packets; what becomes of them is for `ChatStream` to know.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Literal

from ernie_async.errors import (
    APIError,
    BadRequestError,
    BlockedError,
    BudgetError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    NotFoundError,
)
from ernie_async.net.admission import AnyPermit
from ernie_async.net.attempt import Attempt
from ernie_async.net.call import Call
from ernie_async.net.deadline import Deadline
from ernie_async.net.desk import AnyHedger, Desk
from ernie_async.net.hooks import StreamResumed, brief, tell
from ernie_async.net.reply import BusyError
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.budget import Charge
from ernie_async.sansio.event_ids import EventLedger
from ernie_async.sansio.fallback import may_hand_over
from ernie_async.sansio.read_buffer import ReadGauge
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import (
    Form,
    continuations,
    least_overlap,
    resume_forms,
    resume_request,
)
from ernie_async.sansio.seam import Seam
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage, tokens_used

__all__ = ["ChunkSource"]

WITH_PARTIAL = (
    APIError | BlockedError | BudgetError | DeadlineError | DecodeError | InterruptedStreamError
)


class ChunkSource:
    """Gets the chunks of one answer. Nothing refers back to the stream that reads it.

    Attributes:
        answer: What was handed over so far. The reader feeds it, since only the reader knows.
        came: What the service sent so far; the same as `answer`, unless it is filtered.
        gauge: What was measured of the connection.
        loop: Where it is read; `None` until then.
        phase: `new`, then `opening`, `open` (and back), and in the end `complete` or `left`.
        resumes: Where and how it was resumed.
    """

    __slots__ = (
        "_attempt",
        "_call",
        "_charge",
        "_desk",
        "_heartbeats",
        "_is_between",
        "_ledger",
        "_part",
        "_patience",
        "_reason",
        "_request",
        "_seam",
        "_settled",
        "_timing",
        "_told",
        "answer",
        "came",
        "gauge",
        "loop",
        "phase",
        "resumes",
    )

    def __init__(self, desk: Desk, request: Request) -> None:
        self._desk = desk
        self._request = request
        self._part = request  # what is being answered: the request, or one to go on with it
        self.came: Accumulator = Accumulator(n=request.n)
        self.answer: Accumulator = self.came
        self.gauge: ReadGauge = ReadGauge(desk.read_buffer)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.phase: str = "new"
        self.resumes: tuple[StreamResumed, ...] = ()
        self._ledger = EventLedger()
        self._call: Call | None = None
        self._charge: Charge | None = None
        self._is_between = False  # one model was left and billed, no other has answered yet
        self._attempt: Attempt | None = None
        self._seam: Seam | None = None
        self._heartbeats = 0  # of earlier attempts
        self._told = 0  # characters that came before the request under way
        self._settled = 0  # tokens that the limiter knows of
        self._patience: Deadline | None = None  # while opening
        self._reason: str | None = None  # why it was left, if somebody said so
        self._timing: Timing | None = None

    @property
    def patience(self) -> float | None:
        """Seconds to wait for a consumer's next step where others wait for it."""
        return self._desk.timeouts.idle

    @property
    def heartbeats(self) -> int:
        """Comments that came, over all attempts."""
        return self._heartbeats + (0 if self._attempt is None else self._attempt.heartbeats)

    @property
    def request_id(self) -> str:
        """The service's id of the answer, and until it comes the one that was sent."""
        return self.came.id or self._request.request_id

    @property
    def usage(self) -> Usage | None:
        """Tokens as told; once it is over, as told or estimated."""
        if self.phase in {"complete", "left"} and self._call is not None and self._call.sent:
            return self.came.usage or self.came.usage_or(self._estimate())
        return self.came.usage

    @property
    def timing(self) -> Timing:
        """Where the time went so far, or in all."""
        if self._timing is not None:
            return self._timing
        return Timing() if self._call is None else self._call.timing()

    @property
    def fell_back_from(self) -> tuple[str, ...]:
        """Models that were asked before and failed, in order."""
        return () if self._call is None else self._call.fell_back_from

    def completion(self) -> ChatCompletion:
        """The answer so far."""
        completion = self.answer.completion(self.usage)
        return completion.observed(
            request_id=self._request.request_id,
            timing=self.timing,
            fell_back_from=self.fell_back_from,
        )

    def pull(self) -> Coroutine[Any, Any, list[ChatChunk]]:
        """Wait for the next chunks, all that came at once; none at the proper end.

        Raises:
            ErnieError: The stream broke. It has to be told to `fail`.
        """
        if self.phase == "open":
            return self._read()
        return self._begin() if self.phase == "new" else self._read_no_more()

    async def _read_no_more(self) -> list[ChatChunk]:
        if self.phase == "opening":
            raise BusyError
        if self._reason is not None:
            raise self.left_error("")
        return []

    async def _begin(self) -> list[ChatChunk]:
        call = self._call = Call(self._desk, self._request)
        call.stop_with(self.cancel)
        self._charge = call.charge
        chunks = await self._patiently(lambda: call.answer_of(lambda: self._open_new(call)))
        call.first_token = monotonic() - call.started
        # Of the model that answers, whichever it is.
        self._desk, self._request, self._part = call.desk, call.request, call.request
        return chunks if self._charge is None else self._charged(chunks)

    def _charged(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        assert self._charge is not None
        self._charge.feed("".join(chunk.reasoning + chunk.text for chunk in chunks))
        return chunks

    async def _open_new(self, call: Call) -> list[ChatChunk]:
        # Ids that an attempt read before it failed are of an answer that nobody saw.
        self._ledger = EventLedger()
        if call.desk.hedger is not None:
            return await self._open_hedged(call, call.desk.hedger)
        return await self._open(call, may_be_empty=False)

    async def _open_hedged(self, call: Call, hedger: AnyHedger) -> list[ChatChunk]:
        async def open_one(
            permit: AnyPermit | None,
        ) -> tuple[Attempt, EventLedger, list[ChatChunk]]:
            ledger = EventLedger()
            attempt = Attempt(call, ledger, self.gauge, permit, is_admitted=True)
            return attempt, ledger, await attempt.open(may_be_empty=False)

        opened = await hedger.attempt(call, open_one, drop=lambda late: late[0].close(used=None))
        self._heartbeats = self.heartbeats
        self._attempt, self._ledger, chunks = opened
        return chunks

    async def _open_replay(self, call: Call) -> list[ChatChunk]:
        self._ledger.begin_replay()
        return await self._open(call, may_be_empty=True)

    async def _open(self, call: Call, *, may_be_empty: bool) -> list[ChatChunk]:
        if self._attempt is not None:
            self._heartbeats += self._attempt.heartbeats
        self._attempt = Attempt(call, self._ledger, self.gauge)
        return await self._attempt.open(may_be_empty=may_be_empty)

    async def _patiently(
        self, opening: Callable[[], Awaitable[list[ChatChunk]]]
    ) -> list[ChatChunk]:
        """Wait for chunks as long as the whole call may take, and nobody leaves the stream."""
        call = self._call
        assert call is not None
        seconds = None if call.ends_at is None else max(0.0, call.ends_at - monotonic())
        self.loop = asyncio.get_running_loop()
        self.phase = "opening"
        try:
            with Deadline(seconds) as self._patience:
                chunks = await opening()
        except TimeoutError as error:
            if isinstance(error, ErnieError):
                raise
        else:
            if self.phase == "opening":
                self.phase = "open"
                return chunks
        finally:
            self._patience = None
        # Raised outside the handler: the cancellation inside is no news to the caller.
        if self.phase == "left":
            raise self.left_error("the stream was closed while it was being opened")
        raise call.clock_ran_out()

    async def _read(self) -> list[ChatChunk]:
        while True:
            attempt = self._attempt
            assert attempt is not None
            try:
                if self._charge is not None and not self.came.finished:
                    self._charge.check()
                chunks = await attempt.read(is_finished=self.came.finished)
                if self.phase == "left":
                    raise self.left_error("the stream was closed")
                if chunks and self._seam is not None:
                    chunks = self._seam.feed(chunks)
                elif not chunks:
                    if not (self.came.finished or (attempt.is_done and self.came.chunks)):
                        # What a seam still holds is a repetition that was cut, most likely.
                        raise attempt.interrupted()
                    if self._seam is not None:
                        chunks, self._seam = self._seam.close(), None
                    if not chunks:
                        await self._finish(attempt)
                        return []
            except ErnieError as error:
                if self.phase != "left":
                    attempt.report(error)
                chunks = await self._resume(error)
            if chunks:
                return chunks if self._charge is None else self._charged(chunks)

    async def _resume(self, error: ErnieError) -> list[ChatChunk]:
        """Go on after an error if the policy knows a way; else raise it.

        Returns:
            The next chunks; none if the server says only that there are no more.
        """
        call = self._call
        assert call is not None
        if self.phase == "left":
            raise error
        forms = resume_forms(
            self._desk.resume,
            self._request,
            self.came,
            error,
            last_event_id=self._ledger.last_event_id,
            n_resumes=len(self.resumes),
        )
        call.note_break(error)
        self._close_attempt()
        try:
            for form in forms:
                try:
                    return await self._resume_as(form, error, call)
                except (BadRequestError, NotFoundError, DecodeError):
                    continue  # this server does not take it so
                except ErnieError as failure:
                    is_total = isinstance(failure, DeadlineError) and failure.clock == "total"
                    if is_total or self.phase == "left" or isinstance(failure, BudgetError):
                        raise
                    break
            if call.fallback and (chunks := await self._hand_over(error, call)) is not None:
                return chunks
            error.attempts = call.failures
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _resume_as(self, form: Form, error: ErnieError, call: Call) -> list[ChatChunk]:
        answer, text = self.came, self.came.text
        if form == "server":
            last_event_id = self._ledger.last_event_id
            call.request = resume_request(self._part, form, text, last_event_id=last_event_id)
            chunks = await self._patiently(
                lambda: call.resume(error, lambda: self._open_replay(call))
            )
        else:
            part = call.request = resume_request(self._request, form, text)
            chunks = await self._patiently(lambda: call.resume(error, lambda: self._open_new(call)))
            answer.begin_part(self._estimate())
            chunks = self._begin_part(part, form, text, chunks)
        self._note_resume(form, text, error, call)
        return chunks

    def _begin_part(
        self, part: Request, form: Form, text: str, chunks: list[ChatChunk]
    ) -> list[ChatChunk]:
        self._part, self._told = part, len(self.came.reasoning) + len(text)
        self._seam = Seam(text, least=least_overlap(form)) if text else None
        return chunks if self._seam is None else self._seam.feed(chunks)

    def _note_resume(self, form: Form, text: str, error: ErnieError, call: Call) -> None:
        resumed = StreamResumed(call=call.number, how=form, at=len(text), error=brief(error))
        self.resumes += (resumed,)
        tell(self._desk.hooks, resumed)

    async def _hand_over(self, error: ErnieError, call: Call) -> list[ChatChunk] | None:
        """Have another model go on; `None` if none may, or none can."""
        answer, text, policy = self.came, self.came.text, self._desk.resume
        n_resumes = len(self.resumes)
        if not may_hand_over(policy, self._request, answer, error, n_resumes=n_resumes):
            return None
        reason = error
        try:
            self._bill()
            while call.turn_to_next(reason):
                asked = call.request
                for form in continuations(call.desk.resume, asked, answer):
                    part = call.request = resume_request(asked, form, text)
                    try:
                        chunks = await self._patiently(
                            lambda: call.until_it_works(lambda: self._open_new(call))
                        )
                    except ErnieError as failure:
                        is_spent = isinstance(failure, BudgetError)
                        if is_spent or call.is_over_time or self.phase == "left":
                            raise
                        reason = failure
                        continue
                    self._desk, self._request, self._is_between = call.desk, asked, False
                    chunks = self._begin_part(part, form, text, chunks)
                    self._note_resume(form, text, error, call)
                    return chunks
            return None
        finally:
            del error, reason  # as above

    def _bill(self) -> None:
        """A model is left for good: what it used is known by now, or never will be."""
        used = self.came.hand_over(self._estimate())
        self._desk.ledger.note(self._request.model, used)
        if self._charge is not None:
            self._charge.settle(used)
        self._is_between = True

    def cancel(self, reason: str) -> None:
        """Leave it, and have the reader told why."""
        if self.phase not in {"complete", "left"}:
            self._reason = reason
            self.leave()

    def leave(self) -> None:
        """Want no more of it. Does nothing after the end."""
        if self.phase == "opening" and self._patience is not None:
            # Wherever it waits, in line, for a connection or before a retry: no longer.
            self.phase = "left"
            self._patience.expire()
        elif self.phase in {"new", "open"}:
            self.close("cancelled")

    async def _finish(self, attempt: Attempt) -> None:
        """The answer is whole: give the connection back if its body ends here, else close it."""
        self.phase = "complete"
        attempt.succeeded()
        try:
            await attempt.drain()
        finally:
            self.close("ok")

    def fail(self, error: ErnieError) -> None:
        """Say how far it came, and leave nothing behind."""
        error.request_id = error.request_id or self.request_id
        is_left = self.phase == "left"
        self.close("cancelled" if is_left else "error", None if is_left else error)
        if isinstance(error, InterruptedStreamError) and error.last_event_id is None:
            error.last_event_id = self._ledger.last_event_id or None
        if isinstance(error, WITH_PARTIAL) and self.answer.chunks:
            error.partial = self.completion()

    def close(
        self, outcome: Literal["ok", "error", "cancelled"], error: ErnieError | None = None
    ) -> None:
        """Leave nothing behind: no timer, no socket, no permit."""
        if self.phase != "complete":
            self.phase = "left"
        self._close_attempt()
        if self._call is None or self._timing is not None:
            return
        told = self.came.usage
        usage = self.usage if self.came.chunks else told
        if told is not None:
            self._desk.output.note(told.completion_tokens)
            if not self.resumes:
                self._desk.learn(self._request, told)
        if usage is not None and self.came.chunks and not self._is_between:
            # What other models used before is billed already.
            own = self.came.own_usage_or(self._estimate()) if self.fell_back_from else usage
            self._desk.ledger.note(self._request.model, own)
            self._call.charge_with(own)
        self._timing = self._call.end(
            outcome,
            error=error,
            usage=usage,
            request_id=self.request_id,
            answer=lambda: self.came.head,
            completion=(lambda: self.came.completion(usage)) if self.came.chunks else None,
        )

    def _close_attempt(self) -> None:
        if self._attempt is None:
            return
        used = None
        limiter = self._desk.limiter
        if limiter is not None and limiter.counts_tokens and self.came.chunks:
            total = tokens_used(self.came.usage_or(self._estimate()))
            used, self._settled = total - self._settled, total
        self._attempt.close(used=used)
        if self._call is not None:
            self._call.leave_key()

    def _estimate(self) -> Usage:
        """What the request under way consumed, by our own count."""
        if self._is_between:
            return Usage()
        said = self.came.reasoning + self.came.text
        before, here = said[: self._told], said[self._told :]
        usage = self._desk.estimate(self._request, here)
        told = Usage.estimated(prompt_tokens=estimate_tokens(before), completion_tokens=0)
        return usage.plus(told) if before else usage

    def left_error(self, message: str) -> InterruptedStreamError:
        """The error for a reader who wants more than was left to read."""
        if self._reason is not None:
            message = f"the stream was cancelled: {self._reason}"
        partial = self.completion() if self.answer.chunks else None
        return InterruptedStreamError(message, reason=self._reason, partial=partial)
