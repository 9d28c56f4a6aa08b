"""What a service tells of its limits in the headers of an answer. All of it is optional.

Source: cloud.baidu.com/doc/WENXINWORKSHOP/s/cm79w0mjf; other servers use the same names.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from ernie_async.sansio.retry import read_retry_after

__all__ = ["RateHeaders", "read_rate_headers"]

PREFIX = "x-ratelimit-"

# Some add a policy behind the number (`600;w=60`). A sign in front means "no limit" at best.
NUMBER = r"\s*([0-9]{1,15}(?:\.[0-9]+)?)"


class RateHeaders(NamedTuple):
    """Limits as the service tells them; `None` for what it does not tell.

    Attributes:
        limit_requests: Requests that may be made each minute.
        limit_tokens: Tokens that may be used each minute, prompts and answers together.
        remaining_requests: Requests left of the minute.
        remaining_tokens: Tokens left of the minute.
        retry_after: Seconds to wait, if nothing is left.
    """

    limit_requests: float | None = None
    limit_tokens: float | None = None
    remaining_requests: float | None = None
    remaining_tokens: float | None = None
    retry_after: float | None = None

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of one of them."""
        return self.remaining_requests == 0 or self.remaining_tokens == 0


def read_rate_headers(headers: Mapping[str, str], *, utc_now: float) -> RateHeaders | None:
    """Read the headers of an answer; what cannot be understood is as good as not there.

    Args:
        headers: Names in any case.
        utc_now: Seconds since 1970, for a date in `Retry-After`.

    Returns:
        `None` if there is nothing about limits.
    """
    found = {
        name.lower()[len(PREFIX) :]: value
        for name, value in headers.items()
        if name[: len(PREFIX)].lower() == PREFIX
    }
    if not found:
        return None
    limit_requests, remaining_requests = _pair(found, "requests")
    limit_tokens, remaining_tokens = _pair(found, "tokens")
    told = RateHeaders(limit_requests, limit_tokens, remaining_requests, remaining_tokens)
    if not told.is_spent:
        return None if told == RateHeaders() else told
    others = {name.lower(): value for name, value in headers.items()}
    asked = read_retry_after(
        others.get("retry-after"), others.get("retry-after-ms"), utc_now=utc_now
    )
    return told._replace(retry_after=asked)


def _pair(found: Mapping[str, str], what: str) -> tuple[float | None, float | None]:
    limit, remaining = _number(found.get(f"limit-{what}")), _number(found.get(f"remaining-{what}"))
    # A limit of 0 is how some say that there is none, and then 0 is what is left of it.
    return (None, None) if limit == 0 else (limit, remaining)


def _number(text: str | None) -> float | None:
    match = re.match(NUMBER, text or "")
    return float(match[1]) if match else None
