"""The chunks of a filtered answer: what may be shown of what a `ChunkSource` brings.

Two answers are kept: the one that came, which is gone on with if the stream breaks and whose tokens
count, and the one that was shown, which is all that the stream's reader ever sees.
"""

from ernie_async.errors import BlockedError
from ernie_async.net.desk import Desk
from ernie_async.net.hooks import ContentFiltered, tell
from ernie_async.net.screening import judge, judge_prompt
from ernie_async.net.source import ChunkSource
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.answer_filter import AnswerFilter, ClauseGate, Verdict
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_values import Clause
from ernie_async.sansio.rest import Request
from ernie_async.types.chunk import ChatChunk

__all__ = ["FilteredSource"]


class FilteredSource(ChunkSource):
    """Gets the chunks of one answer, filtered."""

    __slots__ = ("_content_filter", "_failure", "_gate", "_texts", "_unjudged")

    def __init__(self, desk: Desk, request: Request, content_filter: ContentFilter) -> None:
        super().__init__(desk, request)
        self.came: Accumulator = Accumulator(n=request.n)
        self._content_filter = content_filter
        self._texts = AnswerFilter(content_filter)
        self._gate = ClauseGate(content_filter) if content_filter.checkers else None
        self._unjudged: list[Clause] = []  # of what was shown already
        self._failure: BlockedError | None = None  # to be raised when all before it was read

    async def pull(self) -> list[ChatChunk]:
        """Wait for the next chunks that may be shown; none at the proper end.

        Raises:
            BlockedError: The rest must not be shown; the connection is closed already.
            ErnieError: The stream broke. It has to be told to `fail`.
        """
        if self.phase == "new":
            await judge_prompt(self._content_filter, self._request.messages, self._desk.hooks)
        while True:
            if self._unjudged:
                await self._judge_shown()
            if self._failure is not None:
                self._raise_failure()
            chunks = await super().pull()
            self.came.feed(*chunks)
            shown = self._texts.feed(chunks) if chunks else self._texts.close()
            for channel, match in self._texts.matches:
                tell(self._desk.hooks, ContentFiltered(channel, match.action, match.category))
            self._texts.matches.clear()
            self._stop(self._texts.failure)
            if self._gate is not None:
                is_over = not chunks or self._failure is not None
                shown = await self._judged(self._gate, shown, is_over=is_over)
            if shown or not (chunks or self._unjudged or self._failure):
                return shown

    async def _judged(
        self, gate: ClauseGate, chunks: list[ChatChunk], *, is_over: bool
    ) -> list[ChatChunk]:
        """What may be shown of these chunks and of those before, as far as it can be judged."""
        clauses = gate.feed(chunks, is_over=is_over)
        if self._content_filter.mode == "live":
            self._unjudged = clauses
            return chunks
        shown = gate.release(await self._ask(clauses))
        self._stop(gate.failure)
        return shown

    async def _judge_shown(self) -> None:
        assert self._gate is not None
        clauses, self._unjudged = self._unjudged, []
        self._gate.release(await self._ask(clauses))
        self._stop(self._gate.failure)

    async def _ask(self, clauses: list[Clause]) -> list[Verdict | None]:
        verdicts = await judge(self._content_filter.checkers, clauses, self._desk.hooks)
        if self.phase == "left":
            raise self.left_error("the stream was closed")
        return verdicts

    def _stop(self, failure: BlockedError | None) -> None:
        """Want no more of the answer, if there is a reason: the service stops writing at once."""
        if failure is not None and self.phase != "left":
            self._failure = failure
            self._close_attempt()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        assert failure is not None
        if self.phase == "complete":
            self.phase = "left"  # there is no whole answer to be had
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame
