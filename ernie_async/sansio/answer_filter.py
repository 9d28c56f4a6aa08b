"""The filter for the texts of answers and prompts: chunks in, chunks that may be shown out.

Every text has a state of its own: each answer of several, its thinking, the arguments of each call.
Knows no stream and waits for nobody: of clauses it only says which have to be judged.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ernie_async.errors import BlockedError
from ernie_async.sansio.chunk_texts import ChunkTexts, TextKey
from ernie_async.sansio.clauses import ClauseCutter
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_part import FilterPart
from ernie_async.sansio.filter_values import Action, Clause, TextMatch
from ernie_async.types.chunk import ChatChunk

__all__ = ["AnswerFilter", "ClauseGate", "ClauseVerdict"]


class AnswerFilter:
    """Filters the chunks of one streamed answer. Serves one stream.

    Attributes:
        failure: What comes after the chunks returned so far, if the answer was blocked. Nothing is
            returned after it.
        matches: What was found since somebody last took it out of here, and where.
    """

    __slots__ = ("_ends", "_filter", "_is_live", "_parts", "_texts", "failure", "matches")

    def __init__(self, content_filter: ContentFilter) -> None:
        self._filter = content_filter
        self._is_live = content_filter.mode == "live"
        self._parts: dict[TextKey, FilterPart] = {}
        self._ends: dict[TextKey, int] = {}  # of texts that may go on after all
        self._texts = ChunkTexts(
            content_filter.channels, self._change, is_thinking_kept=content_filter.mode == "full"
        )
        self.failure: BlockedError | None = None
        self.matches: list[tuple[TextKey, TextMatch]] = []

    def feed(self, chunks: Iterable[ChatChunk]) -> list[ChatChunk]:
        """Take the next chunks; return what may be shown of them."""
        shown: list[ChatChunk] = []
        for chunk in chunks:
            if self.failure is not None:
                break
            new = self._texts.feed(chunk)
            if self.failure is not None:
                new = unfinished(new)
            if new is not None:
                shown.append(new)
        return shown

    def close(self) -> list[ChatChunk]:
        """The answer is over: return what was held back without a finish reason to release it."""
        last = self._texts.close() if self.failure is None else None
        return [] if last is None else [last]

    def _change(self, key: TextKey, text: str, is_over: bool) -> str:
        if self.failure is not None:
            return ""
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = self._filter.open(self._ends.get(key, 0))
        begin = part.end if self._is_live else 0
        shown = part.feed(text) if text else ""
        if is_over:
            shown += part.close()
            del self._parts[key]
            self._ends[key] = part.end
        if part.matches:
            self.matches.extend((key, match) for match in part.matches)
            part.matches.clear()
        if part.blocked is not None:
            self.failure = part.error(is_shown=self._is_live)
            # Live, what comes before the match is shown as it is, like everything before.
            return text[: max(0, part.blocked.start - begin)] if self._is_live else shown
        return text if self._is_live else shown


class ClauseVerdict(NamedTuple):
    """What somebody thinks of a clause.

    Attributes:
        action: What to do with it.
        reason: Why, in a word.
    """

    action: Action
    reason: str


class ClauseGate:
    """Holds chunks until the clauses of their texts are judged. Serves one stream.

    Attributes:
        failure: As of `AnswerFilter`.
        matches: As of `AnswerFilter`: clauses that something is wrong with.
    """

    __slots__ = (
        "_at",
        "_chunks",
        "_clauses",
        "_cutters",
        "_filter",
        "_is_over",
        "_read",
        "_verdicts",
        "_write",
        "failure",
        "matches",
    )

    def __init__(self, content_filter: ContentFilter) -> None:
        self._filter = content_filter
        is_full = content_filter.mode == "full"
        channels = content_filter.channels
        # The chunks are gone through twice: to see what has to be judged, and to obey the verdicts.
        self._read = ChunkTexts(channels, self._cut, is_thinking_kept=is_full)
        self._write = ChunkTexts(channels, self._obey, is_thinking_kept=is_full)
        self._chunks: list[ChatChunk] = []
        self._cutters: dict[TextKey, ClauseCutter] = {}
        self._clauses: deque[list[Clause]] = deque()  # of each piece of text
        self._verdicts: Iterator[ClauseVerdict | None] = iter(())
        self._at: Counter[TextKey] = Counter()  # how far the texts are judged
        self._is_over = False
        self.failure: BlockedError | None = None
        self.matches: list[tuple[TextKey, TextMatch]] = []

    def feed(self, chunks: Iterable[ChatChunk], *, is_over: bool) -> list[Clause]:
        """Take the next chunks; return what has to be judged before they are shown.

        Args:
            chunks: As they came.
            is_over: Whether they are the last.
        """
        n_known = len(self._clauses)
        for chunk in chunks:
            self._chunks.append(chunk)
            self._read.feed(chunk)
        self._is_over = is_over
        if is_over:
            self._read.close()
        return [clause for held in list(self._clauses)[n_known:] for clause in held]

    def release(self, verdicts: Iterable[ClauseVerdict | None]) -> list[ChatChunk]:
        """Return what may be shown of the chunks, now that all they brought is judged.

        Args:
            verdicts: One for each clause, in order.
        """
        self._verdicts = iter(verdicts)
        shown: list[ChatChunk] = []
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            new = self._write.feed(chunk)
            if self.failure is not None:
                new = unfinished(new)
            if new is not None:
                shown.append(new)
            if self.failure is not None:
                return shown
        last = self._write.close() if self._is_over else None
        return shown if last is None else [*shown, last]

    def _cut(self, key: TextKey, text: str, is_over: bool) -> str:
        cutter = self._cutters.setdefault(key, ClauseCutter(key.channel))
        clauses = cutter.feed(text)
        if is_over:
            clauses += cutter.close()
            del self._cutters[key]
        self._clauses.append(clauses)
        return text

    def _obey(self, key: TextKey, _text: str, _is_over: bool) -> str:
        judged = [(clause, next(self._verdicts)) for clause in self._clauses.popleft()]
        pieces = []
        for (text, *_), verdict in judged:
            if self.failure is not None:
                break
            start = self._at[key]
            end = self._at[key] = start + len(text)
            if verdict is None:
                pieces.append(text)
                continue
            action, reason = verdict
            new = self._filter.replacement(action, len(text))
            self.matches.append((key, TextMatch(start, end, "", reason, action, new)))
            if action != "block":
                pieces.append(text if new is None else new)
                continue
            self.failure = BlockedError(
                f"the content filter stopped the text ({reason})",
                is_retracted=self._filter.mode == "live",
            )
            if self._filter.mode == "full":
                return ""
        return "".join(pieces)


def unfinished(chunk: ChatChunk | None) -> ChatChunk | None:
    """A chunk of an answer that was blocked: the text before that, and no reason why it ended."""
    if chunk is None or not any(
        choice.delta.content or choice.delta.reasoning_content or choice.delta.reasoning
        for choice in chunk.choices
    ):
        return None
    choices = [choice.model_copy(update={"finish_reason": None}) for choice in chunk.choices]
    return chunk.model_copy(update={"choices": choices})
