"""Which types grow while they are read, and what their parts are."""

from typing import Annotated, Any, Literal, Optional, Union

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    field_validator,
    model_validator,
)

from ernie_async.sansio.shapes import shape_of


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Names(RootModel[list[str]]):
    pass


class After(BaseModel):
    x: int

    @model_validator(mode="after")
    def _check(self) -> "After":
        return self


class Before(BaseModel):
    x: int

    @model_validator(mode="before")
    @classmethod
    def _check(cls, value: Any) -> Any:
        return value


class Around(BaseModel):
    x: int

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, value: Any, handler: Any) -> Any:
        return handler(value)


def described(kind: Any) -> Any:
    return Annotated[kind, Field(description="said of it")]


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (str, "text"),
        (str | None, "text"),
        (Optional[str], "text"),  # noqa: UP045
        (described(str), "text"),
        (described(described(str) | None), "text"),
        (Annotated[str, Field(min_length=1)], "whole"),
        (Annotated[str, "whatever that means"], "whole"),
        (Annotated[str, {"held": "in what has no hash"}], "whole"),
        (str | int, "whole"),
        (Union[str, list[str], None], "whole"),  # noqa: UP007
        (Literal["a"], "whole"),
        (int, "whole"),
        (Any, "whole"),
        (list[int], "list"),
        (list[int] | None, "list"),
        (list, "whole"),
        (set[int], "whole"),
        (Annotated[list[int], Field(max_length=2)], "whole"),
        (dict[str, int], "dict"),
        (dict[int, int], "whole"),
        (dict, "whole"),
        (Cat, "model"),
        (Cat | None, "model"),
        (After, "model"),
        (Before, "whole"),
        (Around, "whole"),
        (Names, "whole"),
        (Cat | Dog, "whole"),
        (Annotated[Cat | Dog, Field(discriminator="kind")], "whole"),
    ],
)
def test_what_grows_and_what_comes_whole(annotation: Any, kind: str) -> None:
    assert shape_of(annotation).kind == kind


def test_parts_have_shapes_of_their_own() -> None:
    shape = shape_of(dict[str, list[Cat]])
    assert (shape.item.kind, shape.item.item.kind) == ("list", "model")
    assert shape.item.items.validate_python([{"kind": "cat"}]) == [Cat(kind="cat")]
    assert shape.adapter.validate_json(b'{"a": []}') == {"a": []}
    found = shape.item.item.field("kind")
    assert found is not None
    assert (found[0], found[1].kind) == ("kind", "whole")


class Tree(BaseModel):
    parts: "list[Tree]" = []


def test_a_model_may_hold_itself() -> None:
    shape = shape_of(Tree)
    found = shape.field("parts")
    assert found is not None
    assert found[1].item is shape


def test_what_is_empty_has_no_defaults() -> None:
    assert (shape_of(list[int]).empty(), shape_of(dict[str, int]).empty()) == ([], {})
    made = shape_of(Cat).empty()
    assert isinstance(made, Cat)
    assert (made.__dict__, made.model_fields_set, made.model_extra) == ({}, set(), None)
    made.lives = 1
    assert repr(made) == "Cat(lives=1)"


class Aliases(BaseModel):
    plain: int
    named: Annotated[int, Field(alias="Named")]
    read_as: Annotated[int, Field(validation_alias="readAs", alias="other")]
    one_of: Annotated[int, Field(validation_alias=AliasChoices("a", "b", AliasPath("c", 0)))]
    inside: Annotated[int, Field(validation_alias=AliasPath("d", "e"))] = 0


class AlsoByName(Aliases):
    model_config = ConfigDict(populate_by_name=True)


class ByNameToo(Aliases):
    model_config = ConfigDict(validate_by_name=True)


@pytest.mark.parametrize("model", [Aliases, AlsoByName, ByNameToo])
def test_a_key_leads_to_the_field_that_pydantic_puts_it_in(model: type[Aliases]) -> None:
    needed = {"plain": 1, "Named": 2, "readAs": 3, "a": 4}
    keys = ["plain", "Named", "readAs", "a", "b", "c", "d", "e", "other"]
    keys += ["named", "read_as", "one_of", "inside"]
    by_name = {key: (shape_of(model).field(key) or (None,))[0] for key in keys}
    for key, name in by_name.items():
        told = {n: value for n, value in needed.items() if by_name[n] != name}
        try:
            made = model.model_validate({**told, key: 77})
        except ValidationError:
            assert name is None
        else:
            assert name is None or getattr(made, name) == 77
            assert (77 in made.__dict__.values()) is (name is not None)


class Checked(BaseModel):
    free: str
    checked: str

    @field_validator("checked")
    @classmethod
    def _check(cls, value: str) -> str:
        return value


class AllChecked(BaseModel):
    free: str

    @field_validator("*")
    @classmethod
    def _check(cls, value: str) -> str:
        return value


def test_a_field_with_a_function_of_its_own_is_not_shown() -> None:
    assert shape_of(Checked).field("free") is not None
    assert shape_of(Checked).field("checked") is None
    assert shape_of(AllChecked).field("free") is None


class Home(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")
    name: str = Field(min_length=2)
    note: str = Field("", description="anything")


@pytest.mark.parametrize(
    ("key", "kind", "good", "bad"),
    [
        ("pet", "whole", b'{"kind": "dog"}', b'{"kind": "cow"}'),
        ("name", "whole", b'"ab"', b'"a"'),
        ("note", "text", b'""', b"7"),
    ],
)
def test_what_a_field_demands_is_demanded_of_its_value(
    key: str, kind: str, good: bytes, bad: bytes
) -> None:
    found = shape_of(Home).field(key)
    assert found is not None
    assert found[1].kind == kind
    found[1].adapter.validate_json(good)
    with pytest.raises(ValidationError):
        found[1].adapter.validate_json(bad)
