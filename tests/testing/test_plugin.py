"""The fixtures that users get."""

import urllib.request

import pytest

from ernie_async import AsyncClient, ErnieError, RetryPolicy, Timeouts
from ernie_async.testing import FAULTS, Fault, MockErnie, Seen, VirtualClock

seen_faults: list[str] = []


def test_mock_ernie_runs_beside_plain_code(mock_ernie: MockErnie) -> None:
    with urllib.request.urlopen(f"{mock_ernie.base_url}/models") as response:
        assert response.status == 200
    seen: Seen = mock_ernie.requests[0]
    assert seen.headers["user-agent"].startswith("Python-urllib")


@pytest.mark.anyio
async def test_ernie_client_talks_to_mock_ernie(mock_ernie: MockErnie, ernie_client) -> None:
    async with ernie_client as client:
        answer = await client.chat("你好", model="ernie-5.1")
    assert answer.text.endswith("你好")
    assert mock_ernie.requests[0].headers["authorization"] == "Bearer test-key"


@pytest.mark.anyio
@pytest.mark.parametrize("ernie_fault", ["cut", "too_many"], indirect=True)
async def test_ernie_fault_is_what_mock_ernie_does(
    ernie_fault: Fault, ernie_client: AsyncClient
) -> None:
    impatient = Timeouts(first_event=0.3, idle=0.3)
    async with ernie_client.with_options(
        timeouts=impatient, retry=RetryPolicy(attempts=1)
    ) as client:
        with pytest.raises(ErnieError) as caught:
            await client.stream("问").final()
    assert type(caught.value) is ernie_fault.streamed


def test_ernie_fault_is_every_fault_unless_some_are_picked(ernie_fault: Fault) -> None:
    seen_faults.append(ernie_fault.name)
    if len(seen_faults) == len(FAULTS):
        assert seen_faults == list(FAULTS)


def test_virtual_clock_is_on(virtual_clock: VirtualClock) -> None:
    from ernie_async.net import call

    assert call.monotonic is virtual_clock
