"""Cut a long text into messages that a platform takes, without hurting its Markdown.

Pure: text goes in, parts come out. A cut looks at as much text as a message holds and a little
more, and is made only once so much is there. So a part that was handed out never changes, however
the text goes on, and it does not matter in which pieces the text came.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ernie_async.bots.clusters import is_joined
from ernie_async.bots.markup import blocks_of, held_spans, open_block
from ernie_async.errors import ConfigError

__all__ = ["Part", "Splitter", "Unit", "measure", "split_message"]

Unit = Literal["utf16", "chars", "bytes"]

# Of a character, in any unit; so a limit has room for one.
WIDEST = 4

# Characters behind the end of a message that are looked at before it is cut.
LOOK_AHEAD = 64

# Where to cut, best first; then anywhere.
BLANK_LINE = re.compile(r"\n(?:[ \t\r]*\n)+")
BREAKS = [
    re.compile(r"\n"),
    re.compile(r"[。！？；][。！？；\"'”’」』）)】\]》]*|[.!?;][\"'”’」』）)】\]》]*[ \t\u3000]+"),
    re.compile(r"(?<=\S)[ \t\u3000]+"),
]


def measure(text: str, unit: Unit) -> int:
    """How long a text is, as a platform counts."""
    if unit == "chars":
        return len(text)
    if unit == "utf16":
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    return len(text.encode("utf-8", "surrogatepass"))


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
        if limit < WIDEST:
            raise ConfigError(f"limit: expected at least {WIDEST}, got {limit!r}")
        self._limit = limit
        self._unit: Unit = unit
        self._opening = ""  # of the next part
        self._text = ""  # what is in no part yet
        self._size = 0  # of both

    def feed(self, delta: str) -> list[Part]:
        """Add text; return the parts that are certain now."""
        parts: list[Part] = []
        step = 2 * self._limit  # so that what is left of a long text is not copied for each part
        for n in range(0, len(delta), step):
            self._text += delta[n : n + step]
            self._size += measure(delta[n : n + step], self._unit)
            while (
                self._size >= self._limit + LOOK_AHEAD
                and len(self._text) >= self._n_fitting(self._limit) + LOOK_AHEAD
            ):
                parts.append(self._seal(self._cut()))
        return parts

    def close(self) -> list[Part]:
        """Return what is left: no part if nothing is."""
        return list(iter(self.seal_now, None))

    def seal_block(self) -> Part | None:
        """Cut at the first blank line outside of code, if there is one in the text so far."""
        known = self._opening + self._text[: self._n_fitting(self._limit)]
        for at in _blank_lines(known, blocks_of(known)):
            if at < len(known) and known[:at].strip():  # else there may be more blank lines
                return self._seal(at - len(self._opening))
        return None

    def seal_now(self) -> Part | None:
        """Cut at the end of the text so far, or at the best place if it is longer than a part."""
        if not self._text:
            return None
        return self._seal(len(self._text) if self._fits(len(self._text)) else self._cut())

    @property
    def rest(self) -> Part:
        """What is in no part yet, as a part for a preview: as much of it as one message holds."""
        return self._part(self._most())[0]

    def _part(self, n: int) -> tuple[Part, str]:
        """The first characters of the text as a part, and the opening of the next one."""
        known = self._opening + self._text[:n]
        opening = closing = ""
        block = open_block(blocks_of(known), len(known))
        if block is not None:
            mark = block["indent"] + block["mark"]
            opening, closing = f"{mark}{block['language']}\n", f"\n{mark}"
            if measure(opening + closing, self._unit) >= self._limit // 2:
                opening = closing = ""  # no room would be left for what is in it
            elif known.endswith("\n"):
                closing = mark
        return Part(self._opening, self._text[:n], closing), opening

    def _seal(self, n: int) -> Part:
        part, self._opening = self._part(n)
        self._text = self._text[n:]
        self._size = measure(self._opening + self._text, self._unit)
        return part

    def _fits(self, n: int) -> bool:
        return measure(self._part(n)[0].text, self._unit) <= self._limit

    def _n_fitting(self, limit: int) -> int:
        """How many characters of the text are within a limit, behind the opening."""
        room = limit - measure(self._opening, self._unit)
        n = max(min(len(self._text), room), 0)
        while (excess := measure(self._text[:n], self._unit) - room) > 0 and n:
            n -= -(-excess // WIDEST)
        return n

    def _most(self) -> int:
        """How many characters are a part, wherever that ends."""
        n = self._n_fitting(self._limit)
        while n > 1 and not self._fits(n):
            n -= 1
        return n

    def _cut(self) -> int:
        """The best place: how many characters are in front of it."""
        lead, reach = len(self._opening), self._n_fitting(self._limit)
        half = max(self._n_fitting(self._limit // 2), 1)
        known = self._opening + self._text[: reach + LOOK_AHEAD]
        blocks = blocks_of(known)
        held = bytearray(len(known) + 1)
        for start, end in held_spans(known, blocks):
            if measure(known[start:end], self._unit) <= self._limit:
                held[start + 1 : end] = b"\1" * (end - start - 1)
        anywhere = range(lead + 1, lead + reach + 1)
        kinds: list[Sequence[int]] = [list(_blank_lines(known, blocks))]
        kinds += [[found.end() for found in pattern.finditer(known)] for pattern in BREAKS]
        searches = [*((places, lead + half) for places in (*kinds, anywhere)), (anywhere, lead + 1)]
        for may_tear in (False, True):
            for places, least in searches:
                for at in reversed(places):
                    if (
                        least <= at <= lead + reach
                        and (may_tear or not held[at])
                        and not is_joined(known, at)
                        and self._fits(at - lead)
                    ):
                        return at - lead
        return self._most()  # one character with more marks than a message holds


def _blank_lines(known: str, blocks: list[re.Match[str]]) -> Iterator[int]:
    """The places behind blank lines that are not in code."""
    for found in BLANK_LINE.finditer(known):
        if open_block(blocks, found.end()) is None:
            yield found.end()


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
