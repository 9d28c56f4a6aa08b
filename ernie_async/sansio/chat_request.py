"""Make a chat request from what the caller wrote, or say exactly what is wrong with it.

Turns pydantic's findings into one `ConfigError` that names the field, what was expected and what
came. Knows no address and no credential.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from ernie_async.errors import ConfigError, shorten
from ernie_async.sansio.servers import Server
from ernie_async.types.messages import MessageInput
from ernie_async.types.request import ChatRequest

__all__ = ["Prompt", "chat_body", "chat_request", "json_body"]

# What `chat` and `stream` take: one user message as text, a conversation, or a whole request.
Prompt = str | Sequence[MessageInput] | ChatRequest

# Names that people bring from elsewhere.
ELSEWHERE = {
    "stream": "call client.stream(...) for a stream and client.chat(...) for a whole answer",
    "timeout": "pass timeouts=Timeouts(...)",
    "max_output_tokens": "the V2 name is max_completion_tokens",
    "access_token": "V1 was shut down on 2026-08-31; give the client a V2 API key",
    "user_id": "the V2 name is user",
    "functions": "the V2 name is tools; translate_v1(...) translates them",
    "disable_search": "the V2 name is web_search={'enable': ...}",
    "system": "put system('...') first in the messages",
    "api_key": "give it to the client",
    "base_url": "give it to the client",
    "max_retries": "use client.with_options(retry=RetryPolicy(attempts=...))",
    "retry": "use client.with_options(retry=...)",
    "hooks": "use client.with_options(hooks=...)",
    "limits": "give it to the client",
}


# How the limits of a field are told.
PHRASES: tuple[tuple[type, str, str], ...] = (
    (Ge, "ge", "at least {}"),
    (Gt, "gt", "above {}"),
    (Le, "le", "at most {}"),
    (Lt, "lt", "below {}"),
    (MinLen, "min_length", "at least {} long"),
    (MaxLen, "max_length", "at most {} long"),
)

AN_N, AN_I = b"NI"  # of NaN and Infinity, as numbers: bytes are found faster so

# pydantic writes nothing that is nested more deeply.
MAX_DEPTH = 255


def chat_request(
    prompt: Prompt, options: Mapping[str, Any], *, has_hints: bool = True
) -> ChatRequest:
    """Check a prompt and its options; options win over the fields of a `ChatRequest`.

    Args:
        prompt: What to say.
        options: Fields by name.
        has_hints: Whether an error says what to write instead, in Python; else who asked did not
            write any.

    Raises:
        ConfigError: A field is unknown or has a value that no model accepts.
    """
    fields: dict[str, Any]
    if isinstance(prompt, str):
        fields = {"messages": [{"role": "user", "content": prompt}]}
    elif isinstance(prompt, ChatRequest):
        if not options:
            return prompt
        fields = {name: getattr(prompt, name) for name in prompt.model_fields_set}
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        fields = {"messages": list(prompt)}
    else:
        raise ConfigError(
            "messages: expected text, a list of messages or a ChatRequest, "
            f"got {shorten(prompt)} ({type(prompt).__name__})"
        )
    fields |= options
    try:
        # The validator itself, and below the serializer: the methods around them add a tenth.
        checked: ChatRequest = ChatRequest.__pydantic_validator__.validate_python(fields)
    except ValidationError:
        pass
    else:
        return checked
    try:
        return ChatRequest.model_validate(_plain_containers(fields))
    except ValidationError as error:
        findings = error.errors(include_url=False)
    # Outside the handler, since pydantic's own text would only repeat ours less readably.
    raise ConfigError("\n".join(_explain(findings, has_hints=has_hints)))


def _plain_containers(value: Any) -> Any:
    """Lists and dicts for whatever sequences and mappings came: the models are strict about it."""
    if isinstance(value, (str, bytes, bytearray)):
        return value
    if isinstance(value, Mapping):
        return {name: _plain_containers(held) for name, held in value.items()}
    if isinstance(value, Sequence):
        return [_plain_containers(held) for held in value]
    return value


def chat_body(request: ChatRequest, extra: Mapping[str, Any], server: Server) -> bytes:
    """The request as JSON: what the caller set, as this server takes it, and `extra` on top.

    Raises:
        ConfigError: A text or an extra value cannot be written as JSON.
    """
    fields = request.__pydantic_serializer__.to_python(request, exclude_none=True)
    return json_body(server.body(fields, extra))


def json_body(fields: Any) -> bytes:
    """Anything JSON can hold, as bytes.

    Raises:
        ConfigError: It holds something that JSON cannot: NaN, half a character, an odd object.
    """
    reason: str | None
    try:
        body = to_json(fields)
    except (PydanticSerializationError, ValueError) as error:
        reason = _find_unsendable(fields) or str(error)
    else:
        # Searching the bytes is cheap, most of all for one; only a hit, which may be mere text, is
        # looked at closely.
        is_suspect = (AN_N in body and b"NaN" in body) or (AN_I in body and b"Infinity" in body)
        reason = _find_unsendable(fields) if is_suspect else None
        if reason is None:
            return body
    raise ConfigError(f"the request cannot be written as JSON: {reason}")


def _find_unsendable(fields: Any) -> str | None:
    """Where the first NaN, infinity or lone surrogate is, in words; `None` if there is none."""
    # Not by calling itself, so that it does not matter how deep in calls the caller is.
    waiting: list[tuple[str, Any, int]] = [("", fields, 0)]
    while waiting:
        path, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return "it holds itself, or is nested too deeply"
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, float):
            if not isfinite(value):
                return f"{path} is {value}"
        elif isinstance(value, str):
            if any("\udc80" <= c <= "\udcff" for c in value):  # as Python keeps such bytes
                return f"{path} holds bytes that were no text in the encoding they were read in"
            if any("\ud800" <= c <= "\udfff" for c in value):
                return f"{path} holds half a character (a lone surrogate)"
        elif isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, Collection) and not isinstance(value, bytes | bytearray):
            items = enumerate(value)
        waiting += reversed(
            [(f"{path}.{name}" if path else str(name), held, depth + 1) for name, held in items]
        )
    return None


def _explain(findings: Sequence[ErrorDetails], *, has_hints: bool) -> list[str]:
    """One line for each field that is wrong."""
    expected: dict[str, list[str]] = {}
    came: dict[str, str] = {}
    for finding in findings:
        field = _field_path(finding["loc"])
        if finding["type"] == "extra_forbidden":
            hint = _hint(field) if has_hints else ""
            expected[field], came[field] = [f"no such field{hint}"], ""
        else:
            # A union reports each of its members.
            if finding["type"] == "string_unicode":
                allowed: str | None = "expected text that can be written as UTF-8"
            else:
                allowed = _allowed(finding["loc"])
            expected.setdefault(field, []).append(allowed or _plain(finding["msg"]))
            came[field] = f", got {shorten(finding['input'])}"
    # Of the members of a union, the one with the longest path got furthest, so it is meant.
    furthest = [
        field for field in expected if not any(other.startswith(f"{field}.") for other in expected)
    ]
    return [
        f"{field}: {', or '.join(expected[field])}".replace(", or expected", ", or") + came[field]
        for field in furthest
    ]


def _field_path(location: tuple[int | str, ...]) -> str:
    """`messages.1.content`, without the names that pydantic gives the members of a union."""
    names = [
        str(step)
        for at, step in enumerate(location)
        if isinstance(step, int)
        or (step.isidentifier() and step.islower() and step != "str" and not _is_tag(location, at))
    ]
    return ".".join(names) or "messages"


def _is_tag(location: tuple[int | str, ...], at: int) -> bool:
    """Whether a step is the `type` of a content part, which pydantic puts behind its number."""
    return at >= 2 and str(location[at - 2]).startswith("list[tagged-union")


def _plain(message: str) -> str:
    return message.replace("Input should be", "expected").replace("a valid ", "a ")


def _hint(field: str) -> str:
    if field in ELSEWHERE:
        return f"; {ELSEWHERE[field]}"
    top, dot, _ = field.partition(".")
    if dot:
        return f"; to send it anyway, pass extra_body={{{top!r}: ...}}"
    from difflib import get_close_matches  # only a typing error needs it

    close = get_close_matches(field, ChatRequest.model_fields, n=1)
    meant = f"did you mean {close[0]}? Otherwise" if close else "to send it anyway,"
    return f"; {meant} pass extra_body={{{field!r}: ...}}"


def _allowed(location: tuple[int | str, ...]) -> str | None:
    """`expected a number from 0 to 2`, for a field with a range; `None` for any other."""
    return _ranges().get(str(location[0])) if len(location) == 1 else None


@cache
def _ranges() -> dict[str, str]:
    found = {name: _range(info) for name, info in ChatRequest.model_fields.items()}
    return {name: text for name, text in found.items() if text}


def _range(info: FieldInfo) -> str:
    """The range that a field's annotation states, in words."""
    kind: Any = next(iter(get_args(info.annotation)), info.annotation)
    limits: list[Any] = list(info.metadata)
    for part in getattr(kind, "__metadata__", ()):
        limits += part.metadata if isinstance(part, FieldInfo) else [part]
    words = [
        phrase.format(getattr(limit, name))
        for limit in limits
        for constraint, name, phrase in PHRASES
        if isinstance(limit, constraint)
    ]
    nouns: dict[Any, str] = {float: "a number ", int: "a whole number ", str: "text "}
    is_list = get_origin(info.annotation) is list
    noun = "a list " if is_list else nouns.get(getattr(kind, "__origin__", None), "")
    text = " and ".join(words)
    if text.startswith("at least") and "at most" in text:
        text = text.replace("at least", "from").replace("and at most", "to")
    return f"expected {noun}{text}" if words else ""
