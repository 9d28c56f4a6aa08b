"""From file to file: what is written, and that a run goes on where another ended."""

import asyncio
import json
import random
import sys
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest

from ernie_async import (
    AsyncClient,
    ConfigError,
    ContentFilter,
    Limits,
    Price,
    Prices,
    RetryPolicy,
    Timeouts,
)
from ernie_async.batch import BatchError, BatchRunner, FileOptions
from ernie_async.testing import MockErnie, cut, error_event, raw, refuse, reply, stall
from tests.batch.files import asked, ids, read_jsonl, request_line, write_input, write_lines
from tests.waiting import until

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(base_delay=0.01, max_delay=0.02, max_retry_after=300)


@pytest.fixture
async def client(server: MockErnie):
    async with AsyncClient("k", base_url=server.base_url, timeouts=Timeouts(total=5)) as client:
        yield client


def port_of(server: MockErnie) -> int:
    port = urlsplit(server.base_url).port
    assert port is not None
    return port


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def err(tmp_path: Path) -> Path:
    return tmp_path / "out.errors.jsonl"


async def test_every_line_has_its_answer(client, server, source, out, err) -> None:
    write_input(source, 50)
    report = await BatchRunner(client).run_file(source, out)
    assert (report.ok, report.failed, report.exit_code, report.reason) == (50, 0, 0, "finished")
    assert sorted(ids(out)) == sorted(f"r{i}" for i in range(50))
    record = read_jsonl(out)[0]
    assert record["response"]["body"]["choices"][0]["message"]["content"]
    assert record["x_ernie"]["attempts"] == 1
    assert record["error"] is None
    assert read_jsonl(err) == []
    assert (
        server.requests[0].json
        == request_line("x", server.requests[0].json["messages"][0]["content"])["body"]
    )
    summary = json.loads(out.with_name("out.jsonl.summary.json").read_text())
    assert (summary["done"], summary["total"], summary["exit_code"]) == (50, 50, 0)
    assert not summary["resumable"]
    assert not out.with_name("out.jsonl.lock").exists()


async def test_bad_lines_are_dead_letters_and_stop_nothing(client, source, out, err) -> None:
    bom, crlf = b"\xef\xbb\xbf", b"\r"
    first = bom + json.dumps(request_line("a", "x\u2028y"), ensure_ascii=False).encode() + crlf
    write_lines(source, [first, b"", b"  ", b"not json", request_line("a"), b"x" * 300])
    write_lines(source, [{**request_line("b"), "url": "/v9"}, request_line("c")])
    options = FileOptions(max_line_bytes=250)
    report = await BatchRunner(client).run_file(source, out, options)
    assert sorted(ids(out)) == ["a", "c"]
    assert {(r["x_ernie"]["line"], r["x_ernie"]["code"]) for r in read_jsonl(err)} == {
        (4, "invalid_json"),
        (5, "duplicate_custom_id"),
        (6, "line_too_long"),
        (7, "unsupported_url"),
    }
    assert (report.exit_code, report.reason) == (1, "failures")
    assert report.summary["total"] == 6  # of eight, two are blank
    again = await BatchRunner(client).run_file(source, out, options)
    assert (again.ok, again.failed, again.skipped, again.exit_code) == (0, 0, 6, 1)
    assert len(read_jsonl(err)) == 4


async def test_one_broken_line_in_a_hundred(client, server, source, out, err) -> None:
    chance = random.Random(7)
    expected = {"ok": 0, "bad": 0}
    with source.open("wb") as file:
        file.write(b"\xef\xbb\xbf")
        for number in range(1000):
            line = request_line(f"r{number}", "a\u2028b")
            raw = json.dumps(line, ensure_ascii=chance.random() < 0.5).encode()
            if number and chance.random() < 0.01:
                kinds = [raw[:40], b"[]", b'{"custom_id": 3}', raw.replace(b"r%d" % number, b"r0")]
                raw = chance.choice(kinds)
                expected["bad"] += 1
            else:
                expected["ok"] += 1
            file.write(raw + chance.choice([b"\n", b"\r\n", b"\n\r\n"]))
    report = await BatchRunner(client).run_file(source, out)
    assert {"ok": report.ok, "bad": report.failed} == expected
    assert (len(set(ids(out))), len(ids(err))) == (expected["ok"], expected["bad"])
    assert server.requests_made == expected["ok"]
    again = await BatchRunner(client).run_file(source, out)
    assert (again.ok, again.failed, again.skipped) == (0, 0, 1000)


async def test_strict_finds_the_first_bad_line_before_any_call(client, server, source, out) -> None:
    write_input(source, 3)
    write_lines(source, [request_line("r1")])
    with pytest.raises(BatchError, match="line 4: duplicate_custom_id") as caught:
        await BatchRunner(client).run_file(source, out, FileOptions(strict=True))
    assert caught.value.reason == "invalid_input"
    assert server.requests == []


async def test_failures_are_retried_or_written(client, server, source, out, err) -> None:
    write_input(source, 6)
    server.script(
        refuse(503),
        refuse(400),
        cut(before_headers=True),
        refuse(500),
        refuse(429, "cluster_rate_limit_exceeded"),
    )
    report = await BatchRunner(client, retry=QUICK, concurrency=1).run_file(source, out)
    assert (report.ok, report.failed, report.summary["retried"]) == (5, 1, 3)
    (letter,) = read_jsonl(err)
    assert letter["response"]["status_code"] == 400
    assert letter["error"] is None
    assert letter["x_ernie"]["errors"][0]["status"] == 400


async def test_good_status_with_an_error_body_is_a_failure(
    client, server, source, out, err
) -> None:
    write_input(source, 5)
    server.default(error_event("internal_error"))
    report = await BatchRunner(client, retry=QUICK).run_file(source, out)
    assert (report.ok, report.failed) == (0, 5)
    assert read_jsonl(out) == []
    assert all(r["response"]["status_code"] == 200 for r in read_jsonl(err))
    assert all(len(r["x_ernie"]["errors"]) == 5 for r in read_jsonl(err))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"choices": [{"message": {"content": "x"}, "flag": NaN}]}', "invalid_answer"),
        (b"<html>", "invalid_answer"),
        (b'{"id": "x", "choices": []}', "invalid_answer"),
        (b'{"choices": [{"message": {"content": "x"}, "flag": 3}]}', "content_filter"),
    ],
)
async def test_answers_that_are_none(client, server, source, out, err, body, code) -> None:
    write_input(source, 1)
    server.default(raw(body, content_type="application/json"))
    await BatchRunner(client, retry=QUICK).run_file(source, out)
    assert [r["x_ernie"]["code"] for r in read_jsonl(err)] == [code]
    assert read_jsonl(out) == []


async def test_timeouts_are_retried_and_their_usage_is_unknown(server, source, out) -> None:
    write_input(source, 1)
    server.script(stall(before_headers=True))
    async with AsyncClient("k", base_url=server.base_url, timeouts=Timeouts(total=0.3)) as client:
        report = await BatchRunner(client, retry=QUICK).run_file(source, out)
    assert (report.ok, report.summary["unknown_usage"]) == (1, 1)


async def test_wrong_key_stops_after_about_twenty_calls(source, out) -> None:
    write_input(source, 500)
    async with MockErnie(api_key="right") as server:
        async with AsyncClient("wrong", base_url=server.base_url) as client:
            report = await BatchRunner(client, concurrency=64).run_file(source, out)
        assert server.requests_made <= 30
    assert (report.exit_code, report.reason) == (77, "auth")
    assert read_jsonl(out) == []


async def test_a_server_that_is_out_of_reach_makes_no_dead_letters(source, out, err) -> None:
    write_input(source, 300)
    async with MockErnie() as gone:
        port = port_of(gone)
    async with AsyncClient("k", base_url=gone.base_url) as client:
        runner = BatchRunner(client, retry=QUICK)
        report = await runner.run_file(source, out)
        assert (report.exit_code, report.ok, report.failed) == (69, 0, 0)
        assert "out of reach: cannot connect" in report.message
        assert read_jsonl(err) == []
        async with MockErnie(port=port):
            report = await runner.run_file(source, out)
    assert (report.exit_code, report.ok) == (0, 300)


async def test_an_outage_costs_no_line(source, out) -> None:
    write_input(source, 300)
    async with MockErnie() as server:
        server.default(reply("好", first_ms=5))
        client = AsyncClient("k", base_url=server.base_url)
        running = asyncio.create_task(
            BatchRunner(client, retry=QUICK, concurrency=8).run_file(source, out)
        )
        await until(lambda: server.requests_made >= 30)
    await asyncio.sleep(0.5)  # in which any line would use up its attempts
    async with MockErnie(port=port_of(server)), client:
        report = await running
    assert (report.exit_code, report.ok, report.failed) == (0, 300, 0)


async def test_max_errors_stops(client, server, source, out) -> None:
    write_input(source, 300)
    server.default(refuse(400))
    report = await BatchRunner(client, max_errors=3, concurrency=2).run_file(source, out)
    assert report.exit_code == 69
    assert 4 <= report.failed <= 6


async def test_a_finished_run_asks_nothing_again_and_new_lines_are_done(
    client, server, source, out
) -> None:
    write_input(source, 20)
    await BatchRunner(client).run_file(source, out)
    write_input(source, 5, start=20)
    report = await BatchRunner(client).run_file(source, out)
    assert (report.ok, report.skipped) == (5, 20)
    assert set(asked(server).values()) == {1}
    with pytest.raises(ConfigError, match="fresh"):
        await BatchRunner(client).run_file(source, out, FileOptions(fresh=True))


async def test_only_failed_does_the_dead_letters_again(client, server, source, out, err) -> None:
    write_input(source, 6)
    write_lines(source, [b"broken"])
    server.script(refuse(400), refuse(400))
    await BatchRunner(client, concurrency=1).run_file(source, out)
    assert len(read_jsonl(err)) == 3
    assert (await BatchRunner(client).run_file(source, out)).ok == 0
    write_input(source, 1, start=6)
    report = await BatchRunner(client).run_file(source, out, FileOptions(only_failed=True))
    assert (report.ok, report.failed) == (2, 1)
    assert sorted(ids(out)) == [f"r{i}" for i in range(6)]
    assert len(read_jsonl(err.with_name("out.errors.jsonl.1"))) == 3
    assert [r["x_ernie"]["code"] for r in read_jsonl(err)] == ["invalid_json"]


async def test_output_cut_at_every_byte_of_its_end_is_mended(client, server, source, out) -> None:
    write_input(source, 6)
    await BatchRunner(client).run_file(source, out)
    whole = out.read_bytes()
    start = len(whole) - sum(len(line) + 1 for line in whole.split(b"\n")[-4:-1])
    torn = out.with_name("out.jsonl.torn")
    for end in range(start, len(whole), 41):
        out.write_bytes(whole[:end])
        torn.unlink(missing_ok=True)
        report = await BatchRunner(client).run_file(source, out)
        kept = whole[: whole.rfind(b"\n", 0, end) + 1]
        assert out.read_bytes().startswith(kept)
        assert (torn.read_bytes() if torn.exists() else b"") == whole[len(kept) : end]
        assert sorted(ids(out)) == [f"r{i}" for i in range(6)]
        assert report.exit_code == 0


async def test_unreadable_line_stops_unless_it_may_be_moved_aside(client, source, out) -> None:
    write_input(source, 3)
    await BatchRunner(client).run_file(source, out)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + b"\0\0\0\n" + lines[2])
    with pytest.raises(BatchError, match="line 2") as caught:
        await BatchRunner(client).run_file(source, out)
    assert caught.value.reason == "damaged"
    report = await BatchRunner(client).run_file(source, out, FileOptions(repair=True))
    assert (report.ok, report.exit_code) == (1, 0)
    assert sorted(ids(out)) == ["r0", "r1", "r2"]
    assert out.with_name("out.jsonl.torn").read_bytes() == b"\0\0\0\n"


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "zz", "x_ernie": {"key": [1]}}\n',
        b'{"custom_id": null, "response": null, "error": null}\n',
    ],
)
async def test_what_is_no_result_is_moved_aside_too(client, source, out, line) -> None:
    write_input(source, 1)
    await BatchRunner(client).run_file(source, out)
    out.write_bytes(out.read_bytes() + line)
    with pytest.raises(BatchError, match=r"line 2: .*; --repair moves it aside") as caught:
        await BatchRunner(client).run_file(source, out)
    assert caught.value.reason == "damaged"
    report = await BatchRunner(client).run_file(source, out, FileOptions(repair=True))
    assert (report.skipped, report.exit_code) == (1, 0)
    assert out.with_name("out.jsonl.torn").read_bytes() == line


async def test_dead_letters_that_cannot_be_read_are_moved_aside(client, source, out, err) -> None:
    write_input(source, 1)
    older = err.with_name(f"{err.name}.1")
    for path in (older, err):
        path.write_bytes(b"broken\n")
    with pytest.raises(BatchError, match=r"errors.jsonl.1: line 1: .*--repair"):
        await BatchRunner(client).run_file(source, out)
    report = await BatchRunner(client).run_file(source, out, FileOptions(repair=True))
    assert (report.ok, report.exit_code) == (1, 0)
    for path in (older, err):
        assert (path.read_bytes(), path.with_name(f"{path.name}.torn").read_bytes()) == (
            b"",
            b"broken\n",
        )


async def test_a_result_that_is_there_twice_is_moved_aside(client, source, out, err) -> None:
    write_input(source, 3)
    await BatchRunner(client).run_file(source, out)
    whole = out.read_bytes()
    double = whole.splitlines(keepends=True)[1]
    out.write_bytes(whole + double)
    with pytest.raises(BatchError, match="there twice; --repair moves the later one aside"):
        await BatchRunner(client).run_file(source, out)
    assert out.read_bytes() == whole + double
    report = await BatchRunner(client).run_file(source, out, FileOptions(repair=True))
    assert (report.skipped, report.exit_code, out.read_bytes()) == (3, 0, whole)
    assert out.with_name("out.jsonl.torn").read_bytes() == double


@pytest.mark.parametrize(("mode", "n_asked"), [("error", 0), ("keep", 0), ("rerun", 1)])
async def test_changed_lines(client, server, source, out, mode, n_asked) -> None:
    write_input(source, 3)
    await BatchRunner(client).run_file(source, out)
    source.unlink()
    write_lines(source, [request_line("r0", "r0"), request_line("r1", "other")])
    write_lines(source, [request_line("r2", "r2")])
    before = server.requests_made
    report = await BatchRunner(client).run_file(source, out, FileOptions(on_changed=mode))
    assert server.requests_made - before == n_asked
    assert report.exit_code == (65 if mode == "error" else 0)
    assert sorted(ids(out)) == ["r0", "r1", "r2"]
    if mode == "rerun":
        assert read_jsonl(out)[-1]["custom_id"] == "r1"


async def test_order_is_kept_if_asked_for(client, server, source, out, err) -> None:
    write_input(source, 40)
    steps = [reply("x", first_ms=(7 * i) % 50) for i in range(40)]
    steps[5] = refuse(400)
    server.script(*steps)
    options = FileOptions(ordered=True, order_window=8)
    most = 0

    def watch(told) -> None:
        nonlocal most
        assert ids(out) == [f"r{i}" for i in range(40) if f"r{i}" in ids(out)]

    await BatchRunner(client).run_file(source, out, options, on_progress=watch)
    (failed,) = ids(err)
    assert ids(out) == [f"r{i}" for i in range(40) if f"r{i}" != failed]


async def test_two_runs_on_one_output_are_impossible(client, server, source, out) -> None:
    write_input(source, 3)
    server.default(reply("x", first_ms=300))
    first = asyncio.create_task(BatchRunner(client).run_file(source, out))
    await until(lambda: server.requests_made)
    with pytest.raises(BatchError, match="another run") as caught:
        await BatchRunner(client).run_file(source, out)
    assert caught.value.reason == "locked"
    assert (await first).ok == 3


async def test_missing_input_and_folder(client, source, out, tmp_path) -> None:
    with pytest.raises(BatchError) as caught:
        await BatchRunner(client).run_file(source, out)
    assert caught.value.reason == "input"
    write_input(source, 1)
    with pytest.raises(BatchError) as caught:
        await BatchRunner(client).run_file(source, tmp_path / "no" / "out.jsonl")
    assert caught.value.reason == "locked"
    with pytest.raises(ConfigError, match="is the input"):
        await BatchRunner(client).run_file(source, source)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
async def test_full_disk_stops_and_loses_nothing(client, server, source, out) -> None:
    import resource

    write_input(source, 30)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, old[1]))
    try:
        report = await BatchRunner(client, concurrency=4).run_file(source, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (report.exit_code, report.reason) == (74, "io")
    assert len(ids(out)) == report.ok > 0
    again = await BatchRunner(client).run_file(source, out)
    assert again.ok == 30 - report.ok
    assert not out.with_name("out.jsonl.torn").exists()


async def test_stop_lets_calls_finish_and_leaves_the_rest(client, server, source, out) -> None:
    write_input(source, 200)
    server.default(reply("x", first_ms=50))
    runner = BatchRunner(client, concurrency=4)

    def watch(told) -> None:
        if told["ok"]:
            runner.stop("sigterm")

    report = await runner.run_file(source, out, on_progress=watch)
    assert report.exit_code == 143
    assert 0 < report.ok < 200
    assert len(ids(out)) == report.ok == server.requests_made
    assert report.undone > 0
    assert (await BatchRunner(client).run_file(source, out)).ok == 200 - report.ok
    assert set(asked(server).values()) == {1}


async def test_a_stop_that_comes_early_is_no_less_a_stop(client, server, source, out) -> None:
    write_input(source, 20)
    runner = BatchRunner(client)
    run = asyncio.create_task(runner.run_file(source, out))
    await asyncio.sleep(0)
    runner.stop("sigint")
    report = await run
    assert (report.exit_code, server.requests_made) == (130, 0)
    assert (await runner.run_file(source, out)).ok == 20


async def test_grace_ends(client, server, source, out) -> None:
    write_input(source, 8)
    server.default(stall(before_headers=True))
    runner = BatchRunner(client, grace=0.2, deadline=1)  # what was not read by then is not known
    started = monotonic()
    report = await runner.run_file(source, out)
    assert monotonic() - started < 4
    assert (report.exit_code, report.ok, report.undone) == (75, 0, 8)


async def test_cancelling_the_caller_leaves_nothing_behind(client, server, source, out) -> None:
    write_input(source, 50)
    server.default(reply("x", first_ms=100))
    before = len(asyncio.all_tasks())
    run = asyncio.create_task(BatchRunner(client).run_file(source, out))
    await asyncio.sleep(0.15)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await server.wait_idle()
    assert len(asyncio.all_tasks()) <= before + 10  # of the server's connections
    assert (await BatchRunner(client).run_file(source, out)).exit_code == 0
    assert len(ids(out)) == 50


async def test_budget_is_kept_and_counts_earlier_runs(client, server, source, out) -> None:
    write_input(source, 40)
    usage = {"prompt_tokens": 1, "completion_tokens": 100, "total_tokens": 101}
    server.default(reply("x", usage=usage))
    prices = Prices({"m": Price(input=1000, output=1000)})  # 0.101 CNY a line
    options = FileOptions(defaults={"max_tokens": 100})
    report = await BatchRunner(client, max_cost=2.0, prices=prices).run_file(source, out, options)
    assert report.exit_code == 75
    assert report.cost is not None
    assert 1.8 < report.cost <= 2.0
    first = report.cost
    report = await BatchRunner(client, max_cost=4.0, prices=prices).run_file(source, out, options)
    assert 3.8 < first + (report.cost or 0) <= 4.0
    tokens = BatchRunner(client, max_total_tokens=1, prices=prices)
    assert (await tokens.run_file(source, out, options)).ok == 0


async def test_quota_refusals_pause_and_cost_no_attempt(client, server, source, out) -> None:
    write_input(source, 10)
    server.script(*[refuse(429, "rpm_rate_limit_exceeded", retry_after=0.2)] * 8)
    report = await BatchRunner(client, retry=RetryPolicy(attempts=1)).run_file(source, out)
    assert (report.ok, report.failed) == (10, 0)
    assert {r["x_ernie"]["attempts"] for r in read_jsonl(out)} == {1}


@pytest.mark.parametrize(("tpm", "ok"), [(100, 0), (450, 0), (600, 2)])
async def test_a_request_larger_than_the_minute_fails_at_once(
    client, source, out, err, tpm, ok
) -> None:
    write_lines(source, [request_line("a", max_tokens=500), request_line("b", max_tokens=500)])
    started = monotonic()
    runner = BatchRunner(client, tpm=tpm, deadline=None if not ok else 0.3)
    report = await runner.run_file(source, out)
    assert monotonic() - started < 5
    if not ok:
        assert [r["error"]["code"] for r in read_jsonl(err)] == ["invalid_request"] * 2
    else:
        assert report.ok >= 1  # the second has to wait a minute, and the deadline is before


async def test_waiting_for_the_rate_is_no_timeout(server, source, out) -> None:
    write_input(source, 4)
    timeouts = Timeouts(total=0.4)
    async with AsyncClient(
        "k", base_url=server.base_url, timeouts=timeouts, limits=Limits(requests_per_minute=120)
    ) as client:
        client_limit = BatchRunner(client)
        report = await client_limit.run_file(source, out)
    assert (report.ok, report.summary["retried"]) == (4, 0)


async def test_embeddings_and_images(client, server, source, out) -> None:
    write_lines(
        source,
        [
            {"custom_id": "e", "url": "/v1/embeddings", "body": {"input": ["你好"]}},
            {"custom_id": "i", "url": "/v2/images/generations", "body": {"prompt": "狗"}},
        ],
    )
    report = await BatchRunner(client).run_file(source, out)
    assert report.ok == 2
    found = {r["custom_id"]: r["response"]["body"] for r in read_jsonl(out)}
    assert len(found["e"]["data"][0]["embedding"]) == 384
    assert found["i"]["data"][0]["url"]
    assert {seen.json["model"] for seen in server.requests} == {"embedding-v1", "qwen-image"}


async def test_csv_and_templates(client, server, tmp_path, out, err) -> None:
    source = tmp_path / "in.csv"
    text = '\ufeffsku,text\n1,"two\nlines, ""quoted"""\n2,天\n3\n'
    source.write_text(text, encoding="utf-8", newline="")
    options = FileOptions(template="Say: {text}", id_column="sku")
    report = await BatchRunner(client).run_file(source, out, options)
    assert sorted(asked(server)) == ['Say: two\nlines, "quoted"', "Say: 天"]
    assert ids(err) == ["3"]
    assert report.summary["total"] == report.summary["done"] == 3


async def test_parquet(client, server, tmp_path, out) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    source = tmp_path / "in.parquet"
    table = pyarrow.table({"custom_id": ["a", "b", None], "prompt": ["x", None, "z"]})
    parquet.write_table(table, source)
    report = await BatchRunner(client).run_file(source, out)
    assert sorted(ids(out)) == ["a", "row-3"]
    assert (report.failed, report.summary["total"]) == (1, 3)
    source.write_bytes(b"no parquet")
    report = await BatchRunner(client).run_file(source, tmp_path / "other.jsonl")
    assert report.exit_code == 66


async def test_shards_do_all_lines_once(client, server, source, tmp_path) -> None:
    write_input(source, 30)
    for i in range(3):
        options = FileOptions(shard=(i, 3))
        await BatchRunner(client).run_file(source, tmp_path / f"out-{i}.jsonl", options)
    assert asked(server) == {f"r{i}": 1 for i in range(30)}


async def test_estimate_sends_nothing(client, server, source, out) -> None:
    write_input(source, 10)
    write_lines(source, [b"bad"])
    runner = BatchRunner(client, rpm=600, prices=Prices({"m": Price(input=1, output=1)}))
    told = await runner.estimate_file(source, out)
    assert (told.lines, told.bad, told.seconds) == (10, 1, 1)
    assert told.answer_tokens == 5120
    assert told.cost > 0
    assert server.requests == []
    assert not out.exists()
    server.script(*[refuse(400)] * 3)
    await runner.run_file(source, out)
    told = await BatchRunner(client).estimate_file(source, out, FileOptions(only_failed=True))
    assert (told.lines, told.bad) == (3, 1)
    assert not out.with_name("out.errors.jsonl.1").exists()


async def test_standard_output_has_no_checkpoint(client, source) -> None:
    write_input(source, 2)
    with pytest.raises(ConfigError, match="checkpoint"):
        await BatchRunner(client).run_file(source, "-", FileOptions(only_failed=True))


@pytest.mark.parametrize(("action", "code"), [("mask", None), ("block", "content_filter")])
async def test_the_filter_of_the_client_holds(server, source, out, err, action, code) -> None:
    write_input(source, 1)
    server.default(reply("天气很坏"))
    words = ContentFilter.from_terms(["坏"], action=action)
    async with AsyncClient("k", base_url=server.base_url, content_filter=words) as client:
        await BatchRunner(client).run_file(source, out)
    assert "坏" not in out.read_text(encoding="utf-8") + err.read_text(encoding="utf-8")
    if code is None:
        assert "天气很*" in out.read_text(encoding="utf-8")
    else:
        assert [r["error"]["code"] for r in read_jsonl(err)] == [code]


async def test_no_secret_is_written(server, source, tmp_path) -> None:
    write_input(source, 3)
    server.script(refuse(400), cut(before_headers=True))
    async with AsyncClient("bce-v3/ALTAK-hidden/0123456789", base_url=server.base_url) as client:
        await BatchRunner(client, retry=RetryPolicy(attempts=1)).run_file(
            source, tmp_path / "out.jsonl"
        )
    for file in tmp_path.iterdir():
        assert b"hidden" not in file.read_bytes()
        assert b"Authorization" not in file.read_bytes()
