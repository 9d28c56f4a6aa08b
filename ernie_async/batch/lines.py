"""Lines of a batch as they come in: a request each, or the reason why it is none.

Pure. The form is that of OpenAI's batch files; rows of a table and plain prompts become the same.
"""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from json import JSONEncoder
from string import Formatter
from typing import Any, NamedTuple, TypeGuard

from ernie_async.errors import ConfigError, shorten
from ernie_async.types.wire import read_json

__all__ = [
    "CHAT_PATH",
    "DEFAULT_URL",
    "EMBEDDINGS_PATH",
    "IMAGES_PATH",
    "Fault",
    "Line",
    "LineReader",
    "duplicate",
    "fault_of",
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
EXPECTED_URL = f"url: expected one of {', '.join(PATHS)} below /v2, got"

MAX_ID_CHARACTERS = 256
# Other programs that read such files take ids of at most so many.
COMMON_ID_CHARACTERS = 64

NATIVE_KEYS = {"custom_id", "method", "url", "body", "metadata"}
ROW_KEYS = {"custom_id", "prompt", "messages", "metadata"}

# Different things that are noted: a file may have other unknown keys in each line.
MAX_NOTES = 20

ABSENT: Any = object()

_canonical = JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


class Line(NamedTuple):
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


class Fault(NamedTuple):
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


class BadLineError(ValueError):
    """Why a line asks nothing, on its way to becoming a `Fault`."""

    def __init__(self, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.code = code


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
            raise ConfigError(f"{EXPECTED_URL} {self.url}")
        if self.template is not None:
            try:
                list(Formatter().parse(self.template))
            except ValueError as error:
                raise ConfigError(f"template: {error}: {shorten(self.template)}") from None

    def read(self, number: int, raw: bytes) -> Line | Fault:
        """A line of JSON, native or a row."""
        try:
            fields = read_json(raw, allow_inf_nan=False)
        except ValueError as error:
            return Fault(number, "invalid_json", f"not JSON: {error}", raw_key(raw))
        if not isinstance(fields, dict):
            return Fault(number, "invalid_json", "not a JSON object", raw_key(raw))
        return self.take(number, fields)

    def take(self, number: int, fields: Mapping[str, Any]) -> Line | Fault:
        """The fields of a line, or the columns of a row."""
        custom_id, metadata = fields.get("custom_id"), fields.get("metadata", ABSENT)
        try:
            if self.template is None and ("body" in fields or "url" in fields):
                url, body = self._native(fields)
            else:
                custom_id = self._name(number, fields)
                url, body = self.url, self._row(fields)
            return self._line(number, custom_id, url, body, metadata)
        except BadLineError as error:
            name = custom_id if is_name(custom_id) else None
            key = raw_key(repr(fields).encode("utf-8", "replace"))
            return Fault(number, error.code, str(error), key, name, metadata)

    def _native(self, fields: Mapping[str, Any]) -> tuple[object, object]:
        """Url and body of a line."""
        self._note_unknown(fields, NATIVE_KEYS)
        method = fields.get("method", "POST")
        if method != "POST":
            raise BadLineError(f"method: expected POST, got {shorten(method)}")
        return fields.get("url"), fields.get("body")

    def _name(self, number: int, row: Mapping[str, Any]) -> str:
        name = row.get(self.id_column or "custom_id")
        if name is not None:
            return str(name)
        if self.id_column is not None:
            raise BadLineError(f"no column {self.id_column!r}")
        return f"row-{number}"

    def _row(self, row: Mapping[str, Any]) -> object:
        """The body of a row."""
        if self.template is not None:
            try:
                return self._asking(self.template.format_map(row))
            except KeyError as error:
                reason = f"the template needs the column {error}, which is not there"
                raise BadLineError(reason) from None
            except (ValueError, IndexError, AttributeError, TypeError) as error:
                raise BadLineError(f"template: {error}") from None
        self._note_unknown(row, ROW_KEYS | {self.id_column})
        if row.get("messages") is not None:
            return {"messages": row["messages"]}
        if isinstance(row.get("prompt"), str):
            return self._asking(row["prompt"])
        if row.get("prompt") is not None:
            raise BadLineError(f"prompt: expected text, got {shorten(row['prompt'])}")
        raise BadLineError("neither body nor messages nor prompt")

    def _asking(self, text: str) -> dict[str, Any]:
        if not text:
            raise BadLineError("prompt: must not be empty")
        path = find_path(self.url)
        if path == EMBEDDINGS_PATH:
            return {"input": [text]}
        if path == IMAGES_PATH:
            return {"prompt": text}
        return {"messages": [{"role": "user", "content": text}]}

    def _line(
        self, number: int, custom_id: object, url: object, body: object, metadata: object
    ) -> Line:
        if not is_name(custom_id):
            expected = f"custom_id: expected 1 to {MAX_ID_CHARACTERS} characters"
            raise BadLineError(f"{expected}, got {shorten(custom_id)}")
        if not isinstance(body, Mapping):
            raise BadLineError(f"body: expected an object, got {shorten(body)}")
        path = find_path(url)
        if path is None:
            raise BadLineError(f"{EXPECTED_URL} {shorten(url)}", "unsupported_url")
        if len(custom_id) > COMMON_ID_CHARACTERS:
            self._note(f"custom_id of more than {COMMON_ID_CHARACTERS} characters")
        effective = {**self.defaults, **body}
        if "model" not in effective and path in self.models:
            effective = {"model": self.models[path], **effective}
        if effective.get("stream"):
            del effective["stream"]
            effective.pop("stream_options", None)
            self._note("stream: true, removed")
        return Line(number, custom_id, path, effective, key_of(path, effective), metadata)

    def _note_unknown(self, fields: Mapping[str, Any], known: Set[object]) -> None:
        for name in fields.keys() - known:
            self._note(f"unknown key {shorten(name)}, ignored")

    def _note(self, text: str) -> None:
        is_known = text in self.notes or len(self.notes) < MAX_NOTES
        self.notes[text if is_known else "other unknown keys, ignored"] += 1


def is_name(custom_id: object) -> TypeGuard[str]:
    """Whether this may name a line."""
    return isinstance(custom_id, str) and 1 <= len(custom_id) <= MAX_ID_CHARACTERS


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
    try:
        return raw_key(_canonical({"body": body, "url": f"/v2{path}"}).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise BadLineError(f"body: cannot be written as JSON: {error}") from None


def raw_key(raw: bytes) -> str:
    """The same of any bytes."""
    return blake2b(raw).hexdigest()[:16]


def fault_of(line: Line | Fault, code: str, message: str) -> Fault:
    """The dead letter for a line that could be asked, were it not for this."""
    return Fault(line.number, code, message, line.key, line.custom_id, line.metadata)


def duplicate(line: Line | Fault) -> Fault:
    """The dead letter for a line whose name was met before."""
    return fault_of(line, "duplicate_custom_id", f"{line.custom_id!r} names an earlier line")


def shard_of(custom_id: str, n_shards: int) -> int:
    """Which of `n` machines has this line: the first 8 bytes of BLAKE2b, big end first, mod n."""
    return int.from_bytes(blake2b(custom_id.encode()).digest()[:8], "big") % n_shards
