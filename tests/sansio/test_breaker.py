"""The circuit breaker, on a clock of its own."""

import copy
import pickle
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import (
    AuthError,
    BadRequestError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.breaker import MAX_CIRCUITS, Breaker, BreakerPolicy, Circuit, is_outage
from ernie_async.sansio.refusals import refusal


class Longest:
    """Instead of chance: always the largest number."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


CHANCE = Longest()
POLICY = BreakerPolicy(failures=4, window=10, open_for=1, max_open=5, successes=2)


def fail(circuit: Circuit, now: float, times: int = 1) -> None:
    for _ in range(times):
        assert circuit.enter(now)
        circuit.failed(circuit.epoch, now, CHANCE, "it broke")


def succeed(circuit: Circuit, now: float, times: int = 1) -> None:
    for _ in range(times):
        assert circuit.enter(now)
        circuit.succeeded(circuit.epoch, now)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit(POLICY, now)
    fail(circuit, now, POLICY.failures)
    assert circuit.state == "open"
    return circuit


# When it opens


def test_fewer_failures_than_the_policy_says_never_open_it() -> None:
    circuit = Circuit(POLICY, 0.0)
    fail(circuit, 0.0, 3)
    assert (circuit.state, circuit.wait(0.0, CHANCE)) == ("closed", 0.0)
    fail(circuit, 0.0)
    assert (circuit.state, circuit.last_failure) == ("open", "it broke")


def test_one_slow_caller_of_a_server_that_is_down_is_not_stopped_by_default() -> None:
    circuit = Circuit(BreakerPolicy(), 0.0)
    for second in range(1000):  # about as fast as the default policy retries
        fail(circuit, float(second))
    assert circuit.state == "closed"


def test_failures_that_are_a_small_share_do_not_open_it() -> None:
    circuit = Circuit(POLICY, 0.0)
    for _ in range(100):
        succeed(circuit, 0.0, 2)
        fail(circuit, 0.0)
    assert circuit.state == "closed"


def test_a_server_that_fails_every_second_time_is_asked_on() -> None:
    circuit = Circuit(BreakerPolicy(), 0.0)
    for _ in range(1000):
        fail(circuit, 0.0)
        succeed(circuit, 0.0)
    assert circuit.state == "closed"


def test_good_answers_before_an_outage_do_not_hide_it() -> None:
    circuit, policy = Circuit(BreakerPolicy(), 0.0), BreakerPolicy()
    succeed(circuit, 0.0, 10_000)
    failures = 0
    while circuit.state == "closed":
        fail(circuit, 0.1)
        failures += 1
    assert failures == 2 * policy.failures * policy.share == 30


def test_failures_of_long_ago_do_not_count() -> None:
    circuit = Circuit(POLICY, 0.0)
    fail(circuit, 0.0, 3)
    fail(circuit, 11.0, 3)
    assert circuit.state == "closed"


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ServerError("x"), True),
        (ConnectError("x"), True),
        (InterruptedStreamError("x"), True),
        (DeadlineError("x", clock="first_event"), True),
        (DeadlineError("x", clock="total"), False),
        (DeadlineError("x", clock="queue"), False),
        (refusal(429, {"error": {"code": "cluster_rpm_rate_limit_exceeded"}}, {}, utc_now=0), True),
        (refusal(503, b"", {}, utc_now=0), True),
        (refusal(529, b"", {}, utc_now=0), True),
        (refusal(429, {"error": {"code": "rpm_rate_limit_exceeded"}}, {}, utc_now=0), False),
        (refusal(429, b"", {}, utc_now=0), False),
        (RateLimitError("x"), False),
        (QuotaError("x"), False),
        (AuthError("x"), False),
        (BadRequestError("x"), False),
        (NotFoundError("x"), False),
        (DecodeError("x"), False),
        (CircuitOpenError("x"), False),
    ],
)
def test_only_what_says_that_the_server_is_not_well_counts(error: ErnieError, counts: bool) -> None:
    assert is_outage(error) == counts


# While it is open


def test_nothing_goes_until_the_time_is_over_and_then_one_at_a_time() -> None:
    circuit = opened()
    assert not circuit.enter(0.99)
    assert circuit.opens_in(0.25) == 0.75
    assert circuit.enter(1.0)
    assert circuit.state == "half-open"
    assert not circuit.enter(1.0)
    circuit.succeeded(circuit.epoch, 1.1)
    assert circuit.enter(1.1)
    assert not circuit.enter(1.1)


def test_a_few_successes_close_it() -> None:
    circuit = opened()
    succeed(circuit, 1.0)
    assert circuit.state == "half-open"
    succeed(circuit, 1.0)
    assert circuit.state == "closed"
    fail(circuit, 1.0, 3)  # and what was before is forgotten
    assert circuit.state == "closed"


def test_each_probe_that_fails_doubles_the_time_up_to_the_longest() -> None:
    circuit, now, times = opened(), 0.0, []
    for _ in range(5):
        times.append(circuit.opens_in(now))
        now += times[-1]
        fail(circuit, now)
    assert times == [1.0, 2.0, 4.0, 5.0, 5.0]
    now += circuit.opens_in(now)
    succeed(circuit, now, 2)
    fail(circuit, now, POLICY.failures)
    assert circuit.opens_in(now) == 1.0


def test_a_probe_that_takes_long_makes_room_for_another() -> None:
    circuit = opened()
    assert circuit.enter(1.0)
    assert not circuit.enter(1.9)
    assert circuit.enter(2.0)
    circuit.succeeded(circuit.epoch, 2.5)
    circuit.succeeded(circuit.epoch, 2.5)
    assert circuit.state == "closed"


def test_a_probe_that_was_left_makes_room_at_once() -> None:
    circuit = opened()
    assert circuit.enter(1.0)
    circuit.let_go(circuit.epoch, 1.1)
    assert (circuit.state, circuit.enter(1.1)) == ("half-open", True)


def test_what_began_before_tells_nothing_any_more() -> None:
    circuit = Circuit(POLICY, 0.0)
    before = circuit.epoch
    fail(circuit, 0.0, POLICY.failures)
    circuit.succeeded(before, 0.5)
    circuit.let_go(before, 0.5)
    assert not circuit.enter(0.9)
    assert circuit.enter(1.0)
    circuit.failed(before, 1.0, CHANCE, "late")
    circuit.succeeded(before, 1.0)
    circuit.succeeded(before, 1.0)
    assert (circuit.state, circuit.last_failure) == ("half-open", "it broke")


def test_those_who_wait_do_not_come_back_at_once() -> None:
    circuit, chance = opened(), Random(1)
    waits = [circuit.wait(0.0, chance) for _ in range(1000)]
    assert 1.0 <= min(waits) < 1.01
    assert 1.99 < max(waits) <= 2.0
    assert circuit.enter(1.0)
    waits = [circuit.wait(1.0, chance) for _ in range(1000)]
    assert 0.5 <= min(waits) < max(waits) <= 1.0


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 300))
def test_an_outage_is_asked_about_as_often_as_the_policy_says(
    seed: int, up: float, seconds: int
) -> None:
    """Whatever comes and goes, an open circuit lets few through: none twice within its time."""
    chance, policy = Random(seed), BreakerPolicy(failures=4, open_for=1, max_open=8)
    circuit, now = Circuit(policy, 0.0), 0.0
    passed: list[float] = []
    while now < seconds:
        before = circuit.state
        if circuit.enter(now):
            epoch = circuit.epoch
            if before != "closed":
                passed.append(now)
            if chance.random() < up:
                circuit.succeeded(epoch, now)
            else:
                circuit.failed(epoch, now, chance, "x")
                if before != "closed":
                    assert circuit.opens_in(now) >= 0.75
        else:
            assert circuit.wait(now, chance) >= circuit.opens_in(now) > 0.0
        now += chance.uniform(0.0, 0.3)
    # In each of at least 0.75 s there are a failed probe and those that succeeded before it.
    assert len(passed) <= policy.successes * (seconds / 0.75 + 1)


# Settings, and the circuits of a client


@pytest.mark.parametrize(
    "settings",
    [{"failures": 0}, {"failures": 2.5}, {"share": 0}, {"share": 1.5}, {"window": 0},
     {"open_for": float("inf")}, {"max_open": -1}, {"successes": 0}],
)  # fmt: skip
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BreakerPolicy(**settings)


def test_each_host_and_model_has_a_circuit_of_its_own() -> None:
    breaker = Breaker(POLICY)
    circuit = breaker.circuit("http://a", "m", 0.0)
    assert breaker.circuit("http://a", "m", 5.0) is circuit
    fail(circuit, 0.0, 4)
    for where in (("http://b", "m"), ("http://a", "n"), ("http://a", None)):
        assert breaker.circuit(*where, 0.0).enter(0.0)
    assert breaker.states() == {
        ("http://a", "m"): "open",
        ("http://b", "m"): "closed",
        ("http://a", "n"): "closed",
        ("http://a", None): "closed",
    }


def test_names_of_strangers_do_not_fill_the_memory() -> None:
    breaker = Breaker(POLICY)
    for number in range(10 * MAX_CIRCUITS):
        breaker.circuit("http://a", f"model {number}", 0.0)
    assert len(breaker.states()) <= MAX_CIRCUITS


def test_a_breaker_travels_as_its_policy_and_is_shared_by_copies() -> None:
    breaker = Breaker(POLICY)
    fail(breaker.circuit("http://a", "m", 0.0), 0.0, 4)
    other = pickle.loads(pickle.dumps(breaker))
    assert (other.policy, other.states()) == (POLICY, {})
    assert copy.deepcopy(breaker) is breaker
