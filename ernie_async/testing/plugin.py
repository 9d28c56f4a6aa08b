"""pytest fixtures and one option, found by pytest when the library is installed.

Plain fixtures, with no opinion on how async tests are run: the server lives in a thread of its
own, and nothing is started before a test asks for it.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ernie_async.testing.cassette import Cassette
from ernie_async.testing.faults import FAULTS, Fault
from ernie_async.testing.server import MockErnie
from ernie_async.testing.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from ernie_async.client import AsyncClient


MARKER = "ernie_cassette(upstream=..., redact=[...], strict=True, pace=False): how to record"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Recording has to be asked for: it needs a key, and costs money."""
    told = "ask the real service in tests with ernie_cassette, and record the answers"
    parser.getgroup("ernie_async").addoption("--ernie-record", action="store_true", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def ernie_cassette(request: pytest.FixtureRequest) -> Iterator[Cassette]:
    """A `Cassette` for one test, in `cassettes/` beside its file; see the option and the marker."""
    marker = request.node.get_closest_marker("ernie_cassette")
    name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    path = request.path.parent / "cassettes" / request.path.stem / f"{name}.json"
    record = bool(request.config.getoption("--ernie-record"))
    with Cassette(path, record=record, **(marker.kwargs if marker else {})) as cassette:
        yield cassette


@pytest.fixture
def mock_ernie() -> Iterator[MockErnie]:
    """A `MockErnie` for one test."""
    with MockErnie() as server:
        yield server


@pytest.fixture
def ernie_client(mock_ernie: MockErnie) -> "AsyncClient":
    """An `AsyncClient` of `mock_ernie`; the test enters it: `async with ernie_client:`."""
    from ernie_async.client import AsyncClient  # only tests that ask pay for it

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
