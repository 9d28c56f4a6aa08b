"""A recording as a value, and as a file that people read and compare.

An exchange is a request and its answer. The file is JSON with one thing on a line, Chinese as it is
written, and nothing in it that changes from one recording to the next without a reason.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from ernie_async.testing.redaction import Redaction

__all__ = [
    "Answer",
    "Asked",
    "CassetteError",
    "Exchange",
    "Tape",
    "asked",
    "pack",
    "pack_chunks",
    "read_tape",
    "write_tape",
]

VERSION = 1

# How many of the things that differ are named.
MOST_DIFFERENCES = 5

# A difference of these weighs more than all that may differ in a body.
OTHER_PATH = 1000

BOUNDARY = re.compile(r"boundary=\"?([^\";]+)")


class CassetteError(AssertionError):
    """A request that was never recorded, or a recording that is not there."""


class Asked(NamedTuple):
    """A request, without what must not be seen.

    Attributes:
        method: The HTTP method.
        path: Below the base URL, with the query in order.
        body: One of `json`, `text` and `base64`; nothing if it had none.
    """

    method: str
    path: str
    body: dict[str, Any]


class Answer(NamedTuple):
    """An answer, without what must not be seen.

    Attributes:
        status: The HTTP status.
        headers: Those that mean something to a client.
        body: As for `Asked`; of a stream, its `chunks` as they came.
        pauses_ms: Before each chunk; `None` if it was not to be kept.
        was_cut: Whether the connection broke, or the client left before the end.
    """

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    pauses_ms: list[int] | None = None
    was_cut: bool = False

    def pieces(self) -> list[bytes]:
        """What to send, piece by piece."""
        if "chunks" in self.body:
            return [_bytes_of(chunk) for chunk in self.body["chunks"]]
        return [unpack(self.body)]


class Exchange(NamedTuple):
    """A request and its answer."""

    asked: Asked
    answer: Answer


def asked(
    method: str,
    path: str,
    *,
    query: str,
    content_type: str,
    body: bytes,
    redaction: Redaction,
) -> Asked:
    """A request as it is recorded and compared."""
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    clean = [(name, redaction.json({name: value})[name]) for name, value in pairs]
    where = f"{path}?{urlencode(clean)}" if clean else path
    boundary = BOUNDARY.search(content_type)
    if boundary is not None and content_type.startswith("multipart/"):
        body = body.replace(boundary[1].encode(), b"boundary")  # chosen at random for each request
    return Asked(method, redaction.text(where), pack(body, content_type, redaction))


def pack(body: bytes, content_type: str, redaction: Redaction) -> dict[str, Any]:
    """A body as it stands in the file."""
    if not body:
        return {}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}
    if "json" in content_type:
        with suppress(ValueError):  # else it is text
            return {"json": redaction.json(json.loads(text))}
    return {"text": redaction.text(text)}


def unpack(body: Mapping[str, Any]) -> bytes:
    """The bytes of a body."""
    if "json" in body:
        return json.dumps(body["json"], ensure_ascii=False, separators=(",", ":")).encode()
    return _bytes_of(body if "base64" in body else body.get("text", ""))


def pack_chunks(chunks: list[bytes], redaction: Redaction) -> dict[str, Any]:
    """The chunks of a stream as they stand in the file."""
    return {"chunks": [_told(chunk) for chunk in redaction.chunks(chunks)]}


def _told(chunk: bytes) -> str | dict[str, str]:
    try:
        return chunk.decode()
    except UnicodeDecodeError:  # cut inside a character
        return {"base64": base64.b64encode(chunk).decode()}


def _bytes_of(told: Any) -> bytes:
    return told.encode() if isinstance(told, str) else base64.b64decode(told["base64"])


class Tape:
    """Exchanges in order, of which each is played once."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges
        self._played: set[int] = set()

    @property
    def unplayed(self) -> list[Asked]:
        """What was recorded and not asked for yet."""
        left = (n for n in range(len(self.exchanges)) if n not in self._played)
        return [self.exchanges[n].asked for n in left]

    def play(self, request: Asked, *, is_strict: bool) -> Answer:
        """The answer to a request: of equal ones, the first that was not played.

        Raises:
            CassetteError: There is none.
        """
        equal = [n for n, known in enumerate(self.exchanges) if known.asked == request]
        for number in equal:
            if number not in self._played:
                self._played.add(number)
                return self.exchanges[number].answer
        if is_strict and equal:
            raise CassetteError(
                f"{request.method} {request.path} was recorded {len(equal)} times, "
                "and this is one more"
            )
        if not self.exchanges:
            raise CassetteError(f"nothing was recorded, and {request.method} {request.path} came")
        nearest = equal[-1] if equal else self._nearest(request)
        known = self.exchanges[nearest].asked
        if is_strict or (known.method, known.path) != (request.method, request.path):
            raise CassetteError(_unlike(request, known, nearest))
        self._played.add(nearest)
        return self.exchanges[nearest].answer

    def _nearest(self, request: Asked) -> int:
        def distance(number: int) -> tuple[int, bool]:
            known = self.exchanges[number].asked
            weight = sum(1 for _ in _differences(known.body, request.body, "body"))
            weight += OTHER_PATH * ((known.method, known.path) != (request.method, request.path))
            return weight, number in self._played

        return min(range(len(self.exchanges)), key=distance)


def _unlike(request: Asked, known: Asked, number: int) -> str:
    what = [
        f"{name}: {_short(one)} was recorded, {_short(other)} came"
        for name, one, other in (
            ("method", known.method, request.method),
            ("path", known.path, request.path),
        )
        if one != other
    ]
    what += [
        f"{place}: {_short(one)} was recorded, {_short(other)} came"
        for place, one, other in _differences(known.body, request.body, "")
    ]
    more = f"; and {len(what) - MOST_DIFFERENCES} more" if len(what) > MOST_DIFFERENCES else ""
    return (
        f"{request.method} {request.path} was not recorded. From the nearest recording, number "
        f"{number + 1}, it differs in {'; '.join(what[:MOST_DIFFERENCES])}{more}"
    )


def _differences(one: Any, other: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two values of JSON are not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            inner = name if not place or place == "json" else f"{place}.{name}"
            yield from _differences(one.get(name, ...), other.get(name, ...), inner)
    elif isinstance(one, list) and isinstance(other, list):
        for n in range(max(len(one), len(other))):
            a, b = (held[n] if n < len(held) else ... for held in (one, other))
            yield from _differences(a, b, f"{place}[{n}]")
    elif one != other:
        yield place, one, other


def _short(value: Any) -> str:
    if value is ...:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_tape(path: Path) -> Tape:
    """Read a file.

    Raises:
        CassetteError: There is none, or it is no recording.
    """
    try:
        held = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CassetteError(
            f"there is no recording at {path}; make one with record=True, or pytest --ernie-record"
        ) from None
    except ValueError as error:
        raise CassetteError(f"{path} is no recording: {error}") from error
    if not isinstance(held, dict) or held.get("cassette") != VERSION:
        raise CassetteError(f"{path} is no recording of version {VERSION}")
    exchanges = []
    for entry in held["exchanges"]:
        request, answer = dict(entry["request"]), dict(entry["answer"])
        known = Asked(request.pop("method"), request.pop("path"), request)
        told = Answer(
            answer.pop("status"),
            answer.pop("headers"),
            pauses_ms=answer.pop("pauses_ms", None),
            was_cut=answer.pop("was_cut", False),
            body=answer,
        )
        exchanges.append(Exchange(known, told))
    return Tape(exchanges)


def write_tape(path: Path, exchanges: list[Exchange]) -> None:
    """Write a file, which is there only if it is whole."""
    entries = []
    for request, answer in exchanges:
        told: dict[str, Any] = {"status": answer.status, "headers": answer.headers, **answer.body}
        if answer.pauses_ms is not None:
            told["pauses_ms"] = answer.pauses_ms
        if answer.was_cut:
            told["was_cut"] = True
        asked_for = {"method": request.method, "path": request.path, **request.body}
        entries.append({"request": asked_for, "answer": told})
    text = json.dumps({"cassette": VERSION, "exchanges": entries}, ensure_ascii=False, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text + "\n", "utf-8")
    part.replace(path)
