"""What a continuation repeats is left out, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.seam import OVERLAP_MOST, Seam, find_overlap
from ernie_async.types.chunk import ChatChunk

POEM = "白日依山尽黄河入海流欲穷千里目更上一层楼。春眠不觉晓处闻啼鸟夜来风雨声花落知多少？"


def chunk(text: str = "", **more: object) -> ChatChunk:
    delta = {"content": text} | {
        name: more.pop(name) for name in ("reasoning_content",) if name in more
    }
    usage = {"usage": more.pop("usage")} if "usage" in more else {}
    return ChatChunk.model_validate({"choices": [{"delta": delta, **more}], **usage})


def joined(before: str, pieces: list[str], *, least: int = 1) -> str:
    seam = Seam(before, least=least)
    shown = [part for piece in pieces for part in seam.feed([chunk(piece)])]
    return before + "".join(part.text for part in [*shown, *seam.close()])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("at", [1, 5, 30])
def test_up_to_forty_repeated_characters_are_left_out(size: int, at: int) -> None:
    whole = POEM[:at]
    for repeated in range(min(at, 40) + 1):
        rest = POEM[at - repeated :]
        pieces = [rest[i : i + size] for i in range(0, len(rest), size)]
        assert joined(whole, pieces) == POEM, repeated


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("the quick ", "quick brown", "the quick brown"),
        ("the quick", " quick brown", "the quick brown"),
        ("the quick", "\n\nquick brown", "the quick brown"),
        ("the quick\n", "quick\n\nbrown", "the quick\n\nbrown"),
        ("a b c", "b  c d", "a b c d"),
        ("one", " two", "one two"),
        ("line\n", "\nabc", "line\n\nabc"),
        ("", "text", "text"),
        ("  ", "text", "  text"),
        ("text", "", "text"),
        ("text", "  ", "text  "),
    ],
)
def test_white_space_is_no_obstacle(before: str, after: str, expected: str) -> None:
    assert joined(before, [after]) == expected
    assert joined(before, list(after)) == expected


def test_the_longest_repetition_counts() -> None:
    assert joined("ab ab", list("abab c")) == "ab ab c"


def test_shorter_than_least_is_text() -> None:
    assert joined("他笑：哈哈", ["哈哈", "！"], least=8) == "他笑：哈哈哈哈！"
    assert joined("0123456789", ["23456789", "x"], least=8) == "0123456789x"


def test_no_repetition_is_longer_than_the_bound() -> None:
    before = "".join(chr(0x4E00 + n) for n in range(2 * OVERLAP_MOST))
    assert find_overlap(before, before[-OVERLAP_MOST:] + "x", least=1) == (OVERLAP_MOST, False)
    assert find_overlap(before, before[-OVERLAP_MOST - 1 :], least=1)[0] == 0


def test_nothing_is_held_once_it_cannot_be_a_repetition() -> None:
    seam = Seam(POEM, least=1)
    assert [part.text for part in seam.feed([chunk("新")])] == ["新"]
    assert [part.text for part in seam.feed([chunk(POEM[-3:])])] == [POEM[-3:]]


def test_what_is_held_comes_with_the_finish_reason_or_at_the_end() -> None:
    seam = Seam(POEM, least=1)
    assert seam.feed([chunk(POEM[3:5])]) == []
    [last] = seam.feed([chunk("", finish_reason="stop")])
    assert (last.text, last.finish_reason) == (POEM[3:5], "stop")
    seam = Seam(POEM, least=1)
    assert seam.feed([chunk(POEM[3:5])]) == []
    assert [part.text for part in seam.close()] == [POEM[3:5]]
    assert seam.close() == []


def test_thinking_about_going_on_is_left_out() -> None:
    seam = Seam(POEM, least=1)
    shown = seam.feed([chunk("", reasoning_content="let me see"), chunk("新"), chunk("年")])
    assert [(part.text, part.reasoning) for part in shown] == [("新", ""), ("年", "")]
    assert seam.feed([chunk("", reasoning_content="hm")]) == []


def test_usage_and_the_rest_of_a_chunk_are_kept() -> None:
    seam = Seam(POEM, least=1)
    [only] = seam.feed([chunk(POEM[-4:], usage={"total_tokens": 3})])
    assert (only.text, only.usage and only.usage.total_tokens) == ("", 3)
    [only] = seam.feed([chunk("新", flag=1)])
    assert (only.text, only.choices[0].flag) == ("新", 1)


TEXTS = st.text(alphabet="ab \n", max_size=12)


@given(TEXTS, st.lists(TEXTS, max_size=6), st.integers(1, 4))
def test_only_a_repetition_is_ever_dropped(before: str, pieces: list[str], least: int) -> None:
    after = "".join(pieces)
    result = joined(before, pieces, least=least)
    assert result.startswith(before)
    rest = result[len(before) :]
    assert after.endswith(rest)
    dropped = "".join(after[: len(after) - len(rest)].split())
    assert "".join(before.split()).endswith(dropped)
    assert not dropped or len(dropped) >= least


@given(TEXTS, st.lists(TEXTS, max_size=6))
def test_any_cutting_gives_the_same(before: str, pieces: list[str]) -> None:
    assert joined(before, pieces) == joined(before, ["".join(pieces)])
