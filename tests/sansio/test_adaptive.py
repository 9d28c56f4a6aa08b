"""Adaptive concurrency: its rules one by one, and what they make of a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.adaptive import SETTLED, simulate
from ernie_async.errors import ConfigError
from ernie_async.sansio.adaptive import Adaptive, ConcurrencyControl

END = 90.0


@pytest.mark.parametrize("holds", [4, 16, 64, 200])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_server_holds_is_found_and_hardly_exceeded(holds: int, seed: int) -> None:
    run = simulate([(0.0, holds)], seed=seed, end=END)
    assert 0.8 * holds <= run.mean(SETTLED, END) <= holds
    assert run.refused(SETTLED, END) < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_less_is_found_within_5_seconds(seed: int) -> None:
    run = simulate([(0.0, 64), (60.0, 16)], seed=seed, end=70.0)
    assert run.mean(50.0, 60.0) > 48
    assert run.level(65.0) <= 20


@pytest.mark.parametrize("seed", range(5))
def test_more_is_found_within_90_seconds(seed: int) -> None:
    run = simulate([(0.0, 16), (60.0, 64)], seed=seed)
    assert run.reaches(41, 60.0) <= 90


def grown(control: ConcurrencyControl, n_successes: int, now: float = 0.0) -> ConcurrencyControl:
    for _ in range(n_successes):
        control.succeeded(control.epoch, control.limit, now)
    return control


def test_it_starts_with_8_or_with_the_most_and_never_with_less_than_the_least() -> None:
    assert ConcurrencyControl(Adaptive(), 0.0).limit == 8
    assert ConcurrencyControl(Adaptive(max=3), 0.0).limit == 3
    assert ConcurrencyControl(Adaptive(min=20), 0.0).limit == 20


def test_every_success_adds_one_until_the_first_congestion() -> None:
    control = grown(ConcurrencyControl(Adaptive(), 0.0), 10)
    assert control.limit == 18
    control.congested(control.started(), 0.0)
    assert control.limit == 10  # 18 * 0.6
    assert grown(control, 10).limit == 11  # one for each round of ten


def test_what_is_not_used_does_not_grow() -> None:
    control = ConcurrencyControl(Adaptive(), 0.0)
    control.succeeded(0, 6, 0.0)
    assert control.limit == 8
    control.succeeded(0, 7, 0.0)
    assert control.limit == 9


def test_a_small_limit_with_a_fraction_still_grows() -> None:
    control = ConcurrencyControl(Adaptive(start=4), 0.0)
    control.congested(0, 0.0)
    control.congested(1, 0.0)
    assert control.limit == 1  # 1.44
    assert grown(control, 2, now=40.0).limit == 2


def test_one_wave_of_refusals_counts_once() -> None:
    control = grown(ConcurrencyControl(Adaptive(), 0.0), 92)
    epoch = control.started()
    for _ in range(30):
        control.congested(epoch, 0.0)
    assert (control.limit, control.epoch) == (60, epoch + 1)


def test_what_was_too_much_is_remembered_for_30_seconds() -> None:
    control = grown(ConcurrencyControl(Adaptive(), 0.0), 12)
    control.congested(0, 100.0)
    assert grown(control, 500, now=129.9).limit == 19
    assert grown(control, 10, now=130.0).limit == 20


def test_answers_at_half_the_speed_cut_the_limit_a_little_and_once() -> None:
    control = grown(ConcurrencyControl(Adaptive(start=100), 0.0), 0)
    for _ in range(50):
        control.succeeded(0, 1, 0.0, 20.0)
    for _ in range(25):  # the median is still a quick one
        control.succeeded(0, 1, 0.0, 41.0)
    assert control.limit == 100
    for _ in range(49):
        control.succeeded(control.epoch, 1, 0.0, 41.0)
    assert (control.limit, control.epoch) == (90, 1)
    for _ in range(50):
        control.succeeded(control.epoch, 1, 0.0, 41.0)
    assert (control.limit, control.epoch) == (81, 2)


@given(
    st.integers(1, 20),
    st.integers(0, 300),
    st.lists(st.tuples(st.booleans(), st.floats(0, 60), st.integers(0, 300)), max_size=200),
)
def test_the_limit_stays_within_its_bounds(
    least: int, more: int, events: list[tuple[bool, float, int]]
) -> None:
    control = ConcurrencyControl(Adaptive(min=least, max=least + more), 0.0)
    now = 0.0
    for is_success, pause, in_flight in events:
        now += pause
        if is_success:
            control.succeeded(control.started(), in_flight, now)
        else:
            control.congested(control.started(), now)
        assert least <= control.limit <= least + more
        assert control.admits(control.limit - 1)
        assert not control.admits(control.limit)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0}, "start: expected a whole number of at least 1, got 0"),
        ({"min": 1.5}, "min: expected a whole number of at least 1, got 1.5"),
        ({"max": -1}, "max: expected a whole number of at least 1, got -1"),
        ({"min": 9, "max": 8}, "max: expected at least min, 9, got 8"),
    ],
)
def test_impossible_bounds_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Adaptive(**settings)
    assert str(caught.value) == message
