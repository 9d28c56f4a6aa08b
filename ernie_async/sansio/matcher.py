"""Terms and patterns in a folded text: what begins here, if that can be told yet.

Knows no stream; `filter_part` brings the text and says how much of it is certain.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from ernie_async.errors import ConfigError, shorten
from ernie_async.sansio.filter_values import Action, Term, TextPattern, check_action
from ernie_async.sansio.folding import Folding, base_of, is_extending
from ernie_async.sansio.term_table import TermTable

__all__ = ["Found", "Matcher"]

SEVERITY: dict[Action, int] = {"flag": 0, "mask": 1, "drop": 2, "block": 3}


class Found(NamedTuple):
    """What begins at a place.

    Attributes:
        length: Characters of the folded text.
        term: The folded term, or the expression.
        category: Its category.
        action: Its action.
    """

    length: int
    term: str
    category: str
    action: Action


class _Pattern(NamedTuple):
    regex: re.Pattern[str]
    span: int
    starts: frozenset[str]
    category: str
    action: Action


class Matcher:
    """Looks for terms and patterns. Never changes, so it may be shared.

    Args:
        terms: What to look for.
        patterns: Expressions to look for.
        folding: How the text is folded.
        action: For those that have none of their own.

    Attributes:
        actions: What may be done.
        folding: As given.
        first: Matches wherever something could begin; `None` if that is anywhere.
        may_begin_with_mark: Whether something could begin in a cluster that is nothing so far.
        span: Characters that the longest pattern may span; 0 without patterns.

    Raises:
        ConfigError: One of them cannot be right.
    """

    __slots__ = (
        "_patterns",
        "_rules",
        "_table",
        "actions",
        "first",
        "folding",
        "may_begin_with_mark",
        "span",
    )

    def __init__(
        self,
        terms: Iterable[str | Term],
        patterns: Sequence[TextPattern],
        *,
        folding: Folding,
        action: Action,
    ) -> None:
        self.folding = folding
        self._rules: dict[str, tuple[str, Action]] = {}
        for number, term in enumerate(terms):
            self._add(Term(term) if isinstance(term, str) else term, number, action)
        self._table = TermTable(self._rules)
        self._patterns = [
            self._read_pattern(f"patterns[{number}]", pattern, action)
            for number, pattern in enumerate(patterns)
        ]
        actions: set[Action] = {pattern.action for pattern in self._patterns}
        actions.update(action for _, action in self._rules.values())
        self.actions = actions
        self.span = max((pattern.span for pattern in self._patterns), default=0)
        beginnings = self._table.beginnings.union(*(one.starts for one in self._patterns))
        self.may_begin_with_mark = bool(self._patterns) or any(map(is_extending, beginnings))
        self.first: re.Pattern[str] | None = None
        if all(pattern.starts for pattern in self._patterns) and beginnings:
            self.first = re.compile(f"[{''.join(map(re.escape, sorted(beginnings)))}]")

    @property
    def n_terms(self) -> int:
        """Terms that differ when folded."""
        return len(self._rules)

    @property
    def n_patterns(self) -> int:
        """Patterns."""
        return len(self._patterns)

    def _add(self, term: Term, number: int, default: Action) -> None:
        where = getattr(term, "source", "") or f"terms[{number}]"
        if not isinstance(term, Term) or not isinstance(term.text, str):
            raise ConfigError(f"{where}: expected text or Term, got {shorten(term)}")
        folded = self.folding.fold(term.text).text if term.text else ""
        if not folded:
            raise ConfigError(f"{where}: nothing is left of this term to be compared")
        if term.action is not None:
            check_action(term.action, where)
        action = term.action or default
        known = self._rules.get(folded)
        # Of two spellings that are the same when folded, the stricter one counts.
        if known is None or SEVERITY[known[1]] < SEVERITY[action]:
            self._rules[folded] = (term.category, action)

    def _read_pattern(self, where: str, given: TextPattern, default: Action) -> _Pattern:
        if not isinstance(given, TextPattern):
            raise ConfigError(f"{where}: expected TextPattern, got {shorten(given)}")
        if not isinstance(given.max_span, int) or given.max_span < 1:
            raise ConfigError(
                f"{where}: max_span: expected a whole number, at least 1, got {given.max_span!r}"
            )
        if given.action is not None:
            check_action(given.action, where)
        try:
            regex = re.compile(given.expression, re.IGNORECASE)
        except (re.error, TypeError) as error:
            raise ConfigError(f"{where}: expression: {error}") from None
        starts = {self.folding.cluster(character)[:1] for character in given.starts_with} - {""}
        starts |= set(map(base_of, starts))
        action = given.action or default
        return _Pattern(regex, given.max_span, frozenset(starts), given.category, action)

    def next(self, text: str, at: int) -> int:
        """The next place from here on where something could begin; -1 if there is none."""
        if self.first is not None:
            match = self.first.search(text, at)
            return match.start() if match else -1
        return at if self._patterns and at < len(text) else -1

    def look(
        self, text: str, at: int, certain: int, *, is_over: bool
    ) -> Found | Literal["wait"] | None:
        """What begins exactly here: the longest one; or `"wait"`, as more has to be known.

        Args:
            text: The folded text; of a last cluster that may change, only the base.
            at: Where to look.
            certain: How much of the text will stay as it is.
            is_over: Whether nothing follows.
        """
        found: Found | None = None
        if self._table.may_begin(text, at):
            if (
                not is_over
                and len(text) - at <= self._table.longest
                and self._table.may_grow(text[at:])
            ):
                return "wait"
            term = self._table.find(text, at, certain)
            if term is not None:
                found = Found(len(term), term, *self._rules[term])
        for pattern in self._patterns:
            regex, span, starts, category, action = pattern
            if starts and text[at] not in starts:
                continue
            if not is_over and at + span > certain:
                return "wait"
            # A window, so that neither what was before nor what follows depends on the pieces.
            before = max(0, at - span)
            match = regex.match(text[before : at + span], at - before)
            length = match.end() - match.start() if match else 0
            if length > (found.length if found else 0):
                found = Found(length, regex.pattern, category, action)
        return found
