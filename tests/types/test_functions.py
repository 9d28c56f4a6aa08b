"""Functions of Python, as the model is told of them."""

from functools import partial
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from ernie_async import Tool
from ernie_async.types.functions import read_docstring, shape_of_function


class Place(BaseModel):
    city: str
    country: str = "中国"


async def weather(
    place: Place,
    unit: Literal["C", "F"] = "C",
    *,
    days: Annotated[int, Field(ge=1, le=7)] = 1,
    copy: bool = False,
) -> str:
    """Tell the weather.

    For any place on earth.

    Args:
        place: Where.
        unit: Of the temperature;
            Celsius if not given.
        days (int): How many.

    Returns:
        The weather, in words.
    """
    return f"{place} {unit} {days} {copy}"


def test_annotations_docstring_and_defaults_become_the_description() -> None:
    function = Tool.from_function(weather).function
    assert function.name == "weather"
    assert function.description == "Tell the weather.\n\nFor any place on earth."
    assert function.parameters is not None
    definitions = function.parameters.pop("$defs")
    assert definitions["Place"]["required"] == ["city"]
    assert function.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["place"],
        "properties": {
            "place": {"$ref": "#/$defs/Place", "description": "Where."},
            "unit": {
                "type": "string",
                "enum": ["C", "F"],
                "default": "C",
                "description": "Of the temperature; Celsius if not given.",
            },
            "days": {
                "type": "integer",
                "minimum": 1,
                "maximum": 7,
                "default": 1,
                "description": "How many.",
            },
            "copy": {"type": "boolean", "default": False},
        },
    }


def test_names_and_descriptions_can_be_given() -> None:
    tool = Tool.from_function(partial(weather, days=2), name="w", description="d")
    assert (tool.function.name, tool.function.description) == ("w", "d")
    assert Tool.from_function(lambda: None, name="nothing").function.description is None


def test_sphinx_style() -> None:
    told, arguments = read_docstring(
        "Find it.\n\n:param str where: the place\n    to look\n:param what: the thing\n:returns: it"
    )
    assert told == "Find it."
    assert arguments == {"where": "the place to look", "what": "the thing"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("One.", "One."),
        ("One.\n\nTwo:\n  - a: b\n  - c", "One.\n\nTwo:\n- a: b\n- c"),
        ("One.\n\nArgs:\n    a: x\n\nMore.", "One."),
        ("", ""),
    ],
)
def test_what_is_no_argument_is_the_description(text: str, told: str) -> None:
    assert read_docstring(text)[0] == told


def test_an_argument_may_be_of_any_name() -> None:
    def odd(model_config: str, self_: int, json: dict[str, Any]) -> None: ...

    shape = shape_of_function(odd)
    assert set(shape.schema["properties"]) == {"model_config", "self_", "json"}


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda *args: args, "by name"),
        (lambda **options: options, "by name"),
        (lambda: None, "letters, digits"),
        (eval("lambda x, /: x"), "by name"),
    ],
)
def test_what_cannot_be_described_is_refused(function: Any, told: str) -> None:
    name = None if told.startswith("letters") else "f"
    with pytest.raises(TypeError, match=told):
        Tool.from_function(function, name=name)


def test_types_without_a_schema_are_refused() -> None:
    def odd(of: object, odd: "type[Place]", when: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(TypeError, match="odd: its signature cannot be read"):
        Tool.from_function(odd)

    class Odd: ...

    def odder(of: Odd) -> None: ...

    with pytest.raises(TypeError, match="odder: no JSON schema"):
        Tool.from_function(odder)


def test_no_text_of_an_argument_is_remembered() -> None:
    def search(query: str) -> None: ...

    arguments = shape_of_function(search).arguments
    read = arguments.model_validate_json
    first, second = (read('{"query":"once"}').model_dump()["argument_query"] for _ in range(2))
    assert first == second == "once"
    assert first is not second
