"""Where a continued answer meets what was there before: what it repeats is left out.

A model that is asked to go on often says its last words again. They are compared without white
space, since models also change that. Nothing is held back longer than it could still be such a
repetition, which in practice means one or two chunks.
"""

from ernie_async.types.chunk import ChatChunk

__all__ = ["Seam", "find_overlap"]

# A model picks up its last sentence or two, not pages; and every character here is a chance to take
# a real repetition ("哈哈") for one at the seam.
OVERLAP_MOST = 256


def find_overlap(before: str, after: str, *, least: int) -> tuple[int, bool]:
    """How much of `after` only repeats the end of `before`.

    Args:
        before: The text so far.
        after: How it goes on, as far as is known.
        least: Characters, white space not counted, that a repetition has at least.

    Returns:
        The length of the repetition, to be cut from the start of `after`; and whether it may turn
        out longer once more of `after` is known.
    """
    # Twice as many, since some are white space; where more of it is, overlaps are shorter.
    tail = "".join(before[-2 * OVERLAP_MOST :].split())[-OVERLAP_MOST:]
    head = "".join(after[: 2 * OVERLAP_MOST].split())[: OVERLAP_MOST + 1]
    may_grow = not head or head in tail[:-1]
    for n_equal in range(min(len(tail), len(head)), max(least, 1) - 1, -1):
        if tail.endswith(head[:n_equal]):
            end = _cut(before, after, n_equal)
            # The white space after a repetition is told when something follows it.
            return end, may_grow or (end == len(after) and before[-1].isspace())
    return 0, may_grow


def _cut(before: str, after: str, n_bare: int) -> int:
    """Where in `after` the repetition ends, with the white space that `before` has there, too."""
    end = 0
    while n_bare:
        n_bare -= not after[end].isspace()
        end += 1
    for blank in before[len(before.rstrip()) :]:
        if after[end : end + 1] != blank:
            break
        end += 1
    return end


class Seam:
    """Leaves out of a continuation what repeats the text before it. Serves one continuation.

    Thinking text is left out as well: it is about going on, and the answer has begun.

    Args:
        before: The text so far.
        least: The shortest repetition that counts; see `find_overlap`.
    """

    __slots__ = ("_before", "_held", "_is_open", "_last", "_least")

    def __init__(self, before: str, *, least: int) -> None:
        self._before = before
        self._least = least
        self._held = ""
        self._is_open = True
        self._last: ChatChunk | None = None

    def feed(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        """Take the next chunks; return what may be shown of them."""
        shown = []
        for chunk in chunks:
            text = chunk.text
            if self._is_open:
                self._held += text
                self._last = chunk
                text = self._release(is_over=chunk.finish_reason is not None)
            if text or _says_more(chunk):
                is_same = text == chunk.text and not chunk.reasoning
                shown.append(chunk if is_same else _with_text(chunk, text))
        return shown

    def close(self) -> list[ChatChunk]:
        """The continuation came to its proper end: return what was held back."""
        text = self._release(is_over=True) if self._is_open else ""
        return [_with_text(self._last, text)] if text and self._last is not None else []

    def _release(self, *, is_over: bool) -> str:
        dropped, may_grow = find_overlap(self._before, self._held, least=self._least)
        if may_grow and not is_over:
            return ""
        self._is_open = False
        text, self._held, self._before = self._held[dropped:], "", ""
        return text


def _with_text(chunk: ChatChunk, text: str) -> ChatChunk:
    """The chunk with another text for its first answer, and without thinking text."""
    first = True
    choices = []
    for choice in chunk.choices:
        news = {"content": text if first else "", "reasoning_content": None, "reasoning": None}
        choices.append(choice.model_copy(update={"delta": choice.delta.model_copy(update=news)}))
        first = False
    return chunk.model_copy(update={"choices": choices})


def _says_more(chunk: ChatChunk) -> bool:
    """Whether a chunk without text is worth handing over."""
    return bool(
        chunk.finish_reason or chunk.tool_calls or chunk.usage or chunk.search_results is not None
    )
