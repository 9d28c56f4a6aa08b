"""Wait for what is expected, not for a time: a busy machine needs longer, a quick one need not."""

from collections.abc import Callable

import anyio

__all__ = ["until"]


async def until(is_so: Callable[[], object], seconds: float = 10.0) -> None:
    """Look every few milliseconds until something is so.

    Raises:
        TimeoutError: It was not so within `seconds`.
    """
    with anyio.fail_after(seconds):
        while not is_so():
            await anyio.sleep(0.005)
