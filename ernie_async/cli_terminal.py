"""How an answer looks while it arrives: plain text for pipes, live Markdown for terminals.

Knows text and screens; knows no client and no command.
"""

import os
import sys
from time import monotonic
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment, SegmentLines

__all__ = ["AnswerView", "MarkdownView", "PlainView", "answer_view", "note", "printable"]

REFRESHES_PER_SECOND = 10

# An answer must not command the terminal: everything below space but newline and tab, delete, and
# the second set of control characters.
CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


def printable(text: str) -> str:
    """The text without characters that a terminal would obey."""
    return text.translate(CONTROLS)


def note(text: str) -> None:
    """Tell the user something that is not the answer. If nobody can be told, that is no failure."""
    try:
        sys.stderr.write(f"ernie-async: {printable(text)}\n")
        sys.stderr.flush()
    except OSError:
        # Else Python would try again at the end to write what is left, and fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class AnswerView(Protocol):
    """Where an answer is shown. Leaving the `with` block leaves all of it on the screen."""

    def think(self, text: str) -> None:
        """Show more of the model's thinking."""

    def say(self, text: str) -> None:
        """Show more of the answer."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def answer_view(*, shows_thoughts: bool) -> AnswerView:
    """The view that suits standard output.

    Args:
        shows_thoughts: Where the answer goes into a pipe, show thinking on standard error.
    """
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return MarkdownView(console)
    return PlainView(sys.stdout, sys.stderr if shows_thoughts else None)


class PlainView:
    """Text as it comes, flushed at once; thinking, if wanted, to a place of its own."""

    def __init__(self, out: TextIO, thoughts: TextIO | None) -> None:
        self._out = out
        self._thoughts = thoughts
        self._last: dict[TextIO, str] = {}

    def think(self, text: str) -> None:
        """Show more of the model's thinking."""
        if self._thoughts is not None:
            self._write(self._thoughts, text)

    def say(self, text: str) -> None:
        """Show more of the answer."""
        self._write(self._out, text)

    def _write(self, place: TextIO, text: str) -> None:
        if text:
            place.write(printable(text) if place.isatty() else text)
            place.flush()
            self._last[place] = text[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, BrokenPipeError):
            return
        for place, last in self._last.items():
            if last != "\n":
                place.write("\n")
                place.flush()


class MarkdownView:
    """Markdown: finished blocks are printed for good, and only the last one is drawn again.

    Drawing the whole answer again and again would take longer than the model does.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._tail = Tail()
        self._looked_at = 0.0
        self._is_thinking = False
        self._has_blocks = False

    def think(self, text: str) -> None:
        """Show more of the model's thinking."""
        if text:
            self._finish_answer()
            self._is_thinking = True
            self._console.out(printable(text), style="dim", end="", highlight=False)

    def say(self, text: str) -> None:
        """Show more of the answer."""
        if not text:
            return
        self._finish_thinking()
        self._tail.text += printable(text)
        if self._live is None:
            self._live = Live(
                self._tail,
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        if monotonic() - self._looked_at > 1 / REFRESHES_PER_SECOND:
            done, self._tail.text = split_blocks(self._tail.text)
            self._print(done)
            self._looked_at = monotonic()

    def _print(self, text: str) -> None:
        if text.strip():
            if self._has_blocks:
                self._console.print()
            self._console.print(Markdown(text, hyperlinks=False))
            self._has_blocks = self._tail.is_below = True

    def _finish_answer(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        text, self._tail.text = self._tail.text, ""
        self._print(text)

    def _finish_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            self._console.print("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish_answer()
        self._finish_thinking()


class Tail:
    """The block that is still growing; of a block that is too tall, the newest lines."""

    def __init__(self) -> None:
        self.text = ""
        self.is_below = False  # something is printed above, and an empty line belongs between
        self._drawn: tuple[str, int, list[list[Segment]]] = ("", 0, [])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text, width = self.text, options.max_width
        if self._drawn[:2] != (text, width):
            lines = console.render_lines(Markdown(text, hyperlinks=False), options, pad=False)
            if lines:
                lines[-1] = without_padding(lines[-1])
            self._drawn = (text, width, lines)
        lines = self._drawn[2]
        if self.is_below and lines:
            lines = [[], *lines]
        yield SegmentLines(lines[-max(1, console.height - 1) :], new_lines=True)


def without_padding(line: list[Segment]) -> list[Segment]:
    """The line without blanks at its end, unless they have a colour.

    Markdown fills lines up. A terminal writes ^C behind the last one when that is typed: without
    room for it, it begins another line, and what is drawn again is drawn one line too low.
    """
    kept = list(line)
    while kept and not (kept[-1].style and kept[-1].style.bgcolor):
        last = kept.pop()
        if text := last.text.rstrip():
            return [*kept, last._replace(text=text)]
    return kept


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown into the blocks that are finished, and the rest.

    Only whole lines are looked at: what a line is cannot be known before it ends.
    """
    whole = text[: text.rfind("\n") + 1]
    starts = [token.map[0] for token in Markdown(whole).parsed if not token.level and token.map]
    if len(starts) < 2:
        return "", text
    lines = text.split("\n")
    return "\n".join(lines[: starts[-1]]) + "\n", "\n".join(lines[starts[-1] :])
