"""Find what must not be shown, in whole texts and in texts that come in pieces.

`ContentFilter` is what to look for and what to do about it. `filter_part` does it to one text,
`answer_filter` to the texts of an answer. Nobody waits here: who asks a `TextChecker` is above.
"""

from collections.abc import Collection, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypedDict, Unpack, get_args

from ernie_async.errors import ConfigError, shorten
from ernie_async.sansio.filter_values import (
    Action,
    Channel,
    FilterMode,
    Term,
    TextChecker,
    TextMatch,
    TextPattern,
    check_action,
    replacement_for,
)

if TYPE_CHECKING:
    # Imported by the first filter: every program imports this module, and most filter nothing.
    from ernie_async.sansio.filter_part import FilterPart

__all__ = ["ContentFilter", "FilterSettings"]

# What people read. Arguments of tools are read by programs, which a mask may confuse.
DEFAULT_CHANNELS: tuple[Channel, ...] = ("content", "reasoning")


class FilterSettings(TypedDict, total=False):
    """The keywords of `ContentFilter`, where they are described."""

    patterns: Sequence[TextPattern]
    checkers: Sequence[TextChecker]
    action: Action
    replacement: str
    mode: FilterMode
    channels: Collection[Channel]
    skip_separators: bool


class ContentFilter:
    """Finds terms and patterns in text, and does something about them. May be shared.

    Matches do not overlap: the leftmost one counts, and of those the longest, whatever its action.
    What is compared is folded text: widths, cases and zero-width characters make no difference.

    ```python
    words = ContentFilter.from_terms(["敏感词"], action="mask", replacement="*")
    words.apply("这是敏感词。")  # 这是***。
    part = words.open()
    part.feed("这是敏"), part.feed("感词。"), part.close()  # 这是, ***。
    ```

    Args:
        terms: Text to be found, or `Term` for one with a category or an action of its own.
        patterns: Expressions to be found.
        checkers: To be asked about each clause that terms and patterns leave. Only a client or a
            gateway asks them.
        action: What to do with a match: `"mask"` puts the replacement there, `"drop"` leaves it
            out, `"block"` ends the text before it, `"flag"` only notes it.
        replacement: One character stands there once for each character; a longer text once.
        mode: `"window"` holds back what may become a match; `"full"` holds back everything until
            the end; `"live"` shows at once and looks afterwards, for who can take text back.
        channels: What of a chat is filtered: `"content"`, `"reasoning"`, `"tool_arguments"`, and
            `"prompt"`, which is the user's messages.
        skip_separators: Whether spaces and punctuation make no difference either.

    Raises:
        ConfigError: Something cannot be right.
    """

    __slots__ = ("_matcher", "_replacement", "channels", "checkers", "mode")

    def __init__(
        self,
        terms: Iterable[str | Term] = (),
        *,
        patterns: Sequence[TextPattern] = (),
        checkers: Sequence[TextChecker] = (),
        action: Action = "mask",
        replacement: str = "*",
        mode: FilterMode = "window",
        channels: Collection[Channel] = DEFAULT_CHANNELS,
        skip_separators: bool = False,
    ) -> None:
        if isinstance(terms, str):
            raise ConfigError("terms: expected a list of terms, got one text")
        check_action(action, "action")
        if not isinstance(replacement, str):
            raise ConfigError(f"replacement: expected text, got {shorten(replacement)}")
        if mode not in get_args(FilterMode):
            raise ConfigError(f"mode: expected window, full or live, got {shorten(mode)}")
        known = get_args(Channel)
        if isinstance(channels, str) or not set(channels) <= set(known):
            raise ConfigError(
                f"channels: expected some of {', '.join(known)}, got {shorten(channels)}"
            )
        for number, checker in enumerate(checkers):
            _check_checker(f"checkers[{number}]", checker)
        from ernie_async.sansio.folding import Folding
        from ernie_async.sansio.matcher import Matcher

        self._matcher = Matcher(
            terms,
            patterns,
            folding=Folding(skips_separators=skip_separators),
            action=action,
        )
        self._replacement = replacement
        self.checkers: tuple[TextChecker, ...] = tuple(checkers)
        self.mode: FilterMode = mode
        self.channels: frozenset[Channel] = frozenset(channels)

    @classmethod
    def from_terms(cls, terms: Iterable[str | Term], **settings: Unpack[FilterSettings]) -> Self:
        """A filter for these terms. See `ContentFilter`."""
        return cls(terms, **settings)

    @classmethod
    def from_file(cls, path: str | Path, **settings: Unpack[FilterSettings]) -> Self:
        """A filter for the terms in a file, one on each line; see `word_list` for its form.

        Args:
            path: In UTF-8. It is read now, and not again.
            **settings: See `ContentFilter`.

        Raises:
            ConfigError: It cannot be read, or one of its lines cannot be right.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        from ernie_async.sansio.word_list import read_word_list

        return cls(read_word_list(data, str(path)), **settings)

    def apply(self, text: str) -> str:
        """Filter a whole text.

        Raises:
            BlockedError: It must not be shown.
        """
        part = self.open()
        shown = part.feed(text) + part.close()
        if part.blocked is not None:
            raise part.error()
        return shown

    def open(self, offset: int = 0) -> "FilterPart":
        """Begin a text that comes in pieces.

        Args:
            offset: Where it begins in a longer one, for the places of matches.
        """
        from ernie_async.sansio.filter_part import FilterPart

        return FilterPart(
            self._matcher, self._replacement, withholds_all=self.mode == "full", offset=offset
        )

    def with_settings(
        self, *, mode: FilterMode | None = None, channels: Collection[Channel] | None = None
    ) -> Self:
        """The same filter, without another list, in another mode or for other channels."""
        changed = copy(self)
        changed.mode = mode or self.mode
        changed.channels = self.channels if channels is None else frozenset(channels)
        return changed

    def find(self, text: str) -> list[TextMatch]:
        """What is in a text, up to the first match that blocks it."""
        part = self.open()
        part.feed(text)
        part.close()
        return part.matches

    def replacement(self, action: Action, length: int) -> str | None:
        """What stands in the place of so many characters; `None` if the text stays."""
        return replacement_for(action, length, self._replacement)

    @property
    def actions(self) -> set[Action]:
        """What may be done to a text."""
        of_checkers: set[Action] = {checker.action for checker in self.checkers}
        return of_checkers | self._matcher.actions

    def check_live(self, *, takes_back: bool = False) -> None:
        """Refuse what cannot be done to text that was shown already.

        Args:
            takes_back: Whether its readers can be told to take back some of it.

        Raises:
            ConfigError: The mode is `live`, and there is something to mask or to drop.
        """
        if self.mode != "live" or not self.actions & {"mask", "drop"}:
            return
        if not takes_back:
            raise ConfigError(
                "content_filter: in mode live, expected only the actions block and flag: a client "
                "cannot change text that it has delivered"
            )
        if "tool_arguments" in self.channels:
            raise ConfigError(
                "content_filter: in mode live, expected only the actions block and flag for "
                "tool_arguments, which nobody takes back"
            )

    def __repr__(self) -> str:
        # The list is nobody's business, least of all a log's.
        return (
            f"ContentFilter({self._matcher.n_terms} terms, {self._matcher.n_patterns} patterns, "
            f"{len(self.checkers)} checkers, mode={self.mode!r}, "
            f"channels={sorted(self.channels)!r})"
        )


def _check_checker(where: str, checker: TextChecker) -> None:
    if not isinstance(checker, TextChecker):
        raise ConfigError(f"{where}: expected TextChecker, got {shorten(checker)}")
    if not callable(checker.check):
        raise ConfigError(f"{where}: check: expected a function, got {shorten(checker.check)}")
    check_action(checker.action, f"{where}: action")
    if checker.on_error not in {"block", "allow"}:
        raise ConfigError(
            f"{where}: on_error: expected block or allow, got {shorten(checker.on_error)}"
        )
    if not isinstance(checker.timeout, int | float) or not checker.timeout > 0:
        raise ConfigError(
            f"{where}: timeout: expected seconds above 0, got {shorten(checker.timeout)}"
        )
