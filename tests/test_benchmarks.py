"""The benchmarks in small: what they ask is answered, and what they draw is drawn."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from benchmarks import flame, report, runs, table
from benchmarks.contenders import ENVIRONMENTS, LIBRARIES, MODULES
from benchmarks.questions import QUESTIONS
from benchmarks.soak import Sample, Tally, judge, slope

ROOT = Path(__file__).parents[1]

RUN = {
    "about": {
        "cpu": "2 x some processor",
        "system": "Linux 6",
        "python": "CPython 3.11",
        "loop": "asyncio",
        "aiohttp": "3.14",
        "pydantic": "2.14",
        "ernie-async": "0.1",
        "commit": "abcdef0",
    },
    "versions": {"floor": {}, "qianfan": {"qianfan": "0.4.12"}, "ours": {}},
    "quick": False,
    "rounds": 2,
    "results": {
        "paced": {
            "floor": {"0": 40e-6, "1": 50e-6},
            "qianfan": {"0": 800e-6, "1": 900e-6},
            "ours": {"0": 52e-6, "1": 60e-6},
        },
        "joined": {"floor": {}, "qianfan": {}, "ours": {"0": 2e6}},
    },
}


def run(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def test_the_slope_of_a_line_is_exact() -> None:
    assert slope([(x, 3 * x + 1) for x in range(5)]) == pytest.approx((3, 0))


def test_the_slope_of_noise_is_within_its_error() -> None:
    chance = random.Random(1)
    found = [slope([(x, chance.gauss(0, 5)) for x in range(60)]) for _ in range(200)]
    within = sum(abs(grows) < 2 * error for grows, error in found)
    assert 0.9 < within / len(found) < 0.99


def test_noise_that_lasts_is_no_slope_either() -> None:
    chance = random.Random(1)
    found = []
    for _ in range(200):
        noise = accumulate(
            (chance.gauss(0, 1) for _ in range(100)), lambda held, new: 0.9 * held + new
        )
        found.append(slope(list(enumerate(noise))))
    within = sum(abs(grows) < 2 * error for grows, error in found)
    assert within / len(found) > 0.8


def test_two_points_have_no_error() -> None:
    with pytest.raises(ValueError, match="three points"):
        slope([(0, 1), (1, 2)])


def test_a_worker_of_another_library_loads_nothing_of_ours() -> None:
    code = (
        "import sys, benchmarks.worker; loaded = {name.split('.')[0] for name in sys.modules};"
        "print(sorted(loaded & {'ernie_async', 'aiohttp', 'pydantic'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_names_of_contenders_hang_together() -> None:
    assert set(ENVIRONMENTS) < set(MODULES)
    assert set(LIBRARIES) <= set(MODULES)
    for question in QUESTIONS.values():
        assert set(question.asked) <= set(MODULES)
        assert (question.measure is None) == (question.quick is None)


def test_who_has_an_environment_runs_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ENVIRONMENTS_FOLDER", tmp_path)
    assert runs.python_of("qianfan") == sys.executable
    own = tmp_path / "qianfan" / ("Scripts" if os.name == "nt" else "bin") / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert runs.python_of("qianfan") == str(own)


def test_a_brief_row_has_medians_our_spread_and_no_verdict_where_no_line_is_drawn() -> None:
    ours = {0: 52e-6, 1: 60e-6}
    rounds = {"floor": {0: 40e-6, 1: 50e-6}, "typed": ours, "ours": ours}
    cells = table.row(QUESTIONS["paced"], rounds, ["typed", "ours"], is_brief=True)
    assert cells[1:] == ["45.0 µs", "1.25", "1.25 (1.20 to 1.30)", "1.45 met"]
    assert table.row(QUESTIONS["first-p99"], rounds, ["ours"], is_brief=True)[-1] == ""


@pytest.mark.parametrize(
    ("module", "options", "told"),
    [
        ("benchmarks", ["--rounds", "0"], "'0' is not a whole number from 1"),
        ("benchmarks", ["--json", "nowhere/x.json"], "there is no folder 'nowhere'"),
        ("benchmarks", ["--json", "."], "'.' is a folder, not a file to write"),
        ("benchmarks.scale", ["--counts", "1,0"], "'0' is not a whole number from 1"),
        ("benchmarks.soak", ["--streams", "2"], "at least 3"),
        ("benchmarks.soak", ["--rest", "0"], "expected the time of 8 samples"),
        ("benchmarks.plot", ["nothing.json", "nowhere"], "there is no file 'nothing.json'"),
        ("benchmarks.plot", ["README.md", "nowhere"], "nothing that the benchmarks wrote"),
        ("benchmarks.reuse", ["--plot", "README.md"], "'README.md' is a file, not a folder"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_started(
    module: str, options: list[str], told: str
) -> None:
    if module.endswith(("plot", "reuse")):
        pytest.importorskip("matplotlib", reason="the extra benchmarks draws")
    command = [sys.executable, "-m", module, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr


def test_pictures_are_the_same_twice_and_say_where_they_come_from(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra benchmarks draws")
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    results.write_text(json.dumps(RUN), "utf-8")
    begin = "<!-- from here: python -m benchmarks.plot -->"
    page.write_text(f"before\n\n{begin}\nold\n<!-- to here -->\n\nafter\n", "utf-8")
    pictures = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        run("benchmarks.plot", str(results), str(folder), "--page", str(page))
        pictures.append({path.name: path.read_text("utf-8") for path in folder.iterdir()})
    assert pictures[0] == pictures[1]
    assert set(pictures[0]) == {"paced.svg", "joined.svg"}
    paced = pictures[0]["paced.svg"]
    for words in ("64 streams, 20 ms", "some processor", "qianfan 0.4.12", "56.0 µs (x 1.25)"):
        assert words in paced
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n\n{begin}\n")
    assert text.endswith("<!-- to here -->\n\nafter\n")
    assert "old" not in text
    assert text.count("| 45.0 µs |") == 1


def test_a_program_writes_all_its_numbers_and_draws_them(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra benchmarks draws")
    values = {"floor, direct": [1.0, 2.0, 3.0], "ours, relayed": [20.0, 30.0, 40.0]}
    report.write(tmp_path / "new", "gateway", [report.Panel("how old", "ms", values)])
    written = json.loads((tmp_path / "new" / "gateway.json").read_text("utf-8"))
    assert written["panels"] == [{"title": "how old", "unit": "ms", "values": values}]
    assert written["about"]["python"]
    drawn = (tmp_path / "new" / "gateway.svg").read_text("utf-8")
    for words in ("how old", "floor, direct", "2.00 ms", "ours, relayed", "30.0 ms"):
        assert words in drawn
    run("benchmarks.plot", str(tmp_path / "new" / "gateway.json"), str(tmp_path / "again"))
    assert (tmp_path / "again" / "gateway.svg").read_text("utf-8") == drawn


def test_samples_are_shared_out_by_layer() -> None:
    loop = "main (benchmarks/flame.py:1);BaseEventLoop._run_once (asyncio/base_events.py:1922);"
    raw = "\n".join(
        [
            "import (x.py:1) 900",  # outside of the loop
            f"{loop}Handle._run (asyncio/events.py:80);stream (ernie_async/net/stream.py:5) 6",
            f"{loop}stream (ernie_async/net/stream.py:9);parse (_pydantic_core.so) 1",
            f"{loop}read (asyncio/selector_events.py:9);recv (libc.so.6) 2",
            f"{loop}Load.open_gate (benchmarks/measure.py:49) 50",
            f"{loop}[unknown] (libpython.so) 1",
        ]
    )
    stacks = flame.read(raw)
    assert stacks[("stream (ernie_async/net/stream.py)",)] == 6
    found = flame.shares(stacks)
    assert found == {
        "kernel": 0.2,
        "ernie_async": 0.6,
        "pydantic": 0.1,
        "aiohttp": 0,
        "asyncio": 0.1,
        "benchmark": 0,
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_a_quick_run_asks_sockets_and_us_and_writes_what_it_found(tmp_path: Path) -> None:
    written = tmp_path / "results.json"
    options = ["--quick", "--rounds", "1", "--json", str(written)]
    options += ["--contenders", "socket,by-line,ours", "--only", "first-p99,whole,batch"]
    said = run("benchmarks", *options)
    assert "| time to first token, warm connection, p99" in said
    found = json.loads(written.read_text("utf-8"))
    assert set(found["results"]["first-p99"]) == {"socket", "floor", "by-line", "ours"}
    assert all(rounds["0"] > 0 for rounds in found["results"]["first-p99"].values())
    assert found["results"]["whole"]["socket"] == {}, "nobody asks it for a text"
    assert found["results"]["whole"]["ours"]["0"] < 10e6
    assert found["results"]["batch"]["ours"]["0"] > 0
    assert found["versions"]["ours"]["ernie-async"]
    assert found["rounds"] == 1


@pytest.mark.slow
def test_a_client_is_kept_or_made_anew() -> None:
    pytest.importorskip("trustme", reason="the extra benchmarks makes certificates")
    said = run("benchmarks.reuse", "--rounds", "1", "--requests", "2")
    assert "| ours, TLS |" in said


@pytest.mark.slow
def test_ours_is_limited_beside_whoever_is_there() -> None:
    assert "| late by, p95 |" in run("benchmarks.limiter", "--rounds", "1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="has one clock for all processes")
def test_the_gateway_relays_all_loads() -> None:
    said = run("benchmarks.gateway", "--rounds", "1", "--seconds", "3")
    assert "| 1,000 streams, 5 chunks a second each |" in said


@pytest.mark.slow
def test_both_loops_are_asked_by_turns() -> None:
    pytest.importorskip("uvloop", reason="the other loop")
    said = run("benchmarks.loops", "--rounds", "1", "--quick", "--contenders", "ours")
    for loop in ("asyncio", "uvloop"):
        _, _, table = said.partition(f"With {loop}:")
        assert "| CPU per answer, 64 workers" in table
    assert "| uvloop / asyncio | floor | ours |" in said
    assert "failed" not in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_fifty_streams_are_read_to_the_last_chunk() -> None:
    said = run("benchmarks.scale", "--rounds", "1", "--counts", "50")
    assert "| 50 | " in said


def hour(*, own: Callable[[int], float] = lambda _: 0.0, kept: float = 0.0) -> list[Sample]:
    """Made-up samples of a soak with rests: what it holds beyond 50 MB, pieces kept of each 1,000.

    Pieces wobble, as in a busy process.
    """
    samples = []
    for n in range(62):
        held = {"own": 50_000_000 + round(own(n)), "handed_out": 14_000_000, "tasks": 1}
        busy = Sample(
            60_000 * n, **held, descriptors=11, permits=0, blocks=300_000 + n % 2, ended=0,
            is_at_rest=False,
        )  # fmt: skip
        at_rest = round(200_000 + 3.0 * n * kept + n % 2)
        samples += [busy, busy._replace(blocks=at_rest, ended=3000 * n, is_at_rest=True)]
    return [*samples, busy]


@pytest.mark.parametrize(("kept", "is_well"), [(2, True), (20, False)])
def test_an_hour_may_not_keep_an_object_of_each_broken_stream(*, kept: int, is_well: bool) -> None:
    assert judge(hour(kept=kept), Tally(), {}) is is_well


@pytest.mark.parametrize(
    ("own", "is_well"),
    [
        (lambda n: 250_000 * (n > 17) + 200_000 * (n > 35), True),  # two tides, each higher
        (lambda n: 5_000 * n, False),  # 100 bytes of each of 50 streams a second
        (lambda n: 262_144 * (n // 8), False),  # the same in larger pieces, and more
    ],
)
def test_an_hour_may_grow_in_steps_and_not_without_rest(
    own: Callable[[int], float], *, is_well: bool
) -> None:
    assert judge(hour(own=own), Tally(), {}) is is_well


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_a_short_soak_leaves_nothing_behind() -> None:
    options = ["--pause=0.01", "--minutes=0.7", "--streams=30", "--every=0.1", "--rest=0.02"]
    said = run("benchmarks.soak", *options)
    assert "| wrong | 0 |" in said
    assert "| left behind | 0 tasks, 0 descriptors, 0 permits |" in said
    assert "| blocks kept of 1,000 streams | " in said
    assert " left |" in said, "some readers leave"


@pytest.mark.slow
def test_of_the_import_models_are_kept_and_other_modules_are_empty() -> None:
    said = run("benchmarks.import_floor", "--rounds", "1")
    [hollow] = [line for line in said.splitlines() if "empty ones" in line]
    models, empty = map(int, re.findall(r"(\d+) (?:modules|empty)", hollow))
    assert 10 < models < empty
    assert "| ours |" in said
