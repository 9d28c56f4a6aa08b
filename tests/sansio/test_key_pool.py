"""Which key is next, and which has to rest, on a clock of its own."""

import traceback
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import APIError, ConfigError
from ernie_async.sansio.auth import ApiKey, IamKeys
from ernie_async.sansio.key_pool import (
    COOL_SECONDS,
    QUARANTINE_SECONDS,
    Blame,
    KeyLane,
    KeyLanes,
    PooledKey,
    blame,
)
from ernie_async.sansio.refusals import refusal


def refused(status: int, code: str | None = None, **headers: str) -> APIError:
    body = {"error": {"code": code, "message": "x"}}
    return refusal(status, body, {k.replace("_", "-"): v for k, v in headers.items()}, utc_now=0.0)


QUOTA = refused(429, "rpm_rate_limit_exceeded")


def lanes_of(n: int, *, account: str | None = None) -> KeyLanes:
    return KeyLanes([PooledKey(f"bce-v3/ALTAK-planted{i}/x", account=account) for i in range(n)])


def take(lanes: KeyLanes, now: float = 0.0, user: str | None = None, model: str = "m") -> KeyLane:
    lane = lanes.choose(model, user, now)
    assert lane is not None
    lane.held.append(None)
    return lane


# Choosing


def test_calls_are_spread_evenly() -> None:
    lanes = lanes_of(4)
    for _ in range(40):
        take(lanes)
    assert [len(lane.held) for lane in lanes.lanes] == [10, 10, 10, 10]
    lanes.lanes[2].held.clear()
    assert [take(lanes) for _ in range(10)] == [lanes.lanes[2]] * 10


def test_one_after_the_other_uses_all_in_turn() -> None:
    lanes = lanes_of(3)
    turns = []
    for _ in range(6):
        lane = take(lanes)
        lane.held.clear()
        turns.append(lane.label[:5])
    assert turns == ["key 1", "key 2", "key 3"] * 2


@given(st.lists(st.text(), min_size=1, max_size=20), st.integers(2, 6))
def test_a_user_keeps_the_same_key_and_moves_only_if_that_rests(users: list[str], n: int) -> None:
    lanes, again = lanes_of(n), lanes_of(n)
    before = {user: take(lanes, user=user).label for user in users}
    assert {user: take(again, user=user).label for user in reversed(users)} == before
    gone = lanes.lanes[0]
    lanes.quarantine(gone, "x", 0.0)
    for user in users:
        now = take(lanes, user=user)
        assert now is not gone
        assert before[user] in {gone.label, now.label}


def test_users_are_spread_over_the_keys() -> None:
    lanes = lanes_of(4)
    counts = Counter(take(lanes, user=f"user {n}").label for n in range(4000))
    assert all(800 < count < 1200 for count in counts.values())


# Refusals


@pytest.mark.parametrize(
    ("status", "code", "what"),
    [
        (401, "invalid_iam_token", "key"),
        (403, "AccessDenied", "key"),
        (401, "coding_plan_api_key_not_allowed", "key"),
        (401, None, "key"),
        (401, "401", "key"),
        (200, "110", "key"),
        (403, "account_overdue", "account"),
        (403, "coding_plan_month_quota_exceeded", "account"),
        (402, None, "account"),
        (429, "rpm_rate_limit_exceeded", "quota"),
        (429, "tpm_rate_limit_exceeded", "quota"),
        (429, None, "quota"),
        (401, "invalid_model", None),
        (401, "invalid_appid", None),
        (401, "no_parameter_permission", None),
        (403, "model_offline", None),
        (403, "system_unsafe", None),
        (403, "something_new", None),
        (401, "something_new", None),
        (403, None, None),
        (429, "cluster_rate_limit_exceeded", None),
        (500, "internal_error", None),
        (400, "invalid_argument", None),
    ],
)
def test_the_code_says_whose_fault_it_is(status: int, code: str | None, what: Blame | None) -> None:
    assert blame(refused(status, code)) == what


def test_a_spent_quota_rests_for_its_account_and_model_alone() -> None:
    lanes = KeyLanes([PooledKey("a", account="x"), PooledKey("b", account="x"), PooledKey("c")])
    first, second, third = lanes.lanes
    assert lanes.refused(first, "m", QUOTA, 0.0)
    assert not lanes.is_ready(second, "m", 0.0)
    assert [take(lanes, model="m") for _ in range(3)] == [third] * 3
    assert lanes.is_ready(first, "other", 0.0)
    assert lanes.is_ready(first, "m", COOL_SECONDS[0])


def test_cooling_lasts_as_long_as_the_service_says_else_it_grows() -> None:
    lanes, now, times = lanes_of(1), 0.0, []
    [lane] = lanes.lanes
    for _ in range(6):
        for _ in range(100):  # all that were under way are refused
            lanes.refused(lane, "m", QUOTA, now)
        times.append(lanes.ready_in("m", now))
        now += times[-1]
    assert times == [5, 10, 20, 40, 60, 60]
    lanes.answered(lane, "m", now)
    lanes.refused(lane, "m", QUOTA, now)
    assert lanes.ready_in("m", now) == 5
    lanes.refused(lane, "m", refused(429, "rpm_rate_limit_exceeded", Retry_After="33"), now)
    assert lanes.ready_in("m", now) == 33
    # What began before the refusal says nothing.
    lanes.answered(lane, "m", now)
    assert lanes.ready_in("m", now) == 33


def test_quarantine_is_of_a_key_or_of_all_keys_of_its_account() -> None:
    lanes = KeyLanes([PooledKey("a", account="x"), PooledKey("b", account="x"), PooledKey("c")])
    first, second, third = lanes.lanes
    lanes.refused(first, "m", refused(401, "invalid_iam_token"), 0.0)
    assert [lanes.is_ready(lane, "other", 0.0) for lane in lanes.lanes] == [False, True, True]
    lanes.refused(second, "m", refused(403, "account_overdue"), 0.0)
    assert [lanes.is_ready(lane, None, 0.0) for lane in lanes.lanes] == [False, False, True]
    lanes.refused(third, "m", refused(401, "invalid_model"), 0.0)
    assert take(lanes) is third


def test_a_key_out_of_quarantine_is_tried_by_one_call() -> None:
    lanes = lanes_of(2)
    bad, good = lanes.lanes
    lanes.refused(bad, "m", refused(401, "invalid_iam_token"), 0.0)
    now = QUARANTINE_SECONDS[0]
    assert take(lanes, 0.0) is take(lanes, 0.0) is good
    assert [take(lanes, now) for _ in range(4)] == [bad, good, good, good]
    lanes.refused(bad, "m", refused(401, "invalid_iam_token"), now)
    bad.held.clear()
    assert lanes.health(now)[0].retry_after == 2 * QUARANTINE_SECONDS[0]
    now += 2 * QUARANTINE_SECONDS[0]
    assert take(lanes, now) is bad
    lanes.answered(bad, "m", now)
    assert [take(lanes, now) for _ in range(2)] == [bad, bad]


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 3), st.sampled_from(
    [(429, "rpm_rate_limit_exceeded"), (401, "invalid_iam_token"), (403, "account_overdue"), None]
))))  # fmt: skip
def test_there_is_a_key_at_the_moment_that_was_told(
    happened: list[tuple[float, int, tuple[int, str] | None]],
) -> None:
    lanes, now = lanes_of(4), 0.0
    for pause, which, what in happened:
        now += pause
        lane = lanes.lanes[which]
        if what is None:
            lanes.answered(lane, "m", now)
        else:
            lanes.refused(lane, "m", refused(*what), now)
        seconds = lanes.ready_in("m", now)
        assert (lanes.choose("m", None, now) is None) == (seconds > 0)
        assert lanes.choose("m", "user", now + seconds + 1e-6) is not None
        ready = [health.state == "ready" for health in lanes.health(now)]
        assert any(ready) == (seconds == 0)


# What is shown


def test_health_names_no_secret() -> None:
    lanes = lanes_of(3)
    take(lanes)
    lanes.refused(lanes.lanes[1], "m", QUOTA, 0.0)
    lanes.quarantine(lanes.lanes[2], "invalid_iam_token", 0.0)
    states = [(one.state, one.in_flight, one.retry_after, one.reason) for one in lanes.health(1.0)]
    assert states == [
        ("ready", 1, 0.0, ""),
        ("cooling", 0, 4.0, "rpm_rate_limit_exceeded"),
        ("quarantined", 0, 599.0, "invalid_iam_token"),
    ]
    labels = [one.label for one in lanes.health(0.0)]
    assert [label[:7] for label in labels] == ["key 1 (", "key 2 (", "key 3 ("]
    assert "planted" not in f"{lanes.health(0.0)} {lanes.lanes} {PooledKey('planted')}"


def test_what_is_no_key_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="expected a str, an ApiKey or IamKeys, got int"):
        PooledKey(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        PooledKey("planted secret")
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = "".join(told.format())
    assert "planted" not in shown.replace('PooledKey("planted secret")', "")


def test_any_credential_can_be_pooled() -> None:
    pair = IamKeys("ALTAKplanted", "secret")
    assert PooledKey(pair).account == pair.account
    assert PooledKey(ApiKey("x"), account="main").account == "main"


def test_a_key_can_be_cooled_for_no_fault_of_its_own() -> None:
    lanes = lanes_of(2)
    cooled, other = lanes.lanes
    lanes.cool(cooled, "the line is slow", 10.0)
    assert [take(lanes, 10.0) for _ in range(3)] == [other] * 3
    assert lanes.ready_in("m", 10.0) == 0.0
    lanes.cool(cooled, "the line is slow", 11.0)
    lanes.cool(other, "the line is slow", 12.0)
    assert lanes.choose("m", None, 12.0) is None
    assert lanes.ready_in("m", 12.0) == COOL_SECONDS[0] - 2.0, "the second was the same trouble"
    ready = 10.0 + COOL_SECONDS[0]
    assert lanes.choose("m", None, ready) is cooled
    lanes.cool(cooled, "the line is slow", ready)
    assert lanes.choose("m", None, ready + 2.0) is other
