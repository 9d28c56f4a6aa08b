"""Where a reader sees one character: no message ends in the middle of it.

An approximation of the extended grapheme clusters of UAX #29 with the standard library's tables. It
joins a little more than the standard (never less), since a cut elsewhere costs nothing.
"""

import re
import unicodedata

__all__ = ["is_joined"]

# Stays with what is before it: joiners, vowels of Thai and Lao, vowels and finals of Hangul, tones
# of skin, and the tags of flags such as Scotland's.
FOLLOWS = re.compile(
    "[\u200c\u200d\uff9e\uff9f\u0e33\u0eb3\u1160-\u11ff\ud7b0-\ud7fb"
    "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)

# Stays with what is behind it: the joiner, initials of Hangul, and marks of Arabic and others.
LEADS = re.compile(
    "[\u200d\u1100-\u115f\ua960-\ua97c\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2"
    "\U000110bd\U000110cd]"
)

FLAG_HALVES = "".join(map(chr, range(0x1F1E6, 0x1F200)))

# Of a virama: the consonant behind it belongs to the same syllable.
VIRAMA_CLASS = 9


def is_joined(text: str, at: int) -> bool:
    """Whether the characters before and behind a place in a text are one for the reader."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if before < "\u0300" and after < "\u0300":
        return before == "\r" and after == "\n"
    if before in FLAG_HALVES and after in FLAG_HALVES:  # pairs, counted from the first of a row
        return (at - len(text[:at].rstrip(FLAG_HALVES))) % 2 == 1
    return (
        unicodedata.category(after)[0] == "M"
        or unicodedata.combining(before) == VIRAMA_CLASS
        or bool(FOLLOWS.match(after) or LEADS.match(before))
    )
