"""How much is read at once: latency times bandwidth, within bounds."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.read_buffer import ReadBuffer, ReadGauge


def paced(gauge: ReadGauge, *, gap: float, n_bytes: int, reads: int = 50) -> ReadGauge:
    for n in range(1, reads + 1):
        gauge.note(n * gap, n * n_bytes, gap)
    return gauge


def test_of_a_steady_stream_the_product_is_what_comes_in_one_gap() -> None:
    gauge = paced(ReadGauge(ReadBuffer()), gap=0.02, n_bytes=1000)
    assert gauge.latency == pytest.approx(0.02)
    assert gauge.bandwidth == pytest.approx(50_000)
    assert gauge.size == pytest.approx(1000, abs=1)


@pytest.mark.parametrize(("n_bytes", "size"), [(10, 512), (512, 512), (3000, 3000), (9000, 4096)])
def test_the_size_is_clamped(n_bytes: int, size: int) -> None:
    gauge = paced(ReadGauge(ReadBuffer()), gap=0.02, n_bytes=n_bytes, reads=200)
    assert gauge.size == pytest.approx(size, abs=1)


def test_the_bounds_can_be_set() -> None:
    bounds = ReadBuffer(minimum=10, maximum=20)
    assert paced(ReadGauge(bounds), gap=0.1, n_bytes=1).size == 10
    assert paced(ReadGauge(bounds), gap=0.1, n_bytes=1000).size == 20


def test_it_follows_a_stream_that_becomes_faster() -> None:
    gauge = paced(ReadGauge(ReadBuffer()), gap=0.02, n_bytes=600)
    before = gauge.size
    for n in range(1, 30):
        gauge.note(1.0 + n * 0.02, 30_000 + n * 3000, 0.02)
    assert before < gauge.size == pytest.approx(3000, rel=0.05)


def test_small_packets_are_measured_together() -> None:
    gauge = ReadGauge(ReadBuffer())
    gauge.note(1.0, 100, 1.0)  # the model has thought about it: nothing of the connection
    gauge.note(1.1, 300, 0.1)
    gauge.note(1.1, 300, 0.0)
    gauge.note(1.2, 611, 0.3)
    assert (gauge.latency, gauge.bandwidth, gauge.size) == (0.0, 0.0, 4096)
    gauge.note(1.3, 612, 0.2)  # 512 bytes in 0.3 seconds, and three waits
    assert gauge.latency == pytest.approx(0.2)
    assert gauge.bandwidth == pytest.approx(512 / 0.3)
    gauge.note(1.35, 700, 0.01)
    gauge.note(1.4, 1124, 0.09)
    assert gauge.latency == pytest.approx(0.2 + 0.2 * (0.05 - 0.2))
    assert gauge.bandwidth == pytest.approx(512 / 0.3 + 0.2 * (512 / 0.1 - 512 / 0.3))


def test_another_response_is_measured_from_its_own_beginning() -> None:
    gauge = paced(ReadGauge(ReadBuffer()), gap=0.02, n_bytes=4000)
    fast = gauge.bandwidth
    # One that follows a break, and is slow.
    for n in range(1, 200):
        gauge.note(100.0 + n * 0.02, n * 170, 0.02)
        assert 0 < gauge.bandwidth <= fast
    assert gauge.bandwidth == pytest.approx(170 / 0.02, rel=0.01)


def test_a_first_packet_of_two_events_is_no_sign_of_a_fast_stream() -> None:
    gauge = ReadGauge(ReadBuffer())
    gauge.note(1.0, 200, 0.5)
    gauge.note(1.00005, 370, 0.00005)
    for n in range(1, 10):
        gauge.note(1.0 + n * 0.02, 370 + n * 170, 0.02)
    assert gauge.bandwidth == pytest.approx(8500, rel=0.3)


def test_a_large_minimum_is_not_waited_for() -> None:
    gauge = ReadGauge(ReadBuffer(minimum=10**6, maximum=10**7))
    assert paced(gauge, gap=0.02, n_bytes=170).bandwidth == pytest.approx(8500)


def test_reading_what_had_come_before_measures_nothing() -> None:
    gauge = paced(ReadGauge(ReadBuffer()), gap=0.02, n_bytes=1000)
    held = (gauge.latency, gauge.bandwidth, gauge.size)
    gauge.note(99.0, 50_000, 0.0)
    assert (gauge.latency, gauge.bandwidth, gauge.size) == held


def test_bytes_that_were_there_tell_of_the_bandwidth_alone() -> None:
    gauge = paced(ReadGauge(ReadBuffer()), gap=0.02, n_bytes=1000)
    latency, bandwidth = gauge.latency, gauge.bandwidth
    gauge.note(51 * 0.02, 50_000 + 2000, 0.0)
    assert gauge.latency == latency
    assert gauge.bandwidth > bandwidth


def test_the_first_read_is_not_small() -> None:
    assert ReadGauge(ReadBuffer()).size == 4096


READS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**6), st.floats(0, 10)), max_size=30)


@given(READS, st.floats(0, 1), st.integers(0, 10_000))
def test_size_and_delay_never_leave_their_bounds(
    reads: list[tuple[float, int, float]], most: float, n_bytes: int
) -> None:
    gauge = ReadGauge(ReadBuffer(max_delay=most))
    now, arrived = 0.0, 0
    for gap, n_new, waited in reads:
        now, arrived = now + gap, arrived + n_new
        gauge.note(now, arrived, waited)
        assert 512 <= gauge.size <= 4096
        assert 0.0 <= gauge.delay(n_bytes) <= most


def test_nothing_is_held_unless_that_was_asked_for() -> None:
    assert paced(ReadGauge(ReadBuffer()), gap=0.001, n_bytes=100).delay(100) == 0.0


def test_a_packet_is_held_only_if_enough_others_are_expected_in_time() -> None:
    bounds = ReadBuffer(max_delay=0.1)
    assert paced(ReadGauge(bounds), gap=0.02, n_bytes=200).delay(200) == 0.1
    assert paced(ReadGauge(bounds), gap=0.03, n_bytes=200).delay(200) == 0.0
    # The buffer is full before the time is up.
    fast = paced(ReadGauge(bounds), gap=0.01, n_bytes=2000)
    assert fast.delay(2000) == pytest.approx(0.0105, 0.01)
    assert fast.delay(4096) == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {"minimum": 0},
        {"minimum": 5000},
        {"maximum": 100},
        {"maximum": 4096.5},
        {"max_delay": -1},
        {"max_delay": nan},
        {"max_delay": inf},
        {"max_delay": "1"},
    ],
)
def test_impossible_settings_are_refused_with_their_name(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ReadBuffer(**settings)  # type: ignore[arg-type]
