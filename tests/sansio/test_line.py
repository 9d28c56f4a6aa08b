"""Who is next."""

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.line import TURNS, Line, Ticket


def ticket(tokens: int = 0, *, is_batch: bool = False) -> Ticket:
    return Ticket(tokens, is_batch=is_batch)


def served(line: Line) -> list[Ticket]:
    order = []
    while (first := line.first()) is not None:
        line.pop(first)
        order.append(first)
    return order


def test_first_come_first_served() -> None:
    line = Line()
    tickets = [ticket() for _ in range(5)]
    for one in tickets:
        line.join(one)
    assert served(line) == tickets
    assert line.first() is None


def test_batch_waits_for_eight_others_and_no_more() -> None:
    line = Line()
    batch = [ticket(is_batch=True) for _ in range(3)]
    others = [ticket() for _ in range(20)]
    for one in [*batch, *others]:
        line.join(one)
    order = served(line)
    assert [one for one in order if one.is_batch] == batch
    assert [one for one in order if not one.is_batch] == others
    assert [place for place, one in enumerate(order) if one.is_batch] == [8, 17, 22]


def test_those_who_went_while_no_batch_waited_do_not_count() -> None:
    line = Line()
    for _ in range(7):
        line.join(ticket())
    served(line)
    late = ticket(is_batch=True)
    line.join(late)
    for _ in range(TURNS):
        line.join(ticket())
    assert served(line)[TURNS] is late


def test_whoever_leaves_is_forgotten() -> None:
    line = Line()
    first, second = ticket(3), ticket(4)
    line.join(first)
    line.join(second)
    assert line.leave(first)
    assert not line.leave(first)
    assert (len(line), line.tokens, line.position(first), line.position(second)) == (1, 4, 0, 1)


@given(
    st.lists(st.tuples(st.sampled_from(["batch", "other", "pop", "leave"]), st.integers(0, 9))),
)
def test_positions_tell_the_order_in_which_all_are_served(events: list[tuple[str, int]]) -> None:
    line = Line()
    inside: list[Ticket] = []
    for what, number in events:
        if what == "pop":
            if (first := line.first()) is not None:
                line.pop(first)
                inside.remove(first)
        elif what == "leave":
            if inside:
                line.leave(inside.pop(number % len(inside)))
        else:
            is_batch = what == "batch"
            n, tokens = line.before(is_batch=is_batch)
            new = ticket(number, is_batch=is_batch)
            line.join(new)
            inside.append(new)
            assert line.position(new) == n + 1
            assert 0 <= tokens <= line.tokens - number + 1e-6
    places = {id(one): line.position(one) for one in inside}
    assert len(line) == len(inside)
    assert line.tokens == sum(one.tokens for one in inside)
    order = served(line)
    assert [places[id(one)] for one in order] == list(range(1, len(order) + 1))
    assert line.tokens == 0


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 20))
def test_the_order_of_a_look_is_the_order_of_service(kinds: list[bool], n_gone: int) -> None:
    line = Line()
    for is_batch in kinds:
        line.join(ticket(is_batch=is_batch))
    for _ in range(min(n_gone, len(line))):
        first = line.first()
        assert first is not None
        line.pop(first)
    seen = list(line)
    assert all(one in line for one in seen)
    assert ticket() not in line
    assert served(line) == seen


def test_places_tell_the_turns_of_batch() -> None:
    line = Line()
    others = [ticket(10) for _ in range(TURNS + 2)]
    batch = [ticket(100, is_batch=True) for _ in range(3)]
    for one in [*others, *batch]:
        line.join(one)
    assert [line.position(one) for one in batch] == [TURNS + 1, TURNS + 4, TURNS + 5]
    assert [line.position(one) for one in others[-3:]] == [TURNS, TURNS + 2, TURNS + 3]
    assert line.before(is_batch=True) == (TURNS + 5, 10 * (TURNS + 2) + 300)
    assert line.before(is_batch=False) == (TURNS + 3, 10 * (TURNS + 2) + 100)
