"""What a content filter is made of, and what it finds: plain values.

Imported by every program, so there is nothing here that takes time.
"""

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, get_args

from ernie_async.errors import ConfigError, shorten

__all__ = [
    "Action",
    "Channel",
    "Clause",
    "FilterMode",
    "Term",
    "TextChecker",
    "TextMatch",
    "TextPattern",
    "check_action",
    "replacement_for",
]

Action = Literal["mask", "drop", "block", "flag"]
Channel = Literal["content", "reasoning", "tool_arguments", "prompt"]
FilterMode = Literal["window", "full", "live"]

# Long enough for addresses and numbers; two lines of text are held back for it.
DEFAULT_SPAN = 64


class Term(NamedTuple):
    """Text to be found.

    Attributes:
        text: As it is written; how it is compared is in `folding`.
        category: For those who count what was found, such as `"gambling"`.
        action: What to do with it; `None` for what the filter does with all others.
        source: Where it is from, for errors.
    """

    text: str
    category: str = ""
    action: Action | None = None
    source: str = ""


class TextPattern(NamedTuple):
    """What no list can hold, such as telephone numbers.

    Attributes:
        expression: For `re`. It sees the folded text: letters are small, digits are ASCII.
        max_span: Characters from the start of a match to the last one that the expression looks at,
            beyond its end too. So many, less one, are held back; and no match is longer.
        starts_with: Characters one of which a match begins with, such as `"1"`; empty for any.
            Where none of them is, nothing is held back.
        category: For those who count what was found.
        action: What to do with it; `None` for what the filter does with all others.
    """

    expression: str
    max_span: int = DEFAULT_SPAN
    starts_with: str = ""
    category: str = ""
    action: Action | None = None


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


class TextChecker(NamedTuple):
    """Somebody to ask about each clause, such as a moderation service.

    Attributes:
        check: Takes a `Clause`; returns what is wrong with it, in a word, or `None`.
        action: What to do with a clause that something is wrong with.
        timeout: Seconds that `check` may take.
        on_error: What to do if it fails or takes longer: `"block"` or `"allow"`.
    """

    check: Callable[[Clause], Awaitable[str | None]]
    action: Action = "block"
    timeout: float = 2.0
    on_error: Literal["block", "allow"] = "block"


class TextMatch(NamedTuple):
    """What was found.

    Attributes:
        start: Where it begins in the text as it was fed.
        end: Where it ends.
        term: The term in its folded form, or the pattern's expression. Not for users to see.
        category: The category of the term or pattern.
        action: What is done about it.
        replacement: What stands in its place; `None` if it is `flag` or `block`.
    """

    start: int
    end: int
    term: str
    category: str
    action: Action
    replacement: str | None


def check_action(action: object, source: str) -> None:
    """Refuse what is no action.

    Raises:
        ConfigError: It names the source.
    """
    if action not in get_args(Action):
        raise ConfigError(f"{source}: expected mask, drop, block or flag, got {shorten(action)}")


def replacement_for(action: Action, length: int, replacement: str) -> str | None:
    """What stands in the place of a match; `None` if the text stays, or ends here.

    Args:
        action: What is done about it.
        length: Its characters.
        replacement: For `mask`: one character for each of them, a longer text once.
    """
    if action == "drop":
        return ""
    if action != "mask":
        return None
    return replacement * length if len(replacement) == 1 else replacement
