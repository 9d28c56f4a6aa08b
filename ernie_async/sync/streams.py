"""Streams without `await`: what `Client.stream` and `Client.stream_parse` return."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ernie_async.net.hooks import StreamResumed
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.read_buffer import ReadGauge
from ernie_async.sansio.tool_calls import ToolCallAssembler, ToolCallEvent
from ernie_async.sync.thread import LoopThread
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Timing, Usage

if TYPE_CHECKING:
    from ernie_async.parsing import ParsedStream

__all__ = ["SyncChatStream", "SyncParsedStream"]

T = TypeVar("T")
Y = TypeVar("Y")


class _Steps(Generic[Y]):
    """The steps of one stream, taken in the thread of its client.

    When the client is closed, a stream that was begun goes on telling: what it had read already,
    then how it ended.

    Args:
        step: Gets what comes next, or raises `StopAsyncIteration`.
        leave: Closes the connection.
        thread: Where the stream is read.
    """

    def __init__(
        self,
        step: Callable[[], Awaitable[Y]],
        leave: Callable[[], Awaitable[None]],
        thread: LoopThread,
    ) -> None:
        self._step = step
        self._leave = leave
        self._thread = thread
        self._has_begun = False  # a step was taken, and did not fail

    def next(self) -> Y:
        try:
            return self.run(self._step)
        except StopAsyncIteration:
            raise StopIteration from None

    def run(self, steps: Callable[[], Awaitable[T]]) -> T:
        """Take several, for what comes of them."""
        value = self._thread.run(steps, has_begun=self._has_begun)
        self._has_begun = True
        return value

    def close(self) -> None:
        if self._thread.is_running:
            self.run(self._leave)


class SyncChatStream:
    """An answer as it is being written, from `Client.stream`. See `ChatStream`."""

    def __init__(self, stream: ChatStream, thread: LoopThread) -> None:
        self._stream = stream
        self._steps = _Steps(stream.__anext__, stream.aclose, thread)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChatChunk:
        return self._steps.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream: the connection is closed at once."""
        self._steps.close()

    def final(self) -> ChatCompletion:
        """Read the rest and return the whole answer."""
        return self._steps.run(self._stream.final)

    def text(self) -> str:
        """Read the rest and return the whole text."""
        return self._steps.run(self._stream.text)

    def text_deltas(self) -> Iterator[str]:
        """Iterate over the text alone, piece by piece; none of the pieces is empty."""
        return (chunk.text for chunk in self if chunk.text)

    def tool_events(self) -> Iterator[ToolCallEvent]:
        """Iterate over the calls of tools alone. See `ChatStream.tool_events`."""
        assembler = ToolCallAssembler()
        return (event for chunk in self for event in assembler.feed(chunk))

    def cancel(self, reason: str = "cancelled") -> None:
        """Leave the stream from any thread; its consumer is told why. See `ChatStream.cancel`."""
        self._stream.cancel(reason)

    def snapshot(self) -> ChatCompletion:
        """The answer so far, as if it had come in one piece. Joins all of it at each call."""
        return self._stream.snapshot()

    @property
    def usage(self) -> Usage | None:
        """Tokens; an estimate if the service does not tell. See `ChatStream.usage`."""
        return self._stream.usage

    @property
    def resumes(self) -> tuple[StreamResumed, ...]:
        """Where and how the stream was resumed; empty for most streams."""
        return self._stream.resumes

    @property
    def fell_back_from(self) -> tuple[str, ...]:
        """Models that were asked before and failed, in order; empty for most streams."""
        return self._stream.fell_back_from

    @property
    def read_buffer(self) -> ReadGauge:
        """What was measured of this stream, and how much of it is read at once."""
        return self._stream.read_buffer

    @property
    def request_id(self) -> str:
        """What to quote to the service's support."""
        return self._stream.request_id

    @property
    def heartbeats(self) -> int:
        """Comments that the server sent to keep the connection alive."""
        return self._stream.heartbeats

    @property
    def timing(self) -> Timing:
        """Where the time went so far, or in all."""
        return self._stream.timing


class SyncParsedStream(Generic[Y, T]):
    """An answer of a type, as it is being written, from `Client.stream_parse`.

    See `parsing.ParsedStream`.
    """

    def __init__(self, stream: "ParsedStream[Y, T]", thread: LoopThread) -> None:
        self._stream = stream
        self._steps = _Steps(stream.__anext__, stream.aclose, thread)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Y:
        return self._steps.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream: the connection is closed at once."""
        self._steps.close()

    def final(self) -> T:
        """Read the rest and return the whole value."""
        return self._steps.run(self._stream.final)

    @property
    def usage(self) -> Usage | None:
        """Tokens of all answers together; see `ChatStream.usage`."""
        return self._stream.usage

    @property
    def request_id(self) -> str:
        """What to quote to the service's support."""
        return self._stream.request_id
