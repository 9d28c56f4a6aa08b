"""A streamed answer: bytes to events to chunks, watched, and closed when it is left.

The only place where the pure parts of a stream meet. A `ChatStream` is an object, not a generator,
and nothing refers back to it: a stream that is dropped in the middle frees its connection at once.
"""

import asyncio
from collections.abc import Iterator
from time import monotonic, time
from types import TracebackType
from typing import Literal, Self

from ernie_async.errors import (
    APIError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
)
from ernie_async.net.call import Call, Desk, read_body, settle_failed
from ernie_async.net.limiter import Permit
from ernie_async.net.transport import Reply
from ernie_async.net.watch import Watch
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.rest import Request, is_event_stream, read_chunk, refuse_non_stream
from ernie_async.sansio.sse import EventDecoder, ServerSentEvent
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage

__all__ = ["ChatStream"]

END_MARK = b"[DONE]"

# At most so much is decoded before other tasks have a turn: some 30 events, a third of a
# millisecond. `python -m benchmarks --only stall`: the loop is held up 53 to 64 ms instead of 105.
TURN_BYTES = 6144

# To use the connection again, the body must be read to its end. More than this costs more than a
# new connection does.
DRAIN_SECONDS = 0.05
DRAIN_BYTES = 4096


class ChatStream:
    """An answer as it is being written, from `AsyncClient.stream`.

    Iterate over it; the request is sent at the first step. Leaving an `async with` block, or simply
    dropping the stream, closes its connection, and the service stops writing. Serves one consumer.

    ```python
    async with client.stream("讲讲光合作用") as stream:
        async for chunk in stream:
            print(chunk.text, end="")
        answer = await stream.final()
    ```

    Raises, while iterating:
        ErnieError: See the tree in `errors`. Up to the first chunk the retry policy is at work;
            after it nothing is ever asked again, and the error has `partial`, the answer so far.
    """

    def __init__(self, desk: Desk, request: Request) -> None:
        self._desk = desk
        self._request = request
        self._phase = "new"  # then "beginning", "open", and "complete" or "left"
        self._patience: asyncio.Timeout | None = None  # of the beginning
        self._events: Iterator[ServerSentEvent] = iter(())
        self._answer = Accumulator(n=request.n)
        self._decoder = EventDecoder(max_event_bytes=desk.max_event_bytes)
        self._call: Call | None = None
        self._permit: Permit | None = None
        self._reply: Reply | None = None
        self._watch: Watch | None = None
        self._timing: Timing | None = None
        self._break: str | None = None  # why the body ended, if not by itself
        self._has_more = False  # waiting in the buffer, most likely
        self._is_at_end = False  # of the body
        self._is_done = False  # the end mark came

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        if self._phase != "open":
            return await self._begin()
        try:
            # Events that came in one packet are handed over without another coroutine.
            chunk = self._take_ready() or await self._next_chunk()
        except ErnieError as error:
            self._complete_error(error)
            self._close("error", error)
            raise
        except BaseException:
            self._close("cancelled")
            raise
        if chunk is None:
            await self._finish()
            raise StopAsyncIteration
        return chunk

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
        if self._phase == "beginning" and self._patience is not None:
            # Wherever it waits, in line, for a connection or before a retry: no longer.
            self._phase = "left"
            self._patience.reschedule(0.0)
        elif self._phase in {"new", "open"}:
            self._close("cancelled")

    def __del__(self) -> None:
        if getattr(self, "_phase", "new") != "open" or self._reply is None:
            return
        loop = self._reply.loop
        if asyncio._get_running_loop() is not loop:
            # Dropped in another thread: only the loop itself may touch its connections.
            try:
                loop.call_soon_threadsafe(self._close, "cancelled")
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
            raise InterruptedStreamError(
                "this stream was left before its end", partial=self._partial()
            )
        return self._completion()

    async def text(self) -> str:
        """Read the rest and return the whole text."""
        return (await self.final()).text

    @property
    def usage(self) -> Usage | None:
        """Tokens, once the service has told them; ask with `stream_options`."""
        return self._answer.usage

    @property
    def request_id(self) -> str:
        """What to quote to the service's support: its own id, or until it answers the one sent."""
        return self._answer.id or self._request.request_id

    @property
    def heartbeats(self) -> int:
        """Comments that the server sent to keep the connection alive."""
        return self._decoder.comments

    @property
    def timing(self) -> Timing:
        """Where the time went so far, or in all."""
        if self._timing is not None:
            return self._timing
        if self._call is not None:
            return self._call.timing()
        return Timing(queued=0.0, first_token=None, total=0.0, attempts=0)

    async def _begin(self) -> ChatChunk:
        if self._phase == "beginning":
            raise RuntimeError("another task is waiting for this stream's first chunk")
        if self._phase != "new":
            raise StopAsyncIteration
        self._phase = "beginning"
        call = self._call = Call(self._desk, self._request)
        failure: ErnieError | None = None
        chunk: ChatChunk | None = None
        try:
            async with asyncio.timeout(call.total) as self._patience:
                chunk = await call.until_it_works(self._attempt)
        except ErnieError as error:
            self._close("error", error)
            raise
        except TimeoutError:
            if self._phase != "left":
                failure = call.total_ran_out()
        except BaseException:
            self._close("cancelled")
            raise
        if self._phase == "left":
            self._close("cancelled")
            raise InterruptedStreamError("this stream was closed before its first chunk")
        if failure is not None:
            self._close("error", failure)
            raise failure
        call.first_token = monotonic() - call.started
        self._phase = "open"
        assert chunk is not None
        assert self._reply is not None
        self._watch = Watch(self._reply, call)
        return chunk

    async def _attempt(self) -> ChatChunk:
        """Send the request once and read up to the first chunk."""
        assert self._call is not None
        self._permit = await self._call.admit()
        seconds = self._desk.timeouts.first_event
        try:
            async with asyncio.timeout(seconds):
                chunk = await self._first_chunk(self._call)
        except ErnieError as error:
            self._drop_attempt(error)
            raise
        except TimeoutError:
            failure = DeadlineError(
                f"no event within {seconds:g} s (Timeouts.first_event); "
                f"{self._decoder.comments} heartbeats came",
                clock="first_event",
                seconds=seconds or 0.0,
            )
        except BaseException:
            self._drop_attempt(None)
            raise
        else:
            return chunk
        self._drop_attempt(failure)
        raise failure

    async def _first_chunk(self, call: Call) -> ChatChunk:
        reply = self._reply = await call.send()
        if reply.status != 200 or not is_event_stream(reply.headers):
            body = await read_body(reply)
            raise refuse_non_stream(reply.status, reply.headers, body, utc_now=time())
        chunk = await self._next_chunk()
        assert chunk is not None, "an end without a chunk is an error"
        return chunk

    def _drop_attempt(self, error: ErnieError | None) -> None:
        """Close what one attempt opened, so that the next one starts fresh."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        if self._permit is not None:
            if error is not None:
                settle_failed(self._permit, error)
            self._permit.release()
            self._permit = None
        self._answer = Accumulator(n=self._request.n)
        self._decoder = EventDecoder(max_event_bytes=self._desk.max_event_bytes)
        self._events, self._break = iter(()), None
        self._has_more = self._is_at_end = self._is_done = False

    async def _next_chunk(self) -> ChatChunk | None:
        """The next chunk, or `None` at a proper end.

        Raises:
            InterruptedStreamError: The body ended, and nothing said that the answer is whole.
        """
        while (chunk := self._take_ready()) is None:
            if self._is_done and self._answer.chunks:
                return None
            if self._is_done:
                raise InterruptedStreamError("the stream ended before its first chunk")
            if self._is_at_end:
                if self._answer.finished:
                    return None
                raise InterruptedStreamError(
                    self._break or "the stream ended with neither a finish reason nor [DONE]",
                    last_event_id=self._decoder.last_event_id or None,
                )
            await self._read_packet()
        return chunk

    def _take_ready(self) -> ChatChunk | None:
        """The next chunk of those that are here already; `None` if there is none."""
        for event in self._events:
            data = event.data
            if not data.startswith(b"{"):
                data = data.strip()
                if data.startswith(END_MARK):
                    self._is_done, self._events = True, iter(())
                    return None
                if not data:
                    continue
            chunk = read_chunk(data)
            self._answer.feed(chunk)
            return chunk
        return None

    async def _read_packet(self) -> None:
        """Wait for bytes, and decode all that came at once."""
        assert self._reply is not None
        watch = self._watch
        if watch is not None:
            watch.begin_wait(is_finished=self._answer.finished)
        try:
            if self._has_more:
                await asyncio.sleep(0)
            packet = await self._reply.read(TURN_BYTES)
        except ConnectError as error:
            self._break, packet = f"the stream was cut: {error.message}", b""
        except DeadlineError:
            if not self._answer.finished:
                raise
            packet = b""
        self._is_at_end = not packet
        self._has_more = len(packet) == TURN_BYTES
        events = self._decoder.feed(packet)
        if self._is_at_end and (last := self._decoder.close()) is not None and _is_whole(last):
            events.append(last)
            self._decoder.last_event_id = last.id
        if self._decoder.bare_json is not None:
            events.append(ServerSentEvent(self._decoder.bare_json))
            self._decoder.bare_json = None
        if events and watch is not None:
            watch.end_wait()
        self._events = iter(events)

    async def _finish(self) -> None:
        """The answer is whole: give the connection back if its body ends here, else close it."""
        assert self._reply is not None
        self._phase = "complete"
        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._reply.is_at_end and size <= DRAIN_BYTES:
                    size += len(await self._reply.read(DRAIN_BYTES))
        except (ErnieError, TimeoutError):
            pass  # closed below, and nothing of the answer is missing
        except BaseException:
            self._close("ok")
            raise
        self._close("ok")

    def _close(
        self, outcome: Literal["ok", "error", "cancelled"], error: ErnieError | None = None
    ) -> None:
        """Leave nothing behind: no timer, no socket, no permit."""
        if self._phase != "complete":
            self._phase = "left"
        self._events = iter(())
        if self._watch is not None:
            self._watch.stop()
        if self._reply is not None:
            self._reply.close()
        usage = self._answer.usage
        self._release_permit()
        if usage is not None:
            self._desk.output.note(usage.completion_tokens)
        if self._call is not None and self._timing is None:
            self._timing = self._call.end(
                outcome, error=error, usage=usage, request_id=self.request_id
            )

    def _release_permit(self) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if permit.tokens:
            usage = self._answer.usage
            permit.settle(
                tokens=usage.total_tokens
                if usage is not None
                else self._request.prompt_tokens
                + estimate_tokens(self._answer.reasoning + self._answer.text)
            )
        permit.release()

    def _complete_error(self, error: ErnieError) -> None:
        """Say how it came to this: what had been delivered, and the attempts before."""
        assert self._call is not None
        error.request_id = error.request_id or self.request_id
        self._call.note_failure(error)
        if isinstance(error, InterruptedStreamError | DeadlineError | DecodeError | APIError):
            error.partial = self._partial()

    def _partial(self) -> ChatCompletion | None:
        return self._completion() if self._answer.chunks else None

    def _completion(self) -> ChatCompletion:
        completion = self._answer.completion()
        return completion.observed(request_id=self._request.request_id, timing=self._timing)


def _is_whole(event: ServerSentEvent) -> bool:
    """Whether an event that lacks its last empty line can be read all the same."""
    if event.data.strip().startswith(END_MARK):
        return True
    try:
        read_chunk(event.data)
    except DecodeError:
        return False  # cut in the middle: the stream counts as interrupted
    except APIError:
        pass  # raised when its turn comes
    return True
