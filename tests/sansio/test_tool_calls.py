"""Tool calls from fragments, as events."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.tool_calls import ToolCallAssembler, ToolCallEvent
from ernie_async.types.chunk import ChatChunk


def chunk(*fragments: dict[str, Any], finish: str | None = None) -> ChatChunk:
    choice = {"index": 0, "delta": {"tool_calls": list(fragments)}, "finish_reason": finish}
    return ChatChunk.model_validate({"choices": [choice]})


def fragment(index: int | None, arguments: str, **more: Any) -> dict[str, Any]:
    held: dict[str, Any] = {"function": {"arguments": arguments, "name": more.pop("name", None)}}
    return {**held, **({} if index is None else {"index": index}), **more}


def test_deltas_and_then_the_whole() -> None:
    assembler = ToolCallAssembler()
    events = assembler.feed(chunk(fragment(0, "", id="c1", name="f")))
    events += assembler.feed(chunk(fragment(0, '{"a"')))
    events += assembler.feed(chunk(fragment(0, ": 1}"), finish="tool_calls"))
    *deltas, done = events
    assert deltas == [ToolCallEvent("delta", 0, "f", delta) for delta in ("", '{"a"', ": 1}")]
    assert done.kind == "done"
    assert done.call is not None
    assert (done.call.id, done.call.function.arguments) == ("c1", '{"a": 1}')
    assert assembler.feed(chunk(finish="tool_calls")) == []


calls = st.lists(
    st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.text("ab"), st.integers())),
    min_size=1, max_size=4,
)  # fmt: skip


@given(calls, st.data(), st.booleans())
def test_any_fragments_in_any_turn_make_the_same_calls(
    wanted: list[tuple[str, dict[str, int]]], data: st.DataObject, has_index: bool
) -> None:
    """Where calls are numbered their fragments may come in turns; else one after the other."""
    fragments: list[list[dict[str, Any]]] = []
    for index, (name, arguments) in enumerate(wanted):
        text = json.dumps(arguments)
        cut = data.draw(st.integers(0, len(text)))
        number = index if has_index else None
        fragments.append(
            [fragment(number, text[:cut], id=f"c{index}", name=name), fragment(number, text[cut:])]
        )
    if has_index:
        order = data.draw(st.permutations([i for i in range(len(wanted)) for _ in range(2)]))
        mixed = [fragments[index].pop(0) for index in order]
    else:
        mixed = [part for parts in fragments for part in parts]
    assembler, accumulator = ToolCallAssembler(), Accumulator()
    events: list[ToolCallEvent] = []
    for part in [chunk(part) for part in mixed] + [chunk(finish="tool_calls")]:
        events += assembler.feed(part)
        accumulator.feed(part)
    done = [event.call for event in events if event.call is not None]
    assert [(call.function.name, json.loads(call.function.arguments)) for call in done] == wanted
    assert [call.id for call in done] == [f"c{index}" for index in range(len(wanted))]
    assert done == accumulator.completion().tool_calls
    for index, call in enumerate(done):
        deltas = [event.delta for event in events if event.index == index]
        assert "".join(deltas) == call.function.arguments


def test_only_the_first_answer_is_looked_at() -> None:
    assembler = ToolCallAssembler()
    other = {"index": 1, "delta": {"tool_calls": [fragment(0, "{}", id="c2", name="g")]}}
    both = {"choices": [{**other, "finish_reason": "tool_calls"}, {"delta": {}}]}
    assert assembler.feed(ChatChunk.model_validate(both)) == []
    events = assembler.feed(chunk(fragment(0, "{}", id="c1", name="f"), finish="tool_calls"))
    assert [event.name for event in events] == ["f", "f"]


def test_a_fragment_without_a_function_adds_nothing() -> None:
    assembler = ToolCallAssembler()
    [event] = assembler.feed(chunk({"index": 0, "id": "c1"}))
    assert (event.name, event.delta) == ("", "")
    assembler.feed(chunk(fragment(0, "{}", name="f")))
    [done] = assembler.feed(chunk(finish="tool_calls"))
    assert done.call is not None
    assert (done.call.id, done.name, done.call.function.arguments) == ("c1", "f", "{}")
