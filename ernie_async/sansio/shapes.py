"""Types as the reader of half an answer sees them: which parts may be shown before they are whole.

Models, lists, dicts and plain text grow; everything else comes when it is complete. What a shape
accepts has passed the validation of its type.
"""

from collections.abc import Mapping
from functools import cached_property
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, Field, RootModel, TypeAdapter
from pydantic.fields import FieldInfo

__all__ = ["Shape", "shape_of"]

# Validators that see a model before its fields do may change what the fields are.
EARLY = {"before", "wrap"}


class Shape:
    """What a type is made of.

    Attributes:
        kind: `model`, `list`, `dict` or `text`, which grow; `whole`, which does not.
    """

    def __init__(self, annotation: Any, known: "dict[Any, Shape]") -> None:
        self._annotation = annotation
        self._known = known
        bare = _bare(annotation)
        origin, arguments = get_origin(bare), get_args(bare)
        self._model: type[BaseModel] | None = None
        self._item: Any = None
        if bare is str:
            self.kind: str = "text"
        elif origin is list and arguments:
            self.kind, self._item = "list", arguments[0]
        elif origin is dict and arguments and arguments[0] is str:
            self.kind, self._item = "dict", arguments[1]
        elif _has_plain_fields(bare):
            self.kind, self._model = "model", bare
        else:
            self.kind = "whole"

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Validates a whole value."""
        return TypeAdapter(self._annotation)

    @cached_property
    def item(self) -> "Shape":
        """Of each item of a list, or each value of a dict."""
        return shape_of(self._item, self._known)

    @cached_property
    def items(self) -> TypeAdapter[list[Any]]:
        """Validates several items of a list at once, whatever their number."""
        return TypeAdapter(list[self._item])  # type: ignore[name-defined]

    @cached_property
    def _fields(self) -> "dict[str, tuple[str, Shape]]":
        assert self._model is not None
        checked = {
            name
            for held in self._model.__pydantic_decorators__.field_validators.values()
            for name in held.info.fields
        }
        found: dict[str, tuple[str, Shape]] = {}
        for name, field in self._model.model_fields.items():
            if name in checked or "*" in checked:
                continue  # what a function makes of it is known at the end
            shape = shape_of(_annotation_of(field), self._known)
            for key in _keys_of(name, field, self._model.model_config):
                found[key] = (name, shape)
        return found

    def field(self, key: str) -> "tuple[str, Shape] | None":
        """The attribute that a key of the JSON object becomes; `None` if it is not shown."""
        return self._fields.get(key)

    def empty(self) -> Any:
        """An object of this type with nothing in it yet."""
        if self._model is None:
            return [] if self.kind == "list" else {}
        made = self._model.__new__(self._model)
        # Not `model_construct`: it would set defaults, which the answer may contradict later.
        for name, value in (
            ("__dict__", {}),
            ("__pydantic_fields_set__", set()),
            ("__pydantic_extra__", None),
            ("__pydantic_private__", None),
        ):
            object.__setattr__(made, name, value)
        return made


def shape_of(annotation: Any, known: dict[Any, Shape] | None = None) -> Shape:
    """The shape of a type.

    Args:
        annotation: Any type that pydantic knows.
        known: Shapes made before; a model may hold itself.
    """
    known = {} if known is None else known
    try:
        if annotation not in known:
            known[annotation] = Shape(annotation, known)
        return known[annotation]
    except TypeError:  # an annotation that holds a mutable value
        return Shape(annotation, known)


def _bare(annotation: Any) -> Any:
    """The type without what says nothing of how it may grow: an optional one grows as well."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            if not all(isinstance(part, FieldInfo) and not _is_constrained(part) for part in more):
                return None
        elif origin in {Union, UnionType}:
            kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
            if len(kinds) != 1:
                return None
            annotation = kinds[0]
        else:
            return annotation


def _annotation_of(field: FieldInfo) -> Any:
    """What a field accepts, without what only a field has, such as its alias."""
    more = list(field.metadata)
    if field.discriminator is not None:
        more.append(Field(discriminator=field.discriminator))
    return Annotated[field.annotation, *more] if more else field.annotation


def _is_constrained(field: FieldInfo) -> bool:
    return bool(field.metadata) or field.discriminator is not None


def _has_plain_fields(kind: Any) -> bool:
    if not isinstance(kind, type) or not issubclass(kind, BaseModel) or issubclass(kind, RootModel):
        return False
    decorators = kind.__pydantic_decorators__
    return not any(held.info.mode in EARLY for held in decorators.model_validators.values())


def _keys_of(name: str, field: FieldInfo, config: Mapping[str, Any]) -> list[str]:
    alias = field.validation_alias if field.validation_alias is not None else field.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    keys = [choice for choice in choices if isinstance(choice, str)]
    if alias is None or config.get("populate_by_name") or config.get("validate_by_name"):
        keys.append(name)
    return keys
