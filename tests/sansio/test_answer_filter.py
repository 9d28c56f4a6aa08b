"""The filter of an answer: each text becomes what the whole of it becomes, whatever the chunks."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_async.errors import BlockedError
from ernie_async.sansio.answer_filter import AnswerFilter, ClauseGate, ClauseVerdict
from ernie_async.sansio.chunk_texts import TextKey
from ernie_async.sansio.clauses import ClauseCutter
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_values import Action, Clause, FilterMode, Term
from ernie_async.types.chunk import ChatChunk

WORDS = ContentFilter(["敏感词", Term("感冒", action="drop"), Term("发票", "fraud", "flag")])
MODES: tuple[FilterMode, ...] = ("window", "full", "live")
BLOCK = {mode: ContentFilter(["敏感词"], action="block", mode=mode) for mode in MODES}

spoken = st.lists(st.sampled_from(["敏感词", "感冒", "发票", *"敏感词好。"]), max_size=8).map(
    "".join
)
cut_texts = spoken.flatmap(
    lambda text: st.lists(st.integers(0, len(text)), max_size=4).map(
        lambda cuts: [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
    )
)


def chunk(*choices: dict[str, Any], **fields: Any) -> ChatChunk:
    return ChatChunk.model_validate({"id": "as-1", "choices": choices, **fields})


def says(text: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, **fields}


def thinks(text: str, name: str = "reasoning_content") -> dict[str, Any]:
    return {"delta": {name: text}}


def stream_of(
    thoughts: Iterable[str], pieces: Iterable[str], *, is_finished: bool
) -> list[ChatChunk]:
    chunks = [chunk(thinks(thought)) for thought in thoughts]
    chunks += [chunk(says(piece)) for piece in pieces]
    return [*chunks, chunk(says("", finish_reason="stop"))] if is_finished else chunks


def text_of(shown: Iterable[ChatChunk]) -> str:
    return "".join(one.text for one in shown)


def before_block(text: str) -> str:
    return text.partition("敏感词")[0]


# What terms and patterns do.


@settings(max_examples=60)
@given(cut_texts, cut_texts, st.booleans(), st.sampled_from([1, 3, 99]))
def test_any_chunks_show_what_the_whole_texts_become(
    thoughts: list[str], pieces: list[str], is_finished: bool, n_together: int
) -> None:
    work = AnswerFilter(WORDS)
    chunks = stream_of(thoughts, pieces, is_finished=is_finished)
    shown: list[ChatChunk] = []
    for at in range(0, len(chunks), n_together):
        shown += work.feed(chunks[at : at + n_together])
    shown += work.close()
    assert text_of(shown) == WORDS.apply("".join(pieces))
    assert "".join(one.reasoning for one in shown) == WORDS.apply("".join(thoughts))
    assert work.failure is None
    found = [*((TextKey(0, "reasoning"), match) for match in WORDS.find("".join(thoughts)))]
    found += ((TextKey(0, "content"), match) for match in WORDS.find("".join(pieces)))
    assert work.matches == found


@settings(max_examples=60)
@given(cut_texts, st.booleans(), st.sampled_from(["window", "full", "live"]))
def test_a_blocked_text_ends_at_the_same_place_however_it_is_cut(
    pieces: list[str], is_finished: bool, mode: FilterMode
) -> None:
    whole = "".join(pieces)
    work = AnswerFilter(BLOCK[mode])
    shown = work.feed(stream_of([], pieces, is_finished=is_finished))
    shown += work.close()
    if "敏感词" not in whole:
        assert (text_of(shown), work.failure) == (whole, None)
        return
    assert isinstance(work.failure, BlockedError)
    assert work.failure.term == "敏感词"
    assert work.failure.is_retracted is (mode == "live")
    assert all(one.finish_reason is None for one in shown)
    if mode == "live":
        # Whole pieces, and of the one with which the match was certain what stands before it.
        part, before = BLOCK[mode].open(), ""
        for piece in pieces:
            part.feed(piece)
            before += piece if part.blocked is None else ""
        assert text_of(shown) == whole[: max(len(before), whole.index("敏感词"))]
    else:
        assert text_of(shown) == ("" if mode == "full" else before_block(whole))


def test_nothing_comes_after_a_block() -> None:
    work = AnswerFilter(BLOCK["window"])
    first = chunk(says("别的"), says("好敏感词。", 1), says("后面", 2))
    [shown] = work.feed([first, chunk(says("后面"))])
    assert [choice.delta.content for choice in shown.choices] == ["别的", "好", ""]
    failure = work.failure
    assert failure is not None
    assert work.feed([chunk(says("后面", finish_reason="stop"))]) == []
    assert work.close() == []
    assert work.failure is failure
    work = AnswerFilter(BLOCK["window"].with_settings(channels=["content"]))
    chunks = [chunk(says("好敏感词。")), chunk(thinks("what nobody looks at"))]
    assert text_of(work.feed([*chunks, *chunks])) == "好"
    assert work.feed(chunks) == [], "nor of the channels that are not filtered"


def test_the_chunk_of_a_block_does_not_say_that_the_answer_is_over() -> None:
    for text, shown in (("好敏感词", "好"), ("敏感词", None)):
        work = AnswerFilter(BLOCK["window"])
        last = work.feed([chunk(says(text, finish_reason="stop"), usage={"total_tokens": 1})])
        assert [(one.text, one.finish_reason) for one in last] == ([(shown, None)] if shown else [])
    for name in ("reasoning_content", "reasoning"):
        work = AnswerFilter(BLOCK["window"])
        [last_one] = work.feed([chunk(thinks("好敏感词", name))])
        assert last_one.reasoning == "好"


def test_a_block_at_the_very_end_shows_what_stood_before_it() -> None:
    words = ContentFilter(["敏感", Term("敏感词", action="flag")], action="block")
    work = AnswerFilter(words)
    assert text_of(work.feed([chunk(says("好敏感"))])) == "好"
    assert work.failure is None, "it may become what is only noted"
    assert work.close() == []
    assert work.failure is not None


def test_full_keeps_thinking_until_the_answer_is_finished() -> None:
    work = AnswerFilter(ContentFilter(["敏感词"], mode="full"))
    assert work.feed([chunk(thinks("想敏感词")), chunk(says("好敏感词"))]) == []
    [last] = work.feed([chunk(says("。", finish_reason="stop"))])
    assert (last.text, last.reasoning, last.finish_reason) == ("好***。", "想***", "stop")


def test_live_shows_what_is_only_noted_at_once() -> None:
    work = AnswerFilter(ContentFilter(["敏感词"], action="flag", mode="live"))
    chunks = [chunk(says(piece)) for piece in "好敏感词。"]
    assert all(work.feed([one]) == [one] for one in chunks)
    assert work.close() == []
    [(key, match)] = work.matches
    assert (key, match.start, match.end) == (TextKey(0, "content"), 1, 4)


def test_places_count_from_the_very_beginning_of_a_text() -> None:
    live = AnswerFilter(ContentFilter.from_terms(["坏"], mode="live"))
    for name, text in (
        ("reasoning_content", "想坏"),
        ("content", "说坏"),
        ("reasoning_content", "再想坏事"),
        ("content", "再说坏话"),
    ):
        live.feed([ChatChunk.model_validate({"choices": [{"delta": {name: text}}]})])
    live.close()
    found = [(key.channel, match.start, match.end) for key, match in live.matches]
    assert sorted(found) == [
        ("content", 1, 2), ("content", 4, 5), ("reasoning", 1, 2), ("reasoning", 4, 5),
    ]  # fmt: skip


# What those decide who judge clauses.


def judge(clause: Clause) -> ClauseVerdict | None:
    actions: dict[str, Action] = {"坏": "mask", "丢": "drop", "记": "flag"}
    for sign, action in actions.items():
        if sign in clause.text:
            return ClauseVerdict(action, "why")
    return None


def whole_of(content_filter: ContentFilter, text: str) -> str:
    cutter = ClauseCutter("content")
    shown = ""
    for clause in cutter.feed(text) + cutter.close():
        verdict = judge(clause)
        new = (
            None
            if verdict is None
            else content_filter.replacement(verdict.action, len(clause.text))
        )
        shown += clause.text if new is None else new
    return shown


def released(
    gate: ClauseGate, batches: Sequence[Sequence[ChatChunk]], judge: Any = judge
) -> tuple[list[ChatChunk], list[Clause]]:
    shown: list[ChatChunk] = []
    clauses: list[Clause] = []
    for number, batch in enumerate(batches, 1):
        asked = gate.feed(batch, is_over=number == len(batches))
        clauses += asked
        shown += gate.release([judge(clause) for clause in asked])
        if gate.failure is not None:
            break
    return shown, clauses


@settings(max_examples=60)
@given(
    st.lists(st.text("坏丢记好，。", max_size=5), max_size=6),
    st.lists(st.text("坏好。", max_size=5), max_size=3),
    st.sampled_from([1, 2, 99]),
    st.booleans(),
    st.sampled_from(["window", "full"]),
)
def test_clauses_are_those_of_the_whole_text_and_so_is_what_is_shown(
    pieces: list[str], thoughts: list[str], n: int, is_finished: bool, mode: FilterMode
) -> None:
    words = ContentFilter(mode=mode, checkers=())
    chunks = stream_of(thoughts, pieces, is_finished=is_finished)
    batches = [chunks[at : at + n] for at in range(0, len(chunks), n)] or [[]]
    gate = ClauseGate(words)
    shown, clauses = released(gate, batches)
    assert text_of(shown) == whole_of(words, "".join(pieces))
    assert "".join(one.reasoning for one in shown) == whole_of(words, "".join(thoughts))
    for channel, told in (("content", pieces), ("reasoning", thoughts)):
        of_channel = [clause for clause in clauses if clause.channel == channel]
        matches = [match for key, match in gate.matches if key.channel == channel]
        judged = [clause.text for clause in of_channel if judge(clause) is not None]
        assert ["".join(told)[match.start : match.end] for match in matches] == judged
        assert "".join(clause.text for clause in of_channel) == "".join(told)
        befores = accumulate((clause.text for clause in of_channel), initial="")
        for clause, before in zip(of_channel, befores, strict=False):
            assert clause.context == before[-50:]


@pytest.mark.parametrize("mode", ["window", "full", "live"])
@pytest.mark.parametrize("size", [1, 2, 99])
def test_a_clause_that_is_blocked_ends_the_text_before_it(mode: FilterMode, size: int) -> None:
    text = "好。坏。还有。"
    gate = ClauseGate(ContentFilter(["x"], action="block", mode=mode))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    shown, _ = released(
        gate,
        [stream_of([], pieces, is_finished=True)],
        lambda clause: ClauseVerdict("block", "rude") if "坏" in clause.text else None,
    )
    assert gate.failure is not None
    assert str(gate.failure) == "the content filter stopped the text (rude)"
    assert gate.failure.term is None
    [(key, match)] = gate.matches
    assert (key.channel, *match) == ("content", 2, 4, "", "rude", "block", None)
    assert gate.failure.is_retracted is (mode == "live")
    # In full, the one who is asked comes before anything was shown.
    assert text_of(shown) == ("好。" if mode != "full" or size < 3 else "")
    assert all(one.finish_reason is None for one in shown)


def test_after_a_blocked_clause_nothing_of_its_chunk_is_shown() -> None:
    gate = ClauseGate(ContentFilter(["x"], action="block"))
    asked = gate.feed(
        [
            chunk(says("别的。"), says("坏。", 1), says("后面。", 2), usage={"total_tokens": 1}),
            chunk(says("后面。", finish_reason="stop")),
        ],
        is_over=True,
    )
    assert [clause.text for clause in asked] == ["别的。", "坏。", "后面。", "后面。"]
    verdicts = [
        ClauseVerdict("block", "why") if clause.text == "坏。" else None for clause in asked
    ]
    [shown] = gate.release(verdicts)
    assert [choice.delta.content for choice in shown.choices] == ["别的。", "", ""]
    assert shown.finish_reason is None


def test_what_waits_for_its_end_is_asked_for_when_the_stream_is_over() -> None:
    gate = ClauseGate(WORDS)
    assert gate.feed([chunk(says("半句"))], is_over=False) == []
    assert gate.release([]) == []
    assert gate.feed([], is_over=True) == [Clause("半句")]
    [last] = gate.release([ClauseVerdict("mask", "why")])
    assert last.text == "**"
    gate = ClauseGate(WORDS)
    gate.feed([chunk(says("半句"))], is_over=True)
    assert gate.release([ClauseVerdict("block", "why")]) == []
    assert gate.failure is not None
