"""Output files of earlier runs, read back."""

import pytest

from ernie_async.batch.checkpoint import (
    drop_lines,
    errors_path,
    mend_tail,
    read_back,
    rotate,
    rotated,
    torn_path,
)
from ernie_async.batch.ids import Ids, Known, State
from ernie_async.batch.lock import OutputLock
from ernie_async.batch.stopping import BatchError
from tests.batch.files import write_lines


def done(name, key="k") -> dict:
    body = {"usage": {"total_tokens": 5}}
    return {
        "custom_id": name,
        "response": {"body": body},
        "error": None,
        "x_ernie": {"key": key, "cost": 0.5, "line": 1},
    }


def failed(name, code, line=1) -> dict:
    extension = {"key": "k", "line": line, "code": code}
    return {"custom_id": name, "response": None, "error": None, "x_ernie": extension}


def test_tail_is_moved(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    torn = tmp_path / "out.jsonl.torn"
    assert mend_tail(path) == 0
    path.write_bytes(b"one\ntwo\nthr")
    assert (mend_tail(path), path.read_bytes(), torn.read_bytes()) == (3, b"one\ntwo\n", b"thr")
    assert mend_tail(path) == 0
    path.write_bytes(b"no newline" * 300_000)
    assert mend_tail(path) == 3_000_000
    assert path.read_bytes() == b""
    assert len(torn.read_bytes()) == 3_000_003


def test_a_cut_at_any_byte_loses_one_line_at_most(tmp_path) -> None:
    out = tmp_path / "out.jsonl"
    write_lines(out, [done(name) for name in "abcde"])
    whole = out.read_bytes()
    third = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for end in range(third, len(whole) + 1):
        out.write_bytes(whole[:end])
        torn_path(out).unlink(missing_ok=True)
        n_whole = whole.count(b"\n", 0, end)
        mend_tail(out)
        torn = torn_path(out).read_bytes() if torn_path(out).exists() else b""
        assert out.read_bytes() + torn == whole[:end]
        before = read_back(out, tmp_path / "none")
        assert before.ok == n_whole
        assert [before.ids.key(name) for name in "abcde"] == ["k"] * n_whole + [None] * (
            5 - n_whole
        )
        before.ids.close()


def test_what_was_done_is_known(tmp_path) -> None:
    out, err = tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl"
    assert errors_path(out) == err
    write_lines(out, [done("a"), done("b", "other")])
    write_lines(err, [failed("c", "timeout"), failed(None, "invalid_json", 7)])
    write_lines(err, [failed("a", "duplicate_custom_id", 9)])
    before = read_back(out, err)
    assert (before.ok, before.failed, before.cost, before.tokens) == (2, 3, 1.0, 10)
    assert before.ids.take("a") == Known(State.DONE, "k")
    assert before.ids.take("a") == Known(State.SEEN, "k")
    assert before.ids.take("b") == Known(State.DONE, "other")
    assert before.ids.take("c") == Known(State.FAILED, None)
    assert before.ids.take("d") is None
    assert (before.ids.is_bad(7, "k"), before.ids.is_bad(7, "x"), before.ids.is_bad(9, "k")) == (
        True,
        False,
        True,
    )
    before.ids.close()


def test_doubles_are_damage(tmp_path) -> None:
    out = tmp_path / "out.jsonl"
    write_lines(out, [done("a"), done("a")])
    with pytest.raises(BatchError, match="custom_id 'a' is there twice"):
        read_back(out, tmp_path / "none")


def test_rotation_takes_the_next_number(tmp_path) -> None:
    err = tmp_path / "out.errors.jsonl"
    rotate(err)
    assert rotated(err) == []
    for name in ("a", "b"):
        write_lines(err, [failed(name, "timeout")])
        rotate(err)
    assert [path.name for path in rotated(err)] == ["out.errors.jsonl.1", "out.errors.jsonl.2"]
    paid = {**failed("c", "content_filter"), "x_ernie": {"code": "content_filter", "cost": 0.5}}
    write_lines(err, [paid])
    before = read_back(tmp_path / "out.jsonl", err, only_failed=True)
    assert (before.failed, before.cost) == (0, 0.5)
    assert {before.ids.take(name) for name in "abc"} == {Known(State.FAILED, None)}
    before.ids.close()
    rotate(err)
    before = read_back(tmp_path / "out.jsonl", err)
    assert (before.failed, before.cost, before.ids.take("a")) == (0, 0.5, None)
    before.ids.close()


def test_lines_are_dropped_or_nothing_is_written(tmp_path) -> None:
    out, aside = tmp_path / "out.jsonl", tmp_path / "old"
    write_lines(out, [done("a"), done("b")])
    before = out.stat()
    assert drop_lines(out, lambda raw: False) == 0
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    assert drop_lines(out, lambda raw: b'"a"' in raw, aside=aside) == 1
    assert b'"b"' in out.read_bytes()
    assert b'"a"' in aside.read_bytes()
    assert sorted(tmp_path.iterdir()) == [aside, out]


def test_starts_are_forgotten_only_as_such() -> None:
    ids = Ids()
    ids.note("a", State.STARTED)
    ids.note("b", State.DONE, "k")
    ids.note("b", State.STARTED)
    ids.forget_start("a")
    ids.forget_start("b")
    assert ids.take("a") is None
    assert ids.take("b") == Known(State.DONE, "k")
    ids.close()


def test_lock_is_exclusive_and_released(tmp_path) -> None:
    path = tmp_path / "x.lock"
    lock = OutputLock(path)
    with pytest.raises(BlockingIOError):
        OutputLock(path)
    lock.release()
    assert not path.exists()
    OutputLock(path).release()
