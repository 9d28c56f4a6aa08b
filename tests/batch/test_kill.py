"""A run is killed at random moments, and goes on each time.

Three kills by default. `BATCH_KILLS=50 BATCH_LINES=5000 pytest tests/batch/test_kill.py` is the
whole thing, and takes some minutes.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_async.testing import MockErnie, refuse, reply
from tests.batch.files import asked, ids, read_jsonl, write_input

pytest.importorskip("cyclopts")

KILLS = int(os.environ.get("BATCH_KILLS", "3"))
LINES = int(os.environ.get("BATCH_LINES", "400"))
CONCURRENCY = 16


def start(
    server: MockErnie, source: Path, out: Path, *more: str, err: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ernie_async", "batch", "run", str(source), "-o", str(out)]
    command += ["--base-url", server.base_url, "--concurrency", str(CONCURRENCY)]
    command += ["--progress", "none", *more]
    environment = {name: v for name, v in os.environ.items() if not name.startswith("QIANFAN_")}
    return subprocess.Popen(
        command,
        env={**environment, "QIANFAN_API_KEY": "k", "no_proxy": "*"},
        stdout=subprocess.DEVNULL,
        stderr=err,
    )


def whole_ids(path: Path) -> set[str]:
    """The ids of all whole lines, as they are after a kill."""
    if not path.exists():
        return set()
    raw = path.read_bytes()
    whole = path.with_name("whole")
    whole.write_bytes(raw[: raw.rfind(b"\n") + 1])
    return set(ids(whole))


def run_with_kills(server, source, out, *more) -> list[tuple[int, set[str]]]:
    """Kill some times; then run to the end. What was done at each kill, and the requests so far."""
    chance = random.Random(4)
    kills = []
    for _ in range(KILLS):
        made = server.requests_made
        process = start(server, source, out, *more)
        limit = time.monotonic() + 20
        # Not while Python is still starting: from the first request on, at any moment.
        while server.requests_made == made and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.7 * LINES / KILLS * 0.004))
        process.kill()
        process.wait()
        time.sleep(0.05)  # for requests that are still on their way to the server
        kills.append((server.requests_made, whole_ids(out)))
    process = start(server, source, out, *more)
    assert process.wait(120) in {0, 1}
    return kills


@pytest.mark.slow
def test_at_least_once(tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=20))
        n_refused = 15
        server.script(*[refuse(400)] * 5, *[refuse(503)] * (n_refused - 5))
        kills = run_with_kills(server, source, out)
        done, dead = ids(out), ids(tmp_path / "out.errors.jsonl")
        assert sorted(done + dead) == sorted(f"r{i}" for i in range(LINES))
        assert len(dead) == 5 or len(dead) <= 5
        for made, done_then in kills:
            later = {seen.json["messages"][0]["content"] for seen in server.requests[made:]}
            assert not later & done_then
        assert server.requests_made <= LINES + n_refused + CONCURRENCY * KILLS
    assert any(0 < len(done_then) < LINES for _, done_then in kills)


@pytest.mark.slow
def test_at_most_once(tmp_path) -> None:
    source, out = write_input(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=20))
        run_with_kills(server, source, out, "--delivery", "at-most-once")
        assert set(asked(server).values()) == {1}
        letters = read_jsonl(tmp_path / "out.errors.jsonl")
        assert {r["error"]["code"] for r in letters} <= {"unknown_outcome"}
        done = ids(out) + [r["custom_id"] for r in letters]
        assert sorted(done) == sorted(f"r{i}" for i in range(LINES))
        assert 0 < len(letters) <= CONCURRENCY * KILLS
    assert not (tmp_path / "out.jsonl.started").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals(tmp_path, number, code) -> None:
    import signal

    source, out = write_input(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=50))
        process = start(server, source, out)
        while server.requests_made < 40:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(getattr(signal, number))
        assert process.wait(20) == code
        assert len(ids(out)) == server.requests_made < LINES
        server.default(reply("好", first_ms=60_000))
        process = start(server, source, out)
        made = server.requests_made
        while server.requests_made == made:
            time.sleep(0.005)
        process.send_signal(getattr(signal, number))
        time.sleep(0.1)
        process.send_signal(getattr(signal, number))
        assert process.wait(20) == code


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("more", "word"), [((), "about"), (("--shard", "0/1"), "at least")])
def test_what_a_signal_leaves_is_counted_as_far_as_it_is_known(tmp_path, more, word) -> None:
    import signal

    source, out = write_input(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=50))
        process = start(server, source, out, *more, err=subprocess.PIPE)
        while server.requests_made < 40:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=20)[1].decode()
    n_left = int(told.split(f"not done: {word} ")[1].split(";")[0])
    left = 300 - sum(len(ids(path)) for path in tmp_path.glob("out*.jsonl"))
    assert n_left == left if word == "about" else 0 < n_left < left
