"""JSON of a known type, read while it comes."""

import json
import time
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator, model_validator

from ernie_async.sansio.partial import GROWTH, MISSING, JSONReader, NotJSONError
from ernie_async.sansio.shapes import shape_of


class Item(BaseModel):
    name: str
    count: int
    kind: Literal["new", "newer"] = "new"
    tags: list[str] = []


class Invoice(BaseModel):
    title: str
    total: Annotated[float, Field(ge=0)]
    items: list[Item] = []
    by_name: dict[str, int] = {}
    next: "Invoice | None" = None
    code: str | None = Field(None, alias="Code")
    upper: str = ""

    @field_validator("upper")
    @classmethod
    def _raise(cls, value: str) -> str:
        return value.upper()


INVOICE = {
    "title": '发票 😀 "q" \\ \n',
    "total": 12.5,
    "items": [
        {"name": "x", "count": 123, "kind": "newer", "tags": ["u", "v"]},
        {"name": "y", "count": -1},
    ],
    "by_name": {"a": 1, "b": 22},
    "next": {"title": "t", "total": 1e3, "unknown": {"deep": [1, {"a": None}]}},
    "Code": "C-1",
    "upper": "low",
}


def read(text: str, kind: Any, cuts: list[int] | None = None) -> tuple[JSONReader, list[str]]:
    reader = JSONReader(shape_of(kind))
    shown = []
    places = range(1, len(text)) if cuts is None else sorted(cuts)
    for start, end in zip([0, *places], [*places, len(text)], strict=True):
        if reader.feed(text[start:end]):
            shown.append(repr(reader.value))
    if reader.feed("", is_last=True):
        shown.append(repr(reader.value))
    return reader, shown


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_shown_grows_and_is_never_wrong(ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(INVOICE, ensure_ascii=ascii_only, indent=indent)
    whole = Invoice.model_validate_json(text)
    reader = JSONReader(shape_of(Invoice))
    for at in range(len(text)):
        reader.feed(text[at])
        if reader.value is not MISSING:
            assert_part_of(reader.value, whole)
    reader.feed("", is_last=True)
    assert reader.is_over
    expected = whole.model_dump(exclude_unset=True)
    del expected["upper"]  # a function has a say in it
    assert reader.value.model_dump(exclude_unset=True) == expected


def assert_part_of(part: Any, whole: Any) -> None:
    if isinstance(part, BaseModel):
        for name, value in part.__dict__.items():
            assert_part_of(value, getattr(whole, name))
    elif isinstance(part, list):
        for value, other in zip(part, whole, strict=False):
            assert_part_of(value, other)
        assert len(part) <= len(whole)
    elif isinstance(part, dict):
        for key, value in part.items():
            assert_part_of(value, whole[key])
    elif isinstance(part, str):
        assert whole.startswith(part)
    else:
        assert part == whole


def test_what_has_not_come_is_missing_and_not_its_default() -> None:
    reader = JSONReader(shape_of(Invoice))
    reader.feed('{"title": "a", "items": [{"name": "x", "kind": "new')
    invoice = reader.value
    assert invoice.title == "a"
    with pytest.raises(AttributeError, match="total"):
        _ = invoice.total
    assert invoice.items[0].__dict__ == {"name": "x"}, "the word may become newer"


def test_the_same_object_grows() -> None:
    reader = JSONReader(shape_of(Invoice))
    reader.feed('{"title": "a", "items": [')
    invoice = reader.value
    reader.feed('{"name": "x", "count": 1}, {')
    assert reader.value is invoice
    assert len(invoice.items) == 2


def test_an_invalid_value_is_left_out() -> None:
    reader, _ = read('{"title": 5, "total": -1, "items": [{"name": "x"}, 7], "Code": "c"}', Invoice)
    assert reader.value.__dict__ == {"items": [], "code": "c"}
    reader, _ = read('{"title": 5, "total": -1, "items": [{"name": "x"}, 7]}', Invoice, [20, 40])
    assert reader.value.__dict__ == {"items": []}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="ab\"\\é"), inner),
)  # fmt: skip


@given(json_values, st.data(), st.booleans())
def test_any_chunking_reads_the_same(value: Any, data: st.DataObject, ascii_only: bool) -> None:
    text = json.dumps({"held": value}, ensure_ascii=ascii_only)
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    reader, _ = read(text, dict[str, Any], cuts)
    assert reader.is_over
    assert reader.value == {"held": value}


@given(st.text(alphabet='{}[]",:\\u0123dntrue .-e', max_size=60), st.data())
def test_garbage_is_refused_or_waited_for(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5))
    try:
        reader, _ = read(text, list[Item], cuts)
    except NotJSONError:
        return
    if reader.is_over:
        json.JSONDecoder(strict=False).raw_decode(text.lstrip())


@pytest.mark.parametrize(
    "text", ["{]", "[}", "{1", '{"a" 1', "[1 2", "nul,", "[NaN]", '["\\x"', "]", "-"]
)
def test_what_cannot_become_json_is_refused(text: str) -> None:
    with pytest.raises(NotJSONError):
        read(text, list[Any])


class Tree(BaseModel):
    name: str
    parts: "list[Tree]" = []


trees = st.recursive(
    st.builds(lambda name: {"name": name}, st.sampled_from(["a", '},{"name":', "\\", ']}, {"'])),
    lambda inner: st.builds(
        lambda parts: {"name": "n", "parts": parts}, st.lists(inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(trees, max_size=6), st.data(), st.sampled_from([None, 2]))
def test_items_that_begin_alike_are_told_apart(
    items: list[Any], data: st.DataObject, indent: int | None
) -> None:
    text = json.dumps(items, indent=indent)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    whole = [Tree.model_validate(item) for item in items]
    reader = JSONReader(shape_of(list[Tree]))
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True):
        reader.feed(text[start:end], is_last=end == len(text))
        if reader.value is not MISSING:
            assert_part_of(reader.value, whole)
    assert reader.value == whole


def test_deep_nesting_is_no_crash() -> None:
    text = "[" * 100_000 + "]" * 100_000
    reader = JSONReader(shape_of(list[Any]))
    try:
        reader.feed(text)
    except NotJSONError:
        return
    assert reader.is_over


def test_items_come_when_they_are_complete() -> None:
    items: list[bytes] = []
    reader = JSONReader(shape_of(list[Item]), on_item=items.append)
    text = json.dumps(INVOICE["items"])
    for at in range(len(text)):
        reader.feed(text[at])
        expected = sum(text[: at + 1].count(end) for end in "}")
        assert len(items) == expected
    assert [json.loads(item) for item in items] == INVOICE["items"]
    assert reader.value is MISSING
    items.clear()
    reader = JSONReader(shape_of(list[int]), on_item=items.append)
    reader.feed("[1, 2, 33")
    assert items == [b"1", b"2"]
    reader.feed("]", is_last=True)
    assert items == [b"1", b"2", b"33"]


@pytest.mark.parametrize("text", ['{"title":"' + "字" * 1_000_000 + '"}',
    json.dumps({"title": "t", "items": [{"name": "n" * 20, "count": 1}] * 15_000})],
    ids=["one text", "many items"])  # fmt: skip
def test_work_grows_with_the_length_alone(text: str) -> None:
    def seconds(length: int) -> float:
        reader = JSONReader(shape_of(Invoice))
        started = time.thread_time()  # a busy machine does not count
        for at in range(0, length, 100):
            reader.feed(text[at : at + 100])
        return time.thread_time() - started

    seconds(20_000)
    short = min(seconds(len(text) // 8) for _ in range(3))
    long = min(seconds(len(text)) for _ in range(2))
    # Eight times the length; quadratic work would take 64 times as long.
    assert long < 32 * short


def test_a_long_answer_is_read_in_larger_steps() -> None:
    reader = JSONReader(shape_of(Invoice))
    shown = sum(reader.feed("x" * 10 if at else '{"title":"') for at in range(10_000))
    assert GROWTH < shown < 1_200


class Range(BaseModel):
    low: int
    high: int
    text: str = ""

    @model_validator(mode="after")
    def _is_in_order(self) -> "Range":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Ranges(BaseModel):
    first: Range
    others: list[Range] = []
    by_name: dict[str, Range] = {}


GOOD, BAD = {"low": 1, "high": 2}, {"low": 2, "high": 1}


@pytest.mark.parametrize("chars", [1, 3])
def test_what_turns_out_to_be_wrong_is_taken_back(chars: int) -> None:
    value: dict[str, Any] = {
        "first": BAD,
        "others": [GOOD, BAD, {**GOOD, "text": "x"}, BAD],
        "by_name": {"good": GOOD, "bad": BAD},
    }
    text = json.dumps(value)
    reader = JSONReader(shape_of(Ranges))
    shown = set()
    for at in range(0, len(text), chars):
        reader.feed(text[at : at + chars])
        shown.add(repr(getattr(reader.value, "first", None)))
    reader.feed("", is_last=True)
    assert "Range(low=2)" in shown
    assert reader.is_over
    assert reader.value.__dict__ == {
        "others": [Range(low=1, high=2), Range(low=1, high=2, text="x")],
        "by_name": {"good": Range(low=1, high=2)},
    }
    assert reader.value.model_fields_set == {"others", "by_name"}


@pytest.mark.parametrize("kind", [list[str], dict[str, str], Item])
def test_text_that_ends_with_half_a_character_is_taken_back(kind: Any) -> None:
    half = '"ab\\ud83d"'
    reader = JSONReader(shape_of(kind))
    reader.feed(("[" if kind == list[str] else '{"name": ') + half[:3])
    assert "ab" in repr(reader.value)
    reader.feed(half[3:] + ", ")
    assert not reader.value if kind is not Item else reader.value.__dict__ == {}


def test_half_a_character_in_a_whole_value_is_not_valid() -> None:
    for text in ('"\\ud83d"', '["\\ud83d", "b"]'):
        reader = JSONReader(shape_of(list[str]))
        reader.feed(text, is_last=True)
        assert reader.is_over
        assert reader.value is MISSING
    items: list[bytes] = []
    reader = JSONReader(shape_of(list[str]), on_item=items.append)
    reader.feed('["\\ud83d"]', is_last=True)
    assert items == [b'"\\ud83d"'], "whoever reads it finds out"


@pytest.mark.parametrize("chars", [1, 7, 70, 1000])
@pytest.mark.parametrize("is_even", [False, True])
def test_items_come_whole_however_they_are_cut(chars: int, is_even: bool) -> None:
    wanted: list[Any] = [{"name": str(n), "tags": [n]} for n in range(9)]
    if not is_even:
        wanted[3:6] = [7, {"tags": [], "name": "x"}, "y"]
    text = json.dumps(wanted)
    items: list[bytes] = []
    reader = JSONReader(shape_of(list[Item]), on_item=items.append)
    for at in range(0, len(text), chars):
        reader.feed(text[at : at + chars], is_last=at + chars >= len(text))
    assert [json.loads(item) for item in items] == wanted
    assert reader.is_over
    assert reader.value is MISSING


def test_what_is_no_list_has_no_items() -> None:
    items: list[bytes] = []
    reader = JSONReader(shape_of(list[int]), on_item=items.append)
    reader.feed('{"a": 1}', is_last=True)
    assert (items, reader.is_over) == ([], True)


@pytest.mark.parametrize("keeps", [False, True])
def test_of_items_that_come_together_those_that_are_valid_are_shown(keeps: bool) -> None:
    """Also of those that do not begin alike, and of those within what is validated whole."""
    items = [{"name": "a", "count": 1}, {"count": 2, "name": "b"}, {"name": "c"}, {"count": "x"}]
    items += [{"count": 3, "name": "d"}, {"name": "e", "count": 4}]
    begin = '{"title": "t", "next": {"title": "u", "items": ' if keeps else ""
    kind: Any = Invoice if keeps else list[Item]
    reader = JSONReader(shape_of(kind))
    reader.feed(begin + "[")
    reader.feed(json.dumps(items)[1:-1] + ",")
    shown = reader.value.next.items if keeps else reader.value
    assert [(item.name, item.count) for item in shown] == [("a", 1), ("b", 2), ("d", 3), ("e", 4)]
    if keeps:
        assert reader.feed("7]}"), "of the whole, one is not valid"
        assert not hasattr(reader.value, "next")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, " 7 ", 7),
        (str, '"a"', "a"),
        (list[int], "[1, 2]", [1, 2]),
        (Item, '{"name": "x", "count": 1}', Item(name="x", count=1)),
        (int, '"x"', MISSING),
    ],
)
def test_what_comes_at_once_is_shown_at_once(kind: Any, text: str, value: Any) -> None:
    reader = JSONReader(shape_of(kind))
    assert reader.feed(text, is_last=True) is (value is not MISSING)
    assert reader.is_over
    assert reader.value == value


def test_a_part_that_begins_like_an_item_is_none() -> None:
    trees = [{"name": "a", "parts": [{"name": "b"}]}, {"name": "c", "parts": [{"name": "d"}]}]
    text = json.dumps(trees)[:-1]
    for cut in range(1, len(text)):
        reader = JSONReader(shape_of(list[Tree]))
        reader.feed(text[:cut])
        reader.feed(text[cut:])
        assert reader.value == [Tree.model_validate(tree) for tree in trees]


@pytest.mark.parametrize("between", [", 7 ", " ", ",, ", ', {"name": 7} '])
def test_what_stands_between_items_is_read_too(between: str) -> None:
    reader = JSONReader(shape_of(list[Item]))
    reader.feed("[")
    with pytest.raises(NotJSONError):
        reader.feed('{"name": "a", "count": 1}' + between + '{"name": "b", "count": 2}, ')
