"""Text in clauses, for those who judge meaning and not words: where to cut, and what came before.

Cuts depend on the text alone and not on the pieces in which it came. Knows nobody who judges.
"""

import re
from typing import Literal, NamedTuple

__all__ = ["Channel", "Clause", "ClauseCutter"]

Channel = Literal["content", "reasoning", "tool_arguments", "prompt"]

# A service that judges text has a limit; and a text without any end mark must not wait for one.
MOST_CHARACTERS = 200
CONTEXT_CHARACTERS = 50
CLAUSE = re.compile(
    rf"[^。！？；.!?;\n]{{{MOST_CHARACTERS}}}|[^。！？；.!?;\n]{{0,{MOST_CHARACTERS - 1}}}[。！？；.!?;\n]"
)


class Clause(NamedTuple):
    """What has to be judged.

    Attributes:
        text: The clause, at most 200 characters.
        context: The end of what stands before it, at most 50 characters, judged already.
        channel: Where it stands: `content`, `reasoning`, `tool_arguments` or `prompt`.
    """

    text: str
    context: str = ""
    channel: Channel = "content"


class ClauseCutter:
    """Cuts one text into clauses.

    Args:
        channel: For the clauses to tell.
    """

    __slots__ = ("_channel", "_context", "_rest")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._context = self._rest = ""

    def feed(self, text: str) -> list[Clause]:
        """Take more of the text; return the clauses that became complete."""
        self._rest += text
        clauses = []
        end = 0
        for found in CLAUSE.finditer(self._rest):
            end = found.end()
            clauses.append(self._clause(found[0]))
        self._rest = self._rest[end:]
        return clauses

    def close(self) -> list[Clause]:
        """The text is over: return what is left of it."""
        rest, self._rest = self._rest, ""
        return [self._clause(rest)] if rest else []

    def _clause(self, text: str) -> Clause:
        clause = Clause(text, self._context, self._channel)
        self._context = (self._context + text)[-CONTEXT_CHARACTERS:]
        return clause
