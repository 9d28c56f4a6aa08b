"""Answers of a type: what is asked for, and what is read out of what a model says."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from ernie_async.errors import ConfigError, OutputError, shorten
from ernie_async.sansio.output import (
    ATTEMPTS,
    OutputType,
    ask_again,
    ask_for,
    type_of_schema,
)
from ernie_async.types.messages import assistant, system, user
from ernie_async.types.request import ChatRequest, ResponseFormat


class Item(BaseModel):
    name: str
    count: int = Field(ge=0)


class Invoice(BaseModel):
    title: str
    items: list[Item] = []


ITEMS = [Item(name="甲", count=1), Item(name="乙", count=22)]
INVOICE = Invoice(title="发票", items=ITEMS)
TEXT = INVOICE.model_dump_json()
HI = ChatRequest(messages=[user("hi")])


# What is asked for.


def test_an_object_is_asked_for_as_it_is() -> None:
    for kind in (Invoice, dict[str, int]):
        output = OutputType(kind)
        assert output.schema["type"] == "object"
        assert "value" not in output.schema.get("properties", {})
    assert OutputType(Invoice).schema == Invoice.model_json_schema()
    assert OutputType(Invoice).name == "Invoice"


@pytest.mark.parametrize("kind", [list[Item], list, int, str, Literal["好", "坏"], Item | None])
def test_anything_else_is_asked_for_as_the_member_of_an_object(kind: Any) -> None:
    output = OutputType[Any](kind)
    schema = output.schema
    assert (schema["type"], schema["required"], [*schema["properties"]]) == (
        "object", ["value"], ["value"],
    )  # fmt: skip
    assert output.name == "answer"
    # References are to the root of the schema, so that is where the definitions have to be.
    assert ("$defs" in schema) is ("Item" in str(kind))
    assert "$defs" not in schema["properties"]["value"]
    assert output.is_list is (kind in (list, list[Item]))


def test_a_name_has_the_letters_that_servers_take() -> None:
    assert OutputType(create_model("发票_1", x=(int, 1))).name == "___1"
    assert OutputType(create_model("N" * 80, x=(int, 1))).name == "N" * 64
    assert OutputType(create_model("Page[int]", x=(int, 1))).name == "Page_int_"
    assert OutputType(dict[str, int]).name == "dict"
    schema = {"type": "object", "title": "has no name but this one"}
    assert OutputType[Any](type_of_schema(schema)).name.isidentifier()


class Unknown:
    pass


def nested(depth: int) -> Any:
    kind: Any = int
    for _ in range(depth):
        kind = list[kind]
    return kind


@pytest.mark.parametrize("kind", [{"type": "object"}, "Unknown"])
def test_what_is_no_type_is_refused(kind: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^into: expected a type, such as a pydantic model, got "
    ):
        OutputType(kind)


@pytest.mark.parametrize("kind", [Unknown, list[Unknown], nested(400)], ids=shorten)
def test_a_type_without_a_schema_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match=r"^into: no JSON schema for "):
        OutputType(kind)


def test_a_server_that_takes_a_schema_gets_it_and_the_messages_stay() -> None:
    output = OutputType(Invoice)
    asked = ask_for(HI, output, "json_schema")
    assert asked.messages == HI.messages
    assert asked.response_format == ResponseFormat(
        type="json_schema", json_schema={"name": "Invoice", "schema": output.schema}
    )
    assert HI.response_format is None


@pytest.mark.parametrize(("method", "form"), [("json_object", "json_object"), ("prompt", None)])
def test_else_the_schema_is_said_in_the_system_message(method: Any, form: str | None) -> None:
    output = OutputType(list[Item])
    schema = json.dumps(output.schema, ensure_ascii=False)
    asked = ask_for(HI, output, method)
    assert (asked.response_format and asked.response_format.type) == form
    first, second = asked.messages
    assert first.role == "system"
    assert isinstance(first.content, str)
    assert first.content.startswith("Answer with one JSON object and nothing else")
    assert first.content.endswith(f"\n{schema}")
    assert second == user("hi")
    known = ChatRequest(messages=[system("你是会计。"), user("hi")])
    joined, second = ask_for(known, output, method).messages
    assert joined == system(f"你是会计。\n\n{first.content}")
    assert second == user("hi")


def test_a_system_message_in_parts_is_left_alone() -> None:
    parts = {"role": "system", "content": [{"type": "text", "text": "你是会计。"}]}
    request = ChatRequest.model_validate({"messages": [parts, {"role": "user", "content": "hi"}]})
    words, *others = ask_for(request, OutputType(Invoice), "prompt").messages
    assert words.role == "system"
    assert others == request.messages


def test_a_request_with_a_form_of_its_own_is_refused() -> None:
    request = HI.model_copy(update={"response_format": ResponseFormat(type="text")})
    with pytest.raises(ConfigError, match=r"^response_format: parse sets it itself"):
        ask_for(request, OutputType(Invoice), "prompt")


def test_the_model_is_shown_what_it_said_and_told_what_is_wrong_with_it() -> None:
    error = OutputError("items.0 is missing", text="{}")
    *others, said, told = ask_again(HI, error).messages
    assert others == HI.messages
    assert said == assistant("{}")
    assert told.role == "user"
    assert isinstance(told.content, str)
    assert "items.0 is missing" in told.content
    for nothing in ("", " \n"):
        *others, told = ask_again(HI, OutputError("no text", text=nothing)).messages
        assert others == HI.messages, "an empty turn would be refused"


# What is read.


@settings(max_examples=60)
@given(
    st.sampled_from(["", "好的：\n", "注意 {这里} 和 [1]。\n", '第一版：{"title": 1}，更正：']),
    st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", "  {}\n\n"]),
    st.sampled_from(["", "\n还有 {} 问题吗？", "\n[注]"]),
    st.sampled_from([None, 2]),
    st.text("甲'\"{}[],:\\\n`", max_size=8),
)
def test_an_object_is_found_whatever_is_around_it(
    before: str, form: str, after: str, indent: int | None, title: str
) -> None:
    wanted = Invoice(title=title, items=ITEMS)
    text = before + form.replace("{}", wanted.model_dump_json(indent=indent)) + after
    assert OutputType(Invoice).read(text) == wanted


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (list[Item], '{"value": [{"name": "甲", "count": 1}]}', ITEMS[:1]),
        (list[Item], '[{"name": "甲", "count": 1}]', ITEMS[:1]),
        (list[Item], '好的：{ "value" : [{"name": "甲", "count": 1}] }。', ITEMS[:1]),
        (list[Item], '好的：[{"name": "甲", "count": 1}]。', ITEMS[:1]),
        (list[int], "[]", []),
        (int, '{"value": 7}', 7),
        (int, "7", 7),
        (int, "```json\n7\n```", None),
        (Literal["好", "坏"], "好", "好"),
        (Literal["好", "坏"], '"好"', "好"),
        (Literal["好", "坏"], " 好\n", "好"),
        (str, "\n两行\n字\n", "两行\n字"),
        (dict[str, int], '{"value": 1}', {"value": 1}),
        (Item | None, "null", None),
        (Item, '{"name": "a\nb", "count": 1}', Item(name="a\nb", count=1)),
        (Item, '{"name": "a\tb", "count": 1} and more', Item(name="a\tb", count=1)),
    ],
)
def test_a_type_is_read_in_the_forms_that_models_give_it(
    kind: Any, text: str, expected: Any
) -> None:
    output = OutputType[Any](kind)
    if expected is None and kind is int:
        with pytest.raises(OutputError):
            output.read(text)
    else:
        assert output.read(text) == expected


def test_the_first_object_that_is_valid_counts() -> None:
    wrong, right, other = (
        json.dumps({"name": n, "count": c}) for n, c in [("a", -1), ("b", 1), ("c", 2)]
    )
    assert OutputType(Item).read(f"{wrong} {right} {other}").name == "b"
    fenced = f"{right}\n```json\n{other}\n```"
    assert OutputType(Item).read(fenced).name == "c", "a fence is meant"


def test_what_is_wrong_is_told_of_the_first_that_was_found() -> None:
    with pytest.raises(OutputError) as caught:
        OutputType(Item).read('{"name": "a", "count": -1} {"name": 1}')
    assert str(caught.value) == (
        "the answer is no valid Item: count: Input should be greater than or equal to 0"
    )
    assert caught.value.text == '{"name": "a", "count": -1} {"name": 1}'


def test_of_many_mistakes_the_first_five_are_told() -> None:
    items = [{"name": "a"}] * 7
    with pytest.raises(OutputError, match=r"items\.4\.count: Field required; and 2 more$"):
        OutputType(Invoice).read(json.dumps({"title": "t", "items": items}))
    with pytest.raises(OutputError, match=r"items\.4\.count: Field required$"):
        OutputType(Invoice).read(json.dumps({"title": "t", "items": items[:5]}))
    with pytest.raises(OutputError, match=r"no valid answer: all of it: Input should be a valid"):
        OutputType(int).read("seven")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected JSON for Item, got no text"),
        ("抱歉。", "expected JSON for Item, got '抱歉。'"),
        ('{"name": "a", "count":', "expected JSON for Item, got "),
        ("{name: 1}", "expected JSON for Item, got "),
        ('{"a":' * 100_000, "expected JSON for Item, got "),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "expected JSON for Item, got "),
    ],
)
def test_an_answer_without_json_is_an_error(text: str, told: str) -> None:
    with pytest.raises(OutputError) as caught:
        OutputType(Item).read(text)
    assert str(caught.value).startswith(told)
    assert caught.value.text == text


def test_not_every_brace_of_a_long_answer_is_tried() -> None:
    right = json.dumps({"name": "a", "count": 1})
    assert OutputType(Item).read('{"' * (ATTEMPTS - 1) + right)
    with pytest.raises(OutputError):
        OutputType(Item).read('{"' * ATTEMPTS + right)


@pytest.mark.parametrize(
    ("kind", "text", "start"),
    [
        (Item, '好的 {注意} {"name"', 8),
        (Item, "{}", 0),
        (Item, '{ \n"', 0),
        (Item, "{ ", None),
        (Item, "[", None),
        (list[int], '好 {"value": [1', 12),
        (list[int], '好 {"value": ', None),
        (list[int], '好 {"value"', None),
        (list[int], "好 [ 1", 2),
        (list[int], "好 [ ", None),
        (int, '{"value":7', 9),
        (int, "[1", None),
        (int, "7", None),
    ],
)
def test_where_a_value_begins_is_known_once_it_has(kind: Any, text: str, start: int | None) -> None:
    assert OutputType[Any](kind).start(text) == start


def test_items_are_read_one_by_one() -> None:
    output = OutputType(list[Item])
    assert output.read_item(b'{"name": "a", "count": 1}') == Item(name="a", count=1)
    with pytest.raises(OutputError, match=r"^an item is not valid: count: "):
        output.read_item(b'{"name": "a", "count": -1}')
    with pytest.raises(OutputError, match=r"^an item is not valid: ") as caught:
        output.read_item(b'{"name": "\xff", "count": 1}')
    assert caught.value.text == '{"name": "\ufffd", "count": 1}'


# Schemas that somebody wrote.


def test_a_schema_of_an_object_reads_any_object() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    output = OutputType[Any](type_of_schema(schema))
    assert output.schema == schema
    assert output.read('好的：{"a": "x"}') == {"a": "x"}
    with pytest.raises(OutputError):
        output.read("[1]")


def test_a_schema_of_anything_else_reads_any_json() -> None:
    output = OutputType[Any](type_of_schema({"type": "array", "items": {"type": "integer"}}))
    assert output.schema["properties"]["value"]["type"] == "array"
    assert output.read('{"value": ["x"]}') == ["x"]
    assert output.read("[1]") == [1]
