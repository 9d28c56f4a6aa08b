"""Cut a long text into messages that a platform takes, without hurting its Markdown.

Pure: text goes in, parts come out. A part that was handed out never changes, however the text goes
on, and it does not matter in which pieces the text came: a cut is decided only once the text behind
it cannot change the decision any more. The work is linear in the length of the text.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Literal, NamedTuple

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
from ernie_async.errors import ConfigError

__all__ = ["Part", "Splitter", "Unit", "measure", "split_message"]

Unit = Literal["utf16", "chars", "bytes"]

# Room for one character of any kind, in any unit.
LEAST_LIMIT = 4

# How good a cut is.
HARD, SPACE, SENTENCE, LINE, BLOCK, END = range(6)

ENDS = "。！？；…"
NARROW_ENDS = ".!?;:"
CLOSING = "\"'”’」』）)】]》"


def measure(text: str, unit: Unit) -> int:
    """How long a text is, as a platform counts."""
    if unit == "chars" or (unit == "utf16" and text.isascii()):
        return len(text)
    if unit == "utf16":
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    return len(text.encode("utf-8", "surrogatepass"))


def _widths(text: str, unit: Unit) -> Iterator[int]:
    if unit == "chars":
        return (1 for _ in text)
    if unit == "utf16":
        return (1 if c <= "\uffff" else 2 for c in text)
    return (1 if c < "\x80" else 2 if c < "\u0800" else 3 if c <= "\uffff" else 4 for c in text)


class Part(NamedTuple):
    """One message.

    Attributes:
        opening: Added in front: the fence of a block of code that began in an earlier part.
        body: The text; all bodies together are the whole text.
        closing: Added behind: the end of a fence that goes on in the next part.
    """

    opening: str
    body: str
    closing: str

    @property
    def text(self) -> str:
        """What to send."""
        return self.opening + self.body + self.closing


class _Place(NamedTuple):
    """A place where a cut is possible."""

    at: int
    quality: int
    is_inside: bool
    fence: Fence | None


class Splitter:
    """Cuts a text that is still being written. Serves one text.

    Args:
        limit: The longest message, at least 4.
        unit: What the limit counts: UTF-16 units, code points, or bytes of UTF-8.

    Raises:
        ConfigError: The limit is too small.
    """

    def __init__(self, limit: int, unit: Unit = "chars") -> None:
        if limit < LEAST_LIMIT:
            raise ConfigError(f"limit: expected at least {LEAST_LIMIT}, got {limit!r}")
        self._limit = limit
        self._unit: Unit = unit
        self._text = ""  # what is in no part yet
        self._size = 0
        self._fence: Fence | None = None  # open where it begins
        self._is_line_start = True
        self._look_at = 0  # how long the text has to be before it is worth looking again

    def feed(self, delta: str) -> list[Part]:
        """Add text; return the parts that are certain now."""
        parts: list[Part] = []
        step = 2 * self._limit  # so that what is left of a long text is not copied for each part
        for n in range(0, len(delta), step):
            self._text += delta[n : n + step]
            self._size += measure(delta[n : n + step], self._unit)
            parts += self._ripe()
        return parts

    def _ripe(self) -> list[Part]:
        parts = []
        while self._size > self._room and len(self._text) >= self._look_at:
            place = self._cut(is_final=False)
            if place is None:
                # An eighth more before the next look: no matter how small the deltas are, each
                # character is looked at a few times only.
                self._look_at = len(self._text) + self._limit // 8
                break
            parts.append(self._seal(place))
        return parts

    def close(self) -> list[Part]:
        """Return what is left: no part if nothing is."""
        parts = []
        while self._text:
            place = self._cut(is_final=True)
            assert place is not None
            parts.append(self._seal(place))
        return parts

    def seal_block(self) -> Part | None:
        """Cut at the first blank line outside of code, if there is one in the text so far."""
        for place in self._places(self._reach(len(self._text) - 1), is_final=False):
            if place.quality == BLOCK and self._text[: place.at].strip():
                return self._seal(place)
        return None

    def seal_now(self) -> Part | None:
        """Cut at the end of the text so far, or at the best place if it is longer than a part."""
        place = self._cut(is_final=True) if self._text else None
        return None if place is None else self._seal(place)

    @property
    def rest(self) -> Part:
        """What is in no part yet, as a part for a preview: as much of it as one message holds."""
        fence, text = self._fence, self._text[: self._reach(len(self._text))]
        for n, line in enumerate(text.split("\n")):
            if fence is not None and closes_fence(line, fence):
                fence = None
            elif fence is None and (n or self._is_line_start):
                fence = opens_fence(line)
        closing = self._closing(fence, text)
        while measure(text + closing, self._unit) > self._room:
            text = text[:-1]
        return Part(self._opening, text, closing)

    @property
    def _opening(self) -> str:
        return "" if self._fence is None or self._is_bulky(self._fence) else self._fence.opening

    @property
    def _room(self) -> int:
        return self._limit - measure(self._opening, self._unit)

    def _is_bulky(self, fence: Fence) -> bool:
        """Whether the fences would leave no room for what is in them."""
        return measure("".join(fence), self._unit) + 1 > self._limit // 2

    def _closing(self, fence: Fence | None, text: str) -> str:
        if fence is None or self._is_bulky(fence):
            return ""
        return fence.closing if text.endswith("\n") or not text else f"\n{fence.closing}"

    def _reach(self, most: int) -> int:
        """How many characters fit, at most `most`."""
        if self._size <= self._room:
            return max(most, 0)
        total, room = 0, self._room
        for n, width in enumerate(_widths(self._text[: max(most, 0)], self._unit)):
            total += width
            if total > room:
                return n
        return max(most, 0)

    def _seal(self, place: _Place) -> Part:
        body = self._text[: place.at]
        part = Part(self._opening, body, self._closing(place.fence, body))
        self._text = self._text[place.at :]
        self._size -= measure(body, self._unit)
        self._fence = place.fence
        self._is_line_start = body.endswith("\n")
        self._look_at = 0
        return part

    def _cut(self, *, is_final: bool) -> _Place | None:
        """The best place; `None` if what is to come may matter."""
        reach = self._reach(len(self._text))
        sizes = [0, *accumulate(_widths(self._text[:reach], self._unit))]
        half = self._limit / 2 - (self._limit - self._room)
        good: list[_Place] = []  # the latest of each quality, behind the first half
        early: _Place | None = None
        torn: list[_Place] = []
        for place in self._places(reach, is_final=is_final):
            if place.at < 0:
                return None
            text = self._text[: place.at]
            if place.fence is not None:
                closing = measure(self._closing(place.fence, text[-1:]), self._unit)
                if sizes[place.at] + closing > self._room:
                    continue
            if place.is_inside:
                torn.append(place)
            elif sizes[place.at] >= half or place.quality == END:
                good.append(place)
            else:
                early = place
        if good:
            return max(good, key=lambda place: (place.quality, place.at))
        if early is not None:
            return early
        late = [place for place in torn if sizes[place.at] >= half] or torn
        if late:
            return max(late, key=lambda place: (place.quality, place.at))
        # One character with more marks than a message holds.
        closing = measure(self._closing(self._fence, "x"), self._unit)
        at = max(n for n in range(1, reach + 1) if sizes[n] + closing <= self._room or n == 1)
        return _Place(at, HARD, True, self._fence)

    def _places(self, reach: int, *, is_final: bool) -> Iterator[_Place]:
        """Where a cut is possible, up to `reach`, in order; one at -1 if that is not certain."""
        text = self._text
        known = text[: reach + self._limit]
        is_all = is_final or len(text) >= reach + self._limit
        fence, is_line_start, start, n_regional = self._fence, self._is_line_start, 0, 0
        while start < reach:
            newline = known.find("\n", start)
            end = len(known) if newline < 0 else newline + 1
            line = known[start:end]
            is_whole = newline >= 0 or is_all
            if not is_whole and is_line_start and (may_be_fence(line, fence) or ROW.match(line)):
                yield _Place(-1, HARD, True, fence)
                return
            opened = opens_fence(line) if fence is None and is_line_start else None
            is_closing = fence is not None and is_line_start and closes_fence(line, fence)
            held = self._held(line, fence, opened, is_line_start, is_closing, is_whole)
            if any(s.end > len(line) + 1 and start + s.start < reach for s in held):
                yield _Place(-1, HARD, True, fence)
                return
            inside = _marked(held, len(line))
            is_blank = not line.strip()
            after = opened or (None if is_closing else fence)
            is_indent = True
            for n, character in enumerate(line[: reach - start], 1):
                at = start + n
                is_indent = is_indent and character in " \t"
                n_regional = n_regional + 1 if is_regional(character) else 0
                following = known[at : at + 1]
                if following and (
                    is_joined(character, following)
                    or (n_regional % 2 == 1 and is_regional(following))
                ):
                    continue
                is_over = n == len(line) or (is_closing and n == len(line.rstrip("\n")))
                state = after if is_over else fence
                if not following and is_final and at == len(text):
                    yield _Place(at, END, False, state)
                elif character == "\n" or (is_over and is_closing):
                    is_block = is_blank and following != "\n" and state is None
                    yield _Place(at, BLOCK if is_block else LINE, inside[n], state)
                else:
                    quality = HARD if is_indent else _quality(known, at, fence is None)
                    yield _Place(at, quality, inside[n], state)
            fence, start, is_line_start = after, end, True

    def _held(
        self,
        line: str,
        fence: Fence | None,
        opened: Fence | None,
        is_line_start: bool,
        is_closing: bool,
        is_whole: bool,
    ) -> list[Span]:
        """What must stay together in a line; what is open reaches two characters beyond it."""
        if opened is not None:
            # A fence with nothing in it yet is not left at the end of a part either.
            return self._fitting(line, [Span(0, len(line) + 1)])
        if is_closing:
            return [Span(0, len(line.rstrip("\n")))]
        if fence is not None:
            return []
        held = [
            Span(s.start, s.end if s.end <= len(line) else len(line) + 2)
            for s in spans(line, is_whole=is_whole)
        ]
        if is_line_start and ROW.match(line):
            held.append(Span(0, len(line.rstrip("\n"))))
        return self._fitting(line, held)

    def _fitting(self, line: str, held: list[Span]) -> list[Span]:
        return [
            s
            for s in held
            if s.end > len(line) + 1 or measure(line[s.start : s.end], self._unit) <= self._limit
        ]


def _marked(held: list[Span], length: int) -> list[bool]:
    """For each place in a line, whether it is inside one of the spans."""
    steps = [0] * (length + 3)
    for span in held:
        steps[max(span.start + 1, 0)] += 1
        steps[min(span.end, length + 2)] -= 1
    return [depth > 0 for depth in accumulate(steps)]


def _quality(text: str, at: int, is_prose: bool) -> int:
    """How good a cut within a line is."""
    before, after = text[at - 1], text[at : at + 1]
    if before in " \t\u3000":
        if after in {" ", "\t", "\u3000"}:
            return HARD
        spoken = text[max(at - 8, 0) : at].rstrip().rstrip(CLOSING)
        return SENTENCE if is_prose and spoken.endswith(tuple(NARROW_ENDS + ENDS)) else SPACE
    if is_prose and (before in ENDS or before in CLOSING) and after not in ENDS + CLOSING:
        if text[max(at - 8, 0) : at].rstrip(CLOSING).endswith(tuple(ENDS)):
            return SENTENCE
    return HARD


def split_message(text: str, limit: int, unit: Unit = "chars") -> list[str]:
    """Cut a text into messages of at most `limit`, fences of code closed and opened again.

    Args:
        text: Markdown, or any text.
        limit: The longest message, at least 4.
        unit: What the limit counts: `"utf16"` (Telegram), `"chars"` (Discord, Slack) or `"bytes"`
            (WeChat, WeCom).

    Raises:
        ConfigError: The limit is too small.
    """
    splitter = Splitter(limit, unit)
    return [part.text for part in (*splitter.feed(text), *splitter.close())]
