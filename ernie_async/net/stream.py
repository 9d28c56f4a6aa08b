"""A streamed answer: chunks as they come, resumed where that is allowed, closed when it is left.

A `ChatStream` is an object, not a generator, and nothing refers back to it: a stream that is
dropped in the middle frees its connection at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from operator import length_hint
from time import monotonic
from types import TracebackType
from typing import Literal, Self

from ernie_async.errors import (
    APIError,
    BadRequestError,
    BlockedError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    NotFoundError,
)
from ernie_async.net.attempt import Attempt
from ernie_async.net.call import Call, Desk, brief
from ernie_async.net.hooks import StreamResumed, tell
from ernie_async.net.tee import ChunkBranch, TextDeltas, branch_off
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.event_ids import EventLedger
from ernie_async.sansio.read_buffer import ReadGauge
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import Form, least_overlap, resume_forms, resume_request
from ernie_async.sansio.seam import Seam
from ernie_async.sansio.tokens import estimate_tokens, estimate_usage
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage

__all__ = ["ChatStream"]

WITH_PARTIAL = APIError | BlockedError | DeadlineError | DecodeError | InterruptedStreamError


class ChatStream:
    """An answer as it is being written, from `AsyncClient.stream`.

    Iterate over it; the request is sent at the first step. Leaving an `async with` block, or simply
    dropping the stream, closes its connection, and the service stops writing. Serves one consumer;
    `tee` serves several.

    ```python
    async with client.stream("讲讲光合作用") as stream:
        async for chunk in stream:
            print(chunk.text, end="")
        answer = await stream.final()
    ```

    Raises, while iterating:
        ErnieError: See the tree in `errors`. Up to the first chunk the retry policy is at work;
            after it nothing is ever asked again unless the resume policy says so, and the error
            has `partial`, the answer so far.
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_attempt",
        "_call",
        "_desk",
        "_folded",
        "_gauge",
        "_heartbeats",
        "_ledger",
        "_loop",
        "_packet",
        "_patience",
        "_phase",
        "_ready",
        "_reason",
        "_request",
        "_resumes",
        "_seam",
        "_settled",
        "_timing",
        "_told",
    )

    def __init__(self, desk: Desk, request: Request) -> None:
        self._desk = desk
        self._request = request
        self._phase = "new"  # then "opening", "open" (and back), and "complete" or "left"
        self._packet: list[ChatChunk] = []  # came at once
        self._ready: Iterator[ChatChunk] = iter(())  # of these, what was not handed over yet
        self._folded = 0  # of these, what is in `_answer`
        self._answer = Accumulator(n=request.n)
        self._ledger = EventLedger()
        self._gauge = ReadGauge(desk.read_buffer)
        self._loop: asyncio.AbstractEventLoop | None = None  # where it is read
        self._call: Call | None = None
        self._attempt: Attempt | None = None
        self._seam: Seam | None = None
        self._resumes: tuple[StreamResumed, ...] = ()
        self._heartbeats = 0  # of earlier attempts
        self._told = 0  # characters that came before the request under way
        self._settled = 0  # tokens that the limiter knows of
        self._patience: asyncio.Timeout | None = None  # while opening
        self._reason: str | None = None  # why it was left, if somebody said so
        self._timing: Timing | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        # Chunks that came in one packet are handed over without another coroutine.
        for chunk in self._ready:
            return chunk
        try:
            # One coroutine less where most of the waiting is done.
            chunks = await (self._read() if self._phase == "open" else self._pull())
        except ErnieError as error:
            self._fail(error)
            raise
        except BaseException:
            self._close("cancelled")
            raise
        if not chunks:
            raise StopAsyncIteration
        if len(chunks) == 1:
            # The usual case of a paced stream: nothing is kept for it.
            self._answer.feed(chunks[0])
            return chunks[0]
        self._packet, self._ready, self._folded = chunks, iter(chunks), 0
        return next(self._ready)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the stream: the connection is closed at once. Does nothing after the end.

        A task that waits for a chunk meanwhile gets an `InterruptedStreamError`.
        """
        self._leave()

    def cancel(self, reason: str = "cancelled") -> None:
        """Leave the stream from any task or thread; its consumer is told why.

        Args:
            reason: For the `InterruptedStreamError` that the consumer gets. Does nothing after the
                end.
        """
        if self._loop is None or asyncio._get_running_loop() is self._loop:
            self._cancel(reason)
        else:
            self._loop.call_soon_threadsafe(self._cancel, reason)

    def _cancel(self, reason: str) -> None:
        if self._phase not in {"complete", "left"}:
            self._reason = reason
            self._leave()

    def _leave(self) -> None:
        if self._phase == "opening" and self._patience is not None:
            # Wherever it waits, in line, for a connection or before a retry: no longer.
            self._phase = "left"
            self._patience.reschedule(0.0)
        elif self._phase in {"new", "open"}:
            self._close("cancelled")

    def __del__(self) -> None:
        if getattr(self, "_phase", "new") != "open" or self._loop is None:
            return
        if asyncio._get_running_loop() is not self._loop:
            # Dropped in another thread: only the loop itself may touch its connections.
            try:
                self._loop.call_soon_threadsafe(self._close, "cancelled")
            except RuntimeError:
                pass  # the loop is closed, and its connections with it
            else:
                return
        self._close("cancelled")

    async def final(self) -> ChatCompletion:
        """Read the rest and return the whole answer.

        Raises:
            InterruptedStreamError: The stream was left, or failed, before its end.
        """
        async for _ in self:
            pass
        if self._phase != "complete":
            raise self._left("this stream was left before its end")
        return self._completion()

    async def text(self) -> str:
        """Read the rest and return the whole text."""
        return (await self.final()).text

    def text_deltas(self) -> TextDeltas:
        """Iterate over the text alone, piece by piece; none of the pieces is empty."""
        return TextDeltas(self)

    def tee(self, n: int, *, ahead: int = 1024) -> tuple[ChunkBranch, ...]:
        """Serve several consumers, each at its own pace; iterate over the branches instead of this.

        Args:
            n: How many branches.
            ahead: Chunks that a branch may be ahead of the slowest one before it has to wait.
        """
        patience = self._desk.timeouts.idle
        return branch_off(self._pull_for_all, self._leave, n, ahead=ahead, patience=patience)

    async def _pull_for_all(self) -> list[ChatChunk]:
        try:
            chunks = await self._pull()
        except ErnieError as error:
            self._fail(error)
            raise
        self._answer.feed(*chunks)
        return chunks

    def snapshot(self) -> ChatCompletion:
        """The answer so far, as if it had come in one piece. Joins all of it at each call."""
        return self._completion()

    @property
    def usage(self) -> Usage | None:
        """Tokens, all parts of a resumed stream together.

        `None` until the service tells them, which it does at the end and if `stream_options` asks
        for it. Once the stream is over, an estimate stands in for what was not told; see
        `Usage.is_estimate`.
        """
        self._fold()
        if self._phase in {"complete", "left"} and self._call is not None and self._call.sent:
            return self._answer.usage or self._answer.usage_or(self._estimate())
        return self._answer.usage

    @property
    def request_id(self) -> str:
        """What to quote to the service's support: its own id, or until it answers the one sent."""
        self._fold()
        return self._answer.id or self._request.request_id

    @property
    def resumes(self) -> tuple[StreamResumed, ...]:
        """Where and how the stream was resumed; empty for most streams."""
        return self._resumes

    @property
    def heartbeats(self) -> int:
        """Comments that the server sent to keep the connection alive."""
        return self._heartbeats + (0 if self._attempt is None else self._attempt.heartbeats)

    @property
    def read_buffer(self) -> ReadGauge:
        """What was measured of this stream, and how much of it is read at once."""
        return self._gauge

    @property
    def timing(self) -> Timing:
        """Where the time went so far, or in all."""
        if self._timing is not None:
            return self._timing
        if self._call is not None:
            return self._call.timing()
        return Timing()

    async def _pull(self) -> list[ChatChunk]:
        """The next chunks, all that came at once; none at the proper end.

        Raises:
            ErnieError: The stream broke. It has to be told to `_fail`.
        """
        match self._phase:
            case "new":
                return await self._begin()
            case "open":
                return await self._read()
            case "opening":
                raise RuntimeError("another task is waiting for this stream's next chunk")
            case "left" if self._reason is not None:
                raise self._left("")
            case _:
                return []

    async def _begin(self) -> list[ChatChunk]:
        call = self._call = Call(self._desk, self._request)
        try:
            chunks = await self._while_patient(
                lambda: call.until_it_works(lambda: self._open(call, may_be_empty=False))
            )
        except asyncio.CancelledError:
            self._phase = "new"  # nothing was delivered: another branch may begin again
            raise
        call.first_token = monotonic() - call.started
        return chunks

    async def _open(self, call: Call, *, may_be_empty: bool) -> list[ChatChunk]:
        if self._attempt is not None:
            self._heartbeats += self._attempt.heartbeats
        self._attempt = Attempt(call, self._ledger, self._gauge)
        return await self._attempt.open(may_be_empty=may_be_empty)

    async def _while_patient(
        self, opening: Callable[[], Awaitable[list[ChatChunk]]]
    ) -> list[ChatChunk]:
        """Wait for chunks as long as the whole call may take, and nobody leaves the stream."""
        call = self._call
        assert call is not None
        seconds = None if call.ends_at is None else max(0.0, call.ends_at - monotonic())
        self._loop = asyncio.get_running_loop()
        self._phase = "opening"
        try:
            async with asyncio.timeout(seconds) as self._patience:
                chunks = await opening()
        except TimeoutError as error:
            if isinstance(error, ErnieError):
                raise
        else:
            self._phase = "open"
            return chunks
        finally:
            self._patience = None
        # Raised outside the handler: the cancellation inside is no news to the caller.
        if self._phase == "left":
            raise self._left("the stream was closed while it was being opened")
        raise call.total_ran_out()

    async def _read(self) -> list[ChatChunk]:
        if self._packet:
            self._fold()
        while True:
            attempt = self._attempt
            assert attempt is not None
            try:
                chunks = await attempt.read(is_finished=self._answer.finished)
                if self._phase == "left":
                    raise self._left("the stream was closed")
                is_over = not chunks
                if self._seam is not None:
                    chunks = self._seam.close() if is_over else self._seam.feed(chunks)
                    if is_over:
                        self._seam = None
                if is_over and not chunks:
                    if self._answer.finished or (attempt.is_done and self._answer.chunks):
                        await self._finish(attempt)
                        return []
                    raise attempt.interrupted()
            except ErnieError as error:
                chunks = await self._resume(error)
            if chunks:
                return chunks

    async def _resume(self, error: ErnieError) -> list[ChatChunk]:
        """Go on after an error if the policy knows a way; else raise it.

        Returns:
            The next chunks; none if the server says only that there are no more.
        """
        call = self._call
        assert call is not None
        if self._phase == "left":
            raise error
        forms = resume_forms(
            self._desk.resume,
            self._request,
            self._answer,
            error,
            last_event_id=self._ledger.last_event_id,
            n_resumes=len(self._resumes),
        )
        call.note_failure(error)
        self._close_attempt()
        try:
            for form in forms:
                try:
                    return await self._resume_as(form, error, call)
                except (BadRequestError, NotFoundError, DecodeError):
                    continue  # this server does not take it so
                except DeadlineError as failure:
                    if failure.clock == "total":
                        raise
                    break
                except ErnieError:
                    if self._phase == "left":
                        raise
                    break
            error.attempts = tuple(call.failures)
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _resume_as(self, form: Form, error: ErnieError, call: Call) -> list[ChatChunk]:
        answer, text = self._answer, self._answer.text
        call.request = resume_request(
            self._request, form, text, last_event_id=self._ledger.last_event_id
        )

        async def open_again() -> list[ChatChunk]:
            if form == "server":
                self._ledger.begin_replay()
            return await self._open(call, may_be_empty=form == "server")

        chunks = await self._while_patient(lambda: call.resume(error, open_again))
        if form != "server":
            answer.begin_part(self._estimate())
            self._told = len(answer.reasoning) + len(text)
            self._seam = Seam(text, least=least_overlap(form)) if text else None
            chunks = chunks if self._seam is None else self._seam.feed(chunks)
        resumed = StreamResumed(call=call.number, how=form, at=len(text), error=brief(error))
        self._resumes += (resumed,)
        tell(self._desk.hooks, resumed)
        return chunks

    async def _finish(self, attempt: Attempt) -> None:
        """The answer is whole: give the connection back if its body ends here, else close it."""
        self._phase = "complete"
        try:
            await attempt.drain()
        finally:
            self._close("ok")

    def _fail(self, error: ErnieError) -> None:
        """Say how far it came, and leave nothing behind."""
        self._fold()
        error.request_id = error.request_id or self.request_id
        is_left = self._phase == "left"
        self._close("cancelled" if is_left else "error", None if is_left else error)
        if isinstance(error, InterruptedStreamError):
            error.last_event_id = self._ledger.last_event_id or None
        if isinstance(error, WITH_PARTIAL) and self._answer.chunks:
            error.partial = self._completion()

    def _close(
        self, outcome: Literal["ok", "error", "cancelled"], error: ErnieError | None = None
    ) -> None:
        """Leave nothing behind: no timer, no socket, no permit."""
        self._fold()
        if self._phase != "complete":
            self._phase = "left"
        self._packet, self._ready = [], iter(())
        self._close_attempt()
        if self._call is None or self._timing is not None:
            return
        told = self._answer.usage
        if told is not None:
            self._desk.output.note(told.completion_tokens)
        self._timing = self._call.end(
            outcome,
            error=error,
            usage=self.usage if self._desk.hooks else told,
            request_id=self.request_id,
        )

    def _close_attempt(self) -> None:
        if self._attempt is None:
            return
        used = None
        limiter = self._desk.limiter
        if limiter is not None and limiter.counts_tokens and self._answer.chunks:
            total = self._answer.usage_or(self._estimate()).total_tokens
            used, self._settled = total - self._settled, total
        self._attempt.close(used=used)

    def _fold(self) -> None:
        """Add to the answer what was handed over since the last time."""
        if self._packet:
            n_ready = length_hint(self._ready)
            delivered = len(self._packet) - n_ready
            self._answer.feed(*self._packet[self._folded : delivered])
            self._folded = delivered
            if not n_ready:
                self._packet = []

    def _estimate(self) -> Usage:
        """What the request under way consumed, by our own count."""
        said = self._answer.reasoning + self._answer.text
        before, here = said[: self._told], said[self._told :]
        usage = estimate_usage(self._request.messages, here)
        return (
            usage
            if not before
            else usage.plus(
                Usage.estimated(prompt_tokens=estimate_tokens(before), completion_tokens=0)
            )
        )

    def _left(self, message: str) -> InterruptedStreamError:
        if self._reason is not None:
            message = f"the stream was cancelled: {self._reason}"
        partial = self._completion() if self._answer.chunks else None
        return InterruptedStreamError(message, reason=self._reason, partial=partial)

    def _completion(self) -> ChatCompletion:
        completion = self._answer.completion(self.usage)
        return completion.observed(request_id=self._request.request_id, timing=self.timing)
