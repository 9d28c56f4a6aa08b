"""No event of an answer is told twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import DecodeError
from ernie_async.sansio.event_ids import EventLedger


def read(ids: list[str], answer_id: str | None = "as-1") -> EventLedger:
    ledger = EventLedger()
    assert all(ledger.admit(event_id, answer_id) for event_id in ids)
    return ledger


def test_events_of_one_response_are_all_new_even_with_one_id() -> None:
    assert read(["1", "2", "2", "", "3"]).last_event_id == "3"


@given(st.lists(st.text(min_size=1, max_size=3), unique=True, min_size=1), st.data())
def test_what_was_read_is_dropped_from_a_replay(ids: list[str], data: st.DataObject) -> None:
    read_before = data.draw(st.integers(1, len(ids)))
    starts_at = data.draw(st.integers(0, read_before))
    ledger = read(ids[:read_before])
    ledger.begin_replay()
    new = [event_id for event_id in ids[starts_at:] if ledger.admit(event_id, "as-1")]
    assert new == ids[read_before:]


def test_the_rest_may_come_under_another_answer_id() -> None:
    ledger = read(["1", "2"])
    ledger.begin_replay()
    assert ledger.admit("3", "as-2")


@pytest.mark.parametrize(("event_id", "answer_id"), [("1", "as-2"), ("", "as-1"), ("", None)])
def test_another_answer_is_refused(event_id: str, answer_id: str | None) -> None:
    ledger = read(["1", "2"])
    ledger.begin_replay()
    with pytest.raises(DecodeError, match="does not resume"):
        ledger.admit(event_id, answer_id)


def test_an_answer_may_be_replayed_more_than_once() -> None:
    ledger = read(["1", "2"])
    for more in ("3", "4"):
        ledger.begin_replay()
        assert not ledger.admit("1", "as-1")
        assert ledger.admit(more, "as-1")
    assert ledger.last_event_id == "4"
