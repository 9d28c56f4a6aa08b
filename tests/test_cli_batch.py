"""`ernie-async batch`: a thin skin over runs; exit codes, what is told, what is written."""

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cyclopts")

from rich.console import Console, Group

from ernie_async.batch.progress import Gauges, Progress
from ernie_async.batch.settings import read_concurrency, read_prices
from ernie_async.cli import main
from ernie_async.cli_batch import read_seconds, read_shard
from ernie_async.cli_progress import bar_line
from ernie_async.errors import ConfigError
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.testing import MockErnie, refuse
from tests.batch.files import ids, read_jsonl, write_input, write_lines


@pytest.fixture
def server() -> Iterator[MockErnie]:
    with MockErnie() as server:
        yield server


@pytest.fixture
def call(monkeypatch, capfd, server):
    for name in [name for name in os.environ if name.startswith("QIANFAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("QIANFAN_BASE_URL", server.base_url)
    monkeypatch.setenv("QIANFAN_API_KEY", "k")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["batch", *map(str, arguments)])
        return (code, *capfd.readouterr())

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_input(tmp_path / "in.jsonl", 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_run_tells_how_it_ended(call, source, out, server, tmp_path) -> None:
    page = tmp_path / "report.html"
    code, told, err = call("run", source, "-o", out, "--report", page, "--model", "other")
    assert (code, told) == (0, "")
    assert "succeeded: 5" in err
    assert "finished (exit code 0)" in err
    assert sorted(ids(out)) == [f"r{i}" for i in range(5)]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert server.requests_made == 5
    code, _, err = call("run", source, "-o", out, "--model", "other", "--progress", "none")
    assert (code, server.requests_made) == (0, 5)


def test_failures_are_told_by_code(call, source, out, server) -> None:
    server.script(refuse(400))
    code, _, err = call("run", source, "-o", out, "--concurrency", 1)
    assert code == 1
    assert "failed: invalid_argument: 1" in err
    assert f"what failed is in {out.with_name('out.errors.jsonl')}" in err
    code, _, err = call("run", source, "-o", out, "--only-failed")
    assert (code, len(ids(out))) == (0, 5)


def test_standard_output_takes_results(call, source) -> None:
    code, told, err = call("run", source, "-o", "-", "--progress", "json")
    assert code == 0
    assert sorted(json.loads(line)["custom_id"] for line in told.splitlines()) == [
        f"r{i}" for i in range(5)
    ]
    said, *objects = err.splitlines()
    assert "no checkpoint" in said
    assert json.loads(objects[0])["total"] in {None, 5}
    last = json.loads(objects[-2])  # before the summary
    assert (last["done"], last["total"], last["in_flight"]) == (5, 5, 0)


def test_dry_run_asks_nothing(call, source, out, server) -> None:
    code, told, _ = call("run", source, "-o", out, "--dry-run", "--rpm", "60")
    assert code == 0
    assert "lines to ask" in told
    assert "at least 5s" in told
    assert (server.requests_made, out.exists()) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["run", "IN"], 2, "--output"),
        (["run", "IN", "-o", "OUT", "--concurrency", "many"], 2, "concurrency"),
        (["run", "IN", "-o", "OUT", "--max-errors", "x"], 2, "max_errors"),
        (["run", "IN", "-o", "OUT", "--deadline", "soon"], 2, "--deadline"),
        (["run", "IN", "-o", "OUT", "--shard", "2/2"], 2, "shard"),
        (["run", "IN", "-o", "OUT", "--set", "x"], 2, "--set"),
        (["run", "IN", "-o", "OUT", "--prices", "NO"], 2, "prices"),
        (["run", "IN", "-o", "OUT", "--rpm", "-1"], 2, "rpm"),
        (["run", "IN", "-o", "IN"], 2, "input"),
        (["run", "NO", "-o", "OUT"], 66, "No such file"),
        (["run", "BAD", "-o", "OUT", "--strict"], 65, "line 1: invalid_json"),
        (["run", "IN", "-o", "BAD"], 65, "--repair"),
        (["run", "IN", "-o", "NO/out"], 73, "No such file"),
        (["run", "IN", "-o", "DIR"], 73, "is a directory"),
        (["run", "IN", "-o", "OUT", "--max-total-tokens", "1"], 75, "budget"),
        (["run", "IN", "-o", "OUT", "--max-cost", "0.0001"], 75, "has no price"),
    ],
)
def test_exit_codes(call, source, out, tmp_path, arguments, code, word) -> None:
    bad = tmp_path / "bad.jsonl"
    write_lines(bad, [b"broken"])
    places = {"IN": source, "OUT": out, "BAD": bad, "NO": tmp_path / "no", "DIR": tmp_path}
    given = [str(places.get(word, word)).replace("NO/", f"{tmp_path}/no/") for word in arguments]
    found, _, err = call(*given)
    assert found == code
    assert word in err


def test_parquet_without_its_extra_is_wrong_usage(call, source, out, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "ernie_async.batch.parquet", raising=False)
    monkeypatch.delattr("ernie_async.batch.parquet", raising=False)
    code, _, err = call("run", source, "-o", out, "--kind", "parquet")
    assert (code, "ernie-async[parquet]" in err) == (2, True)
    assert not out.exists()


def test_set_gives_fields_that_lines_lack(call, source, out, server) -> None:
    call("run", source, "-o", out, "--set", "temperature=0.3", "--set", "user=me", "--model", "x")
    body = server.requests[0].json
    assert (body["temperature"], body["user"], body["model"]) == (0.3, "me", "m")


def test_prices_are_those_of_the_file(call, source, out, tmp_path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "USD"\n[models.m]\ninput = 1\noutput = 2\n')
    _, _, err = call("run", source, "-o", out, "--prices", prices)
    usage = read_jsonl(out)[0]["response"]["body"]["usage"]
    cost = (usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 1000
    assert read_jsonl(out)[0]["x_ernie"]["cost"] == pytest.approx(cost)
    assert "cost: $" in err


def test_shards_are_merged(call, source, tmp_path, server) -> None:
    write_lines(source, [b"broken"])
    server.script(refuse(400))
    for i in range(3):
        out = tmp_path / "out.jsonl"
        call("run", source, "-o", out, "--shard", f"{i}/3", "--concurrency", 1, "--rpm", 600)
    outputs = [tmp_path / f"out-0000{i}-of-00003.jsonl" for i in range(3)]
    summary = json.loads(outputs[0].with_name(f"{outputs[0].name}.summary.json").read_text())
    assert summary["limits"]["rpm"] == 200
    # As a shell gives them: the dead letters, too.
    found = sorted(tmp_path.glob("out-*.jsonl"))
    assert len(found) == 6
    merged = tmp_path / "all.jsonl"
    code, told, _ = call("merge", *found, "-o", merged, "--input", source, "--ordered")
    assert (code, told) == (0, "4 results, 2 dead letters, 0 double, 0 missing\n")
    assert ids(merged) == sorted(ids(merged))
    again = [*outputs, outputs[0]]
    n_double = len(ids(outputs[0]))
    code, told, _ = call("merge", *again, "-o", tmp_path / "again.jsonl", "--json")
    assert (code, json.loads(told)["double"]) == (1 if n_double else 0, n_double)
    write_input(source, 2, start=5)
    code, told, _ = call("merge", *outputs, "-o", tmp_path / "3.jsonl", "--input", source)
    assert (code, told.endswith("2 missing\n")) == (1, True)
    rows = tmp_path / "rows.txt"
    rows.write_text("custom_id,prompt\nr0,x\nr9,x\n")
    code, told, _ = call(
        "merge", *outputs, "-o", tmp_path / "4.jsonl", "--input", rows, "--kind", "csv"
    )
    assert (code, told.endswith("1 missing\n")) == (1, True)
    code, _, err = call("merge", *outputs, "-o", merged)
    assert (code, f"{merged}: it exists" in err) == (1, True)
    assert "remove it, or name another output" in err
    merged.unlink()
    code, _, err = call("merge", *outputs, "-o", merged)
    assert (code, "all.errors.jsonl: it exists" in err) == (1, True)
    for left in (merged, tmp_path / "all.errors.jsonl"):
        left.write_bytes(b"")
    assert call("merge", *outputs, "-o", merged)[0] == 0
    code, _, err = call("merge", *outputs, tmp_path / "no.jsonl", "-o", tmp_path / "5.jsonl")
    assert (code, f"{tmp_path / 'no.jsonl'}: no such file" in err) == (1, True)
    assert not (tmp_path / "5.jsonl").exists()
    assert call("merge", "-o", tmp_path / "5.jsonl")[0] == 2


def test_the_lane_of_the_service(call, source, out) -> None:
    assert "nothing was sent" in call("status", "-o", out)[2]
    code, told, err = call("submit", source, "-o", out)
    assert code == 0
    assert told.startswith("infer-mock000001\tQueuing\t5 lines")
    assert "5 lines sent" in err
    code, _, err = call("fetch", source, "-o", out)
    assert (code, "5 without a result" in err) == (75, True)
    assert "Running" in call("status", "-o", out)[1]
    assert json.loads(call("status", "-o", out, "--json")[1])[0]["status"] == "Done"
    code, told, _ = call("fetch", source, "-o", out)
    assert (code, "fetched" in told) == (0, True)
    assert len(ids(out)) == 5
    assert call("submit", source, "-o", out.with_name("other.jsonl"))[0] == 0
    assert "Stopped" in call("cancel", "-o", out.with_name("other.jsonl"))[1]


def test_settings_as_people_write_them(tmp_path) -> None:
    assert [read_seconds(text, "x") for text in ("90", "1.5s", "15m", "2h", "1d")] == [
        90,
        1.5,
        900,
        7200,
        86400,
    ]
    assert (read_seconds(None, "x"), read_shard(None), read_shard("3/16")) == (None, None, (3, 16))
    assert read_concurrency("32") == 32
    assert read_concurrency("auto") == Adaptive()
    assert read_concurrency("auto:16..128") == Adaptive(start=16, min=16, max=128)
    assert read_concurrency("auto:1..4") == Adaptive(start=4, min=1, max=4)
    for text in ("0", "auto:1", "-1"):
        with pytest.raises(ConfigError):
            read_concurrency(text)
    path = tmp_path / "p.toml"
    for text in ("x", "[models.m]\ninput = 1\n", '[models.m]\ninput = "x"\noutput = 1\n'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="prices"):
            read_prices(path)


@pytest.mark.parametrize(
    ("width", "has_bar"), [(160, True), (141, True), (140, False), (60, False)]
)
def test_the_bar_is_one_line_on_any_terminal(width, has_bar) -> None:
    progress = Progress(0.0, total=100_000, rpm=60_000, tpm=12_000_000)
    progress.ok, progress.failed, progress.requests = 41_198, 52, 41_250
    progress.tokens_out, progress.cost = 8_200_000, 12.41
    told = progress.snapshot(Gauges(24, 31, "rate"), 6000.0)
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    with console.capture() as shown:
        console.print(Group(bar_line(told, "¥", width)))
    assert shown.get().count("\n") == 1
    assert ("━" in shown.get()) == has_bar
    assert "41%" in shown.get()
