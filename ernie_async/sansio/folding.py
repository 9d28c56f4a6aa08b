"""Text as a filter compares it: widths, cases and tricks folded away, with a way back.

Works on clusters: a character with the marks and zero-width characters behind it. A cluster becomes
its NFKC form in folded case, so that "Ａ", "A" and "a" are the same, and "é" is the same in one
character or two. Marks that then still stand for themselves (an overlay, a dot below a Chinese
character) are left out, as are zero-width characters.

Where a cluster begins depends on nothing that follows, and what follows can only be more of the
last cluster. What that cluster folds to may change, but not its base, the first character of the
decomposed form, unless that is a mark: marks are sorted. That is all one needs to fold a text that
comes in pieces.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Folded", "Folding", "base_of", "is_extending"]

# Unicode's Default_Ignorable_Code_Point, and the control characters that show nothing either.
IGNORED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
# Vowels and finals of Hangul, and vowels of Kirat Rai: letters that compose with the one before.
COMPOSING = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff\U00016d63-\U00016d6a]")
SEPARATORS = ("Z", "P", "Cc")  # beginnings of categories: spaces, punctuation, line ends
# In the table of single characters: look at the whole cluster. No text holds half a character.
LOOK = "\udfff"
# Distinct characters to remember. Chinese text has some thousands.
MOST_REMEMBERED = 20_000


def is_extending(character: str) -> bool:
    """Whether it belongs to the cluster of the character before it."""
    if character < "\x7f":
        return IGNORED.match(character) is not None
    first = unicodedata.normalize("NFKD", character)[0]
    return bool(
        unicodedata.category(first)[0] == "M"
        or COMPOSING.match(character)
        or IGNORED.match(character)
    )


def base_of(folded: str) -> str:
    """The part of a folded cluster's first character that marks yet to come do not change."""
    return unicodedata.normalize("NFD", folded)[0]


def _is_decoration(character: str) -> bool:
    """Whether a mark is no part of a spelling: overlays, frames, signs above or below."""
    place = unicodedata.combining(character)
    return place == 1 or place >= 200 or unicodedata.category(character) == "Me"


class Folded(NamedTuple):
    """A text, folded.

    Attributes:
        text: What to search.
        begins: For each of its characters, where its cluster begins in the original.
        ends: For each of its characters, where its cluster ends in the original.
        last: Where the last cluster begins in the original.
    """

    text: str
    begins: Sequence[int]
    ends: Sequence[int]
    last: int


class Folding:
    """How one filter folds. May be shared.

    Args:
        skips_separators: Leave out spaces and punctuation, too.
    """

    __slots__ = ("_skips_separators", "table")

    def __init__(self, *, skips_separators: bool) -> None:
        self._skips_separators = skips_separators
        self.table: _Table = _Table(self)

    def __reduce__(self) -> tuple[object, ...]:
        return _make_folding, (self._skips_separators,)

    def fold(self, text: str) -> Folded:
        """Fold a text that begins with a cluster of its own."""
        folded = text.translate(self.table)
        if LOOK not in folded:
            n_chars = len(text)
            return Folded(folded, range(n_chars), range(1, n_chars + 1), n_chars - 1)
        pieces: list[str] = []
        begins: list[int] = []
        ends: list[int] = []
        at = end = 0
        while end < len(text):
            at = end
            end = at + 1 + self.extension(text, at + 1)
            piece = self.cluster(text[at:end])
            pieces.append(piece)
            begins += [at] * len(piece)
            ends += [end] * len(piece)
        return Folded("".join(pieces), begins, ends, at)

    def extension(self, text: str, at: int = 0) -> int:
        """How many characters from here on belong to the cluster before."""
        end = at
        while end < len(text) and text[end].translate(self.table) == LOOK:
            if not is_extending(text[end]):
                break
            end += 1
        return end - at

    def cluster(self, text: str) -> str:
        """Fold one cluster; it may become nothing."""
        text = self._undecorated(unicodedata.normalize("NFKC", IGNORED.sub("", text)))
        text = self._undecorated(unicodedata.normalize("NFKC", text.casefold()))
        if self._skips_separators:
            text = "".join(c for c in text if not unicodedata.category(c).startswith(SEPARATORS))
        return text

    def _undecorated(self, text: str) -> str:
        return text if text.isascii() else "".join(c for c in text if not _is_decoration(c))


def _make_folding(skips_separators: bool) -> Folding:
    return Folding(skips_separators=skips_separators)


class _Table(dict[int, str]):
    """Single characters to what they fold to, filled as they come."""

    def __init__(self, folding: Folding) -> None:
        super().__init__()
        self._cluster = folding.cluster

    def __missing__(self, code: int) -> str:
        character = chr(code)
        folded = self._cluster(character)
        if len(folded) != 1 or is_extending(character) or is_extending(folded):
            folded = LOOK
        if len(self) < MOST_REMEMBERED:
            self[code] = folded
        return folded
