"""The fixtures that users get."""

import urllib.request

import pytest

from ernie_async.testing import MockErnie, Seen


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
