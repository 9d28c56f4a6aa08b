"""Results and dead letters as lines, and back."""

import json
import pickle
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.batch.records import (
    Attempt,
    BatchResult,
    is_settled_by_line,
    read_record,
    record_id,
    write_record,
)

BODY = {"choices": [{"message": {"content": "你好\u2028"}}], "usage": {"total_tokens": 7}}
OK = BatchResult(
    custom_id="a",
    number=3,
    key="k" * 16,
    status=200,
    request_id="as-1",
    body=BODY,
    attempts=2,
    latency=0.8431,
    finished_at=0.123,
    cost=0.00012,
    metadata={"m": 1},
)


def test_success_is_written_as_documented() -> None:
    raw = write_record(OK, "batch_req_1")
    assert raw.count(b"\n") == 1
    assert "你好\u2028".encode() in raw
    assert json.loads(raw) == {
        "id": "batch_req_1",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "as-1", "body": BODY},
        "error": None,
        "metadata": {"m": 1},
        "x_ernie": {
            "v": 1,
            "line": 3,
            "key": "k" * 16,
            "attempts": 2,
            "latency_ms": 843,
            "finished_at": "1970-01-01T00:00:00.123Z",
            "cost": 0.00012,
        },
    }
    assert OK.text == "你好\u2028"
    assert OK.ok


def test_failure_without_an_answer_has_an_error() -> None:
    errors = [Attempt(float(n), "timeout", None) for n in range(12)]
    failed = BatchResult(
        custom_id="a", number=1, key="k", code="timeout", message="too long", errors=errors
    )
    told = json.loads(write_record(failed, "x"))
    assert told["response"] is None
    assert told["error"] == {"code": "timeout", "message": "too long"}
    assert len(told["x_ernie"]["errors"]) == 10
    assert told["x_ernie"]["errors"][-1]["time"] == "1970-01-01T00:00:11.000Z"
    assert "metadata" not in told
    assert failed.text == ""


def test_failure_with_an_answer_has_no_error() -> None:
    failed = BatchResult(custom_id="a", number=1, key="k", code="x", status=400, body="plain")
    told = json.loads(write_record(failed, "x"))
    assert told["response"]["body"] == "plain"
    assert told["error"] is None
    assert read_record(write_record(failed, "x")).code == "x"


def test_a_record_is_read_back() -> None:
    found = read_record(write_record(OK, "x"))
    assert found == ("a", "k" * 16, 3, None, 0.00012, 7)
    assert not is_settled_by_line(found)
    foreign = read_record(b'{"id": "x", "custom_id": "b", "response": null, "error": {"code": 1}}')
    assert foreign == ("b", None, 0, "1", 0.0, 0)
    assert is_settled_by_line(read_record(b'{"custom_id": null}'))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\0\0",
        b'{"custom_id": 1}',
        b'{"custom_id": "',
        b'{"custom_id": "a", "x_ernie": {"key": [1]}}',
        b'{"custom_id": "a", "x_ernie": {"line": 1e999}}',
        b'{"custom_id": "a", "x_ernie": {"line": 9223372036854775808}}',
        b'{"custom_id": "a", "x_ernie": {"cost": NaN}}',
        b'{"custom_id": "a", "response": {"body": {"usage": {"total_tokens": 1e999}}}}',
    ],
)
def test_what_is_no_record(raw) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - in whose words is all the same
        read_record(raw)


def test_metadata_that_is_no_json_stops_nothing() -> None:
    odd = {"nan": float("nan"), "raw": b"\xff", "day": date(2026, 1, 2), "it": object}
    failed = BatchResult(custom_id="a", number=1, key="k", code="x", metadata=odd)
    told = json.loads(write_record(failed, "x"), parse_constant=pytest.fail)["metadata"]
    assert (told["nan"], told["raw"], told["day"]) == (None, "_w==", "2026-01-02")


def test_ids_sort_by_time() -> None:
    ids = [record_id(moment, 2**80 - 1 - int(moment)) for moment in (0.001, 1.0, 1e9, 2e9)]
    assert ids == sorted(ids)
    assert len({len(name) for name in ids}) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
    max_leaves=10,
)  # fmt: skip


@given(json_values)
def test_any_answer_is_one_line(body: object) -> None:
    result = BatchResult(custom_id="a", number=1, key="k", status=200, body=body)
    raw = write_record(result, "x")
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["response"]["body"] == body


def test_results_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(OK)).body == BODY
