"""At most once: what is noted, what is tried again, and what is not."""

from dataclasses import replace

import pytest

from ernie_async import AsyncClient, RetryPolicy, Timeouts
from ernie_async.batch import Adaptive, BatchError, BatchRunner, FileOptions
from ernie_async.testing import MockErnie, cut, refuse, reply, stall
from tests.batch.files import asked, ids, read_jsonl, write_input, write_lines

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(base_delay=0.01, max_delay=0.02)
ONCE = FileOptions(delivery="at-most-once")


@pytest.fixture
async def client(server: MockErnie):
    async with AsyncClient("k", base_url=server.base_url, timeouts=Timeouts(total=0.4)) as client:
        yield client


async def test_only_refusals_are_tried_again(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 6), tmp_path / "out.jsonl"
    server.script(
        refuse(503),
        refuse(429, "cluster_rate_limit_exceeded"),
        cut(before_headers=True),
        cut(after_bytes=10),
        stall(before_headers=True),
        refuse(500),
    )
    report = await BatchRunner(client, retry=QUICK, concurrency=1).run_file(source, out, ONCE)
    assert (report.ok, report.failed) == (2, 4)
    assert sorted(asked(server).values()) == [1, 1, 1, 1, 2, 2]
    codes = sorted(r["x_ernie"]["code"] for r in read_jsonl(tmp_path / "out.errors.jsonl"))
    assert codes == ["connection", "connection", "internal_error", "timeout"]
    assert not (tmp_path / "out.jsonl.started").exists()


async def test_a_dead_connection_is_no_reason_to_send_again(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl"
    server.script(reply("x"), cut(before_headers=True))
    report = await BatchRunner(client, concurrency=1).run_file(source, out, ONCE)
    assert (report.ok, report.failed) == (1, 1)
    assert server.requests_made == 2


async def test_what_was_begun_by_a_dead_run_is_not_asked_again(client, server, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl"
    started = tmp_path / "out.jsonl.started"
    write_lines(started, [{"started": "r0"}, {"started": "r1"}, {"refused": "r1"}])
    write_lines(started, [{"started": "r2"}, {"refused": "r2"}, {"started": "r2"}])
    started.write_bytes(started.read_bytes() + b'{"started": "r3')
    report = await BatchRunner(client).run_file(source, out, ONCE)
    assert (report.ok, report.failed) == (3, 2)
    letters = read_jsonl(tmp_path / "out.errors.jsonl")
    assert {(r["custom_id"], r["error"]["code"]) for r in letters} == {
        ("r0", "unknown_outcome"),
        ("r2", "unknown_outcome"),
    }
    again = FileOptions(delivery="at-most-once", only_failed=True)
    report = await BatchRunner(client).run_file(source, out, again)
    assert report.ok == 2
    assert sorted(ids(out)) == [f"r{i}" for i in range(5)]


async def test_what_failed_is_asked_again_once_however_often_runs_die(
    client, server, tmp_path
) -> None:
    """r0 and r1 failed, and were under way in a second run that died; r2 failed in that one."""
    source, out = write_input(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"
    err, started = tmp_path / "out.errors.jsonl", tmp_path / "out.jsonl.started"
    server.script(*[refuse(400) for _ in range(3)])
    await BatchRunner(client, concurrency=1).run_file(source, out, ONCE)
    letters = read_jsonl(err)
    assert [letter["custom_id"] for letter in letters] == ["r0", "r1", "r2"]
    err.rename(tmp_path / "out.errors.jsonl.1")
    write_lines(err, letters[2:])
    write_lines(started, [{"started": name} for name in ("r2", "r0", "r1")] + [{"refused": "r1"}])

    again = FileOptions(delivery="at-most-once", only_failed=True)
    report = await BatchRunner(client).run_file(source, out, again)
    assert (report.ok, report.failed) == (2, 1)
    assert asked(server) == {"r0": 1, "r1": 2, "r2": 2, "r3": 1}
    [letter] = read_jsonl(err)
    assert (letter["custom_id"], letter["error"]["code"]) == ("r0", "unknown_outcome")

    report = await BatchRunner(client).run_file(source, out, again)
    assert (report.ok, report.failed, asked(server)["r0"]) == (1, 0, 2)


async def test_a_damaged_journal_stops_unless_it_may_be_repaired(client, tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl"
    write_lines(tmp_path / "out.jsonl.started", [{"started": "r0"}, b"\0\0"])
    with pytest.raises(BatchError, match=r"line 2: .*; --repair moves it aside") as caught:
        await BatchRunner(client).run_file(source, out, ONCE)
    assert caught.value.reason == "damaged"
    report = await BatchRunner(client).run_file(source, out, replace(ONCE, repair=True))
    assert (report.ok, report.failed) == (1, 1)  # r0 was begun
    torn = tmp_path / "out.jsonl.started.torn"
    assert torn.read_bytes() == b"\0\0\n"


async def test_concurrency_follows_the_server(tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", 200), tmp_path / "out.jsonl"
    async with MockErnie(concurrency=4) as server:
        server.default(reply("x", first_ms=30))
        async with AsyncClient("k", base_url=server.base_url) as client:
            runner = BatchRunner(client, concurrency=Adaptive(max=64), retry=QUICK)
            report = await runner.run_file(source, out)
        refused = server.requests_made - 200
    assert (report.ok, report.failed) == (200, 0)
    assert refused < 60  # 64 at once would have met hundreds


async def test_models_have_lanes_of_their_own(tmp_path) -> None:
    """One that is refused for want of quota does not hold up the other."""
    from tests.batch.files import request_line

    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [{**request_line(f"{m}{n}", f"{m}{n}")} for n in range(20) for m in "ab"]
    for line in lines:
        line["body"]["model"] = line["custom_id"][0]
    write_lines(source, lines)
    async with MockErnie() as server, AsyncClient("k", base_url=server.base_url) as client:
        server.script(refuse(429, "rpm_rate_limit_exceeded", retry_after=0.6))
        runner = BatchRunner(client, concurrency=16)
        await runner.run_file(source, out)
    first = server.requests[0].json["model"]
    order = [seen.json["model"] for seen in server.requests]
    # All of the other model went while the first one paused.
    assert order[15:].count(first) > order[15:].count("ab".replace(first, ""))
    assert sorted(ids(out)) == sorted(line["custom_id"] for line in lines)
