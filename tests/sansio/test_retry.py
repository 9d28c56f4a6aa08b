"""Again or not, and after how long."""

import time
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    BlockedError,
    BudgetError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    DrainError,
    ErnieError,
    InterruptedStreamError,
    LimiterError,
    NoKeyError,
    NotFoundError,
    OutputError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
    ToolLoopError,
    TransportError,
)
from ernie_async.sansio.retry import RetryPolicy, may_pass, read_retry_after


@dataclass
class Fake:
    """Chance that always takes the same part of what it may, and tells what that was."""

    part: float = 1.0
    asked: tuple[float, float] = (nan, nan)

    def uniform(self, a: float, b: float, /) -> float:
        self.asked = (a, b)
        return a + self.part * (b - a)


PLAIN = ServerError("x", status=500)

# Every class, whether it may pass, and the longest wait before the second attempt.
EVERY_CLASS: list[tuple[ErnieError, float | None]] = [
    (ErnieError("x"), None),
    (ConfigError("x"), None),
    (TransportError("x"), None),
    (ConnectError("x"), 0.5),
    (ConnectError("x", was_sent=False), 0.5),
    (DeadlineError("x", clock="connect"), 0.5),
    (DeadlineError("x", clock="first_event"), 0.5),
    (DeadlineError("x", clock="idle"), 0.5),
    (DeadlineError("x", clock="total"), None),
    (InterruptedStreamError("x"), 0.5),
    (LimiterError("x"), 0.5),
    (DecodeError("x"), None),
    (CircuitOpenError("x", retry_after=1.0), None),
    (NoKeyError("x", retry_after=1.0), None),
    (APIError("x"), None),
    (AuthError("x"), None),
    (BadRequestError("x"), None),
    (NotFoundError("x"), None),
    (RateLimitError("x"), 4.0),
    (RateLimitError("x", retry_after=0.0), 0.5),
    (QuotaError("x"), None),
    (RefusedError("x"), None),
    (ServerError("x"), 0.5),
    (BlockedError("x"), None),
    (BudgetError("x"), None),
    (DrainError("x"), None),
    (OutputError("x"), None),
    (ToolLoopError("x"), None),
]


@pytest.mark.parametrize(("error", "delay"), EVERY_CLASS, ids=lambda value: type(value).__name__)
def test_every_class_of_error_is_decided(error: ErnieError, delay: float | None) -> None:
    assert RetryPolicy().delay(error, 1, 0.0, Fake()) == delay
    assert may_pass(error) == (delay is not None)


def test_table_above_has_every_class() -> None:
    def below(kind: type[ErnieError]) -> set[type[ErnieError]]:
        own = [one for one in kind.__subclasses__() if one.__module__ == kind.__module__]
        return {kind}.union(*map(below, own))  # a wing may have one of its own

    assert {type(error) for error, _ in EVERY_CLASS} == below(ErnieError)


def test_longest_wait_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(attempts=100, base_delay=0.5, max_delay=60.0)
    waits = [policy.delay(PLAIN, attempt, 0.0, Fake()) for attempt in range(1, 11)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_wait_for_a_quota_is_eight_times_longer_up_to_the_same_cap() -> None:
    policy = RetryPolicy(attempts=100)
    waits = [policy.delay(RateLimitError("x"), attempt, 0.0, Fake()) for attempt in range(1, 6)]
    assert waits == [4.0, 8.0, 16.0, 32.0, 60.0]


@pytest.mark.parametrize("part", [0.0, 0.25, 1.0])
def test_jitter_is_full(part: float) -> None:
    chance = Fake(part)
    assert RetryPolicy().delay(PLAIN, 3, 0.0, chance) == 2.0 * part
    assert chance.asked == (0.0, 2.0)


@pytest.mark.parametrize(("attempts", "attempt", "again"), [
    (1, 1, False), (2, 1, True), (2, 2, False), (5, 4, True), (5, 5, False), (5, 6, False),
])  # fmt: skip
def test_attempts_are_counted_in_all(attempts: int, attempt: int, again: bool) -> None:
    delay = RetryPolicy(attempts=attempts).delay(PLAIN, attempt, 0.0, Fake())
    assert (delay is not None) == again


def test_wait_is_never_shorter_than_what_the_service_asked_for() -> None:
    for kind in (RateLimitError, ServerError):
        assert RetryPolicy().delay(kind("x", retry_after=7.0), 1, 0.0, Fake(0.0)) == 7.0


def test_wait_may_be_longer_than_what_the_service_asked_for() -> None:
    assert RetryPolicy().delay(ServerError("x", retry_after=1.0), 4, 0.0, Fake()) == 4.0


@pytest.mark.parametrize(("asked", "again"), [(60.0, True), (60.1, False), (1e12, False)])
def test_service_that_asks_for_too_long_a_wait_is_not_asked_again(
    asked: float, again: bool
) -> None:
    delay = RetryPolicy().delay(RateLimitError("x", retry_after=asked), 1, 0.0, Fake())
    assert delay == (asked + 0.5 if again else None)  # not with all the others who were told so


@pytest.mark.parametrize(
    ("elapsed", "again"), [(0.0, True), (9.5, True), (9.51, False), (100.0, False)]
)
def test_no_attempt_starts_after_the_budget(elapsed: float, again: bool) -> None:
    delay = RetryPolicy(time_budget=10.0).delay(PLAIN, 1, elapsed, Fake())
    assert (delay is not None) == again


def test_many_attempts_overflow_nothing() -> None:
    policy = RetryPolicy(attempts=10**9)
    for attempt in (64, 65, 1025, 10**8):
        assert policy.delay(PLAIN, attempt, 0.0, Fake()) == 60.0


@given(
    st.floats(0, 100), st.floats(0, 100), st.integers(1, 10**6), st.floats(0, 1),
    st.none() | st.floats(0, 1000), st.booleans(),
)  # fmt: skip
def test_wait_is_always_within_its_bounds(
    base: float, most: float, attempt: int, part: float, asked: float | None, is_quota: bool
) -> None:
    policy = RetryPolicy(attempts=10**7, base_delay=base, max_delay=most, max_retry_after=500.0)
    error = (RateLimitError if is_quota else ServerError)("x", retry_after=asked)
    delay = policy.delay(error, attempt, 0.0, Fake(part))
    if asked is not None and asked > 500.0:
        assert delay is None
    else:
        assert delay is not None
        latest = 0.0 if asked is None else asked + min(base, most)
        assert (asked or 0.0) <= delay <= max(latest, most)


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"base_delay": -0.1},
        {"base_delay": nan},
        {"max_delay": -1.0},
        {"max_retry_after": -1.0},
        {"time_budget": -1.0},
        {"time_budget": nan},
        {"budget_ratio": -0.1},
        {"budget_ratio": inf},
        {"budget_ratio": nan},
        {"budget_floor": -1},
        {"budget_floor": 0.5},
    ],
)
def test_impossible_policy_is_refused_with_the_name_of_the_setting(
    settings: dict[str, float],
) -> None:
    [(name, value)] = settings.items()
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*, got {value}$"):
        RetryPolicy(**settings)  # type: ignore[arg-type]


def test_policies_are_compared_by_value() -> None:
    assert RetryPolicy(attempts=3) == RetryPolicy(attempts=3) != RetryPolicy()


# 2015-10-21 07:27:50 UTC, ten seconds before the dates below.
UTC_NOW = 1445412470.0


@pytest.mark.parametrize(
    ("retry_after", "retry_after_ms", "seconds"),
    [
        (None, None, None),
        ("5", None, 5.0),
        ("0", None, 0.0),
        (" 5 ", None, 5.0),
        ("1.5", None, 1.5),
        ("-5", None, 0.0),
        ("1e9", None, 1e9),
        ("86400000", None, 86_400_000.0),
        (None, "1500", 1.5),
        ("5", "1500", 1.5),
        ("5", "soon", 5.0),
        ("soon", "1500", 1.5),
        ("5", "nan", 5.0),
        ("nan", None, None),
        ("inf", None, None),
        ("soon", None, None),
        ("", None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None, 10.0),
        ("Wed, 21 Oct 2015 09:28:00 +0200", None, 10.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", None, 10.0),
        ("Wed Oct 21 07:28:00 2015", None, 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", None, 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "soon", 10.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None, None),
    ],
)
def test_retry_after_is_read_in_every_form(
    retry_after: str | None, retry_after_ms: str | None, seconds: float | None
) -> None:
    assert read_retry_after(retry_after, retry_after_ms, utc_now=UTC_NOW) == seconds


@pytest.mark.parametrize("zone", ["", " -0000"])
def test_date_without_a_zone_is_utc_wherever_the_program_runs(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        date = f"Wed, 21 Oct 2015 07:28:00{zone}"
        assert read_retry_after(date, None, utc_now=UTC_NOW) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Wed", "Foo"]), st.integers(0, 40), st.sampled_from(["Oct", "Foo"]),
    st.integers(0, 100_000), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99),
    st.sampled_from(["GMT", "+9999", "-2400", "-0000", ""]),
)  # fmt: skip


@given(st.text() | dates | st.floats().map(str), st.none() | st.text() | st.floats().map(str))
def test_no_header_is_too_odd_to_be_read(retry_after: str, retry_after_ms: str | None) -> None:
    seconds = read_retry_after(retry_after, retry_after_ms, utc_now=UTC_NOW)
    assert seconds is None or 0.0 <= seconds < inf


@pytest.mark.parametrize(
    ("policy", "asked", "told", "delay"),
    [
        ({}, None, {}, 5.0),
        ({}, 7.0, {}, 7.0),
        ({}, 60.0, {}, 60.0),
        ({}, 60.1, {}, None),
        ({"max_retry_after": 300.0}, 300.0, {}, 300.0),
        ({"attempts": 1}, None, {}, None),
        ({"attempts": 2}, None, {}, 5.0),
        ({}, None, {"waited": 59.9}, 5.0),
        ({}, None, {"waited": 60.0}, None),
        ({}, 0.1, {"refusals": 12}, 0.1),
        ({}, 0.1, {"refusals": 13}, None),
        ({}, 0.0, {}, None),
        ({"time_budget": 10.0}, None, {"elapsed": 5.0}, 5.0),
        ({"time_budget": 10.0}, None, {"elapsed": 5.1}, None),
    ],
)
def test_a_spent_quota_is_waited_for_within_bounds(
    policy: dict[str, Any], asked: float | None, told: dict[str, Any], delay: float | None
) -> None:
    known = {"refusals": 1, "waited": 0.0, "elapsed": 0.0, **told}
    assert RetryPolicy(**policy).quota_delay(asked, guess=5.0, **known) == delay


def test_who_found_the_line_too_long_is_not_asked_again() -> None:
    assert RetryPolicy().delay(DeadlineError("x", clock="queue"), 1, 0.0, Fake()) is None


@pytest.mark.parametrize("attempts", [1, 2, 5, 64, 65, 66, 67, 200])
@pytest.mark.parametrize("is_quota", [False, True])
def test_a_call_that_cannot_be_sent_is_patient_for_all_its_waits(
    attempts: int, is_quota: bool
) -> None:
    policy = RetryPolicy(attempts=attempts, max_delay=1e30)
    error = RateLimitError("x") if is_quota else PLAIN
    waits = [policy.delay(error, attempt, 0.0, Fake()) or 0.0 for attempt in range(1, attempts)]
    assert policy.patience(is_quota=is_quota) == pytest.approx(sum(waits))


def test_patience_with_any_number_of_attempts_is_told_at_once() -> None:
    assert RetryPolicy(attempts=10**9, max_delay=1.0).patience(is_quota=True) == 10**9 - 1
