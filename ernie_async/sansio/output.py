"""Answers of a given type: how a model is asked for one, and how it is read out of what it says.

Models put JSON into code fences, and words around it; both are passed over.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

from pydantic import PydanticUserError, TypeAdapter, ValidationError, WithJsonSchema

from ernie_async.errors import ConfigError, OutputError, shorten
from ernie_async.sansio.servers import OutputMethod
from ernie_async.sansio.shapes import Shape, shape_of
from ernie_async.types.messages import Message, assistant, system, user
from ernie_async.types.request import ChatRequest, ResponseFormat

__all__ = ["METHODS", "OutputType", "ask_again", "ask_for", "explain_invalid", "type_of_schema"]

T = TypeVar("T")

METHODS = get_args(OutputMethod)

# What is no object is asked for as the one member of an object, since the service's JSON mode
# makes nothing else.
KEY = "value"
WRAPPED = re.compile(rf'\{{\s*"{KEY}"\s*:\s*')

FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)

# Where JSON may begin in an answer: at so many places it is tried.
ATTEMPTS = 32

_decoder = json.JSONDecoder(strict=False)


class OutputType(Generic[T]):
    """The type that an answer shall have.

    Args:
        into: A pydantic model, or any type that pydantic knows.

    Raises:
        ConfigError: It is no type, or there is no JSON schema for it.
    """

    def __init__(self, into: type[T]) -> None:
        if isinstance(into, (str, Mapping)):
            raise ConfigError(
                f"into: expected a type, such as a pydantic model, got {shorten(into)}"
            )
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(into)
            schema = self._adapter.json_schema()
        except (PydanticUserError, RecursionError) as error:
            raise ConfigError(f"into: no JSON schema for {shorten(into)}: {error}") from None
        self.into = into
        self.is_list: bool = get_origin(into) is list or into is list
        self._is_object = schema.get("type") == "object"
        if not self._is_object:
            definitions = schema.pop("$defs", None)
            schema = {"type": "object", "properties": {KEY: schema}, "required": [KEY]}
            if definitions is not None:
                schema["$defs"] = definitions
        self.schema: dict[str, Any] = schema

    @cached_property
    def shape(self) -> Shape:
        """For the reader of half an answer."""
        return shape_of(self.into)

    @property
    def name(self) -> str:
        """What the schema is called, in the letters that servers take."""
        given = getattr(self.into, "__name__", "answer") if self._is_object else "answer"
        return re.sub(r"[^a-zA-Z0-9_-]", "_", given)[:64]

    def start(self, text: str) -> int | None:
        """Where the value begins in what came so far; `None` if that is not known yet."""
        found = next(self._starts(text), None)
        return None if found is None or found == len(text) else found

    def _starts(self, text: str) -> Iterator[int]:
        if not self._is_object:
            pattern = rf"{WRAPPED.pattern}|(\[)(?=\s*\S)" if self.is_list else WRAPPED.pattern
        else:
            pattern = r'(\{)(?=\s*["}])'
        for found in re.finditer(pattern, text):
            yield found.end() if found.lastindex is None else found.start(1)

    def read(self, text: str) -> T:
        """The value that an answer holds.

        Raises:
            OutputError: There is none, or none that is valid.
        """
        failure: ValidationError | None = None
        for candidate in self._candidates(text):
            try:
                return self._adapter.validate_json(candidate)
            except ValidationError as error:
                failure = failure or error
        if failure is None:
            raise OutputError(
                f"expected JSON for {self.name}, got {shorten(text) if text else 'no text'}",
                text=text,
            )
        raise OutputError(
            f"the answer is no valid {self.name}: {explain_invalid(failure)}", text=text
        )

    def read_item(self, found: bytes) -> Any:
        """One item of the list, from JSON.

        Raises:
            OutputError: It is not valid.
        """
        try:
            return self.shape.item.adapter.validate_json(found)
        except ValidationError as error:
            message = f"an item is not valid: {explain_invalid(error)}"
        raise OutputError(message, text=found.decode(errors="replace"))

    def _candidates(self, text: str) -> Iterator[str | bytes]:
        whole = text.strip()
        if whole[:1] in {"{", "["} and not WRAPPED.match(whole):
            yield from _as_json(whole)
        inside = [*FENCE.findall(text), text]
        tried = 0
        for held in inside:
            for start in self._starts(held):
                tried += 1
                if tried > ATTEMPTS:
                    return
                try:
                    value, end = _decoder.raw_decode(held, start)
                except (ValueError, RecursionError):
                    continue
                del value
                yield from _as_json(held[start:end])
        if not self._is_object and not self.is_list:
            yield from _as_json(whole)  # a number or a word by itself
            yield json.dumps(whole)


def _as_json(text: str) -> Iterator[str | bytes]:
    """The text, if it is JSON; with the line ends that models leave inside of strings escaped."""
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return
    yield text
    if re.search(r"[\x00-\x1f]", text):
        yield json.dumps(value)


def explain_invalid(failure: ValidationError) -> str:
    """What is wrong, in one line: the first few places and what was expected there."""
    errors = failure.errors(include_url=False, include_context=False)
    told = [
        f"{'.'.join(map(str, error['loc'])) or 'all of it'}: {error['msg']}" for error in errors[:5]
    ]
    if len(errors) > len(told):
        told.append(f"and {len(errors) - len(told)} more")
    return "; ".join(told)


def type_of_schema(schema: dict[str, Any]) -> Any:
    """A type for `OutputType` from a JSON schema that somebody wrote.

    The model is asked for it; what is read is any JSON, or any object if the schema is of one.
    """
    kind: Any = dict[str, Any] if schema.get("type") == "object" else Any
    return Annotated[kind, WithJsonSchema(schema)]


def ask_for(request: ChatRequest, output: OutputType[Any], method: OutputMethod) -> ChatRequest:
    """The request that demands an answer of this type.

    Raises:
        ConfigError: The request names a form of its own.
    """
    if request.response_format is not None:
        raise ConfigError("response_format: parse sets it itself; choose with method=...")
    if method == "json_schema":
        form = ResponseFormat(
            type="json_schema", json_schema={"name": output.name, "schema": output.schema}
        )
        return request.model_copy(update={"response_format": form})
    schema = json.dumps(output.schema, ensure_ascii=False)
    words = (
        "Answer with one JSON object and nothing else: no words around it, no code fence. "
        f"It has to be valid for this JSON schema:\n{schema}"
    )
    changes: dict[str, Any] = {"messages": _instructed(request.messages, words)}
    if method == "json_object":
        changes["response_format"] = ResponseFormat(type="json_object")
    return request.model_copy(update=changes)


def _instructed(messages: Sequence[Message], words: str) -> list[Message]:
    first, *others = messages
    if first.role == "system" and isinstance(first.content, str):
        return [system(f"{first.content}\n\n{words}"), *others]
    return [system(words), first, *others]


def ask_again(request: ChatRequest, error: OutputError) -> ChatRequest:
    """The request that has the model mend its answer."""
    words = f"This is not what was asked for: {error.message}. Answer again, with the JSON alone."
    said = [assistant(error.text)] if error.text.strip() else []
    return request.model_copy(update={"messages": [*request.messages, *said, user(words)]})
