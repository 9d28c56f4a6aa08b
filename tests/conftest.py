"""Fixtures for the whole tree."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as aiohttp does."""
    return "asyncio"
