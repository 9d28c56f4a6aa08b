"""Where a text may be cut, and how good each place is.

Pure. A place is told only if no text that is to come can change what is said of it.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from math import inf
from typing import NamedTuple

from ernie_async.bots.clusters import is_joined, is_regional
from ernie_async.bots.inline import (
    ROW,
    Fence,
    Span,
    closes_fence,
    may_be_fence,
    opens_fence,
    spans,
)

__all__ = ["BLOCK", "END", "HARD", "Place", "Start", "places"]

# How good a cut is.
HARD, SPACE, SENTENCE, LINE, BLOCK, END = range(6)

BLANKS = " \t\u3000"
ENDS = "。！？；…"
NARROW_ENDS = ".!?;:"
CLOSING = "\"'”’」』）)】]》"

# How far back the end of a sentence is looked for, behind closing quotes.
LOOK_BACK = 8


class Start(NamedTuple):
    """Where a text begins: in which block of code, and whether at the start of a line."""

    fence: Fence | None
    is_line_start: bool


class Place(NamedTuple):
    """A place where a cut is possible.

    Attributes:
        at: Characters before it; -1 if nothing more is certain yet.
        quality: How good a cut is.
        is_inside: Whether it would tear what belongs together.
        fence: The block of code that is open there.
    """

    at: int
    quality: int
    is_inside: bool
    fence: Fence | None


def places(
    text: str,
    reach: int,
    begin: Start,
    fits: Callable[[str], bool],
    *,
    is_all: bool,
    is_end: bool,
) -> Iterator[Place]:
    """Where a cut is possible, in order.

    Args:
        text: From the start of a part on.
        reach: The last place of interest.
        begin: Where the text begins.
        fits: Whether a text fits into one message.
        is_all: Whether nothing behind the text matters any more.
        is_end: Whether `reach` is the end of everything.
    """
    fence, is_line_start, start, n_regional = begin.fence, begin.is_line_start, 0, 0
    while start < reach:
        newline = text.find("\n", start)
        end = len(text) if newline < 0 else newline + 1
        line = _Line(text[start:end], fence, is_line_start, newline >= 0 or is_all, fits)
        if line.is_open(reach - start):
            yield Place(-1, HARD, True, fence)
            return
        is_indent = True
        for n, character in enumerate(line.text[: reach - start], 1):
            at = start + n
            is_indent = is_indent and character in " \t"
            n_regional = n_regional + 1 if is_regional(character) else 0
            following = text[at : at + 1]
            if following and (
                is_joined(character, following) or (n_regional % 2 == 1 and is_regional(following))
            ):
                continue
            is_over = n >= line.over_at
            state = line.after if is_over else fence
            if is_end and at == reach:
                yield Place(at, END, False, state)
                continue
            if character == "\n" or (is_over and line.is_closing):
                is_block = line.is_blank and following != "\n" and state is None
                quality = BLOCK if is_block else LINE
            else:
                quality = HARD if is_indent else _quality(text, at, fence is None)
            yield Place(at, quality, line.inside[n], state)
        fence, start, is_line_start = line.after, end, True


class _Line:
    """What is known of a line: what it opens or closes, and what belongs together in it."""

    def __init__(
        self,
        text: str,
        fence: Fence | None,
        is_line_start: bool,
        is_whole: bool,
        fits: Callable[[str], bool],
    ) -> None:
        self.text = text
        self.is_blank = not text.strip()
        bare = len(text.rstrip("\n"))
        opened = opens_fence(text) if fence is None and is_line_start else None
        self.is_closing = fence is not None and is_line_start and closes_fence(text, fence)
        self.after = opened or (None if self.is_closing else fence)
        self.over_at = bare if self.is_closing else len(text)
        may_turn = not is_whole and is_line_start
        self._is_unclear = may_turn and bool(may_be_fence(text, fence) or ROW.match(text))
        self._open_at: float = inf
        held: list[Span] = []
        if opened is not None:
            # A fence with nothing in it yet is not left at the end of a part either.
            held = [Span(0, len(text) + 1)]
        elif self.is_closing:
            held = [Span(0, bare)]
        elif fence is None:
            held = spans(text, is_whole=is_whole)
            self._open_at = min((s.start for s in held if s.end > len(text)), default=inf)
            if is_line_start and ROW.match(text):
                held.append(Span(0, bare))
        held = [span for span in held if self.is_closing or fits(text[span.start : span.end])]
        self.inside = _marked(held, len(text))

    def is_open(self, reach: int) -> bool:
        """Whether what is to come may matter for the places up to `reach`."""
        return self._is_unclear or self._open_at < reach


def _marked(held: list[Span], length: int) -> list[bool]:
    """For each place in a line, whether it is inside one of the spans."""
    steps = [0] * (length + 3)
    for span in held:
        steps[span.start + 1] += 1
        steps[max(span.end, span.start + 1)] -= 1
    return [depth > 0 for depth in accumulate(steps)]


def _quality(text: str, at: int, is_prose: bool) -> int:
    """How good a cut within a line is."""
    before, after = text[at - 1], text[at : at + 1]
    said = text[max(at - LOOK_BACK, 0) : at]
    if before in BLANKS:
        if after and after in BLANKS:
            return HARD
        is_end = said.rstrip().rstrip(CLOSING).endswith(tuple(NARROW_ENDS + ENDS))
        return SENTENCE if is_prose and is_end else SPACE
    is_end = is_prose and before in ENDS + CLOSING and after not in ENDS + CLOSING
    return SENTENCE if is_end and said.rstrip(CLOSING).endswith(tuple(ENDS)) else HARD
