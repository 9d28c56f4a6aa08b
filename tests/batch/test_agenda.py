"""What comes next, and in which order results are told."""

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.batch.agenda import Agenda, Order


def test_due_lines_go_before_new_ones() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.add("new")
    agenda.add_at("later", 5.0)
    agenda.add_at("soon", 2.0)
    assert agenda.next_due() == 2.0
    assert agenda.pop(1.0) == "new"
    assert agenda.peek(1.0) is None
    assert agenda.peek(2.0) == "soon"
    assert [agenda.pop(9.0), agenda.pop(9.0)] == ["soon", "later"]
    assert (len(agenda), agenda.next_due()) == (0, None)


def test_clear_takes_all() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.add("new")
    agenda.add_at("b", 2.0)
    agenda.add_at("a", 1.0)
    assert agenda.waiting == 2
    assert agenda.clear() == ["a", "b", "new"]
    assert len(agenda) == 0


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_results_are_told_in_order_whatever_order_they_come_in(
    came: list[int], failed: set[int]
) -> None:
    order: Order[str] = Order(12)
    assert [order.begin() for _ in range(12)] == list(range(12))
    assert not order.has_room
    told = []
    for place in came:
        told += order.end(place, None if place in failed else str(place))
        assert told == [str(n) for n in range(12) if n not in failed][: len(told)]
    assert len(told) == 12 - len(failed)
    assert order.has_room
