"""When two requests are the same."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from ernie_async.sansio.single_flight import fingerprint

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(), VALUES, max_size=5)


@given(FIELDS, st.randoms())
def test_the_order_of_fields_does_not_matter(fields, chance) -> None:
    names = list(fields)
    chance.shuffle(names)
    shuffled = {name: fields[name] for name in names}
    assert fingerprint(to_json(fields), {}) == fingerprint(to_json(shuffled), {})


@given(FIELDS, FIELDS)
def test_other_fields_make_another_request(first, second) -> None:
    is_same = to_json(first) == to_json(second) or first == second
    if not is_same:
        assert fingerprint(to_json(first), {}) != fingerprint(to_json(second), {})


def test_headers_count_and_their_case_does_not() -> None:
    assert fingerprint(b"{}", {"X-A": "1"}) == fingerprint(b"{}", {"x-a": "1"})
    assert fingerprint(b"{}", {"X-A": "1"}) != fingerprint(b"{}", {"X-A": "2"})
    assert fingerprint(b"[1,2]", {}) != fingerprint(b"[2,1]", {})
