"""Inputs that can be read only once: standard input, and pipes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from ernie_async import AsyncClient, ConfigError
from ernie_async.batch import BatchRunner, FileOptions
from ernie_async.testing import MockErnie
from tests.batch.files import asked, ids, request_line, write_input

pytest.importorskip("cyclopts")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such pipes")

LINES = 3000  # more than a pipe holds


def start(server: MockErnie, *command: object, out: int | None = None) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "ernie_async", "batch", *map(str, command)]
    environment = {name: v for name, v in os.environ.items() if not name.startswith("QIANFAN_")}
    environment |= {"QIANFAN_API_KEY": "k", "no_proxy": "*", "QIANFAN_BASE_URL": server.base_url}
    return subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE
    )


def raw_lines(tmp_path: Path, n: int) -> bytes:
    return write_input(tmp_path / f"{n}.jsonl", n).read_bytes()


def pour(raw: bytes, fifo: Path) -> Thread:
    thread = Thread(target=fifo.write_bytes, args=(raw,), daemon=True)
    thread.start()
    return thread


def wait_for_requests(server: MockErnie, n: int) -> None:
    limit = time.monotonic() + 10
    while server.requests_made < n:
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.fixture
def server() -> Iterator[MockErnie]:
    with MockErnie() as server:
        yield server


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.anyio
async def test_each_line_of_a_pipe_is_asked_once_and_a_later_run_goes_on(
    server, fifo, tmp_path
) -> None:
    out, totals = tmp_path / "out.jsonl", set()
    async with AsyncClient("k", base_url=server.base_url) as client:
        writer = pour(raw_lines(tmp_path, LINES), fifo)
        report = await BatchRunner(client).run_file(
            fifo, out, on_progress=lambda told: totals.add(told["total"])
        )
        writer.join(5)
        assert (report.ok, report.skipped, report.exit_code) == (LINES, 0, 0)
        assert set(asked(server).values()) == {1}
        assert totals <= {None, LINES}  # nothing has counted them
        assert report.summary["total"] == LINES
        pour(raw_lines(tmp_path, LINES + 10), fifo)
        report = await BatchRunner(client).run_file(fifo, out)
        assert (report.ok, report.skipped) == (10, LINES)
    assert len(set(ids(out))) == len(ids(out)) == LINES + 10


@pytest.mark.anyio
async def test_an_estimate_takes_a_pipe_too(server, fifo, tmp_path) -> None:
    pour(b"custom_id,prompt\na,x\nb,y\n", fifo)
    async with AsyncClient("k", base_url=server.base_url) as client:
        told = await BatchRunner(client).estimate_file(
            fifo, tmp_path / "out.jsonl", FileOptions(kind="csv")
        )
    assert (told.lines, told.bad) == (2, 0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "options",
    [FileOptions(strict=True), FileOptions(on_changed="rerun"), FileOptions(kind="parquet")],
)
async def test_what_needs_a_second_look_is_refused(server, fifo, tmp_path, options) -> None:
    out = tmp_path / "out.jsonl"
    async with AsyncClient("k", base_url=server.base_url) as client:
        for source in (fifo, "-"):
            with pytest.raises(ConfigError, match="write it to a file first"):
                await BatchRunner(client).run_file(source, out, options)
    assert not out.exists()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_read(server, tmp_path, name) -> None:
    out = tmp_path / "out.jsonl"
    process = start(server, "run", name, "-o", out, "--progress", "none", "--kind", "jsonl")
    _, told = process.communicate(raw_lines(tmp_path, LINES), timeout=60)
    assert (process.returncode, len(set(ids(out)))) == (0, LINES), told
    assert f"succeeded: {LINES:,}".encode() in told
    process = start(server, "run", name, "-o", out, "--strict")
    _, told = process.communicate(b"", timeout=20)
    assert process.returncode == 2
    assert b"write it to a file first" in told


def test_standard_input_that_is_the_output_is_refused(server, tmp_path) -> None:
    out = write_input(tmp_path / "out.jsonl", 2)
    with out.open("rb") as file:
        process = subprocess.run(
            [sys.executable, "-m", "ernie_async", "batch", "run", "-", "-o", str(out), "--offline"],
            stdin=file,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )
    assert (process.returncode, b"is the input" in process.stderr) == (2, True)


def test_standard_input_that_is_closed_is_refused(tmp_path) -> None:
    command = '"$0" -m ernie_async batch run - -o "$1" --offline <&-'
    found = subprocess.run(
        ["sh", "-c", command, sys.executable, str(tmp_path / "out.jsonl")],
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
    )
    assert (found.returncode, b"is closed; name a file" in found.stderr) == (2, True)


def test_the_lane_of_the_service_takes_standard_input(server, tmp_path) -> None:
    raw, out = raw_lines(tmp_path, 5), tmp_path / "out.jsonl"
    for command, code, word in (
        ("submit", 0, b"5 lines sent"),
        ("fetch", 75, b"5 without a result"),
        ("fetch", 75, b"5 without a result"),
        ("fetch", 0, b"5 succeeded"),
    ):
        process = start(server, command, "-", "-o", out)
        _, told = process.communicate(raw, timeout=20)
        assert (process.returncode, word in told) == (code, True), told


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_lines_are_asked_as_they_come_and_silence_holds_up_no_signal(
    server, tmp_path, number
) -> None:
    out = tmp_path / "out.jsonl"
    process = start(server, "run", "-", "-o", out, "--progress", "none")
    assert process.stdin is not None
    for n in range(3):
        process.stdin.write(json.dumps(request_line(f"r{n}")).encode() + b"\n")
        process.stdin.flush()
        wait_for_requests(server, n + 1)
    began = time.monotonic()
    process.send_signal(getattr(signal, number))
    assert process.wait(10) == 128 + getattr(signal, number)
    assert time.monotonic() - began < 3
    assert ids(out) == ["r0", "r1", "r2"]
    process.communicate()


def test_a_pipe_that_nobody_writes_to_holds_up_no_signal(server, fifo, tmp_path) -> None:
    process = start(server, "run", fifo, "-o", tmp_path / "out.jsonl", "--progress", "json")
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"{")  # it is on its way
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process.communicate()


def test_an_output_that_nobody_reads_any_more_ends_the_run_in_silence(server, tmp_path) -> None:
    source = write_input(tmp_path / "in.jsonl", LINES)
    given = ("run", source, "-o", "-", "--progress", "none")
    with start(server, *given, out=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told.count(b"\n")) == (141, 1), told  # there is no checkpoint
    assert server.requests_made < LINES
