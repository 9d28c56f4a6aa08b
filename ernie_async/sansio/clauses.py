"""Text in clauses, for those who judge meaning and not words: where to cut, and what came before.

Cuts depend on the text alone and not on the pieces in which it came. Knows nobody who judges.
"""

import re

from ernie_async.sansio.filter_values import Channel, Clause

__all__ = ["ClauseCutter"]

# A service that judges text has a limit; and a text without any end mark must not wait for one.
MOST_CHARACTERS = 200
CONTEXT_CHARACTERS = 50
END = "。！？；.!?;\\n"
CLAUSE = re.compile(f"[^{END}]{{{MOST_CHARACTERS}}}|[^{END}]{{0,{MOST_CHARACTERS - 1}}}[{END}]")


class ClauseCutter:
    """Cuts one text into clauses.

    Args:
        channel: For the clauses to tell.
    """

    __slots__ = ("_channel", "_context", "_rest")

    def __init__(self, channel: Channel) -> None:
        self._channel: Channel = channel
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
