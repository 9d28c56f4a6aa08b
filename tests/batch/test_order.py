"""Results are told in the order of their lines."""

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.batch.order import Order


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
