"""The service's own verdict: which answers must not be shown."""

import pytest

from ernie_async.sansio.verdict import find_verdict
from ernie_async.types.chunk import ChunkChoice
from ernie_async.types.completion import Choice


@pytest.mark.parametrize("kind", [Choice, ChunkChoice])
@pytest.mark.parametrize("flag", [None, 0, 1, 2, 5, -1])
def test_other_flags_let_the_text_be_shown(kind: type[Choice | ChunkChoice], flag: int) -> None:
    assert find_verdict([kind(flag=flag, finish_reason="stop")]) is None


@pytest.mark.parametrize("kind", [Choice, ChunkChoice])
@pytest.mark.parametrize(("flag", "retracted"), [(3, False), (4, True)])
def test_two_flags_forbid_it(kind: type[Choice | ChunkChoice], flag: int, retracted: bool) -> None:
    blocked = find_verdict([kind(), kind(flag=flag, ban_round=2)])
    assert blocked is not None
    assert (blocked.flag, blocked.ban_round, blocked.is_retracted) == (flag, 2, retracted)
    assert f"flag {flag}" in str(blocked)


def test_the_finish_reason_forbids_it_too() -> None:
    blocked = find_verdict([Choice(finish_reason="content_filter")])
    assert blocked is not None
    assert (blocked.flag, blocked.is_retracted) == (None, False)
