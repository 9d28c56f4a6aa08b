"""A streamed answer: chunks as they come, resumed where that is allowed, closed when it is left.

A `ChatStream` is an object, not a generator, and nothing refers back to it: a stream that is
dropped in the middle frees its connection at once.
"""

import asyncio
from collections.abc import Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Self

from ernie_async.errors import ErnieError
from ernie_async.net.desk import Desk
from ernie_async.net.hooks import StreamResumed
from ernie_async.net.reply import BusyError
from ernie_async.net.source import ChunkSource
from ernie_async.net.tee import ChunkBranch, TextDeltas, ToolCallEvents, branch_off
from ernie_async.sansio.read_buffer import ReadGauge
from ernie_async.sansio.rest import Request
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage

if TYPE_CHECKING:
    from ernie_async.net.flights import SharedSource

__all__ = ["ChatStream"]


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

    __slots__ = ("__weakref__", "_folded", "_packet", "_ready", "_source")

    def __init__(self, desk: Desk, request: Request) -> None:
        self._source = _source_of(desk, request)
        self._packet: list[ChatChunk] = []  # came at once
        self._ready: Iterator[ChatChunk] = iter(())  # of these, what was not handed over yet
        self._folded = 0  # of these, what is in the answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        # Chunks that came in one packet are handed over without another coroutine.
        for chunk in self._ready:
            return chunk
        if self._packet:
            self._fold()
        try:
            chunks = await self._source.pull()
        except BaseException as error:
            self._broke(error)
            raise
        if not chunks:
            raise StopAsyncIteration
        if len(chunks) == 1:
            # The usual case of a paced stream: nothing is kept for it.
            self._source.answer.feed(chunks[0])
            return chunks[0]
        self._packet, self._ready, self._folded = chunks, iter(chunks), 0
        return next(self._ready)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        loop = self._source.loop
        if loop is None or asyncio._get_running_loop() is loop:
            self._cancel(reason)
            return
        try:
            loop.call_soon_threadsafe(self._cancel, reason)
        except RuntimeError:  # the loop is closed, and its connections with it
            self._cancel(reason)

    def _cancel(self, reason: str) -> None:
        self._drop_packet()
        self._source.cancel(reason)

    def _leave(self) -> None:
        self._drop_packet()
        self._source.leave()

    def __del__(self) -> None:
        source = getattr(self, "_source", None)
        if source is None or source.phase != "open" or source.loop is None:
            return
        if asyncio._get_running_loop() is not source.loop:
            # Dropped in another thread: only the loop itself may touch its connections.
            try:
                source.loop.call_soon_threadsafe(source.leave)
            except RuntimeError:
                pass  # the loop is closed, and its connections with it
            else:
                return
        source.leave()

    async def final(self) -> ChatCompletion:
        """Read the rest and return the whole answer.

        Raises:
            InterruptedStreamError: The stream was left, or failed, before its end.
        """
        async for _ in self:
            pass
        if self._source.phase != "complete":
            raise self._source.left_error("this stream was left before its end")
        return self._source.completion()

    async def text(self) -> str:
        """Read the rest and return the whole text."""
        return (await self.final()).text

    def text_deltas(self) -> TextDeltas:
        """Iterate over the text alone, piece by piece; none of the pieces is empty."""
        return TextDeltas(self)

    def tool_events(self) -> ToolCallEvents:
        """Iterate over the calls of tools alone: their arguments in pieces, and each call whole."""
        return ToolCallEvents(self)

    def tee(self, n: int, *, ahead: int = 1024) -> tuple[ChunkBranch, ...]:
        """Serve several consumers, each at its own pace; iterate over the branches instead of this.

        Args:
            n: How many branches.
            ahead: Chunks that a branch may be ahead of the slowest one before it has to wait.
        """
        return branch_off(
            self._pull_for_all, self._leave, n, ahead=ahead, patience=self._source.patience
        )

    async def _pull_for_all(self) -> list[ChatChunk]:
        begun = list(self._ready)  # the rest of a packet that was begun here
        self._fold()
        if begun:
            return begun
        try:
            chunks = await self._source.pull()
        except BaseException as error:
            self._broke(error)
            raise
        self._source.answer.feed_packet(chunks)
        return chunks

    def snapshot(self) -> ChatCompletion:
        """The answer so far, as if it had come in one piece. Joins all of it at each call."""
        self._fold()
        return self._source.completion()

    @property
    def usage(self) -> Usage | None:
        """Tokens, all parts of a resumed stream together.

        `None` until the service tells them, which it does at the end and if `stream_options` asks
        for it. Once the stream is over, an estimate stands in for what was not told; see
        `Usage.is_estimate`.
        """
        self._fold()
        return self._source.usage

    @property
    def request_id(self) -> str:
        """What to quote to the service's support: its own id, or until it answers the one sent."""
        self._fold()
        return self._source.request_id

    @property
    def resumes(self) -> tuple[StreamResumed, ...]:
        """Where and how the stream was resumed; empty for most streams."""
        return self._source.resumes

    @property
    def fell_back_from(self) -> tuple[str, ...]:
        """Models that were asked before and failed, in order; empty for most streams."""
        return self._source.fell_back_from

    @property
    def heartbeats(self) -> int:
        """Comments that the server sent to keep the connection alive."""
        return self._source.heartbeats

    @property
    def read_buffer(self) -> ReadGauge:
        """What was measured of this stream, and how much of it is read at once."""
        return self._source.gauge

    @property
    def timing(self) -> Timing:
        """Where the time went so far, or in all."""
        return self._source.timing

    def _broke(self, error: BaseException) -> None:
        """Leave nothing behind, unless it is news for whoever came second, and for nobody else."""
        if isinstance(error, BusyError):
            return
        self._drop_packet()
        if isinstance(error, ErnieError):
            self._source.fail(error)
        else:
            self._source.close("cancelled")

    def _drop_packet(self) -> None:
        self._fold()
        self._packet, self._ready = [], iter(())

    def _fold(self) -> None:
        """Add to the answer what was handed over since the last time."""
        if self._packet:
            answer, n_ready = self._source.answer, length_hint(self._ready)
            if n_ready or self._folded:
                delivered = len(self._packet) - n_ready
                answer.feed(*self._packet[self._folded : delivered])
                self._folded = delivered
            else:
                answer.feed_packet(self._packet)
            if not n_ready:
                self._packet = []


def _source_of(desk: Desk, request: Request) -> "ChunkSource | SharedSource":
    if request.shared_as is None:
        return _own_source(desk, request)
    from ernie_async.net.flights import SharedSource  # most calls are not shared

    return SharedSource(desk, request, _own_source)


def _own_source(desk: Desk, request: Request) -> ChunkSource:
    if desk.content_filter is None:
        return ChunkSource(desk, request)
    from ernie_async.net.filtered import FilteredSource  # most programs filter not

    return FilteredSource(desk, request, desk.content_filter)
