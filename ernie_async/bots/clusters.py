"""Where a text may be cut without breaking what a reader sees as one character.

An approximation of the extended grapheme clusters of UAX #29 with the standard library's tables. It
joins a little more than the standard (never less), since a cut elsewhere costs nothing.
"""

import unicodedata

__all__ = ["is_joined", "is_regional"]

ZWJ = "\u200d"

# Combining marks, of which the spacing ones (Mc) also stay with their letter.
MARKS = frozenset({"Mn", "Me", "Mc"})

# Of a virama: the consonant behind it belongs to the same syllable.
VIRAMA_CLASS = 9


def is_joined(before: str, after: str) -> bool:
    """Whether two neighbouring characters are one for the reader; see `is_regional` for flags."""
    if before < "\u0300" and after < "\u0300":
        return before == "\r" and after == "\n"
    return (
        ZWJ in (after, before)
        or _extends(after)
        or unicodedata.combining(before) == VIRAMA_CLASS
        or _is_jamo(before) & _is_jamo(after)
        or ("가" <= before <= "힣" and "ᅠ" <= after <= "ᇿ")
        or _is_prepended(before)
    )


def is_regional(character: str) -> bool:
    """Whether it is half of a flag: flags are pairs, counted from the first of a row."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _extends(character: str) -> bool:
    return (
        unicodedata.category(character) in MARKS
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # tones of skin
        or "\U000e0020" <= character <= "\U000e007f"  # tags, as in the flag of Scotland
        or character in "\u200c\uff9e\uff9f\u0e33\u0eb3"
    )


def _is_jamo(character: str) -> bool:
    return (
        "\u1100" <= character <= "\u11ff"
        or "\ua960" <= character <= "\ua97c"
        or "\ud7b0" <= character <= "\ud7fb"
    )


def _is_prepended(character: str) -> bool:
    code = ord(character)
    return 0x600 <= code <= 0x605 or code in {0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
