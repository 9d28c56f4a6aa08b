"""Counts of the last seconds, against a list of everything that happened."""

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.recent import Recent

SPAN = 10.0
happenings = st.lists(st.tuples(st.floats(0, 8), st.integers(0, 3), st.integers(0, 3)))


@given(happenings)
def test_sums_are_those_of_between_half_the_span_and_all_of_it(
    happened: list[tuple[float, int, int]],
) -> None:
    recent, now = Recent(SPAN, 0.0), 0.0
    told: list[tuple[float, int, int]] = []
    for pause, a, b in happened:
        now += pause
        recent.add(now, a, b)
        told.append((now, a, b))
        for which, counted in enumerate(recent.sums(now), start=1):
            least = sum(one[which] for one in told if one[0] > now - SPAN / 2)
            most = sum(one[which] for one in told if one[0] >= now - SPAN * (1 + 1e-9))
            assert least <= counted <= most


def test_nothing_is_left_after_a_silence() -> None:
    recent = Recent(SPAN, 0.0)
    recent.add(0.0, 5, 7)
    assert recent.sums(4.9) == recent.sums(9.9) == (5, 7)
    assert recent.sums(10.0) == (0, 0)
    recent.add(100.0, 1, 0)
    recent.clear(100.0)
    assert recent.sums(100.0) == (0, 0)
