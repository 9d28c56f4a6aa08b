"""How long a text is, as chat platforms count."""

from collections.abc import Iterator
from typing import Literal

__all__ = ["Unit", "measure", "widths"]

Unit = Literal["utf16", "chars", "bytes"]


def measure(text: str, unit: Unit) -> int:
    """How long a text is, as a platform counts."""
    if unit == "chars" or (unit == "utf16" and text.isascii()):
        return len(text)
    if unit == "utf16":
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    return len(text.encode("utf-8", "surrogatepass"))


def widths(text: str, unit: Unit) -> Iterator[int]:
    """The same, for each character."""
    if unit == "chars":
        return (1 for _ in text)
    if unit == "utf16":
        return (1 if c <= "\uffff" else 2 for c in text)
    return (1 if c < "\x80" else 2 if c < "\u0800" else 3 if c <= "\uffff" else 4 for c in text)
