"""pytest fixtures, found by pytest when the library is installed.

Plain fixtures, with no opinion on how async tests are run: the server lives in a thread of its
own, and nothing is started before a test asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ernie_async.testing.faults import FAULTS, Fault
from ernie_async.testing.server import MockErnie
from ernie_async.testing.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from ernie_async.client import AsyncClient


@pytest.fixture
def mock_ernie() -> Iterator[MockErnie]:
    """A `MockErnie` for one test."""
    with MockErnie() as server:
        yield server


@pytest.fixture
def ernie_client(mock_ernie: MockErnie) -> "AsyncClient":
    """An `AsyncClient` of `mock_ernie`; the test enters it: `async with ernie_client:`."""
    from ernie_async.client import AsyncClient  # noqa: PLC0415 - only tests that ask pay for it

    return AsyncClient("test-key", base_url=mock_ernie.base_url)


@pytest.fixture
def virtual_clock() -> Iterator[VirtualClock]:
    """A `VirtualClock` that `ernie_async` reads during the test."""
    with VirtualClock() as clock:
        yield clock


@pytest.fixture(params=list(FAULTS))
def ernie_fault(request: pytest.FixtureRequest, mock_ernie: MockErnie) -> Fault:
    """A `Fault` of `mock_ernie`, which answers every chat with it; the test runs once for each.

    `@pytest.mark.parametrize("ernie_fault", ["cut", "stall"], indirect=True)` picks some.
    """
    fault = FAULTS[request.param]
    mock_ernie.default(fault.step)
    return fault
