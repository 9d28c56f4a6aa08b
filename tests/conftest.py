"""Fixtures for the whole tree."""

import asyncio
import os
from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import HealthCheck, settings

from ernie_async import AsyncClient, RetryPolicy, Timeouts
from ernie_async.testing import MockErnie

# How fast cases are made says something of the machine, and nothing of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# Waits of tests are about a second where users' are minutes; a busy machine overruns shorter ones.
IMPATIENT = Timeouts(connect=2, first_event=1, idle=0.7)
QUICK_RETRY = RetryPolicy(attempts=3, base_delay=0.001)


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - of 3.12
    return loop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Async tests run on asyncio, as aiohttp does; if asked for, with tasks that begin at once."""
    eager = os.environ.get("EAGER_TASKS") == "1"
    return "asyncio", {"loop_factory": _eager_loop} if eager else {}


@pytest.fixture
async def server() -> AsyncIterator[MockErnie]:
    """A mock in the test's own loop, which must be left without a request or a task."""
    async with MockErnie() as mock:
        yield mock


@pytest.fixture
async def client(server: MockErnie) -> AsyncIterator[AsyncClient]:
    """A client of `server` that does not wait long, and leaves no task behind."""
    before = len(asyncio.all_tasks())
    async with AsyncClient(
        "test-key", base_url=server.base_url, timeouts=IMPATIENT, retry=QUICK_RETRY
    ) as client:
        yield client
        await server.wait_idle()
    await server.wait_idle(connections=True)
    with anyio.fail_after(1):  # the server's own task for a connection ends a moment after it
        while len(asyncio.all_tasks()) > before:
            await anyio.sleep(0.005)
