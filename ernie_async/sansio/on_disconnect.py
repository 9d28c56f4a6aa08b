"""What becomes of an answer when nobody reads it any more. Knows no stream and no clock."""

from collections.abc import Collection
from typing import NamedTuple, Self

from ernie_async.errors import ConfigError, shorten

__all__ = ["OnDisconnect"]


class OnDisconnect(NamedTuple):
    """A policy: `cancel`, `linger:SECONDS` or `finish`.

    Attributes:
        name: `cancel`, `linger` or `finish`.
        seconds: How long somebody may come back; `None` for ever.
    """

    name: str
    seconds: float | None

    @classmethod
    def read(cls, text: str, *, allowed: Collection[str] = ("cancel", "linger", "finish")) -> Self:
        """Read a policy as a request writes it.

        Args:
            text: Such as `linger:60`.
            allowed: The names that may be chosen.

        Raises:
            ConfigError: It is none, or not one of those.
        """
        name, colon, number = text.partition(":") if isinstance(text, str) else ("", "", "")
        seconds: float | None = None
        if name == "linger" and number.isdecimal() and len(number) <= 5:
            seconds = float(number)
        elif name == "cancel" and not colon:
            seconds = 0.0
        elif name != "finish" or colon:
            raise ConfigError(
                f"on_disconnect: expected cancel, linger:SECONDS or finish, got {shorten(text)}"
            )
        if name not in allowed:
            raise ConfigError(f"on_disconnect: {name} is not allowed here")
        return cls(name, seconds)
