"""A function of Python as the model sees it: its name, its purpose, a schema of its arguments."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, create_model
from pydantic.json_schema import GenerateJsonSchema

__all__ = ["FunctionShape", "shape_of_function"]

KINDS = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}

# What servers take as the name of a function.
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}$")

# Their texts are forgotten with the call: see `types.wire`.
CONFIG = ConfigDict(extra="forbid", cache_strings="keys")

SECTION = re.compile(r"^\s*(Args|Arguments|Parameters):\s*$")
OTHER_SECTION = re.compile(r"^\s*(Returns?|Raises|Yields?|Examples?|Notes?|Attributes):\s*$")
ARGUMENT = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
FIELD = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+):\s*(.*)$")


class FunctionShape(NamedTuple):
    """What can be known of a function without calling it.

    Attributes:
        name: As the model calls it.
        description: The text of its docstring before the arguments; `None` without one.
        arguments: A model of its arguments; each field is one of them.
        schema: The JSON schema of the arguments.
    """

    name: str
    description: str | None
    arguments: type[BaseModel]
    schema: dict[str, Any]


class _Untitled(GenerateJsonSchema):
    """A schema without titles, which say again what the names say, and are paid for as tokens."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def shape_of_function(
    function: Callable[..., Any], *, name: str | None = None, description: str | None = None
) -> FunctionShape:
    """Read the signature and the docstring of a function.

    Args:
        function: Any callable whose arguments can be given by name.
        name: Instead of its own.
        description: Instead of its docstring's.

    Raises:
        TypeError: Its arguments cannot be described, or its name cannot be sent.
    """
    own_name = str(name or getattr(function, "__name__", type(function).__name__))
    if not NAME.match(own_name):
        raise TypeError(
            f"{own_name}: expected a name of 1 to 64 letters, digits, _ and -; pass name=..."
        )
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, ValueError) as error:
        raise TypeError(f"{own_name}: its signature cannot be read: {error}") from None
    told, descriptions = read_docstring(inspect.getdoc(function) or "")
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind not in KINDS:
            raise TypeError(f"{own_name}: {parameter} cannot be given by name")
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        # Behind an alias, since a model's own names, such as `copy`, may be those of arguments.
        fields[f"argument_{parameter.name}"] = (
            kind,
            Field(default, alias=parameter.name, description=descriptions.get(parameter.name)),
        )
    try:
        arguments = create_model(own_name, __config__=CONFIG, **fields)
        schema = arguments.model_json_schema(schema_generator=_Untitled)
    except (PydanticUserError, NameError) as error:
        raise TypeError(f"{own_name}: no JSON schema for its arguments: {error}") from None
    del schema["title"]
    schema.pop("description", None)
    return FunctionShape(own_name, description or told or None, arguments, schema)


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a function is for, and what is said of each argument.

    Args:
        text: The docstring, in the style of Google or of Sphinx (`:param name: ...`).
    """
    summary: list[str] = []
    arguments: dict[str, str] = {}
    current: str | None = None
    in_section = is_over = False
    indent = ""
    for line in text.splitlines():
        if SECTION.match(line):
            in_section, current, indent = True, None, ""
        elif OTHER_SECTION.match(line) or re.match(r"\s*:(returns?|raises|rtype)\b", line):
            in_section, current, is_over = False, None, True
        elif found := FIELD.match(line):
            arguments[found[1]] = found[2].strip()
            current, is_over = found[1], True
        elif in_section and (found := ARGUMENT.match(line)) and found[1] == (indent or found[1]):
            arguments[found[2]] = found[3].strip()
            indent, current = found[1], found[2]
        elif current is not None and line.strip():
            arguments[current] = f"{arguments[current]} {line.strip()}".strip()
        elif not line.strip():
            current = None
            summary += [""] * (not in_section and not is_over)
        elif not in_section and not is_over:
            summary.append(line.strip())
        elif in_section and not line.startswith((" ", "\t")):
            in_section, is_over = False, True
    return "\n".join(summary).strip(), arguments
