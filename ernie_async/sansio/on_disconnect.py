"""What becomes of an answer when nobody reads it any more. Knows no stream and no clock."""

from collections.abc import Collection

from ernie_async.errors import ConfigError, shorten

__all__ = ["read_policy"]


def read_policy(
    text: str, *, allowed: Collection[str] = ("cancel", "linger", "finish")
) -> float | None:
    """Read a policy: `cancel`, `linger:SECONDS` or `finish`.

    Args:
        text: As a request writes it.
        allowed: The names that may be chosen.

    Returns:
        Seconds that somebody may come back; `None` for ever.

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
    return seconds
