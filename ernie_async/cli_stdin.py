"""Text from standard input: UTF-8 wherever the command runs, and not without end."""

import sys

from ernie_async.errors import ConfigError

__all__ = ["read_stdin"]

# More than any model reads; a program that never stops writing must not fill the memory.
MOST_CHARACTERS = 16_000_000


def read_stdin() -> str:
    """All of standard input.

    Raises:
        ConfigError: It is no text, or has no end that is worth waiting for.
    """
    try:
        text = sys.stdin.read(MOST_CHARACTERS + 1)
    except ValueError as error:
        raise ConfigError(
            f"standard input is not text in {sys.stdin.encoding}; convert it first, for example "
            "with iconv -f GBK -t UTF-8"
        ) from error
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"standard input has more than {MOST_CHARACTERS:,} characters; give less of it, or a "
            "file of many prompts to ernie-async batch"
        )
    return text
