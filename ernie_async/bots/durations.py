"""Durations and rates as people write them: `30m`, `20/10m`, `50k/1d`."""

import re

from ernie_async.errors import ConfigError

__all__ = ["parse_duration", "parse_rate"]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
COUNTS = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_duration(text: str) -> float:
    """Seconds, from `"30s"`, `"10m"`, `"2h"` or `"1d"`.

    Raises:
        ConfigError: It is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or not float(found[1]):
        raise ConfigError(f"expected a duration such as 30s, 10m, 2h or 1d, got {text!r}")
    return float(found[1]) * SECONDS[found[2]]


def parse_rate(text: str) -> tuple[int, float]:
    """How many, and in how many seconds, from `"20/10m"` or `"50k/1d"`.

    Raises:
        ConfigError: It is no such thing.
    """
    count, _, duration = text.partition("/")
    found = re.fullmatch(r"(\d+)([km]?)", count)
    if found is None or not int(found[1]) or not duration:
        raise ConfigError(f"expected a rate such as 20/10m or 50k/1d, got {text!r}")
    return int(found[1]) * COUNTS[found[2]], parse_duration(duration)
