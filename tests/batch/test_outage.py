"""A server that is out is no fault of a line; a line that nobody can answer is no outage."""

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from ernie_async import (
    AsyncClient,
    BadRequestError,
    ConnectError,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from ernie_async.batch import BatchRunner, FileOptions, flow
from ernie_async.batch.outage import MANY, Outage, Trail
from tests.batch.files import ids, read_jsonl, write_input
from tests.waiting import until

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(base_delay=0.01, max_delay=0.02, max_retry_after=300)
ONCE = FileOptions(delivery="at-most-once")

WAYS = ["close", "reset", "hang up", "502", "503", "504"]

ANSWER = {"id": "as-1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}]}


class Moody:
    """Answers, or is out in one of `WAYS`: it closes or resets each connection at once, hangs up
    when it has read a request, or answers with a status.

    Attributes:
        way: In which it is out; `None` while it is well.
        asked: How often each prompt came.
        answered: Good answers.
        bad: Prompts at which it hangs up when it is well.
        headers: Of its refusals.
    """

    def __init__(self) -> None:
        self.way: str | None = None
        self.asked: Counter[str] = Counter()
        self.answered = 0
        self.bad: set[str] = set()
        self.headers = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[AsyncClient]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncClient("k", base_url=f"http://127.0.0.1:{port}/v2") as client:
                yield client

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self.way not in {"close", "reset"} and await self._answer(reader, writer):
                pass
            if self.way == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        prompt = json.loads(await reader.readexactly(size))["messages"][-1]["content"]
        self.asked[prompt] += 1
        await asyncio.sleep(0.005)
        if self.way in {"close", "reset", "hang up"} or (self.way is None and prompt in self.bad):
            return False
        self.answered += self.way is None
        status, body = (200, json.dumps(ANSWER)) if self.way is None else (int(self.way), "")
        headers = f"Content-Length: {len(body)}\r\n{self.headers if status != 200 else ''}\r\n"
        writer.write(f"HTTP/1.1 {status} x\r\n{headers}{body}".encode())
        return True


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_input(tmp_path / "in.jsonl", 300)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_that_is_out_all_the_time_makes_no_dead_letters(way, source, out) -> None:
    server = Moody()
    server.way = way
    async with server.serving() as client:
        report = await BatchRunner(client, retry=QUICK).run_file(source, out)
        assert (report.exit_code, report.ok, report.failed) == (69, 0, 0)
        assert report.message.startswith("out of ")
        server.way = None
        report = await BatchRunner(client, retry=QUICK).run_file(source, out)
    assert (report.exit_code, report.ok) == (0, 300)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("way", WAYS)
async def test_an_outage_in_the_middle_costs_no_line(way, concurrency, source, out) -> None:
    server = Moody()
    async with server.serving() as client:
        runner = BatchRunner(client, retry=QUICK, concurrency=concurrency)
        running = asyncio.create_task(runner.run_file(source, out))
        await until(lambda: server.answered >= 30)
        server.way = way
        await asyncio.sleep(0.5)  # in which any line would use up its attempts
        server.way = None
        report = await running
    assert (report.exit_code, report.ok, report.failed) == (0, 300, 0)


async def test_patience_ends(source, out, monkeypatch) -> None:
    monkeypatch.setattr(flow, "OUTAGE_PATIENCE", 0.3)
    server = Moody()
    async with server.serving() as client:
        running = asyncio.create_task(BatchRunner(client, retry=QUICK).run_file(source, out))
        await until(lambda: server.answered >= 30)
        server.way = "502"
        report = await running
    assert (report.exit_code, report.failed) == (69, 0)
    assert report.message.startswith("out of order: 502")
    assert report.ok >= 30


async def test_a_server_that_wants_to_be_left_alone_for_long_is_not_hammered(source, out) -> None:
    server = Moody()
    async with server.serving() as client:
        running = asyncio.create_task(BatchRunner(client, concurrency=8).run_file(source, out))
        await until(lambda: server.answered >= 30)
        server.way, server.headers = "503", "Retry-After: 3600\r\n"
        report = await running
    assert report.exit_code == 69
    assert report.failed <= 3 * MANY
    assert sum(server.asked.values()) - server.answered <= 4 * MANY


@pytest.mark.parametrize("n_bad", [1, 20])
async def test_lines_that_break_the_server_are_dead_letters(n_bad, source, out) -> None:
    server = Moody()
    server.bad = {f"r{n}" for n in range(0, 200, 200 // n_bad)}
    async with server.serving() as client:
        runner = BatchRunner(client, retry=QUICK, concurrency=4)
        report = await runner.run_file(source, out)
    assert (report.exit_code, report.ok, report.failed) == (1, 300 - n_bad, n_bad)
    assert set(ids(out.with_name("out.errors.jsonl"))) == server.bad


async def test_a_few_that_are_left_are_dead_letters(tmp_path, out) -> None:
    source = write_input(tmp_path / "few.jsonl", MANY - 1)
    server = Moody()
    server.bad = {f"r{n}" for n in range(MANY)}
    started = monotonic()
    async with server.serving() as client:
        report = await BatchRunner(client, retry=QUICK).run_file(source, out)
    assert (report.exit_code, report.failed) == (1, MANY - 1)
    assert monotonic() - started < 5


@pytest.mark.parametrize("way", ["hang up", "502", "504"])
async def test_at_most_once_stops_and_sends_nothing_twice(way, source, out) -> None:
    server = Moody()
    async with server.serving() as client:
        runner = BatchRunner(client, retry=QUICK, concurrency=8)
        running = asyncio.create_task(runner.run_file(source, out, ONCE))
        await until(lambda: server.answered >= 30)
        server.way = way
        report = await running
        assert report.exit_code == 69
        assert 0 < report.failed <= 4 * MANY
        server.way = None
        again = await runner.run_file(source, out, ONCE)
    assert (again.exit_code, report.ok + again.ok) == (1, 300 - report.failed)
    assert set(server.asked.values()) == {1}
    assert len(read_jsonl(out.with_name("out.errors.jsonl"))) == report.failed


async def test_at_most_once_waits_for_a_server_that_refuses(source, out) -> None:
    server = Moody()
    async with server.serving() as client:
        runner = BatchRunner(client, retry=QUICK, concurrency=8)
        running = asyncio.create_task(runner.run_file(source, out, ONCE))
        await until(lambda: server.answered >= 30)
        server.way = "503"
        await asyncio.sleep(0.5)
        server.way = None
        report = await running
    assert (report.exit_code, report.ok) == (0, 300)


# What is decided

BROKEN = ConnectError("x")


def outage(window: int = 1000) -> Outage:
    return Outage(window, attempts=5, patience=600.0)


def begun(told: Outage, n: int) -> list[Trail]:
    trails = [Trail() for _ in range(n)]
    for trail in trails:
        told.begin(trail)
    return trails


def fail(told: Outage, trails: list[Trail]) -> list[bool]:
    """They fail once more, one after the other."""
    found = []
    for trail in trails:
        told.begin(trail)
        found.append(told.failed(trail, BROKEN))
    return found


def test_many_lines_in_a_row_are_an_outage() -> None:
    # The first failure may be an accident, and the others have to begin after it.
    assert fail(outage(), begun(outage(), 10)) == [False] * MANY + [True] * (10 - MANY)


def test_what_breaks_at_one_moment_is_no_outage() -> None:
    told = outage()
    lines = begun(told, 100)
    assert not any(told.failed(line, BROKEN) for line in lines)


def test_a_few_lines_are_no_outage_however_often_they_fail() -> None:
    told, few = outage(), begun(outage(), MANY - 1)
    assert not any(fail(told, few * 20))


def test_in_a_small_window_fewer_are_enough_but_never_one() -> None:
    told = outage(window=1)
    assert not any(fail(told, begun(told, 1) * 20))
    assert fail(told, begun(told, 1)) == [True]
    assert fail(outage(window=4), begun(outage(), 6)) == [False] * 4 + [True] * 2


def test_lines_that_failed_while_others_were_answered_prove_nothing() -> None:
    told = outage()
    bad = begun(told, 100)
    [good] = begun(told, 1)
    told.answered(good)
    assert not any(fail(told, bad * 20))
    # But they are spared in an outage that others prove.
    fail(told, begun(told, MANY))
    assert all(fail(told, bad))


def test_one_answer_ends_it_but_not_one_to_a_request_from_before() -> None:
    told = outage()
    early = begun(told, 2)
    lines = begun(told, 10)
    fail(told, lines)
    told.answered(early[0])
    assert all(fail(told, lines))
    assert told.failed(early[1], RateLimitError("x", status=429)) is False
    assert all(fail(told, lines))
    [late] = begun(told, 1)
    assert told.failed(late, BadRequestError("x", status=400)) is False
    assert not any(fail(told, lines))


def test_a_line_that_has_not_failed_goes_first_while_it_is_in_doubt() -> None:
    told = outage()
    lines = begun(told, 10)
    assert not told.is_in_doubt
    fail(told, lines[:1])
    assert told.is_in_doubt
    fail(told, lines)
    assert not told.is_in_doubt


def test_what_is_an_outage() -> None:
    told = outage()
    lines = begun(told, 10)
    fail(told, lines)
    assert told.failed(lines[0], ServerError("x", status=502))
    assert told.failed(lines[0], ConnectError("x", was_sent=False))
    assert outage().failed(Trail(), ConnectError("x", was_sent=False))


def test_a_server_that_never_answered_is_looked_for_so_often_and_another_so_long() -> None:
    told, line = outage(), Trail()
    told.begin(line)
    assert [told.lasts_too_long(line, now) for now in range(5)] == [False] * 4 + [True]
    told.answered(line)
    other = Trail()
    assert [told.lasts_too_long(other, now) for now in (7, 8, 607, 608)] == [False] * 3 + [True]
    told.failed(other, RateLimitError("x", status=429))
    assert not told.lasts_too_long(other, 609)
