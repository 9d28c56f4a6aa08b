"""What one process makes of the answers about a lane that it shares; time is an argument."""

from math import inf

import pytest

from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.sansio.shared_lane import BATCH, SharedLane, SharedTicket
from ernie_async.sansio.shared_step import Answer, Verdict, shared_quota

NOTHING = Answer(
    waits=[],
    promise=0,
    others=0,
    is_in_line=False,
    look_in=0.0,
    pause=0,
    paused_for=0.0,
    is_probing=False,
    full_in=(0.0, 0.0),
    told=(None, None),
)
RPM = Limits(requests_per_minute=60, tokens_per_minute=6000)
CALLS = Limits(concurrency=2)

Lane = SharedLane[SharedTicket]


def lane_of(limits: Limits, *tokens: int) -> tuple[Lane, list[SharedTicket]]:
    lane = Lane(limits, beat=5, now=0.0)
    tickets = [SharedTicket(n) for n in tokens]
    for ticket in tickets:
        lane.line.join(ticket)
    return lane, tickets


def hear(lane: Lane, now: float, *waits: float, **others: object) -> list[SharedTicket]:
    lane.ask(now)
    granted, hopeless = lane.hear(
        NOTHING._replace(waits=list(waits), promise=7, **others),
        now,  # type: ignore[arg-type]
    )
    assert not hopeless
    return granted


def test_what_is_granted_goes_in_the_order_of_the_line() -> None:
    lane, (a, b, c) = lane_of(RPM, 10, 20, 30)
    assert lane.next_at() == -inf
    assert lane.ask(0.0).wanted == [(10, inf), (20, inf), (30, inf)]
    granted, _ = lane.hear(NOTHING._replace(waits=[0.0, 0.0, 1.5], promise=7), 0.0)
    assert granted == [a, b]
    assert lane.in_flight == 2
    assert lane.next_at() == 1.5
    assert lane.due(1.4) == []
    assert lane.due(1.5) == [c]
    assert lane.is_idle


def test_while_something_is_promised_nothing_more_is_asked_for() -> None:
    lane, _ = lane_of(RPM, 10, 10)
    hear(lane, 0.0, 1.0)
    assert not lane.must_ask(0.5)
    assert lane.ask(0.5).wanted == []
    lane.hear(NOTHING, 0.5)
    lane.due(1.0)
    assert lane.must_ask(1.0)


def test_promise_of_one_who_left_goes_to_the_next() -> None:
    lane, (a, b) = lane_of(RPM, 50, 20)
    hear(lane, 0.0, 1.0)
    lane.line.leave(a)
    assert lane.due(1.0) == [b]
    ask = lane.ask(1.0)
    assert (ask.held, ask.requests, ask.tokens, ask.promise) == (1, 0, 30, 0)


def test_promise_that_is_too_small_for_the_next_is_given_back() -> None:
    lane, (a, _) = lane_of(RPM, 50, 60)
    hear(lane, 0.0, 1.0)
    lane.line.leave(a)
    assert lane.due(1.0) == []
    ask = lane.ask(1.0)
    assert (ask.held, ask.requests, ask.tokens) == (0, 1, 50)
    assert ask.wanted == [(60, inf)]


def test_one_who_goes_before_takes_the_promise_if_it_is_enough() -> None:
    lane = Lane(RPM, beat=5, now=0.0)
    batch = SharedTicket(50, is_batch=True)
    lane.line.join(batch)
    hear(lane, 0.0, 1.0)
    large, small = SharedTicket(60), SharedTicket(40)
    lane.line.join(large)
    assert lane.due(1.0) == [batch]
    lane.line.join(batch)
    hear(lane, 2.0, 1.0)
    lane.line.leave(large)
    lane.line.join(small)
    assert lane.due(3.0) == [small]


def test_promise_that_nobody_waits_for_is_given_back_at_once() -> None:
    lane, (a,) = lane_of(RPM, 50)
    hear(lane, 0.0, 1.0)
    lane.line.leave(a)
    lane.due(0.2)
    assert lane.must_ask(0.2)
    ask = lane.ask(0.2)
    assert (ask.requests, ask.tokens, ask.promise) == (1, 50, 7)


def test_grant_of_one_who_left_while_it_was_asked_for_is_put_back() -> None:
    lane, (a,) = lane_of(RPM, 50)
    lane.ask(0.0)
    lane.line.leave(a)
    assert lane.hear(NOTHING._replace(waits=[0.0]), 0.0) == ([], [])
    assert lane.in_flight == 0
    assert lane.ask(0.0).requests == 1


def test_what_is_put_back_late_is_worth_what_a_full_bucket_would_have_kept() -> None:
    # One request and 100 tokens a second: after the three, the buckets are full in 3 s and in 2 s.
    lane, (a, b, c) = lane_of(RPM, 50, 50, 100)
    hear(lane, 0.0, 0.0, 0.0, 0.0, full_in=(3.0, 2.0))
    lane.ended(a, True, 0.0)
    ask = lane.ask(0.1)
    assert (ask.requests, ask.tokens) == (1, pytest.approx(50))
    lane.ended(b, True, 1.25)
    ask = lane.ask(1.3)
    assert (ask.requests, ask.tokens) == (pytest.approx(0.75), 0)
    lane.ended(c, True, 9.0)
    ask = lane.ask(9.1)
    assert (ask.requests, ask.tokens) == (0, 0)


def test_one_who_would_not_wait_so_long_is_told() -> None:
    lane, (a, b) = lane_of(RPM, 1, 1)
    a.gives_up_at = 3.0
    assert lane.ask(1.0).wanted == [(1, 2.0), (1, inf)]
    assert lane.hear(NOTHING._replace(waits=[-1.0, 0.0]), 1.0) == ([b], [a])


def test_in_line_it_asks_when_the_bell_rings_or_when_it_is_time_to_look() -> None:
    lane, _ = lane_of(CALLS, 0)
    hear(lane, 0.0, is_in_line=True, look_in=4.0)
    assert not lane.must_ask(3.9)
    assert lane.must_ask(4.0)
    lane.rung()
    assert lane.must_ask(1.0)


def test_it_leaves_the_line_when_the_last_one_does() -> None:
    lane, (a,) = lane_of(CALLS, 0)
    hear(lane, 0.0, is_in_line=True, look_in=4.0)
    lane.line.leave(a)
    assert lane.must_ask(1.0)
    assert not lane.is_idle


def test_ends_wait_for_company_unless_somebody_waits_for_them() -> None:
    lane, (a, b) = lane_of(CALLS, 0, 0)
    hear(lane, 0.0, 0.0, 0.0)
    lane.ended(a, False, 1.0)
    assert lane.next_at() == pytest.approx(1.01)
    assert lane.ask(1.01).held == 1
    lane.hear(NOTHING._replace(others=1), 1.01)
    lane.ended(b, False, 2.0)
    assert lane.must_ask(2.0)


def test_ends_are_not_told_where_calls_are_not_counted() -> None:
    lane, (a,) = lane_of(RPM, 0)
    hear(lane, 0.0, 0.0)
    lane.ended(a, False, 1.0)
    assert lane.is_idle


def test_a_lease_is_renewed_while_calls_are_held() -> None:
    lane, (a,) = lane_of(CALLS, 0)
    hear(lane, 1.0, 0.0)
    assert lane.next_at() == 6.0
    hear(lane, 6.0)
    assert lane.next_at() == 11.0
    lane.ended(a, False, 7.0)
    hear(lane, 7.01)
    assert lane.is_idle


def test_what_is_put_back_is_told_once_even_if_no_answer_comes() -> None:
    lane, (a, b) = lane_of(Limits(tokens_per_minute=6000, concurrency=2), 100, 100)
    hear(lane, 0.0, 0.0, 0.0)
    lane.settled(a, 90, 1.0)
    lane.ended(a, False, 1.0)
    ask = lane.ask(1.01)
    assert (ask.held, ask.tokens) == (1, 90)
    lane.lost(2.0)
    assert lane.must_ask(2.0)  # how many are held has to be known
    again = lane.ask(2.0)
    assert (again.held, again.tokens) == (1, 0)
    assert b.granted_at == 0.0


def test_a_refusal_is_told_at_once_and_gives_back_the_promise() -> None:
    lane, (a, _) = lane_of(RPM, 1, 1)
    hear(lane, 0.0, 0.0, 5.0, pause=3)
    lane.refused(a, 20.0, 1.0)
    assert lane.must_ask(1.0)
    ask = lane.ask(1.0)
    assert ask.verdict == Verdict("refused", 3, 20.0)
    assert (ask.requests, ask.promise) == (1, 7)
    lane.hear(NOTHING._replace(is_in_line=True, look_in=20.0, paused_for=20.0), 1.0)
    assert lane.paused_for(11.0) == 10.0
    assert lane.wait_of_next(1, 11.0) >= 10.0


def test_the_longest_time_the_service_named_counts() -> None:
    lane, (a, b, c) = lane_of(CALLS, 0, 0, 0)
    hear(lane, 0.0, 0.0, 0.0, 0.0)
    for ticket, retry_after in ((a, 5.0), (b, 20.0), (c, None)):
        lane.refused(ticket, retry_after, 1.0)
    assert lane.ask(1.0).verdict == Verdict("refused", 0, 20.0)


def test_success_is_told_only_while_single_calls_try() -> None:
    lane, (a, b) = lane_of(RPM, 1, 1)
    hear(lane, 0.0, 0.0)
    lane.succeeded(a, None, 1.0)
    assert not lane.listens()
    assert lane.ask(1.0).verdict is None
    lane.hear(NOTHING._replace(waits=[0.0], is_probing=True, pause=2), 1.0)
    assert lane.listens()
    lane.succeeded(b, None, 2.0)
    assert lane.ask(2.0).verdict == Verdict("succeeded", 2)


def test_what_the_service_tells_is_passed_on_if_it_is_news() -> None:
    lane, (a,) = lane_of(RPM, 1)
    hear(lane, 0.0, 0.0, told=(30.0, None))
    lane.learnt(a, RateHeaders(limit_requests=30.0), 1.0)
    assert lane.is_idle
    lane.learnt(a, RateHeaders(30.0, 100.0, remaining_tokens=0.0), 1.0)
    ask = lane.ask(1.0)
    assert ask.told == (None, 100.0)
    assert ask.verdict == Verdict("spent", 0)
    lane.hear(NOTHING._replace(told=(30.0, 100.0)), 1.0)
    assert lane.most_tokens == 100.0


def test_its_own_concurrency_bounds_what_it_asks_for() -> None:
    lane, tickets = lane_of(Limits(concurrency=Adaptive(start=2, max=64)), *[0] * 5)
    assert len(lane.ask(0.0).wanted) == 2
    granted, _ = lane.hear(NOTHING._replace(waits=[0.0, 0.0]), 0.0)
    assert granted == tickets[:2]
    assert not lane.must_ask(0.0)
    lane.congested(tickets[0], None, 1.0)
    assert lane.concurrency == 1
    lane.ended(tickets[0], False, 1.0)
    lane.ended(tickets[1], False, 1.0)
    assert len(lane.ask(1.0).wanted) == 1


def test_no_step_asks_for_more_than_its_share() -> None:
    lane, _ = lane_of(CALLS, *[0] * 1000)
    assert len(lane.ask(0.0).wanted) == BATCH


def test_levels_and_waits_are_told_from_the_last_answer() -> None:
    lane, (_, b) = lane_of(RPM, 100, 100)  # one a second and 100 tokens; 5 and 500 at once
    hear(lane, 0.0, 0.0, full_in=(3.0, 6.0))
    assert lane.levels(0.0) == (2.0, -100.0)
    assert lane.levels(2.0) == (4.0, 100.0)
    assert lane.wait_of(b, 0.0) == pytest.approx(2.0)
    assert lane.wait_of_next(100, 0.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("quota", "burst", "told", "expected"),
    [
        (None, None, 60.0, (inf, inf)),
        (600.0, None, None, (600.0, 50.0)),
        (600.0, 7.0, None, (600.0, 7.0)),
        (600.0, None, 6000.0, (600.0, 50.0)),
        (600.0, None, 60.0, (60.0, 5.0)),
        (600.0, 7.0, 60.0, (60.0, 7.0)),
        (600.0, 7.0, 3.0, (3.0, 3.0)),
        (600.0, None, 3.0, (3.0, 1.0)),
    ],
)
def test_quota_after_what_the_service_told(
    quota: float | None, burst: float | None, told: float | None, expected: tuple[float, float]
) -> None:
    assert shared_quota(quota, burst, told) == pytest.approx(expected)


def test_an_estimate_that_was_right_is_no_news() -> None:
    lane, (a,) = lane_of(RPM, 1)
    hear(lane, 0.0, 0.0)
    lane.settled(a, 0, 1.0)
    assert lane.is_idle
    assert lane.ask(1.0).tokens == 0
    lane.settled(a, -30, 1.0)
    assert lane.ask(1.01).tokens == -30


def test_nothing_is_due_where_nothing_is_promised() -> None:
    lane, _ = lane_of(RPM, 1)
    assert lane.due(99.0) == []


def test_one_who_gave_up_while_it_was_asked_for_is_told_nothing() -> None:
    lane, (a,) = lane_of(RPM, 1)
    lane.ask(0.0)
    lane.line.leave(a)
    assert lane.hear(NOTHING._replace(waits=[-1.0]), 0.0) == ([], [])


def test_a_lost_answer_is_no_news_where_calls_are_not_counted() -> None:
    lane, _ = lane_of(RPM)
    lane.ask(0.0)
    lane.lost(1.0)
    assert lane.is_idle


def test_success_lets_the_concurrency_grow_where_it_is_adaptive() -> None:
    lane, tickets = lane_of(Limits(concurrency=Adaptive(start=2, max=64)), *[0] * 5)
    hear(lane, 0.0, 0.0, 0.0)
    assert lane.listens()
    lane.succeeded(tickets[0], None, 1.0)
    assert lane.concurrency == 3
    for limits, concurrency in ((CALLS, 2), (RPM, None)):
        lane, (a,) = lane_of(limits, 0)
        hear(lane, 0.0, 0.0)
        lane.succeeded(a, None, 1.0)
        lane.congested(a, None, 1.0)
        assert lane.concurrency == concurrency


def test_a_wait_is_as_long_as_the_promise_and_what_comes_after_it() -> None:
    lane, (a, b) = lane_of(RPM, 1, 1)  # one a second
    hear(lane, 0.0, 4.0, full_in=(9.0, 0.0))
    assert lane.levels(0.0) == (-4.0, 500.0)
    assert lane.wait_of(a, 0.0) == pytest.approx(4.0)
    assert lane.wait_of(b, 0.0) == pytest.approx(5.0)
    assert lane.wait_of(SharedTicket(1), 0.0) == 0.0, "it is not in line"


def test_where_nothing_is_counted_a_wait_is_as_long_as_the_pause() -> None:
    lane, _ = lane_of(CALLS, 0)
    hear(lane, 0.0, is_in_line=True, paused_for=7.0, others=1)
    assert lane.levels(0.0) == (None, None)
    assert lane.wait_of_next(100, 1.0) == pytest.approx(2 * 6.0)
    assert lane.wait_of_next(100, 8.0) == 0.0
