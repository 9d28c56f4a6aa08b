"""What must stay together within a line of Markdown: code, links, addresses, rows of a table.

Pure functions of one line. It may be the beginning of a line of which more is to come.
"""

import re
from typing import NamedTuple

__all__ = ["ROW", "Fence", "Span", "closes_fence", "may_be_fence", "opens_fence", "spans"]

RUN = re.compile(r"`+")
INSIDE = r"(?:[^\[\]\n]|\[[^\[\]\n]*\])*+"
LINK = re.compile(rf"!?\[{INSIDE}\]\((?:[^()\n]|\([^()\n]*\))*+\)")
OPEN_LINK = re.compile(
    rf"!?\[{INSIDE}(?:\](?:\((?:[^()\n]|\([^()\n]*\))*+(?:\([^()\n]*)?)?|(?:\[[^\[\]\n]*)?)$"
)
ADDRESS = re.compile(r"https?://[!-~]+")
HALF_ADDRESS = re.compile(r"https?://[!-~]*$|h(?:t(?:t(?:p(?:s?(?::/?)?)?)?)?)?$")

# How a row of a table begins.
ROW = re.compile(r"[ \t]*\|")
OPENING = re.compile(r"([ \t]*)(`{3,}(?=[^`\n]*\n?$)|~{3,})[ \t]*(\S*)")
HALF_FENCE = re.compile(r"[ \t]*(?:`{0,2}|`{3,}[^`]*|~{0,2}|~{3,}.*)$")


class Fence(NamedTuple):
    """A block of code that is open.

    Attributes:
        opening: The line that opens it again, with its end.
        closing: The line that closes it, without its end.
    """

    opening: str
    closing: str


class Span(NamedTuple):
    """Characters that belong together: there is no cut at `start` < p < `end`."""

    start: int
    end: int


def opens_fence(line: str) -> Fence | None:
    """The block of code that a whole line opens."""
    found = OPENING.match(line)
    if found is None:
        return None
    indent, fence, language = found.groups()
    return Fence(f"{indent}{fence}{language}\n", f"{indent}{fence}")


def closes_fence(line: str, fence: Fence) -> bool:
    """Whether a whole line closes a block of code."""
    mark, own = line.strip(), fence.closing.strip()
    return len(mark) >= len(own) and mark == own[0] * len(mark)


def may_be_fence(line: str, fence: Fence | None) -> bool:
    """Whether the beginning of a line may yet turn out to open, or to close, a block of code."""
    if fence is None:
        return HALF_FENCE.match(line) is not None
    mark = line.strip(" \t")
    return mark == fence.closing.strip()[0] * len(mark)


def spans(line: str, *, is_whole: bool) -> list[Span]:
    """What must stay together in a line outside of code, in no order.

    Args:
        line: From its start, or from where the last part was cut.
        is_whole: Whether nothing is to come any more. Else, what is open at the end reaches beyond
            it.
    """
    found = [Span(*match.span()) for match in LINK.finditer(line)]
    found += [Span(*match.span()) for match in ADDRESS.finditer(line)]
    runs = [match.span() for match in RUN.finditer(line)]
    if runs and not is_whole and runs[-1][1] == len(line):
        # It may still grow, and then close something else.
        found.append(Span(runs.pop()[0], len(line) + 1))
    # A run of backticks is closed by the next one of the same length.
    following: list[int | None] = []
    latest: dict[int, int] = {}
    for n in range(len(runs) - 1, -1, -1):
        length = runs[n][1] - runs[n][0]
        following.append(latest.get(length))
        latest[length] = n
    following.reverse()
    n = 0
    while n < len(runs):
        close = following[n]
        if close is not None:
            found.append(Span(runs[n][0], runs[close][1]))
        elif not is_whole:
            found.append(Span(runs[n][0], len(line) + 1))
            break
        n = n + 1 if close is None else close + 1
    if not is_whole:
        halves = (pattern.search(line) for pattern in (OPEN_LINK, HALF_ADDRESS))
        found += [Span(half.start(), len(line) + 1) for half in halves if half]
    return found
