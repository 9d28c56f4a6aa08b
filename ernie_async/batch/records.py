"""Lines of a batch as they go out: results and dead letters, in the form of OpenAI's batch files.

What a line becomes is one piece of bytes that ends with a newline, and no other newline is
in it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from secrets import randbits
from typing import Any, NamedTuple

from pydantic_core import to_json

from ernie_async.batch.lines import ABSENT
from ernie_async.types.wire import read_json

__all__ = [
    "UNDONE",
    "Attempt",
    "BatchResult",
    "Record",
    "is_settled_by_line",
    "read_record",
    "record_fields",
    "record_id",
    "write_record",
]

VERSION = 1
MAX_ATTEMPTS_TOLD = 10

# The largest whole number that a table of SQLite's takes.
MAX_NUMBER = 2**63 - 1

# Lines that were not asked, or not to their end: they are written nowhere, and remain to be done.
UNDONE = frozenset({"budget_exceeded", "deadline_exceeded", "cancelled"})

# Crockford's base 32, which has no I, L, O and U; two letters at a time.
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = [first + second for first in LETTERS for second in LETTERS]


class Attempt(NamedTuple):
    """One attempt that failed: seconds since 1970, our code, HTTP status if an answer came."""

    time: float
    code: str
    status: int | None


class BatchResult(NamedTuple):
    """What became of one line.

    Attributes:
        custom_id: Its name; `None` if it could not be read.
        number: Where it stood in the input, from 1.
        key: Stands for the request.
        code: `None` if it succeeded, else what went wrong: one of the codes of dead letters, or the
            service's own.
        message: The same for people.
        status: HTTP status; `None` if no answer came.
        request_id: What to quote to the service's support.
        body: The body of the answer, read; text if it was no JSON; `None` if none came.
        attempts: Requests that were made, refusals for want of quota not counted.
        latency: Seconds of the last attempt.
        finished_at: Seconds since 1970.
        cost: CNY; `None` if there is no price.
        prompt_tokens: As the service told, else 0.
        completion_tokens: As the service told, else 0.
        errors: The attempts that failed, newest last.
        metadata: What the line brought.
        row: What `map` was given for it.
    """

    custom_id: str | None
    number: int
    key: str
    code: str | None = None
    message: str = ""
    status: int | None = None
    request_id: str | None = None
    body: Any = None
    attempts: int = 0
    latency: float = 0.0
    finished_at: float = 0.0
    cost: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: Sequence[Attempt] = ()
    metadata: Any = ABSENT
    row: Any = None

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.code is None

    @property
    def text(self) -> str:
        """What the model said; empty if nothing."""
        try:
            return self.body["choices"][0]["message"].get("content") or ""
        except (TypeError, LookupError, AttributeError):
            return ""


def record_id(now: float, chance: int) -> str:
    """A name for a result that sorts by time: 48 bits of milliseconds, then 80 of chance."""
    number = (int(now * 1000) & (1 << 48) - 1) << 80 | chance & (1 << 80) - 1
    return "batch_req_" + "".join([PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def write_record(result: BatchResult, name: str | None = None) -> bytes:
    """The line for a result, whole."""
    fields = record_fields(result, name)
    # What stood in the metadata of a table may be no JSON.
    return to_json(fields, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True) + b"\n"


def record_fields(result: BatchResult, name: str | None = None) -> dict[str, Any]:
    """The same as the object that it is.

    Args:
        result: What became of a line.
        name: The `id` of the record; `None` for a new one.
    """
    response = None
    if result.status is not None:
        response = {
            "status_code": result.status,
            "request_id": result.request_id,
            "body": result.body,
        }
    extension: dict[str, Any] = {
        "v": VERSION,
        "line": result.number,
        "key": result.key,
        "attempts": result.attempts,
        "latency_ms": round(result.latency * 1000),
        "finished_at": iso(result.finished_at),
    }
    if result.cost is not None:
        extension["cost"] = round(result.cost, 8)
    error = None
    if result.code is not None:
        extension["code"] = result.code
        if response is None:
            error = {"code": result.code, "message": result.message}
        extension["errors"] = [
            {"time": iso(attempt.time), "code": attempt.code, "status": attempt.status}
            for attempt in result.errors[-MAX_ATTEMPTS_TOLD:]
        ]
    record: dict[str, Any] = {
        "id": name or record_id(result.finished_at, randbits(80)),
        "custom_id": result.custom_id,
        "response": response,
        "error": error,
    }
    if result.metadata is not ABSENT:
        record["metadata"] = result.metadata
    record["x_ernie"] = extension
    return record


def iso(moment: float) -> str:
    """A moment as text, in UTC, to the millisecond."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Record(NamedTuple):
    """What a run has to know of a line that was written before.

    Attributes:
        custom_id: Of the line; `None` if it could not be read.
        key: Of the request; `None` if another program wrote it.
        number: Of the line; 0 if another program wrote it.
        code: `None` for a success.
        cost: CNY.
        tokens: Prompt and answer together.
    """

    custom_id: str | None
    key: str | None
    number: int
    code: str | None
    cost: float
    tokens: int


def read_record(raw: bytes) -> Record:
    """Read a line that was written before, by us or by another program.

    Raises:
        ValueError: This is no such line.
    """
    fields = read_json(raw)
    if not isinstance(fields, dict) or "custom_id" not in fields:
        raise ValueError("not a result of a batch")
    name = fields["custom_id"]
    if not isinstance(name, str | None):
        raise ValueError("custom_id is no text")  # noqa: TRY004 - all that is wrong with a line
    extension = _object(fields.get("x_ernie"))
    error = _object(fields.get("error"))
    body = _object(_object(fields.get("response")).get("body"))
    key, number = extension.get("key"), _number(extension.get("line"), int)
    if not isinstance(key, str | None):
        raise ValueError("key is no text")  # noqa: TRY004 - as above
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError("line is no number of a line")
    code = extension.get("code") or error.get("code")
    return Record(
        custom_id=name,
        key=key,
        number=number,
        code=None if code is None else str(code),
        cost=_number(extension.get("cost"), float),
        tokens=_number(_object(body.get("usage")).get("total_tokens"), int),
    )


def is_settled_by_line(record: Record) -> bool:
    """Whether a dead letter stands for its place in the input, and not for its `custom_id`."""
    return record.custom_id is None or record.code == "duplicate_custom_id"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, int | float):
        return kind(0)
    if not isfinite(value):
        raise ValueError(f"expected a number, got {value}")
    return kind(value)
