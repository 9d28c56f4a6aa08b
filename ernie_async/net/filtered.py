"""The chunks of a filtered answer: what may be shown of what a `ChunkSource` brings.

Two answers are kept: the one that came, which is gone on with if the stream breaks and whose tokens
count, and the one that was shown, which is all that the stream's reader ever sees.
"""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from ernie_async.errors import BlockedError
from ernie_async.net.desk import Desk
from ernie_async.net.hooks import ContentFiltered, Hook, tell
from ernie_async.net.screening import judge, judge_prompt
from ernie_async.net.source import ChunkSource
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.answer_filter import AnswerFilter, ClauseGate
from ernie_async.sansio.chunk_texts import TextKey
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_values import Clause, TextMatch
from ernie_async.sansio.rest import Request
from ernie_async.types.chunk import ChatChunk

__all__ = ["ChunkScreen", "FilteredSource"]

T = TypeVar("T")


class ChunkScreen:
    """Filters the chunks of one answer, and has its clauses judged. Serves one stream.

    Args:
        content_filter: What must not be shown.
        hooks: Told what is found.

    Attributes:
        failure: What comes after the chunks returned so far, if the answer was blocked.
        shown_matches: In mode `live`, what is wrong in text that was shown, since somebody last
            took it out of here.
    """

    __slots__ = (
        "_checkers",
        "_gate",
        "_hooks",
        "_is_live",
        "_texts",
        "_unjudged",
        "failure",
        "shown_matches",
    )

    def __init__(self, content_filter: ContentFilter, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks
        self._is_live = content_filter.mode == "live"
        self._texts = AnswerFilter(content_filter)
        self._gate = ClauseGate(content_filter) if content_filter.checkers else None
        self._checkers = content_filter.checkers
        self._unjudged: list[Clause] = []  # of what was shown already
        self.failure: BlockedError | None = None
        self.shown_matches: list[tuple[TextKey, TextMatch]] = []

    @property
    def is_judging(self) -> bool:
        """Whether something was shown that has to be judged, see `settle`."""
        return bool(self._unjudged)

    async def feed(self, chunks: Sequence[ChatChunk]) -> list[ChatChunk]:
        """Take the next chunks, or none at the end; return what may be shown of all so far."""
        shown = self._texts.feed(chunks) if chunks else self._texts.close()
        for key, match in self._texts.matches:
            tell(self._hooks, ContentFiltered(key.channel, match.action, match.category))
        self._note(self._texts.matches)
        self.failure = self._texts.failure
        if self._gate is not None:
            is_over = not chunks or self.failure is not None
            self._unjudged = self._gate.feed(shown, is_over=is_over)
            if not self._is_live:
                shown = await self._judge(self._gate)
        return shown

    async def settle(self) -> None:
        """In mode `live`, have judged what was shown. Does nothing in other modes."""
        if self._unjudged and self._gate is not None:
            await self._judge(self._gate)

    async def _judge(self, gate: ClauseGate) -> list[ChatChunk]:
        clauses, self._unjudged = self._unjudged, []
        shown = gate.release(await judge(self._checkers, clauses, self._hooks))
        self._note(gate.matches)
        self.failure = gate.failure or self.failure
        return shown

    def _note(self, matches: list[tuple[TextKey, TextMatch]]) -> None:
        if self._is_live:
            self.shown_matches += (one for one in matches if one[1].action != "flag")
        matches.clear()


class FilteredSource(ChunkSource):
    """Gets the chunks of one answer, filtered."""

    __slots__ = ("_content_filter", "_failure", "_screen")

    def __init__(self, desk: Desk, request: Request, content_filter: ContentFilter) -> None:
        super().__init__(desk, request)
        self.came: Accumulator = Accumulator(n=request.n)
        self._content_filter = content_filter
        self._screen = ChunkScreen(content_filter, desk.hooks)
        self._failure: BlockedError | None = None  # to be raised when all before it was read

    async def pull(self) -> list[ChatChunk]:
        """Wait for the next chunks that may be shown; none at the proper end.

        Raises:
            BlockedError: The rest must not be shown; the connection is closed already.
            ErnieError: The stream broke. It has to be told to `fail`.
        """
        screen = self._screen
        if self.phase == "new":
            prompt = self._request.messages
            await self._unless_left(judge_prompt(self._content_filter, prompt, self._desk.hooks))
        while True:
            if screen.is_judging:
                await self._unless_left(screen.settle())
            if self._failure is not None:
                self._raise_failure()
            chunks = await super().pull()
            self.came.feed_packet(chunks)
            shown = await self._unless_left(screen.feed(chunks))
            if shown or not (chunks or screen.is_judging or self._failure):
                return shown

    async def _unless_left(self, filtering: Awaitable[T]) -> T:
        """Wait for the filter. If it stops the answer, the service has to stop writing at once."""
        was_left = self.phase == "left"
        shown = await filtering
        if self.phase != "left":
            self._failure = self._screen.failure
            if self._failure is not None:
                self._close_attempt()
        elif not was_left:
            raise self.left_error("the stream was closed")
        return shown

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        assert failure is not None
        if self.phase == "complete":
            self.phase = "left"  # there is no whole answer to be had
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame
