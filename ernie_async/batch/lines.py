"""Lines of a batch as they come in: a request each, or the reason why it is none.

Pure. The form is that of OpenAI's batch files; rows of a table and plain prompts become the same.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from json import dumps
from string import Formatter
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from ernie_async.errors import ConfigError, shorten

__all__ = [
    "CHAT_PATH",
    "DEFAULT_URL",
    "EMBEDDINGS_PATH",
    "IMAGES_PATH",
    "Fault",
    "Line",
    "LineReader",
    "duplicate",
    "find_path",
    "key_of",
    "raw_key",
    "shard_of",
]

CHAT_PATH, EMBEDDINGS_PATH, IMAGES_PATH = PATHS = (
    "/chat/completions",
    "/embeddings",
    "/images/generations",
)
DEFAULT_URL = f"/v2{CHAT_PATH}"

MAX_ID_CHARACTERS = 256
# Other programs that read such files take ids of at most so many.
COMMON_ID_CHARACTERS = 64

KNOWN_KEYS = {"custom_id", "method", "url", "body", "metadata"}
ROW_KEYS = {"custom_id", "prompt", "messages", "metadata"}

ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Line:
    """One request.

    Attributes:
        number: Where it stands in the input, from 1.
        custom_id: The caller's name for it.
        path: Below the base URL.
        body: What is sent, defaults filled in.
        key: Stands for url and body: the same request has the same key.
        metadata: Copied to the result; `ABSENT` if there is none.
    """

    number: int
    custom_id: str
    path: str
    body: dict[str, Any]
    key: str
    metadata: Any = ABSENT

    @property
    def model(self) -> str | None:
        """The model that it asks, if it names one."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that asks nothing: why not.

    Attributes:
        number: Where it stands in the input, from 1.
        code: `invalid_json`, `invalid_request`, `duplicate_custom_id`, `line_too_long` or
            `unsupported_url`.
        message: The same for people.
        key: Stands for its bytes.
        custom_id: Its name, if that could be read.
        metadata: As of a `Line`.
    """

    number: int
    code: str
    message: str
    key: str
    custom_id: str | None = None
    metadata: Any = ABSENT


@dataclass(slots=True)
class LineReader:
    """Makes requests out of lines and rows. Serves one run.

    Attributes:
        defaults: Fields of a body, for those that do not have them.
        models: The model of bodies that name none, by path.
        template: A format string over the columns of a row, which becomes its prompt.
        id_column: The column that names a row; `None` for `custom_id`, and else `row-<number>`.
        url: Where the prompts of rows go.
        notes: What is worth a word at the end, and how often it was seen.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    id_column: str | None = None
    url: str = DEFAULT_URL
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if find_path(self.url) is None:
            raise ConfigError(f"url: expected one of {', '.join(PATHS)} below /v2, got {self.url}")
        if self.template is not None:
            try:
                list(Formatter().parse(self.template))
            except ValueError as error:
                raise ConfigError(f"template: {error}: {shorten(self.template)}") from None

    def read(self, number: int, raw: bytes) -> Line | Fault:
        """A line of JSON, native or a row."""
        try:
            fields = from_json(raw, allow_inf_nan=False)
        except ValueError as error:
            return Fault(number, "invalid_json", f"not JSON: {error}", raw_key(raw))
        if not isinstance(fields, dict):
            return Fault(number, "invalid_json", "not a JSON object", raw_key(raw))
        return self.take(number, fields)

    def take(self, number: int, fields: Mapping[str, Any]) -> Line | Fault:
        """The fields of a line, or the columns of a row."""
        if self.template is None and ("body" in fields or "url" in fields):
            return self._native(number, fields)
        return self._row(number, fields)

    def make(self, number: int, custom_id: object, body: Mapping[str, Any]) -> Line | Fault:
        """A request whose body is known."""
        return self._line(number, custom_id, self.url, body, ABSENT)

    def _native(self, number: int, fields: Mapping[str, Any]) -> Line | Fault:
        for name in fields.keys() - KNOWN_KEYS:
            self.notes[f"unknown key {shorten(name)}, ignored"] += 1
        custom_id, metadata = fields.get("custom_id"), fields.get("metadata", ABSENT)
        method = fields.get("method", "POST")
        if method != "POST":
            reason = f"method: expected POST, got {shorten(method)}"
            return _bad_request(number, fields, custom_id, reason, metadata)
        return self._line(number, custom_id, fields.get("url"), fields.get("body"), metadata)

    def _row(self, number: int, row: Mapping[str, Any]) -> Line | Fault:
        name = self.id_column or "custom_id"
        custom_id = row.get(name)
        if custom_id is None:
            if self.id_column is not None:
                return _bad_request(number, row, None, f"no column {self.id_column!r}", ABSENT)
            custom_id = f"row-{number}"
        elif not isinstance(custom_id, str):
            custom_id = str(custom_id)
        metadata = row.get("metadata", ABSENT)
        if self.template is not None:
            try:
                text = self.template.format_map(row)
            except KeyError as error:
                reason = f"the template needs the column {error}, which is not there"
                return _bad_request(number, row, custom_id, reason, metadata)
            except (ValueError, IndexError, AttributeError, TypeError) as error:
                return _bad_request(number, row, custom_id, f"template: {error}", metadata)
            return self._line(number, custom_id, self.url, self._asking(text), metadata)
        for unknown in row.keys() - ROW_KEYS - {name}:
            self.notes[f"unknown key {shorten(unknown)}, ignored"] += 1
        if row.get("messages") is not None:
            body = {"messages": row["messages"]}
        elif isinstance(row.get("prompt"), str):
            body = self._asking(row["prompt"])
        else:
            reason = "neither body nor messages nor prompt"
            return _bad_request(number, row, custom_id, reason, metadata)
        return self._line(number, custom_id, self.url, body, metadata)

    def _asking(self, text: str) -> dict[str, Any]:
        path = find_path(self.url)
        if path == EMBEDDINGS_PATH:
            return {"input": [text]}
        if path == IMAGES_PATH:
            return {"prompt": text}
        return {"messages": [{"role": "user", "content": text}]}

    def _line(
        self, number: int, custom_id: object, url: object, body: object, metadata: object
    ) -> Line | Fault:
        fields = {"custom_id": custom_id, "url": url, "body": body}
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_ID_CHARACTERS:
            reason = f"custom_id: expected 1 to {MAX_ID_CHARACTERS} characters"
            return _bad_request(number, fields, None, f"{reason}, got {shorten(custom_id)}")
        if not isinstance(body, Mapping):
            reason = f"body: expected an object, got {shorten(body)}"
            return _bad_request(number, fields, custom_id, reason, metadata)
        path = find_path(url)
        if path is None:
            message = f"url: expected one of {', '.join(PATHS)} below /v2, got {shorten(url)}"
            return Fault(number, "unsupported_url", message, _any_key(fields), custom_id, metadata)
        if len(custom_id) > COMMON_ID_CHARACTERS:
            self.notes[f"custom_id of more than {COMMON_ID_CHARACTERS} characters"] += 1
        effective = {**self.defaults, **body}
        if "model" not in effective and path in self.models:
            effective = {"model": self.models[path], **effective}
        if effective.get("stream"):
            del effective["stream"]
            effective.pop("stream_options", None)
            self.notes["stream: true, removed"] += 1
        try:
            key = key_of(path, effective)
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"body: cannot be written as JSON: {error}"
            return _bad_request(number, fields, custom_id, reason, ABSENT)
        return Line(number, custom_id, path, effective, key, metadata)


def find_path(url: object) -> str | None:
    """The path below the base URL that the url of a line means; `None` if it is not supported."""
    if not isinstance(url, str):
        return None
    path = url.removeprefix("/v2") if url.startswith("/v2/") else url.removeprefix("/v1")
    return path if path != url and path in PATHS else None


def key_of(path: str, body: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of BLAKE2b over url and body, as canonical JSON.

    Raises:
        ValueError: This is no JSON.
    """
    text = dumps(
        {"body": body, "url": f"/v2{path}"},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return raw_key(text.encode())


def raw_key(raw: bytes) -> str:
    """The same of any bytes."""
    return blake2b(raw).hexdigest()[:16]


def duplicate(line: Line | Fault) -> Fault:
    """The dead letter for a line whose name was met before."""
    text = f"{line.custom_id!r} names an earlier line"
    return Fault(line.number, "duplicate_custom_id", text, line.key, line.custom_id, line.metadata)


def shard_of(custom_id: str, n_shards: int) -> int:
    """Which of `n` machines has this line: the first 8 bytes of BLAKE2b, big end first, mod n."""
    return int.from_bytes(blake2b(custom_id.encode()).digest()[:8], "big") % n_shards


def _any_key(fields: Mapping[str, Any]) -> str:
    try:
        return raw_key(to_json(fields))
    except (PydanticSerializationError, ValueError):
        return raw_key(repr(fields).encode("utf-8", "replace"))


def _bad_request(
    number: int,
    fields: Mapping[str, Any],
    custom_id: object,
    reason: str,
    metadata: object = ABSENT,
) -> Fault:
    name = custom_id if isinstance(custom_id, str) else None
    return Fault(number, "invalid_request", reason, _any_key(fields), name, metadata)
