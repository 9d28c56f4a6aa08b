"""Other ways to read a stream: its text alone, or by several consumers at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Self

from ernie_async.errors import ConfigError, DeadlineError, ErnieError, InterruptedStreamError
from ernie_async.sansio.tool_calls import ToolCallAssembler, ToolCallEvent
from ernie_async.types.chunk import ChatChunk

__all__ = ["ChunkBranch", "Tee", "TextDeltas", "ToolCallEvents", "branch_off"]


class TextDeltas:
    """The text of a stream, piece by piece, from `ChatStream.text_deltas`."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: AsyncIterator[ChatChunk]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            chunk = await self._chunks.__anext__()
            if text := chunk.text:
                return text


class ToolCallEvents:
    """The tool calls of a stream as they are being written, from `ChatStream.tool_events`."""

    __slots__ = ("_assembler", "_chunks", "_ready")

    def __init__(self, chunks: AsyncIterator[ChatChunk]) -> None:
        self._chunks = chunks
        self._assembler = ToolCallAssembler()
        self._ready: deque[ToolCallEvent] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolCallEvent:
        while not self._ready:
            self._ready.extend(self._assembler.feed(await self._chunks.__anext__()))
        return self._ready.popleft()


class ChunkBranch:
    """One consumer's view of a stream, from `ChatStream.tee`: all chunks, at its own pace.

    Leave it early with `aclose` or `async with`, else the other branches wait for it in the end.
    When the last branch is left, so is the stream.
    """

    __slots__ = ("__weakref__", "_chunks", "_source")

    def __init__(self, source: "Tee") -> None:
        self._source = source
        self._chunks: deque[ChatChunk] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        while not self._chunks:
            if not await self._source.read_on(self._chunks):
                raise StopAsyncIteration
        chunk = self._chunks.popleft()
        self._source.room.set()
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def take(self) -> list[ChatChunk]:
        """Wait for chunks, and take all that are here; none at the end."""
        if not self._chunks and not await self._source.read_on(self._chunks):
            return []
        chunks = list(self._chunks)
        self._chunks.clear()
        self._source.room.set()
        return chunks

    async def aclose(self) -> None:
        """Want no more of it."""
        self.leave()

    def leave(self) -> None:
        """Want no more of it."""
        self._source.forget(self._chunks)

    def __del__(self) -> None:
        self._source.forget_soon(self._chunks)


class Tee:
    """What the branches of one stream share: who reads, and who lags behind.

    Args:
        pull: Waits for the next chunks; none at the end.
        leave: Closes the stream.
        ahead: Chunks that a branch may be ahead of the slowest one.
        patience: Seconds to wait for the slowest one; `None` for ever.
        is_shared: Between strangers. A branch may be opened later, as long as the stream is no
            longer than `ahead`, and has all of it; and who does not read loses the stream, where
            else those who wait for it would fail.
    """

    def __init__(
        self,
        pull: Callable[[], Awaitable[list[ChatChunk]]],
        leave: Callable[[], None],
        *,
        ahead: int,
        patience: float | None,
        is_shared: bool = False,
    ) -> None:
        self._pull = pull
        self._leave = leave
        self._ahead = ahead
        self._patience = patience
        self._queues: list[deque[ChatChunk]] = []
        self._kept: list[ChatChunk] | None = [] if is_shared else None
        self._is_shared = is_shared
        self._lost: list[deque[ChatChunk]] = []
        self._reading: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # where it is read
        self._is_over = False
        self._failure: ErnieError | None = None
        self.room: asyncio.Event = asyncio.Event()

    @property
    def may_join(self) -> bool:
        """Whether a branch that is opened now would have the whole stream."""
        return self._kept is not None and not self._is_over and self._failure is None

    def open_branch(self) -> ChunkBranch:
        """One more consumer, who gets what is kept of the stream first."""
        branch = ChunkBranch(self)
        branch._chunks.extend(self._kept or ())
        self._queues.append(branch._chunks)
        return branch

    async def read_on(self, queue: deque[ChatChunk]) -> bool:
        """Wait until every branch has more chunks; say whether there can be any.

        Raises:
            DeadlineError: Another branch did not take its chunks in time.
            InterruptedStreamError: This branch did not, and others went on without it.
            ErnieError: The stream broke.
        """
        if any(queue is lost for lost in self._lost):
            raise InterruptedStreamError(
                f"this reader of a shared stream took none of its {self._ahead} chunks within "
                f"{self._patience:g} s (Timeouts.idle), and the others went on without it"
            )
        if not any(queue is other for other in self._queues):
            return False  # this branch was closed
        self._loop = asyncio.get_running_loop()
        while not queue:
            if self._failure is not None:
                raise self._failure
            if self._is_over:
                return False
            if self._reading is None:
                await self._wait_for_room()
            if self._reading is None and not queue and not self._is_over:
                # A task of its own: whoever waits may be cancelled, and the others go on.
                reading = asyncio.create_task(self._read())
                if reading.done():  # a loop may run a task as soon as it is made
                    reading.result()
                else:
                    self._reading = reading
            if self._reading is not None:
                await asyncio.shield(self._reading)
        return True

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while any(len(other) >= self._ahead for other in self._queues):
                    self.room.clear()
                    await self.room.wait()
        except TimeoutError:
            if self._is_shared:
                self._lost += [other for other in self._queues if len(other) >= self._ahead]
                self._queues = [other for other in self._queues if len(other) < self._ahead]
                return
        else:
            return
        raise DeadlineError(
            f"another branch of this stream took none of its {self._ahead} chunks within "
            f"{self._patience:g} s (Timeouts.idle); close the branches that are not read",
            clock="idle",
            seconds=self._patience or 0.0,
        )

    async def _read(self) -> None:
        try:
            chunks = await self._pull()
        except ErnieError as error:
            self._failure = error
        else:
            self._is_over = not chunks
            if self._kept is not None:
                self._kept += chunks
                if len(self._kept) > self._ahead:
                    self._kept = None
            for queue in self._queues:
                queue.extend(chunks)
        finally:
            self._reading = None

    def forget(self, queue: deque[ChatChunk]) -> None:
        """A branch was left."""
        self._queues = [other for other in self._queues if other is not queue]
        self._lost = [other for other in self._lost if other is not queue]
        self.room.set()
        if not self._queues:
            self._leave()

    def forget_soon(self, queue: deque[ChatChunk]) -> None:
        """A branch was dropped, in whatever thread."""
        if self._loop is None:  # nobody has read, so there is nothing to leave
            self._queues = [other for other in self._queues if other is not queue]
            return
        with suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self.forget, queue)


def branch_off(
    pull: Callable[[], Awaitable[list[ChatChunk]]],
    leave: Callable[[], None],
    n: int,
    *,
    ahead: int,
    patience: float | None,
) -> tuple[ChunkBranch, ...]:
    """Make the branches of a stream.

    Args:
        pull: Waits for the next chunks; none at the end.
        leave: Closes the stream.
        n: How many branches.
        ahead: Chunks that a branch may be ahead of the slowest one.
        patience: Seconds to wait for the slowest one; `None` for ever.

    Raises:
        ConfigError: `n` or `ahead` is not a whole number of at least 1.
    """
    for name, value in (("n", n), ("ahead", ahead)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected a whole number, at least 1, got {value!r}")
    source = Tee(pull, leave, ahead=ahead, patience=patience)
    return tuple(source.open_branch() for _ in range(n))
