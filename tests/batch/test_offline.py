"""The service's own lane, with the same files."""

import pytest

from ernie_async import AsyncClient, RetryPolicy
from ernie_async.batch import BatchError, BatchRunner
from ernie_async.batch.lines import Line, key_of
from ernie_async.batch.manifest import Manifest, manifest_path, state_of
from ernie_async.batch.offline import OfflineLane, _read_result
from ernie_async.testing import MockErnie, refuse, reply
from ernie_async.types.prices import Prices
from tests.batch.files import ids, read_jsonl, request_line, write_input, write_lines

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(server: MockErnie):
    async with AsyncClient("k", base_url=server.base_url, retry=RetryPolicy(attempts=1)) as client:
        yield client


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Queuing", "under way"),
        ("RUNNING", "under way"),
        ("Stopping", "under way"),
        ("Done", "done"),
        ("completed", "done"),
        ("Failed", "stopped"),
        ("Expired", "stopped"),
        ("cancelled", "stopped"),
        ("new word", "under way"),
        (None, "under way"),
    ],
)
def test_statuses(status, state) -> None:
    assert state_of(status) == state


async def test_a_job_goes_there_and_back(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 7), tmp_path / "out.jsonl"
    write_lines(source, [{**request_line("i"), "url": "/v1/images/generations"}, b"bad"])
    write_lines(source, [{**request_line("e"), "url": "/v1/embeddings", "body": {"input": "x"}}])
    write_lines(source, [{**request_line("x"), "body": {"messages": []}}])

    lane = OfflineLane(client, out, max_lines=3)
    assert await lane.submit(source) == 9
    assert sorted((p.endpoint, -p.lines) for p in lane.manifest.parts) == [
        ("/v2/chat/completions", -3),
        ("/v2/chat/completions", -3),
        ("/v2/chat/completions", -2),
        ("/v2/images/generations", -1),
    ]
    with pytest.raises(BatchError, match="under way"):
        await OfflineLane(client, out).submit(source)
    lane = OfflineLane(client, out)
    told = await lane.fetch(source)
    assert (told.ok, told.undone) == (0, 10)
    for _ in range(2):
        parts = await lane.refresh()
    assert {part.status for part in parts} == {"Done"}
    told = await lane.fetch(source)
    # The embeddings have no such lane, and "i" has no prompt.
    assert (told.ok, told.failed, told.undone) == (7, 2, 1)
    assert sorted(ids(out)) == [f"r{i}" for i in range(7)]
    record = read_jsonl(out)[0]
    assert record["x_ernie"]["key"] == key_of("/chat/completions", request_line("r0", "r0")["body"])
    again = await lane.fetch(source)
    assert (again.ok, again.skipped) == (0, 9)
    report = await BatchRunner(client).run_file(source, out)
    assert (report.ok, report.failed, report.skipped) == (1, 1, 9)
    assert sorted(ids(out)) == ["e", *(f"r{i}" for i in range(7))]


async def test_a_lost_answer_sends_nothing_twice(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"
    lane = OfflineLane(client, out, max_lines=2)

    server.script(reply(), refuse(503), path="/batches")
    with pytest.raises(Exception, match="503"):
        await lane.submit(source)
    manifest = Manifest.load(manifest_path(out))
    assert [part.batch_id is None for part in manifest.parts] == [False, True]
    assert not manifest.is_complete
    assert await OfflineLane(client, out, max_lines=2).submit(source) == 0
    manifest = Manifest.load(manifest_path(out))
    assert [part.batch_id is None for part in manifest.parts] == [False, False]
    assert len(server._shelf.batches) == 2
    assert manifest.is_complete
    # The service has begun, and its answer was lost.
    manifest.parts[1].batch_id = None
    manifest.is_complete = False
    manifest.save()
    await OfflineLane(client, out, max_lines=2).submit(source)
    assert len(server._shelf.batches) == 2


async def test_no_file_is_larger_than_the_service_takes(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 6), tmp_path / "out.jsonl"
    two_lines = len(source.read_bytes().splitlines()[0]) * 2 + 10
    lane = OfflineLane(client, out, max_bytes=two_lines)
    assert await lane.submit(source) == 6
    assert [part.lines for part in lane.manifest.parts] == [2, 2, 2]
    assert [part.last_line for part in lane.manifest.parts] == [2, 4, 6]


async def test_cancelled_lines_remain_to_be_done(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    lane = OfflineLane(client, out)
    await lane.submit(source)
    assert [part.status for part in await lane.cancel()] == ["Stopped"]
    assert (await lane.fetch(source)).undone == 3
    assert (await BatchRunner(client).run_file(source, out)).ok == 3


def test_results_of_other_forms() -> None:
    line = Line(1, "a", "/chat/completions", {"model": "m"}, "k")
    none = Prices({})
    old = _read_result(line, b'{"id": "a", "output": "hi", "query": "x"}', none)
    assert (old.ok, old.text) == (True, "hi")
    bad = _read_result(line, b'{"custom_id": "a", "error": {"code": "x", "message": "y"}}', none)
    assert (bad.code, bad.message, bad.status) == ("x", "y", None)
    error = (
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"error": {"code": "q"}}}}'
    )
    assert not _read_result(line, error, none).ok
