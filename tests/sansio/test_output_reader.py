"""Half an answer of a type, with whatever words are around it."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ernie_async.sansio.output import OutputType
from ernie_async.sansio.output_reader import LOOK_BACK, OutputReader
from ernie_async.sansio.partial import MISSING


class Item(BaseModel):
    name: str
    count: int = 0


class Invoice(BaseModel):
    title: str
    items: list[Item] = []


VALUE = {"title": "发票 {1}", "items": [{"name": "甲", "count": 1}, {"name": "乙", "count": 22}]}
words = st.sampled_from(["", "好的：\n", "```json\n", "注意 {这里}。\n", "字" * 200 + "{"])


@settings(max_examples=60)
@given(words, words, st.data(), st.sampled_from([None, 2]))
def test_any_pieces_show_in_the_end_what_the_whole_answer_holds(
    before: str, after: str, data: st.DataObject, indent: int | None
) -> None:
    text = before + json.dumps(VALUE, ensure_ascii=False, indent=indent) + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    reader = OutputReader(OutputType(Invoice))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        was = repr(reader.value)
        shows = reader.feed(text[start:end], is_last=end == len(text))
        assert shows or repr(reader.value) == was, "what is new is told"
    assert reader.is_over
    assert reader.value == Invoice.model_validate(VALUE)
    assert not reader.items


@settings(max_examples=60)
@given(words, st.booleans(), st.data())
def test_items_are_taken_away_as_they_come(before: str, is_wrapped: bool, data: Any) -> None:
    held = VALUE["items"]
    text = before + json.dumps({"value": held} if is_wrapped else held)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    reader = OutputReader(OutputType(list[Item]))
    taken = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        reader.feed(text[start:end], is_last=end == len(text))
        while reader.items:
            taken.append(json.loads(reader.items.popleft()))
    assert taken == held
    assert reader.value is MISSING


def test_nothing_is_shown_before_the_value_begins() -> None:
    reader = OutputReader(OutputType(Invoice))
    for piece in ("好的", "：{", " "):
        assert not reader.feed(piece)
        assert reader.value is MISSING
    assert reader.feed('"title": "发')
    assert reader.value.title == "发"
    assert not reader.is_over


def test_a_start_that_comes_in_pieces_may_be_this_long() -> None:
    start = '{"value":'
    for blanks, is_found in ((LOOK_BACK - len(start) - 1, True), (LOOK_BACK, False)):
        reader = OutputReader(OutputType(list[int]))
        assert not reader.feed("字" * 100)
        for character in start.replace(":", " " * blanks + ":"):
            assert not reader.feed(character)
        reader.feed("7")
        reader.feed(",", is_last=True)
        assert reader.is_over is is_found


def test_what_is_no_json_is_passed_over_from_there_on() -> None:
    reader = OutputReader(OutputType(Invoice))
    assert reader.feed('好的：{"title": "发票", ')
    assert not reader.feed("等等")
    assert not reader.feed(f"，再来：{json.dumps(VALUE)}", is_last=True)
    assert not reader.is_over
    assert reader.value.title == "发票"
