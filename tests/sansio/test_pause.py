"""How long nobody asks, after the service said that its quota is spent."""

from ernie_async.sansio.pause import Pause


def gaps(pause: Pause, now: float, end: float) -> list[float]:
    """When calls go, if somebody always waits and none of them succeeds."""
    times = []
    while (now := max(now, pause.until)) < end and not pause.is_over(now):
        times.append(now)
        pause.went(now)
    return times


def test_without_a_time_one_call_tries_every_5_seconds_for_60() -> None:
    pause = Pause()
    assert pause.is_over(100.0)
    pause.refused(0, None, 100.0)
    assert gaps(pause, 100.0, 500.0) == [100.0 + 5 * n for n in range(1, 12)]
    assert pause.until == 160.0
    assert pause.is_over(160.0)


def test_the_time_that_the_service_names_is_obeyed_and_then_all_go() -> None:
    pause = Pause()
    pause.refused(0, 7.0, 100.0)
    assert (pause.until, pause.is_over(106.9), pause.is_over(107.0)) == (107.0, False, True)
    pause.refused(0, 3.0, 101.0)
    assert pause.until == 107.0
    pause.went(107.0)
    assert pause.is_over(107.0)


def test_a_named_time_ends_the_guessing() -> None:
    pause = Pause()
    pause.refused(0, None, 100.0)
    pause.refused(0, 0.2, 101.0)
    assert pause.until == 101.2
    assert pause.is_over(101.2)


def test_a_probe_that_is_answered_lets_all_go() -> None:
    pause = Pause()
    pause.refused(0, None, 100.0)
    pause.succeeded(0)  # was sent before
    assert not pause.is_over(105.0)
    pause.went(105.0)
    pause.succeeded(1)
    assert pause.is_over(105.0)


def test_calls_that_were_sent_before_the_pause_change_nothing() -> None:
    pause = Pause()
    pause.refused(0, None, 100.0)
    pause.refused(0, None, 104.0)
    pause.spent(0, None, 104.0)
    assert pause.until == 105.0
    pause.went(105.0)
    pause.succeeded(1)
    pause.refused(0, None, 106.0)  # late news
    assert pause.is_over(106.0)
    pause.refused(1, None, 107.0)
    assert not pause.is_over(107.0)


def test_a_probe_that_is_refused_begins_nothing_anew() -> None:
    pause = Pause()
    pause.refused(0, None, 100.0)
    pause.went(105.0)
    pause.refused(1, None, 105.1)
    assert (pause.until, pause.number) == (110.0, 1)


def test_the_last_one_may_name_the_time_as_a_refusal_does() -> None:
    pause = Pause()
    pause.spent(0, 3.0, 100.0)
    assert (pause.until, pause.is_over(102.9), pause.is_over(103.0)) == (103.0, False, True)


def test_the_last_one_that_the_quota_had_room_for_does_not_open_the_gate() -> None:
    pause = Pause()
    pause.refused(0, None, 100.0)
    pause.went(105.0)
    pause.spent(1, None, 105.5)
    pause.succeeded(1)
    assert pause.until == 110.5
    assert not pause.is_over(160.5)
    assert pause.is_over(165.5)
