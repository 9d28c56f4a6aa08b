"""What each of several workers may take of one quota, and the client that each of them makes.

Pure, and knows no engine.
"""

from dataclasses import replace
from typing import Any

from ernie_async.client import AsyncClient
from ernie_async.net.admission import AnyLimiter
from ernie_async.net.limiter import Limiter
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.auth import ApiKey
from ernie_async.sansio.bucket import Limits

__all__ = ["portable_client", "share_of", "split"]


def split(limits: Limits, n_workers: int) -> Limits:
    """The part of one worker: the quota evenly, and at least one call at once."""

    def part(whole: float | None) -> float | None:
        return None if whole is None else whole / n_workers

    calls = limits.concurrency
    if isinstance(calls, Adaptive):
        # A controller looks for its bound by itself, so it needs room to find it.
        calls = Adaptive(
            start=max(1, calls.start // n_workers),
            min=max(1, calls.min // n_workers),
            max=max(1, calls.max // n_workers),
        )
    elif calls is not None:
        calls = max(1, calls // n_workers)
    return replace(
        limits,
        requests_per_minute=part(limits.requests_per_minute),
        tokens_per_minute=part(limits.tokens_per_minute),
        concurrency=calls,
        burst=None if limits.burst is None else max(1.0, limits.burst / n_workers),
    )


def share_of(limiter: AnyLimiter, n_workers: int) -> AnyLimiter:
    """The limiter of one worker: a part of one that is of this process, else the same."""
    return Limiter(split(limiter.limits, n_workers)) if isinstance(limiter, Limiter) else limiter


def portable_client(client: AsyncClient, limits: AnyLimiter | None = None) -> AsyncClient:
    """A copy that can be pickled for another machine, where the environment is another.

    Key, base URL and model are those of this machine. Hooks are left out: they would tell another
    process.

    Args:
        client: The original.
        limits: Instead of its own.
    """
    settings: dict[str, Any] = dict(client._settings)
    key = client._desk.key
    if key is not None:
        settings["api_key"] = key if isinstance(key, ApiKey) else key.keys
    settings |= {
        "base_url": client.base_url,
        "model": client.model,
        "limits": limits or Limits(),
        "hooks": (),
    }
    return AsyncClient(settings.pop("api_key"), **settings)
