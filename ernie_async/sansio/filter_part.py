"""One text on its way through a filter: pieces in, what may be shown out, the rest held back.

However it is cut, the pieces become what the whole text becomes. Held back is what may still turn
out to be part of a match, and the text that is not certain yet: its last cluster may get marks, see
`folding`; but only if a match could begin with what it is so far.
"""

from bisect import bisect_left

from ernie_async.errors import BlockedError
from ernie_async.sansio.filter_values import TextMatch, replacement_for
from ernie_async.sansio.folding import LOOK, Folded, base_of, is_extending
from ernie_async.sansio.matcher import Found, Matcher

__all__ = ["FilterPart"]


class FilterPart:
    """One text, from `ContentFilter.open`. Serves one text.

    Args:
        matcher: What to look for.
        replacement: For what is masked.
        withholds_all: Give nothing away before `close`.
        offset: Where the text begins in a longer one, for the places of matches.

    Attributes:
        matches: What was found so far, in order.
        blocked: The match that ended the text; `None` if none did.
    """

    __slots__ = (
        "_before",
        "_has_begun",
        "_held",
        "_matcher",
        "_offset",
        "_replacement",
        "_withholds_all",
        "blocked",
        "matches",
    )

    def __init__(
        self, matcher: Matcher, replacement: str, *, withholds_all: bool = False, offset: int = 0
    ) -> None:
        self._matcher = matcher
        self._replacement = replacement
        self._withholds_all = withholds_all
        self._held = ""
        self._before = ""  # decided, and kept for patterns that look back
        self._has_begun = False  # there is a cluster that marks may still be added to
        self._offset = offset  # up to where it is decided
        self.matches: list[TextMatch] = []
        self.blocked: TextMatch | None = None

    @property
    def end(self) -> int:
        """Where the text ends, as far as it came."""
        return self._offset + len(self._held)

    @property
    def held(self) -> str:
        """What was fed and is not decided yet."""
        return self._held

    def feed(self, delta: str) -> str:
        """Take more of the text; return what may be shown. Nothing any more once it is blocked."""
        if self.blocked is not None:
            return ""
        if self._withholds_all:
            self._held += delta
            return ""
        matcher = self._matcher
        # Most pieces hold nothing that a match begins with.
        if delta and not self._held and not matcher.span:
            folded = delta.translate(matcher.folding.table)
            if LOOK not in folded and matcher.next(folded + base_of(folded[-1]), 0) < 0:
                self._has_begun = True
                self._offset += len(delta)
                return delta
        return self._take(self._held + delta, is_over=False)

    def close(self) -> str:
        """The text is over: return what was held back."""
        if self.blocked is not None:
            return ""
        shown = self._take(self._held, is_over=True)
        return "" if self._withholds_all and self.blocked is not None else shown

    def error(self, *, is_shown: bool = False) -> BlockedError:
        """The error for a text that was blocked. What was found is in `term`, not in its message.

        Args:
            is_shown: The match was shown, and has to be taken back.
        """
        assert self.blocked is not None
        category = f" (category {self.blocked.category})" if self.blocked.category else ""
        return BlockedError(
            f"the content filter stopped the text{category}",
            term=self.blocked.term,
            is_retracted=is_shown,
        )

    def _take(self, text: str, *, is_over: bool) -> str:
        matcher = self._matcher
        marks = ""
        if self._has_begun and not self._held:
            # Marks of a cluster that was decided, so whatever they are, no match begins there.
            n_marks = matcher.folding.extension(text)
            marks, text = text[:n_marks], text[n_marks:]
            self._offset += n_marks
            self._before += marks if matcher.span else ""
        self._held = ""
        if not text:
            return marks
        start = len(self._before)
        text = self._before + text
        folded = matcher.folding.fold(text)
        if not is_over and is_extending(text[folded.last]):
            self._held = text  # the very beginning, and nothing for the marks to stand on
            return marks
        self._has_begun = True
        shown, end = self._search(text, folded, start, is_over=is_over)
        if self.blocked is None:
            self._held = text[end:]
            if matcher.span:
                n_needless = bisect_left(folded.begins, end) - matcher.span
                self._before = text[folded.begins[n_needless] if n_needless > 0 else 0 : end]
        return marks + shown

    def _search(self, text: str, folded: Folded, start: int, *, is_over: bool) -> tuple[str, int]:
        """What may be shown from `start` on, and how far that is decided."""
        matcher, (chars, begins, ends, last) = self._matcher, folded
        certain, decided = len(chars), len(text)
        if not is_over:
            certain = bisect_left(begins, last)
            base = base_of(chars[certain]) if certain < len(chars) else ""
            if is_extending(base):
                base = ""  # marks are sorted: one to come may stand before it
            chars = chars[:certain] + base
            if not base and matcher.may_begin_with_mark:
                decided = last
        pieces: list[str] = []
        at = bisect_left(begins, start)
        while (at := matcher.next(chars, at)) >= 0:
            begin = begins[at]
            if at and begins[at - 1] == begin:
                at += 1  # a match does not begin in the middle of a cluster
                continue
            found = matcher.look(chars, at, certain, is_over=is_over)
            if found is None:
                at += 1
                continue
            if found == "wait":
                decided = begin
                break
            end = ends[at + found.length - 1]
            match = self._note(found, self._offset + begin - start, self._offset + end - start)
            pieces.append(text[start:begin])
            if self.blocked is not None:
                return "".join(pieces), begin
            pieces.append(text[begin:end] if match.replacement is None else match.replacement)
            self._offset += end - start
            start = end
            at += found.length
            while at < len(chars) and begins[at] < end:
                at += 1
        pieces.append(text[start:decided])
        self._offset += decided - start
        return "".join(pieces), decided

    def _note(self, found: Found, start: int, end: int) -> TextMatch:
        _, term, category, action = found
        replacement = replacement_for(action, end - start, self._replacement)
        match = TextMatch(start, end, term, category, action, replacement)
        self.matches.append(match)
        if action == "block":
            self.blocked = match
        return match
