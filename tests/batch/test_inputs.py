"""Inputs, read piece by piece."""

import asyncio
import threading
import tracemalloc

import pytest

from ernie_async import ConfigError
from ernie_async.batch.inputs import count_lines, kind_of, read_ahead, read_lines
from ernie_async.batch.lines import Fault, Line, LineReader
from tests.batch.files import write_input


def read(path, **more) -> list[Line | Fault]:
    return list(read_lines(path, kind_of(path), LineReader(), **more))


def test_kinds_go_by_the_name(tmp_path) -> None:
    assert kind_of(tmp_path / "a.CSV") == "csv"
    assert kind_of(tmp_path / "a.parquet") == "parquet"
    assert kind_of(tmp_path / "a.txt") == "jsonl"


def test_a_huge_line_is_skipped_in_bounded_memory(tmp_path) -> None:
    path = tmp_path / "in.jsonl"
    write_input(path, 1)
    with path.open("ab") as file:
        file.truncate(file.tell() + 200 * 2**20)  # a hole: zeros without a newline
        file.write(b"\n")
    write_input(path, 1, start=1)
    tracemalloc.start()
    found = read(path, max_line_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(line.number, getattr(line, "code", None)) for line in found] == [
        (1, None),
        (2, "line_too_long"),
        (3, None),
    ]
    assert peak < 16 * 2**20


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_of_just_the_limit_is_read(tmp_path, end) -> None:
    path = tmp_path / "in.jsonl"
    raw = b'{"prompt": "x"}'
    path.write_bytes(raw + end)
    assert isinstance(read(path, max_line_bytes=len(raw))[0], Line)
    assert isinstance(read(path, max_line_bytes=len(raw) - 1)[0], Fault)


def test_lines_are_counted(tmp_path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"")
    assert count_lines(path, "jsonl") == 0
    path.write_bytes(b"a\nb")
    assert count_lines(path, "jsonl") == 2
    assert count_lines(path, "csv") is None


def test_csv_that_is_none(tmp_path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"prompt\n\xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read(path)


@pytest.mark.anyio
async def test_reading_ahead_gives_the_same_and_ends_when_cancelled() -> None:
    assert [item async for item in read_ahead(iter(range(1000)))] == list(range(1000))

    def broken():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        async for _ in read_ahead(broken()):
            pass

    async def take() -> None:
        async for _ in read_ahead(iter(int, 1)):
            await asyncio.sleep(0)

    task = asyncio.create_task(take())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_no_item_waits_for_the_next_one_and_few_are_taken_in_advance() -> None:
    taken, go_on = [], threading.Event()

    def slow():
        for n in range(1000):
            taken.append(n)
            yield n
            if n == 2:
                assert go_on.wait(5)

    found = []
    async with asyncio.timeout(5):
        async for item in read_ahead(slow()):
            found.append(item)
            if item == 2:
                assert taken == [0, 1, 2]
                go_on.set()
            if item == 3:
                await asyncio.sleep(0.05)
                assert len(taken) <= 3 + 66
    assert found == list(range(1000))
