"""Markdown that comes in pieces: what belongs together in it, and what is still open at its end.

Pure functions of text. A model's Markdown is never perfect, so nothing here raises.
"""

import re
from collections.abc import Iterator

__all__ = ["CODE", "CODE_BLOCK", "blocks_of", "close_emphasis", "held_spans", "open_block"]

# A block of code between its fences. It may go on behind the end of the text: then `end` is empty.
CODE_BLOCK = re.compile(
    r"^(?P<indent>[ \t]*)(?P<mark>(?P<tick>[`~])(?P=tick){2,}+)"
    r"[ \t]*(?P<language>[^\s`]*)[^`\n]*(?:\n|\Z)"
    r"(?P<code>.*?)(?P<end>^[ \t]*(?P=mark)(?P=tick)*[ \t\r]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
CODE = re.compile(r"(?<!`)(`++)(.+?)(?<!`)\1(?!`)", re.DOTALL)

# What stays together within a line: code, links, addresses, rows of a table. A line may go on
# behind the end of the text, and what is open there belongs together too.
INSIDE = r"(?:[^\[\]\n]|\[[^\[\]\n]*\])*+"
TARGET = r"(?:[^()\n]|\([^()\n]*\))*+"
HELD = [
    re.compile(r"(?<!`)(`++)[^\n]*?(?:(?<!`)\1(?!`)|\Z)"),
    re.compile(rf"!?\[{INSIDE}(?:\](?:\({TARGET}(?:\)|\Z)|\Z)|\Z)"),
    re.compile(r"https?://[!-~]+"),
    re.compile(r"^[ \t]*\|[^\n]*", re.MULTILINE),
]

MARKS = re.compile(r"\*\*|~~|`+|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])|__")


def blocks_of(text: str) -> list[re.Match[str]]:
    """The blocks of code in a text."""
    return list(CODE_BLOCK.finditer(text))


def open_block(blocks: list[re.Match[str]], at: int) -> re.Match[str] | None:
    """The block of code that is open at a place, of those in the text."""
    for block in blocks:
        if block.start("code") <= at and (at < block.end() or not block["end"]):
            return block
    return None


def held_spans(text: str, blocks: list[re.Match[str]]) -> Iterator[tuple[int, int]]:
    """What belongs together, from where to where: no cut is good in between."""
    end = 0
    for block in blocks:
        yield from _held_in_prose(text, end, block.start())
        # No fence stands alone: neither the first with nothing behind it, nor the last.
        yield block.start(), block.start("code") + 1
        if block["end"]:
            yield block.start("end") - 1, block.end()
        end = block.end()
    yield from _held_in_prose(text, end, len(text))


def _held_in_prose(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for pattern in HELD:
        for found in pattern.finditer(text, start, end):
            yield found.span()


def close_emphasis(text: str) -> str:
    """Close the code, bold, italics and strikethrough that the last paragraph leaves open."""
    paragraph = text.rpartition("\n\n")[2]
    open_marks: list[str] = []
    for mark in MARKS.findall(CODE.sub("", paragraph)):
        if mark in open_marks:
            open_marks = open_marks[: open_marks.index(mark)]
        else:
            open_marks.append(mark)
        if mark[0] == "`":
            break  # nothing counts within code
    while open_marks and text.endswith(open_marks[-1]):
        text = text.removesuffix(open_marks.pop())  # opened by the very last character
    return text.rstrip(" ") + "".join(reversed(open_marks)) if open_marks else text
