"""Lists of terms: one on each line, with its category and its action if it has its own.

# a comment
敏感词
赌博<TAB>gambling
代开发票<TAB>fraud<TAB>block
"""

from collections.abc import Iterator
from typing import cast

from ernie_async.errors import ConfigError
from ernie_async.sansio.filter_values import Action, Term, check_action

__all__ = ["read_word_list"]


def read_word_list(data: bytes, source: str) -> Iterator[Term]:
    """Read a list in UTF-8, with or without a byte-order mark.

    Args:
        data: The file.
        source: What to call it in errors.

    Raises:
        ConfigError: A line cannot be read. It names the line, and shows nothing of it.
    """
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        where = f"{source}, line {number}"
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = None
        if text is None:
            raise ConfigError(f"{where}: expected UTF-8; save the file in that encoding")
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        # A term may begin with the comment's sign if a backslash stands before it.
        term, *rest = (field.strip() for field in text.split("\t"))
        if len(rest) > 2:
            raise ConfigError(
                f"{where}: expected term, category and action between tabs, got {len(rest) + 1} "
                "fields"
            )
        category, action = (*rest, "", "")[:2]
        if action:
            check_action(action, where)
        term = term[1:] if term.startswith("\\#") else term
        yield Term(term, category, cast("Action", action) if action else None, where)
