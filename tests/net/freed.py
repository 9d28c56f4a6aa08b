"""What leaving frees, it frees within 50 ms, also on a machine that is busy with something else."""

from contextlib import suppress

import anyio

from ernie_async.testing import MockErnie

__all__ = ["wait_freed"]


async def wait_freed(server: MockErnie) -> None:
    """Wait until a mock in this loop has no connection, for 25 sleeps of 2 ms at most.

    A sleep is longer when the loop is kept from running, and so is what is waited for.
    """
    for _ in range(25):
        with suppress(TimeoutError):
            return await server.wait_idle(0, connections=True)
        await anyio.sleep(0.002)
    return await server.wait_idle(0, connections=True)
