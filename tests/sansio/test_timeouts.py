"""The four clocks as a value."""

from math import inf, nan

import pytest

from ernie_async.errors import ConfigError
from ernie_async.sansio.timeouts import Timeouts


@pytest.mark.parametrize(
    ("total", "whole", "stream"),
    [("auto", 600.0, None), (None, None, None), (5.0, 5.0, 5.0), (7, 7, 7)],
)
def test_total_is_longer_for_a_stream_unless_it_is_given(
    total: object, whole: float | None, stream: float | None
) -> None:
    timeouts = Timeouts(total=total)  # type: ignore[arg-type]
    assert timeouts.total_for(stream=False) == whole
    assert timeouts.total_for(stream=True) == stream


def test_defaults_are_what_the_manual_says() -> None:
    assert Timeouts() == Timeouts(connect=10.0, first_event=60.0, idle=60.0, total="auto")


@pytest.mark.parametrize("name", ["connect", "first_event", "idle", "total"])
@pytest.mark.parametrize("value", [0, -1, 0.0, nan, True, "1", "auto ", (1, 2)])
def test_impossible_clock_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected seconds above 0, or None, got "):
        Timeouts(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["connect", "first_event", "idle"])
def test_only_the_total_can_be_automatic(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Timeouts(**{name: "auto"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["connect", "first_event", "idle", "total"])
@pytest.mark.parametrize("value", [None, 1, 0.001, inf])
def test_any_positive_number_is_a_clock(name: str, value: float | None) -> None:
    assert getattr(Timeouts(**{name: value}), name) == value  # type: ignore[arg-type]
