"""One quota on a clock of its own: random calls, cancellations, and limits that change."""

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.lane import Lane
from ernie_async.sansio.line import Ticket
from ernie_async.sansio.rate_headers import RateHeaders

# What happens at a lane, and after which pause in seconds.
pauses = st.sampled_from([0.0, 0.0, 0.0, 0.01]) | st.floats(0, 2) | st.floats(0, 30)
limits_told = st.sampled_from([None, 1.0, 6.0, 30.0, 60.0, 600.0, 6000.0])
events = st.tuples(
    pauses,
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 400), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("end"), st.integers(0, 50)),
        st.tuples(st.just("unsent"), st.integers(0, 50)),
        st.tuples(st.just("told"), limits_told, limits_told),
        st.tuples(st.just("refused"), st.none() | st.floats(0, 20)),
    ),
)


@dataclass
class World:
    """A lane, those who wait for it, and what it let go."""

    lane: Lane
    now: float = 0.0
    granted: list[Ticket] = field(default_factory=list)
    under_way: list[Ticket] = field(default_factory=list)
    line: list[Ticket] = field(default_factory=list)
    flowed: list[tuple[float, float, float]] = field(default_factory=lambda: [(0.0, 0.0, inf)])

    def pass_time(self, until: float) -> None:
        """Requests and tokens that flow in, and tokens that may go at once, by what holds."""
        limits, told = self.lane.limits, self.lane.told
        requests, tokens, _ = self.flowed[-1]
        minutes = max(0.0, until - self.now) / 60
        requests += minutes * min(limits.requests_per_minute or 1e9, told[0] or inf)
        tpm = min(limits.tokens_per_minute or 1e9, told[1] or inf)
        self.flowed[-1] = requests, tokens + minutes * tpm, max(1.0, tpm / 12)
        self.now = max(self.now, until)

    def serve(self, until: float) -> None:
        """Let the clock run, and admit whoever can be."""
        self.pass_time(self.now)
        while (first := self.lane.line.first()) is not None:
            at = self.lane.grant(first, self.now, self.now)
            if at is None:
                self.lane.line.pop(first)
                self.line.remove(first)
                self.granted.append(first)
                self.flowed.insert(-1, self.flowed[-1])
                self.under_way.append(first)
            elif at <= until:
                assert at > self.now, "a timer that fires at once for ever"
                self.pass_time(at)
            else:
                break
        self.pass_time(until)

    def happen(self, what: str, *values: object) -> None:
        """One event."""
        match what, *values:
            case "call", int(tokens), bool(is_batch):
                ticket = Ticket(tokens, is_batch=is_batch)
                if tokens <= self.lane.most_tokens:
                    self.lane.line.join(ticket)
                    self.line.append(ticket)
            case "cancel", int(number) if self.line:
                self.lane.line.leave(self.line.pop(number % len(self.line)))
            case (("end" | "unsent"), int(number)) if self.under_way:
                ticket = self.under_way.pop(number % len(self.under_way))
                self.lane.ended(ticket, what == "unsent", self.now)
                if what == "unsent":
                    place = self.granted.index(ticket)
                    del self.granted[place], self.flowed[place]
            case "told", requests, tokens:
                headers = RateHeaders(requests, tokens)  # type: ignore[arg-type]
                self.lane.learnt(Ticket(0), headers, self.now)
            case "refused", retry_after if self.granted:
                self.lane.refused(self.granted[-1], retry_after, self.now)  # type: ignore[arg-type]
        self.serve(self.now)


@given(
    st.sampled_from([6.0, 60.0, 600.0]),
    st.sampled_from([None, 1.0, 20.0]),
    st.sampled_from([None, 600.0, 6000.0]),
    st.sampled_from([None, 1, 5, Adaptive()]),
    st.lists(events, max_size=40),
)
@settings(max_examples=80)
def test_no_minute_gets_more_than_the_quota_and_the_burst(
    rpm: float,
    burst: float | None,
    tpm: float | None,
    concurrency: int | Adaptive | None,
    happenings: list[tuple[float, tuple[object, ...]]],
) -> None:
    limits = Limits(
        requests_per_minute=rpm, tokens_per_minute=tpm, concurrency=concurrency, burst=burst
    )
    world = World(Lane(limits, 0.0))
    for pause, event in happenings:
        world.serve(world.now + pause)
        world.happen(*event)  # type: ignore[arg-type]
        most = world.lane.concurrency
        assert isinstance(concurrency, Adaptive) or len(world.under_way) <= (most or inf)
        assert world.lane.in_flight == len(world.under_way)
        assert len(world.lane.line) == len(world.line)
    at_once = max(1.0, rpm / 12) if burst is None else burst
    tokens_at_once = (tpm or 1e9) / 12
    flowed = world.flowed
    for begin in range(len(world.granted)):
        tokens_before = 0.0
        for end in range(begin, len(world.granted)):
            ticket = world.granted[end]
            requests, tokens = (flowed[end][i] - flowed[begin][i] for i in (0, 1))
            assert end - begin + 1 <= at_once + requests + 1e-3
            # A call that is larger than the bucket leaves a debt: what went before it is paid for.
            needed = tokens_before + min(ticket.tokens, flowed[end][2])
            assert needed <= tokens_at_once + tokens + 1e-3
            tokens_before += ticket.tokens


@given(st.lists(events, max_size=40))
@settings(max_examples=50)
def test_nobody_is_left_behind(happenings: list[tuple[float, tuple[object, ...]]]) -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=6000, concurrency=2)
    world = World(Lane(limits, 0.0))
    for pause, event in happenings:
        world.serve(world.now + pause)
        world.happen(*event)  # type: ignore[arg-type]
    world.happen("told", 6000.0, 6000.0)
    while world.line:
        assert world.now < 1e6
        world.serve(world.now + 60)
        while world.under_way:
            world.happen("end", 0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_the_estimated_wait_is_the_wait_if_nothing_else_happens(amounts: list[int]) -> None:
    # Of equal calls; where they differ, it is a guess.
    world = World(Lane(Limits(requests_per_minute=60, tokens_per_minute=6000), 0.0))
    for _ in range(5):
        world.happen("call", 100, False)
    tickets = []
    for _ in amounts:
        estimate = world.lane.wait_of_next(100, world.now)
        world.happen("call", 100, False)
        ticket = (world.line or world.granted)[-1]
        assert world.lane.wait_of(ticket, world.now) == pytest.approx(estimate)
        tickets.append((ticket, world.now + estimate))
    world.serve(1000.0)
    for ticket, at in tickets:
        assert ticket.granted_at == pytest.approx(at)


def test_long_calls_are_expected_to_stay_long() -> None:
    world = World(Lane(Limits(concurrency=2), 0.0))
    for _ in range(4):
        world.happen("call", 0, False)
    world.serve(10.0)
    for _ in range(2):
        world.happen("end", 0)
    assert world.lane.wait_of_next(0, 10.0) == 5.0
    world.happen("call", 0, False)
    assert world.lane.wait_of_next(0, 10.0) == 10.0


@pytest.mark.parametrize(
    ("told", "per_second"),
    [
        (RateHeaders(30, None), (0.5, 100)),
        (RateHeaders(30, 600), (0.5, 10)),
        (RateHeaders(None, 600), (1, 10)),
        (RateHeaders(None, None, 7, 7), (1, 100)),
        (RateHeaders(6000, 600_000), (1, 100)),
    ],
)
def test_what_the_service_tells_lowers_a_limit_and_never_raises_it(
    told: RateHeaders, per_second: tuple[float, float]
) -> None:
    lane = Lane(Limits(requests_per_minute=60, tokens_per_minute=6000), 0.0)
    lane.learnt(Ticket(0), told, 0.0)
    assert lane.most_tokens == per_second[1] * 60
    full = lane.levels(0.0)
    assert full == (max(1.0, 5 * per_second[0]), 5 * per_second[1])
    assert lane.grant(Ticket(round(full[1]) + 1000), 0.0, 0.0) is None
    assert lane.levels(10.0)[1] == pytest.approx(10 * per_second[1] - 1000)
    lane.learnt(Ticket(0), RateHeaders(60, 6000), 10.0)
    assert lane.levels(11.0)[1] == pytest.approx(10 * per_second[1] - 1000 + 100)
    assert lane.levels(1000.0) == (5.0, 500.0)


def test_a_burst_is_no_larger_than_a_learnt_quota() -> None:
    lane = Lane(Limits(requests_per_minute=60, burst=20), 0.0)
    lane.learnt(Ticket(0), RateHeaders(limit_requests=6), 0.0)
    assert lane.levels(0.0) == (6.0, None)
    lane.learnt(Ticket(0), RateHeaders(limit_requests=60), 0.0)
    assert lane.levels(100.0) == (20.0, None)


def test_what_was_not_configured_stays_unlimited() -> None:
    lane = Lane(Limits(concurrency=100), 0.0)
    lane.learnt(Ticket(0), RateHeaders(1, 1, 5, 5), 0.0)
    world = World(lane)
    for _ in range(50):
        world.happen("call", 50, False)
    assert len(world.granted) == 50
    lane.learnt(world.granted[-1], RateHeaders(1, 1, 0, 5), 0.0)
    world.happen("call", 50, False)
    assert len(world.granted) == 50
    assert lane.paused_for(0.0) == 5.0


def test_what_was_never_sent_is_put_back_and_no_more() -> None:
    world = World(Lane(Limits(requests_per_minute=120, tokens_per_minute=12_000), 0.0))
    for _ in range(3):
        world.happen("call", 100, False)
    assert world.lane.levels(0.0) == (7.0, 700.0)
    world.happen("unsent", 0)
    assert world.lane.levels(0.0) == (8.0, 800.0)
    world.happen("end", 0)
    assert world.lane.levels(0.0) == (8.0, 800.0)
    assert world.lane.in_flight == 1


def test_one_probe_at_a_time_until_one_is_answered() -> None:
    world = World(Lane(Limits(requests_per_minute=6000), 0.0))
    world.happen("call", 0, False)
    world.happen("refused", None)
    for _ in range(10):
        world.happen("call", 0, False)
    world.serve(4.9)
    assert len(world.granted) == 1
    world.serve(12.0)
    assert [ticket.granted_at for ticket in world.granted] == [0.0, 5.0, 10.0]
    assert world.lane.listens(12.0)
    world.lane.succeeded(world.granted[-1], None, 12.0)
    world.serve(12.0)
    assert not world.line
    assert not world.lane.listens(12.0)


def test_a_lane_is_at_rest_when_a_new_one_would_do_the_same() -> None:
    world = World(Lane(Limits(requests_per_minute=60, concurrency=5), 0.0))
    assert world.lane.is_at_rest(0.0)
    world.happen("call", 0, False)
    assert not world.lane.is_at_rest(100.0)
    world.happen("end", 0)
    assert not world.lane.is_at_rest(0.5)
    assert world.lane.is_at_rest(1.0)
    world.lane.refused(world.granted[0], None, 1.0)
    assert not world.lane.is_at_rest(60.9)
    assert world.lane.is_at_rest(61.0)


def test_adaptive_concurrency_follows_what_it_is_told() -> None:
    world = World(Lane(Limits(concurrency=Adaptive()), 0.0))
    for _ in range(20):
        world.happen("call", 0, False)
    assert (len(world.granted), world.lane.concurrency) == (8, 8)
    world.lane.succeeded(world.granted[0], None, 1.0)
    world.happen("end", 0)
    assert (world.lane.in_flight, world.lane.concurrency) == (9, 9)
    world.lane.congested(world.granted[1], None, 1.0)
    world.lane.congested(world.granted[2], None, 1.0)
    assert world.lane.concurrency == 5


@pytest.mark.parametrize(
    ("limits", "levels"),
    [
        (Limits(requests_per_minute=60), (5.0, None)),
        (Limits(tokens_per_minute=6000), (None, 500.0)),
        (Limits(concurrency=3), (None, None)),
    ],
)
def test_what_is_not_limited_is_neither_counted_nor_put_back(
    limits: Limits, levels: tuple[float | None, float | None]
) -> None:
    world = World(Lane(limits, 0.0))
    world.happen("call", 100, False)
    world.happen("call", 100, False)
    first, second = world.granted
    world.happen("unsent", 1)
    world.lane.settled(first, 100, 0.0)
    world.lane.congested(first, None, 0.0)
    world.happen("end", 0)
    requests, tokens = world.lane.levels(0.0)
    assert requests == (None if levels[0] is None else levels[0] - 1)
    assert tokens == levels[1]
    assert world.lane.concurrency == limits.concurrency
    assert world.lane.wait_of(second, 0.0) == 0.0, "it is not in line"


def test_tokens_that_were_thought_to_be_used_are_given_back() -> None:
    world = World(Lane(Limits(tokens_per_minute=6000), 0.0))
    world.happen("call", 300, False)
    world.lane.settled(world.granted[0], 120, 0.0)
    assert world.lane.levels(0.0) == (None, 320.0)
    world.lane.settled(world.granted[0], -50, 0.0)
    assert world.lane.levels(0.0) == (None, 270.0)


def test_a_wait_is_as_long_as_what_lacks_most_takes_to_flow_in() -> None:
    for limits, tokens, waits in (
        (Limits(requests_per_minute=60, burst=1), 100, [1.0, 2.0, 3.0]),
        (Limits(tokens_per_minute=6000), 500, [5.0, 10.0, 15.0]),
        (Limits(requests_per_minute=60, tokens_per_minute=6000, burst=1), 500, [5.0, 10.0, 15.0]),
        (Limits(requests_per_minute=6, tokens_per_minute=6000, burst=1), 500, [10.0, 20.0, 30.0]),
        (Limits(concurrency=1), 500, [0.0, 0.0, 0.0]),
    ):
        world = World(Lane(limits, 0.0))
        for _ in range(3):
            world.happen("call", tokens, False)
        assert [world.lane.wait_of(ticket, 0.0) for ticket in world.line] == waits[:2]
        assert world.lane.wait_of_next(tokens, 0.0) == pytest.approx(waits[2])
