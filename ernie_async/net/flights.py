"""Single flight: requests that are the same, and under way at the same time, are one call.

What "the same" is stands in `sansio.single_flight`. This is no cache: when the answer is over, or
nobody wants it any more, nothing of it is left here.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from copy import copy
from time import monotonic
from typing import Any, Literal, TypeVar

from ernie_async.errors import ErnieError, InterruptedStreamError
from ernie_async.net.budget import budgets_of
from ernie_async.net.deadline import Deadline
from ernie_async.net.desk import Desk
from ernie_async.net.hooks import StreamResumed
from ernie_async.net.reply import BusyError
from ernie_async.net.source import WITH_PARTIAL, ChunkSource
from ernie_async.net.tee import ChunkBranch, Tee
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.read_buffer import ReadGauge
from ernie_async.sansio.rest import Request
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage

__all__ = ["SharedSource", "share"]

T = TypeVar("T")

# A stream can be joined as long as all of it is kept, and no reader may be further behind: 1,024
# chunks are some 1.5 MB.
KEPT_CHUNKS = 1024


def _key(desk: Desk, request: Request) -> Hashable:
    """What has to be the same. Calls of different budgets are not: each of them pays."""
    return asyncio.get_running_loop(), request.shared_as, budgets_of(desk.roster)


class _Flight:
    """One call whose answer comes in one piece, and how many wait for it."""

    __slots__ = ("n_waiting", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.n_waiting = 0


async def share(desk: Desk, request: Request, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Wait for the answer of a call that others may wait for, too; begin it if there is none.

    Whoever is cancelled leaves; with the last one the call is cancelled.

    Raises:
        ErnieError: The call failed, for everybody.
    """
    key, flights = _key(desk, request), desk.flights
    if key not in flights or flights[key].task.done():
        flights[key] = _Flight(asyncio.create_task(ask()))
    flight: _Flight = flights[key]
    flight.n_waiting += 1
    try:
        answer: T = await asyncio.shield(flight.task)
        return answer
    except ErnieError as error:
        failure = _own(error)
    finally:
        flight.n_waiting -= 1
        if flight.task.done() or not flight.n_waiting:
            if flights.get(key) is flight:
                del flights[key]
            if flight.task.cancel():
                await asyncio.wait([flight.task])
    raise failure


class SharedSource:
    """A `ChunkSource` that may be shared with other streams: for one of them, what it reads.

    Has the attributes of a `ChunkSource` that `ChatStream` needs, see there. What the call as a
    whole did, such as retries, is the same for all; what was delivered is each one's own.

    Args:
        desk: Who asks.
        request: What is asked.
        make_source: Makes what all read from, if this is the first of them.
    """

    __slots__ = (
        "_branch",
        "_clock",
        "_desk",
        "_ended",
        "_first_token",
        "_make_source",
        "_reason",
        "_request",
        "_shared",
        "_started",
        "answer",
        "loop",
        "phase",
    )

    def __init__(
        self,
        desk: Desk,
        request: Request,
        make_source: Callable[[Desk, Request], ChunkSource],
    ) -> None:
        self._desk = desk
        self._request = request
        self._make_source = make_source
        self.answer: Accumulator = Accumulator(n=request.n)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.phase: str = "new"
        self._shared: ChunkSource | None = None
        self._branch: ChunkBranch | None = None
        self._clock: Deadline | None = None  # while it waits
        self._reason: str | None = None
        self._started = 0.0
        self._first_token: float | None = None
        self._ended: float | None = None

    @property
    def patience(self) -> float | None:
        """Seconds to wait for a consumer's next step where others wait for it."""
        return self._desk.timeouts.idle

    @property
    def heartbeats(self) -> int:
        """Comments that came to the call."""
        return 0 if self._shared is None else self._shared.heartbeats

    @property
    def gauge(self) -> ReadGauge:
        """What was measured of the call's connection."""
        return ReadGauge(self._desk.read_buffer) if self._shared is None else self._shared.gauge

    @property
    def resumes(self) -> tuple[StreamResumed, ...]:
        """Where and how the call was resumed."""
        return () if self._shared is None else self._shared.resumes

    @property
    def fell_back_from(self) -> tuple[str, ...]:
        """Models that were asked before and failed, in order."""
        return () if self._shared is None else self._shared.fell_back_from

    @property
    def request_id(self) -> str:
        """The service's id of the answer, and until it comes the one that was sent."""
        sent = self._request if self._shared is None else self._shared
        return self.answer.id or sent.request_id

    @property
    def usage(self) -> Usage | None:
        """Tokens of the call, which are paid for once however many read its answer."""
        if self.phase == "complete" and self._shared is not None:
            return self._shared.usage
        if self.phase == "left" and self.answer.chunks:
            said = self.answer.reasoning + self.answer.text
            return self.answer.usage or self._desk.estimate(self._request, said)
        return self.answer.usage

    @property
    def timing(self) -> Timing:
        """The call's attempts and queue; but the seconds as this reader has waited."""
        if self._shared is None:
            return Timing()
        total = (self._ended or monotonic()) - self._started
        return self._shared.timing._replace(first_token=self._first_token, total=total)

    def completion(self) -> ChatCompletion:
        """What this reader has of the answer."""
        return self.answer.completion(self.usage).observed(
            request_id=self.request_id, timing=self.timing, fell_back_from=self.fell_back_from
        )

    async def pull(self) -> list[ChatChunk]:
        """Wait for the next chunks, all that are here; none at the proper end.

        Raises:
            ErnieError: The stream broke, for all of its readers. It has to be told to `fail`.
        """
        if self._clock is not None:
            raise BusyError
        if self.phase == "new":
            self._join()
        if self.phase != "open":
            if self._reason is not None:
                raise self.left_error("")
            return []
        assert self._branch is not None
        chunks, failure = None, None
        try:
            with Deadline(None) as self._clock:
                chunks = await self._branch.take()
        except ErnieError as error:
            failure = _own(error)
        except TimeoutError:
            failure = self.left_error("the stream was closed")
        finally:
            self._clock = None
        if failure is not None:
            raise failure
        if not chunks:
            self.phase = "complete"
            self.close("ok")
        elif self._first_token is None:
            self._first_token = monotonic() - self._started
        return chunks or []

    def _join(self) -> None:
        self._started = monotonic()
        self.loop = asyncio.get_running_loop()
        self.phase = "open"
        key, flights = _key(self._desk, self._request), self._desk.flights
        broadcast: _Broadcast | None = flights.get(key)
        if broadcast is None or not broadcast.tee.may_join:
            source = self._make_source(self._desk, self._request)
            broadcast = flights[key] = _Broadcast(self._desk, source, key)
        self._shared, self._branch = broadcast.source, broadcast.tee.open_branch()

    def cancel(self, reason: str) -> None:
        """Leave it, and have this reader told why."""
        if self.phase not in {"complete", "left"}:
            self._reason = reason
            self.leave()

    def leave(self) -> None:
        """Want no more of it. Does nothing after the end."""
        if self.phase not in {"complete", "left"}:
            self.close("cancelled")
            if self._clock is not None:
                self._clock.expire()

    def fail(self, error: ErnieError) -> None:
        """Say how far this reader came, and leave."""
        error.request_id = error.request_id or self.request_id
        self.close("error", error)
        if isinstance(error, WITH_PARTIAL):
            error.partial = self.completion() if self.answer.chunks else None

    def close(
        self,
        outcome: Literal["ok", "error", "cancelled"],  # noqa: ARG002 - the call has its own
        error: ErnieError | None = None,  # noqa: ARG002
    ) -> None:
        """Leave nothing behind of this reader, and if it is the last one, nothing of the call."""
        if self.phase != "complete":
            self.phase = "left"
        if self._ended is None:
            self._ended = monotonic()
        if self._branch is not None:
            self._branch.leave()

    def left_error(self, message: str) -> InterruptedStreamError:
        """The error for a reader who wants more than was left to read."""
        if self._reason is not None:
            message = f"the stream was cancelled: {self._reason}"
        partial = self.completion() if self.answer.chunks else None
        return InterruptedStreamError(message, reason=self._reason, partial=partial)


class _Broadcast:
    """One streamed call, read by whoever asks for the same while it can be joined."""

    __slots__ = ("_flights", "_key", "source", "tee")

    def __init__(self, desk: Desk, source: ChunkSource, key: Hashable) -> None:
        self._flights = desk.flights
        self._key = key
        self.source = source
        self.tee = Tee(
            self._pull,
            self._leave,
            ahead=KEPT_CHUNKS,
            patience=desk.timeouts.idle,
            is_shared=True,
        )

    async def _pull(self) -> list[ChatChunk]:
        try:
            chunks = await self.source.pull()
        except ErnieError as error:
            self._end()
            self.source.fail(error)
            raise
        except BaseException:
            self._end()
            self.source.close("cancelled")
            raise
        if not chunks:
            self._end()
        self.source.answer.feed_packet(chunks)
        return chunks

    def _leave(self) -> None:
        self._end()
        self.source.leave()

    def _end(self) -> None:
        """Nobody joins any more."""
        if self._flights.get(self._key) is self:
            del self._flights[self._key]


def _own(error: ErnieError) -> ErnieError:
    """The same error for one of those who get it: each adds to its traceback, and its partial."""
    mine = copy(error)
    mine.__cause__ = error.__cause__
    return mine
