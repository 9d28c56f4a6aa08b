"""Each fault does to a client what the table says."""

import anyio
import pytest

from ernie_async import AsyncClient, ErnieError, RetryPolicy, Timeouts
from ernie_async.testing import FAULTS, Fault, MockErnie

# Nothing takes longer than this, whatever the fault.
PATIENCE = 5

each = pytest.mark.parametrize("fault", FAULTS.values(), ids=str)


def client_of(server: MockErnie) -> AsyncClient:
    return AsyncClient(
        "any-key",
        base_url=server.base_url,
        retry=RetryPolicy(attempts=1),
        timeouts=Timeouts(connect=2, first_event=0.3, idle=0.3, total=0.6),
    )


async def outcome(asking: object) -> type[ErnieError] | None:
    with anyio.fail_after(PATIENCE):
        try:
            await asking  # type: ignore[misc]
        except ErnieError as error:
            return type(error)
    return None


@pytest.mark.anyio
@each
async def test_a_stream_ends_as_the_table_says(fault: Fault) -> None:
    async with MockErnie() as server, client_of(server) as client:
        server.default(fault.step)
        assert await outcome(client.stream("问").final()) is fault.streamed


@pytest.mark.anyio
@each
async def test_a_chat_ends_as_the_table_says(fault: Fault) -> None:
    async with MockErnie() as server, client_of(server) as client:
        server.default(fault.step)
        assert await outcome(client.chat("问")) is fault.whole


def test_names_are_the_keys() -> None:
    assert all(name == fault.name == str(fault) for name, fault in FAULTS.items())
