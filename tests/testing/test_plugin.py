"""The fixtures that users get."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ernie_async import AsyncClient, ErnieError, RetryPolicy, Timeouts
from ernie_async.testing import FAULTS, Fault, MockErnie, Seen, VirtualClock, reply

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


RECORDED = """
import asyncio

import pytest
from ernie_async import AsyncClient


@pytest.mark.ernie_cassette(upstream="{upstream}", redact=["user"])
@pytest.mark.parametrize("word", ["你好"])
def test_it(ernie_cassette, word):
    async def scenario():
        async with AsyncClient("bce-v3/ALTAK-x/planted", base_url=ernie_cassette.base_url) as c:
            assert (await c.chat(word, user="u")).text == "答"

    asyncio.run(scenario())
"""


def test_recording_is_asked_for_on_the_command_line(tmp_path: Path) -> None:
    def run(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "ernie_async.testing.plugin"]
        done = subprocess.run(
            [*command, *options, "-p", "no:cacheprovider", "."],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    with MockErnie() as server:
        server.default(reply("答"))
        (tmp_path / "test_one.py").write_text(RECORDED.format(upstream=server.base_url), "utf-8")
        assert "1 passed" in run("--ernie-record")
        assert server.requests_made == 1
    (file,) = (tmp_path / "cassettes" / "test_one").iterdir()
    assert "planted" not in file.read_text("utf-8")
    assert "1 passed" in run()
