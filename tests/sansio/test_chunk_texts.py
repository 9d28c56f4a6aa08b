"""Whatever a function does to the texts of a stream, everything else of it stays as it was."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.chunk_texts import ChunkTexts, TextKey
from ernie_async.sansio.filter_values import Channel
from ernie_async.types.chunk import ChatChunk

ALL: tuple[Channel, ...] = ("content", "reasoning", "tool_arguments")


class Late:
    """Shows each text a few characters later than it comes."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.held: dict[TextKey, str] = {}

    def __call__(self, key: TextKey, text: str, is_over: bool) -> str:
        whole = self.held.pop(key, "") + text
        shown = len(whole) if is_over else max(0, len(whole) - self.n)
        if not is_over:
            self.held[key] = whole[shown:]
        return whole[:shown]


def same(_key: TextKey, text: str, _is_over: bool) -> str:
    return text


def upper(_key: TextKey, text: str, _is_over: bool) -> str:
    return text.upper()


def nothing(_key: TextKey, _text: str, _is_over: bool) -> str:
    return ""


def texts(change: Any, *, channels: Iterable[Channel] = ALL, kept: bool = False) -> ChunkTexts:
    return ChunkTexts(frozenset(channels), change, is_thinking_kept=kept)


def chunk(*choices: dict[str, Any], **fields: Any) -> ChatChunk:
    return ChatChunk.model_validate({"id": "as-1", "choices": choices, **fields})


def says(text: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, **fields}


def thinks(text: str, index: int = 0, name: str = "reasoning_content") -> dict[str, Any]:
    return {"index": index, "delta": {name: text}}


def calls(text: str | None, number: int | None = 0, **fields: Any) -> dict[str, Any]:
    function = {"arguments": text, "name": fields.pop("name", None)}
    return {"delta": {"tool_calls": [{"index": number, "function": function, **fields}]}}


def answered(chunks: Iterable[ChatChunk]) -> list[dict[str, Any]]:
    """What is said in all, without what only a chunk has."""
    accumulator = Accumulator()
    accumulator.feed(*chunks)
    answer = accumulator.completion()
    return [choice.model_dump(exclude={"logprobs"}) for choice in answer.choices]


def fed(work: ChunkTexts, chunks: Sequence[ChatChunk]) -> list[ChatChunk]:
    shown = [work.feed(one) for one in chunks]
    return [one for one in [*shown, work.close()] if one is not None]


pieces = st.text("ab敏", min_size=1, max_size=4)
indices = st.integers(0, 1)
choices = st.one_of(
    st.builds(says, pieces, indices),
    st.builds(thinks, pieces, indices, st.sampled_from(["reasoning_content", "reasoning"])),
    st.builds(calls, pieces, indices, name=st.sampled_from(["f", None]), index=indices),
    st.builds(says, st.text("ab", max_size=2), indices, finish_reason=st.just("stop")),
)
streams = st.lists(st.lists(choices, min_size=1, max_size=3).map(lambda many: chunk(*many)))


@settings(max_examples=60)
@given(streams, st.integers(0, 5), st.sets(st.sampled_from(ALL)), st.booleans())
def test_what_is_held_back_for_a_while_is_never_lost_nor_mixed_up(
    chunks: list[ChatChunk], n: int, channels: set[Channel], kept: bool
) -> None:
    shown = fed(texts(Late(n), channels=channels, kept=kept), chunks)
    by_index = {choice["index"]: choice for choice in answered(shown)}
    for choice in answered(chunks):
        # An answer of which there was nothing to show does not begin.
        assert by_index.pop(choice["index"], choice) == choice
    assert not by_index


@settings(max_examples=40)
@given(streams, st.sets(st.sampled_from(ALL)), st.booleans())
def test_chunks_that_do_not_change_are_the_very_same(
    chunks: list[ChatChunk], channels: set[Channel], kept: bool
) -> None:
    work = texts(same, channels=channels, kept=kept)
    for one in chunks:
        assert work.feed(one) is one
    assert work.close() is None


@settings(max_examples=40)
@given(streams, st.sets(st.sampled_from(ALL)))
def test_each_channel_is_changed_alone(chunks: list[ChatChunk], channels: set[Channel]) -> None:
    before = [one.model_dump_json() for one in chunks]
    told = answered(fed(texts(upper, channels=channels), chunks))
    assert [one.model_dump_json() for one in chunks] == before, "what came is nobody's to change"
    wanted = answered(chunks)
    for choice in wanted:
        message = choice["message"]
        for name, channel in (("content", "content"), ("reasoning_content", "reasoning")):
            if channel in channels and message[name]:
                message[name] = message[name].upper()
        for call in message["tool_calls"] or ():
            if "tool_arguments" in channels:
                call["function"]["arguments"] = call["function"]["arguments"].upper()
    assert told == wanted


def test_each_text_has_a_key_of_its_own_and_ends_with_its_answer() -> None:
    seen: list[tuple[Any, ...]] = []

    def note(key: TextKey, text: str, is_over: bool) -> str:
        seen.append((*key, text, is_over))
        return text

    work = texts(note)
    work.feed(chunk(thinks("t"), says("x", 1)))
    work.feed(chunk(says("a")))
    work.feed(chunk(calls("{", 0), calls("[", 1)))
    work.feed(chunk(says("b", finish_reason="tool_calls")))
    work.feed(chunk(says("", finish_reason="stop")))
    work.close()
    assert seen == [
        (0, "reasoning", 0, "t", False),
        (1, "content", 0, "x", False),
        (0, "reasoning", 0, "", True),
        (0, "content", 0, "a", False),
        (0, "tool_arguments", 0, "{", False),
        (0, "tool_arguments", 1, "[", False),
        (0, "content", 0, "b", True),
        (0, "tool_arguments", 0, "", True),
        (0, "tool_arguments", 1, "", True),
        (1, "content", 0, "", True),
    ]


@pytest.mark.parametrize("kept", [False, True])
def test_thinking_is_over_when_the_answer_begins_unless_it_is_wanted_whole(kept: bool) -> None:
    work = texts(Late(9), kept=kept)
    assert work.feed(chunk(thinks("hm"))) is None
    first = work.feed(chunk(says("a" * 10)))
    assert first is not None
    assert (first.text, first.reasoning) == ("a", "" if kept else "hm")
    last = work.feed(chunk(says("", finish_reason="stop")))
    assert last is not None
    assert (last.text, last.reasoning) == ("a" * 9, "hm" if kept else "")


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": {"total_tokens": 1}},
        {"search_results": []},
        {"search_results": [{"index": 1}]},
    ],
)
def test_a_chunk_of_which_nothing_is_left_comes_only_for_what_else_it_says(
    fields: dict[str, Any],
) -> None:
    for choice in (says("a"), thinks("a"), thinks("a", name="reasoning")):
        assert texts(nothing).feed(chunk(choice)) is None
        left = texts(nothing).feed(chunk(choice, **fields))
        assert left is not None
        assert (left.text, left.reasoning) == ("", "")
        assert left.model_dump(include=set(fields)) == chunk(**fields).model_dump(
            include=set(fields)
        )


@pytest.mark.parametrize("more", [{"finish_reason": "stop"}, {"flag": 0}, {"flag": 3}])
def test_so_does_a_choice(more: dict[str, Any]) -> None:
    left = texts(nothing).feed(chunk(says("a", **more)))
    assert left is not None
    assert left.text == ""
    assert left.choices[0].model_dump(include=set(more)) == more


def test_a_changed_text_does_not_hide_the_other_one() -> None:
    for choice, shown in (
        ({"delta": {"content": "a", "reasoning_content": "t"}}, ("", "t")),
        ({"delta": {"content": "a", "reasoning": "t"}}, ("", "t")),
    ):
        left = texts(nothing, channels=["content"]).feed(chunk(choice))
        assert left is not None
        assert (left.text, left.reasoning) == shown
    left = texts(nothing, channels=["reasoning"]).feed(
        chunk({"delta": {"content": "a", "reasoning": "t"}})
    )
    assert left is not None
    assert (left.text, left.reasoning) == ("a", "")
    [call] = calls("{}", id="c1")["delta"]["tool_calls"]
    left = texts(nothing, channels=["content"]).feed(
        chunk({"delta": {"content": "a", "tool_calls": [call]}})
    )
    assert left is not None
    assert (left.text, left.tool_calls[0].id) == ("", "c1")


def test_what_the_service_stopped_is_not_released() -> None:
    work = texts(Late(9))
    work.feed(chunk(says("secret")))
    last = work.feed(chunk(says("", finish_reason="content_filter")))
    assert last is not None
    assert (last.text, last.finish_reason) == ("", "content_filter")


def test_an_empty_finish_reason_is_none() -> None:
    work = texts(Late(9))
    assert work.feed(chunk(says("abc", finish_reason=""))) is None
    last = work.close()
    assert last is not None
    assert last.text == "abc"


@pytest.mark.parametrize("channel", ALL)
def test_logprobs_are_hidden_where_text_is_looked_at(channel: Channel) -> None:
    probs = {"content": [{"token": "a", "logprob": -0.1}]}
    work = texts(same, channels=[channel])
    left = work.feed(chunk(says("a", logprobs=probs)))
    assert left is not None
    assert left.text == "a"
    assert left.choices[0].logprobs == (probs if channel == "tool_arguments" else None)


def test_a_fragment_that_names_its_call_comes_without_its_arguments() -> None:
    work = texts(Late(9))
    assert work.feed(chunk(calls(None, name="f"))) is not None, "there is nothing to change"
    for named in ({"id": "c1"}, {"name": "f"}):
        left = work.feed(chunk(calls("{", 0, **named)))
        assert left is not None
        [fragment] = left.tool_calls
        assert fragment.function is not None
        assert (fragment.id, fragment.function.name) == (named.get("id"), named.get("name"))
        assert fragment.function.arguments == ""
    assert work.feed(chunk(calls("}"))) is None
    last = work.feed(chunk(says("", finish_reason="tool_calls")))
    assert last is not None
    assert [call.function and call.function.arguments for call in last.tool_calls] == ["{{}"]


def test_calls_that_are_not_numbered_are_told_apart_by_their_ids() -> None:
    seen: list[tuple[int, str]] = []

    def note(key: TextKey, text: str, is_over: bool) -> str:
        seen.append((key.call, text))
        return text

    work = texts(note)
    for text, call_id in (("a", "c1"), ("b", None), ("c", "c1"), ("d", "c2"), ("e", None)):
        work.feed(chunk(calls(text, None, id=call_id)))
    assert seen == [(0, "a"), (0, "b"), (0, "c"), (1, "d"), (1, "e")]


def test_what_is_left_at_the_end_comes_in_a_chunk_that_says_nothing_else() -> None:
    work = texts(Late(9))
    assert work.close() is None, "nothing came"
    work.feed(chunk(says("a"), says("b", 1), usage={"total_tokens": 1}, model="m"))
    work.feed(chunk(thinks("t"), calls("{}"), usage={"total_tokens": 2}, search_results=[]))
    last = work.close()
    assert last is not None
    assert (last.id, last.usage, last.search_results) == ("as-1", None, None)
    assert [choice.index for choice in last.choices] == [0, 1]
    assert [choice.delta.content for choice in last.choices] == ["a", "b"]
    assert last.reasoning == "t"
    assert [call.function and call.function.arguments for call in last.tool_calls] == ["{}"]
    assert work.close() is None
