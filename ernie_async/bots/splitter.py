"""Cut a long text into messages that a platform takes, without hurting its Markdown.

Pure: text goes in, parts come out. A part that was handed out never changes, however the text goes
on, and it does not matter in which pieces the text came: a cut is decided only once the text behind
it cannot change the decision any more. The work is linear in the length of the text.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from ernie_async.bots.cuts import BLOCK, END, HARD, Place, Start, places
from ernie_async.bots.inline import Fence, closes_fence, opens_fence
from ernie_async.bots.units import Unit, measure, widths
from ernie_async.errors import ConfigError

__all__ = ["Part", "Splitter", "split_message"]

# Room for one character of any kind, in any unit.
LEAST_LIMIT = 4


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
        for n, width in enumerate(widths(self._text[: max(most, 0)], self._unit)):
            total += width
            if total > room:
                return n
        return max(most, 0)

    def _seal(self, place: Place) -> Part:
        body = self._text[: place.at]
        part = Part(self._opening, body, self._closing(place.fence, body))
        self._text = self._text[place.at :]
        self._size -= measure(body, self._unit)
        self._fence = place.fence
        self._is_line_start = body.endswith("\n")
        self._look_at = 0
        return part

    def _places(self, reach: int, *, is_final: bool) -> Iterator[Place]:
        known = self._text[: reach + self._limit]
        is_all = is_final or len(self._text) >= reach + self._limit
        start = Start(self._fence, self._is_line_start)
        is_end = is_final and reach == len(self._text)
        return places(known, reach, start, self._fits, is_all=is_all, is_end=is_end)

    def _fits(self, text: str) -> bool:
        return measure(text, self._unit) <= self._limit

    def _cut(self, *, is_final: bool) -> Place | None:
        """The best place; `None` if what is to come may matter."""
        reach = self._reach(len(self._text))
        sizes = [0, *accumulate(widths(self._text[:reach], self._unit))]
        half = self._limit / 2 - (self._limit - self._room)
        good: list[Place] = []  # the latest of each quality, behind the first half
        early: Place | None = None
        torn: list[Place] = []
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
        return Place(at, HARD, True, self._fence)


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
