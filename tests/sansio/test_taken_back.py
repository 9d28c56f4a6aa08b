"""Places in a text of which parts were taken back."""

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.taken_back import ShownText

CHANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10), st.text("*", max_size=5)))


@given(CHANGES)
def test_places_are_those_of_what_readers_have(changes: list[tuple[int, int, str]]) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(50))
    shown, reader, gone = ShownText(), text, set()
    for start, length, new in changes:
        end = start + length
        place = shown.take_back(start, end, len(new))
        if place is None:
            assert set(range(start, end)) <= gone
            continue
        reader = reader[: place[0]] + new + reader[place[1] :]
        gone |= set(range(start, end))
        # What nobody took back is there, in its order, and nothing of the rest.
        assert reader.replace("*", "") == "".join(
            char for n, char in enumerate(text) if n not in gone
        )


def test_what_is_taken_back_twice_is_changed_once() -> None:
    shown = ShownText()
    assert shown.take_back(10, 12, 1) == (10, 12)
    assert shown.take_back(20, 21, 5) == (19, 20)
    assert shown.take_back(10, 12, 1) is None
    assert shown.take_back(11, 14, 0) == (11, 13)  # behind what stands there already
    assert shown.take_back(0, 30, 3) == (0, 31)
    assert shown.take_back(40, 41, 1) == (13, 14)
