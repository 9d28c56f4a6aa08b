"""What stands on the command line has to make sense before anything is started."""

import argparse
from collections.abc import Iterable

__all__ = ["names", "positive"]


def names(known: Iterable[str], text: str) -> list[str]:
    """Those of `known` that are in a text such as `a,b`, in the order of `known`.

    Raises:
        argparse.ArgumentTypeError: It names another.
    """
    known = list(known)
    chosen = text.split(",")
    if unknown := sorted(set(chosen) - set(known)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not in {', '.join(known)}")
    return [name for name in known if name in chosen]


def positive(text: str) -> int:
    """A whole number from 1.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
