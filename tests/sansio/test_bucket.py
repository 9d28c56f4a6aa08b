"""The token bucket, on a clock of its own."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.bucket import Limits, TokenBucket

Grant = tuple[float, float]  # when, how much


def serve(bucket: TokenBucket, arrivals: list[Grant]) -> list[Grant]:
    """First come, first served: when each amount is taken."""
    grants: list[Grant] = []
    now = 0.0
    for pause, amount in arrivals:
        now += pause
        at = bucket.ready_at(amount, max(now, grants[-1][0] if grants else 0.0))
        bucket.take(amount, at)
        grants.append((at, amount))
    return grants


# Pauses in seconds and amounts; bursts, trickles and long silences.
pauses = st.sampled_from([0.0, 0.0, 0.0, 1e-3]) | st.floats(0, 1) | st.floats(0, 1000)
rates = st.sampled_from([1 / 60, 0.1, 1.0, 5.0, 10_000.0]) | st.floats(0.01, 1000)
capacities = st.sampled_from([1.0, 5.0, 25_000.0]) | st.floats(1, 1000)


@given(rates, capacities, st.lists(st.tuples(pauses, st.floats(0, 1)), max_size=30))
def test_no_window_ever_gets_more_than_capacity_and_what_flowed_in(
    rate: float, capacity: float, arrivals: list[Grant]
) -> None:
    bucket = TokenBucket(rate, capacity, 0.0)
    grants = serve(bucket, [(pause, part * capacity) for pause, part in arrivals])
    for first, (begin, _) in enumerate(grants):
        taken = 0.0
        for end, amount in grants[first:]:
            taken += amount
            assert taken <= (capacity + rate * (end - begin)) * (1 + 1e-9) + 1e-4


@given(rates, capacities, st.lists(st.tuples(pauses, st.floats(0, 20)), max_size=30))
def test_debt_of_something_too_large_is_paid_back_by_those_that_follow(
    rate: float, capacity: float, arrivals: list[Grant]
) -> None:
    bucket = TokenBucket(rate, capacity, 0.0)
    grants = serve(bucket, [(pause, part * capacity) for pause, part in arrivals])
    for first, (begin, _) in enumerate(grants):
        before = 0.0
        for end, amount in grants[first:]:
            # Whatever went before was paid for, and for this one the bucket held what it can.
            needed = before + min(amount, capacity)
            assert needed <= (capacity + rate * (end - begin)) * (1 + 1e-9) + 1e-4
            before += amount


@given(rates, capacities, st.lists(st.tuples(pauses, st.floats(0, 20)), max_size=30))
def test_nobody_waits_longer_than_needed(
    rate: float, capacity: float, arrivals: list[Grant]
) -> None:
    bucket = TokenBucket(rate, capacity, 0.0)
    now = 0.0
    for pause, part in arrivals:
        now += pause
        level = bucket.level(now)
        at = bucket.ready_at(part * capacity, now)
        assert at >= now
        missing = min(part, 1.0) * capacity - level
        assert at - now <= max(0.0, missing) / rate * (1 + 1e-9) + 1e-9
        bucket.take(part * capacity, at)
        now = at


def test_bucket_starts_full_and_never_holds_more() -> None:
    bucket = TokenBucket(2.0, 10.0, 100.0)
    assert bucket.level(100.0) == bucket.level(1e9) == 10.0


def test_bucket_fills_at_its_rate() -> None:
    bucket = TokenBucket(2.0, 10.0, 0.0)
    bucket.take(10.0, 0.0)
    assert bucket.level(0.0) == 0.0
    assert bucket.level(3.0) == 6.0
    assert bucket.ready_at(7.0, 3.0) == 3.5


def test_asking_takes_nothing() -> None:
    bucket = TokenBucket(1.0, 1.0, 0.0)
    assert [bucket.ready_at(1.0, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_too_large_an_amount_passes_when_the_bucket_is_full_and_the_next_one_waits() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(1.0, 0.0)
    assert bucket.ready_at(100.0, 0.0) == 1.0
    bucket.take(100.0, 1.0)
    assert bucket.level(1.0) == -90.0
    assert bucket.ready_at(1.0, 1.0) == 92.0


def test_six_requests_a_minute_go_ten_seconds_apart() -> None:
    bucket = TokenBucket.per_minute(6.0, None, 0.0)
    assert [round(at, 6) for at, _ in serve(bucket, [(0.0, 1.0)] * 4)] == [0.0, 10.0, 20.0, 30.0]


def test_one_request_in_two_minutes_is_possible() -> None:
    bucket = TokenBucket.per_minute(0.5, None, 0.0)
    assert [round(at, 6) for at, _ in serve(bucket, [(0.0, 1.0)] * 3)] == [0.0, 120.0, 240.0]


@pytest.mark.parametrize(
    ("quota", "burst", "capacity"),
    [(300.0, None, 25.0), (6.0, None, 1.0), (300_000.0, None, 25_000.0), (300.0, 1.0, 1.0),
     (6.0, 10.0, 10.0)],
)  # fmt: skip
def test_five_seconds_worth_may_go_at_once(
    quota: float, burst: float | None, capacity: float
) -> None:
    bucket = TokenBucket.per_minute(quota, burst, 0.0)
    assert bucket.capacity == capacity
    assert bucket.rate == quota / 60


def test_minute_gets_its_quota_and_the_burst_at_most() -> None:
    bucket = TokenBucket.per_minute(300.0, None, 0.0)
    grants = serve(bucket, [(0.0, 1.0)] * 1000)
    assert sum(1 for at, _ in grants if at < 60.1) == 325


def test_what_is_given_back_can_be_taken_again() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(10.0, 0.0)
    bucket.give(4.0, 0.0)
    assert bucket.level(0.0) == 4.0


def test_giving_back_a_negative_amount_takes_more() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.give(-15.0, 0.0)
    assert bucket.level(0.0) == -5.0


@given(capacities, st.lists(st.floats(-100, 100), max_size=20))
def test_giving_back_never_overfills(capacity: float, amounts: list[float]) -> None:
    bucket = TokenBucket(1.0, capacity, 0.0)
    for now, amount in enumerate(amounts):
        bucket.give(amount, float(now))
        assert bucket.level(float(now)) <= capacity


@given(
    rates,
    capacities,
    st.lists(st.tuples(pauses, st.floats(0, 1), st.booleans()), max_size=20),
)
def test_what_is_taken_back_leaves_no_more_than_if_it_had_never_been_taken(
    rate: float, capacity: float, arrivals: list[tuple[float, float, bool]]
) -> None:
    bucket, other = TokenBucket(rate, capacity, 0.0), TokenBucket(rate, capacity, 0.0)
    now, in_vain = 0.0, []
    for pause, part, is_in_vain in arrivals:
        now = bucket.ready_at(part * capacity, now + pause)
        missing = bucket.take(part * capacity, now)
        if is_in_vain:
            in_vain.append((part * capacity, missing, now))
        else:
            other.take(part * capacity, now)
    for amount, missing, taken in in_vain:
        bucket.take_back(amount, missing, taken, now)
    assert bucket.level(now) <= other.level(now) + 1e-6 * (1 + capacity)


def test_what_is_taken_back_soon_is_all_there() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    missing = [bucket.take(4.0, 0.0) for _ in range(2)]
    bucket.take_back(4.0, missing[1], 0.0, 2.0)
    assert bucket.level(2.0) == 8.0


def test_clock_that_goes_back_takes_nothing_away() -> None:
    bucket = TokenBucket(1.0, 10.0, 100.0)
    bucket.take(10.0, 100.0)
    bucket.take(0.0, 50.0)
    assert bucket.level(50.0) == 0.0
    assert bucket.level(101.0) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"requests_per_minute": 0},
        {"requests_per_minute": -1},
        {"requests_per_minute": inf},
        {"requests_per_minute": nan},
        {"tokens_per_minute": 0},
        {"tokens_per_minute": inf},
        {"concurrency": 0},
        {"concurrency": nan},
        {"concurrency": 1.5},
        {"burst": 0.5},
        {"burst": inf},
    ],
)
def test_impossible_limit_is_refused_with_its_name(settings: dict[str, float]) -> None:
    [(name, value)] = settings.items()
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*, or None, got {value}$"):
        Limits(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "is_unlimited"),
    [
        (Limits(), True),
        (Limits(burst=3), True),
        (Limits(requests_per_minute=1), False),
        (Limits(tokens_per_minute=1), False),
        (Limits(concurrency=1), False),
    ],
)
def test_without_any_limit_there_is_nothing_to_wait_for(limits: Limits, is_unlimited: bool) -> None:
    assert limits.is_unlimited is is_unlimited


def test_what_was_taken_before_the_quota_changed_is_not_put_back() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    missing = bucket.take(4.0, 0.0)
    bucket.take_back(1.0, missing, 0.0, 0.0)
    assert bucket.level(0.0) == 7.0
    bucket.change_quota(120.0, 10.0, 1.0)
    before = bucket.level(1.0)
    bucket.take_back(3.0, missing, 0.0, 1.0)
    assert bucket.level(1.0) == before
