"""What must not stand in a recording: credentials always, and what the user names.

Pure: takes what came and went, returns it without. In a stream, a word may come in pieces; it is
found in the whole text, and taken out of all of them.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["REDACTED", "Redaction"]

REDACTED = "[redacted]"

# The forms of credentials: Baidu's keys, signatures and old tokens, and those of other services.
SECRETS = (
    r"bce-v3/[\w-]+(?:/\w+)?",
    r"bce-auth-v1(?:/|%2F)[^\s\"'&]+",
    r"\bALTAK[\w-]{8,}",
    r"\b2[45]\.[0-9a-f]{32}\.\d+\.\d+\.\d+-\d+",
    r"\bsk-[\w-]{16,}",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+",
    r"(?<=Bearer )[^\s\"']{6,}",
)
SECRET_FIELDS = (
    "authorization",
    "api_key",
    "apikey",
    "access_token",
    "refresh_token",
    "session_token",
    "access_key",
    "secret_key",
    "secret",
    "password",
    "signature",
    "cookie",
)
SECRET_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization", "X-Bce-Security-Token")

# A shorter one would be found everywhere.
SHORTEST_SECRET = 8

# Where the text of an answer grows from event to event.
TEXTS = ("content", "reasoning_content", "reasoning")


class _Piece(NamedTuple):
    """Some text in an event: the object that holds it, and under which name."""

    holder: dict[str, Any]
    name: str


class Redaction:
    """Takes out what must not be seen.

    Args:
        what: Names of JSON fields, wherever they stand, and patterns of text.
    """

    def __init__(self, what: Iterable[str | re.Pattern[str]] = ()) -> None:
        named = [item for item in what if isinstance(item, str)]
        self._fields = {name.lower() for name in (*SECRET_FIELDS, *named)}
        self._patterns = [re.compile(form) for form in SECRETS]
        self._patterns += [item for item in what if isinstance(item, re.Pattern)]
        # JSON inside a text, such as the arguments of a tool, and the query of an address.
        names = "|".join(sorted(map(re.escape, self._fields)))
        self._inner = (
            re.compile(rf'"(?i:{names})"\s*:\s*"((?:[^"\\]|\\.)*)"'),
            re.compile(rf"[?&](?i:{names}|x-amz-signature|sign)=([^&\s\"']+)"),
        )
        self._known: set[str] = set()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the credentials of a request out of whatever else they stand in."""
        for name in SECRET_HEADERS:
            secret = headers.get(name, "").removeprefix("Bearer ")
            if len(secret) >= SHORTEST_SECRET and secret not in self._known:
                self._known.add(secret)
                self._patterns.append(re.compile(re.escape(secret)))

    def text(self, text: str) -> str:
        """A text without."""
        for start, end in reversed(self._spans(text)):
            text = text[:start] + REDACTED + text[end:]
        return text

    def json(self, value: Any) -> Any:
        """The same JSON without."""
        if isinstance(value, dict):
            return {
                name: REDACTED if name.lower() in self._fields and held else self.json(held)
                for name, held in value.items()
            }
        if isinstance(value, list):
            return [self.json(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def chunks(self, chunks: list[bytes]) -> list[bytes]:
        """A stream of events without; cut where it was cut, as far as that place is still there."""
        lines = b"".join(chunks).splitlines(keepends=True)
        clean = self._lines(lines)
        ends, at = [], 0  # of the old lines
        for line in lines:
            at += len(line)
            ends.append(at)
        new_starts = [0]
        for line in clean:
            new_starts.append(new_starts[-1] + len(line))
        body, cuts, at = b"".join(clean), [0], 0
        for chunk in chunks:
            at += len(chunk)
            n = bisect_right(ends, at)
            into = 0 if n == len(clean) else min(at - (ends[n - 1] if n else 0), len(clean[n]))
            cuts.append(new_starts[n] + into)
        return [body[start:end] for start, end in pairwise(cuts)]

    def _lines(self, lines: list[bytes]) -> list[bytes]:
        events: dict[int, Any] = {}
        for number, line in enumerate(lines):
            if line.startswith(b"data:"):
                try:
                    events[number] = json.loads(line[5:])
                except ValueError:
                    continue  # `[DONE]`, or broken
        before = {number: _compact(event) for number, event in events.items()}
        self._join_and_split(events.values())
        clean = []
        for number, line in enumerate(lines):
            if number not in events:
                clean.append(
                    self.text(line.decode("utf-8", "surrogateescape")).encode(
                        "utf-8", "surrogateescape"
                    )
                )
                continue
            told = _compact(self.json(events[number]))
            end = line[len(line.rstrip(b"\r\n")) :]
            clean.append(line if told == before[number] else b"data: " + told + end)
        return clean

    def _join_and_split(self, events: Iterable[Any]) -> None:
        """Take out of the pieces of each text what is found in the whole."""
        channels: dict[tuple[Any, ...], list[_Piece]] = {}
        for event in events:
            for channel, piece in _pieces(event):
                channels.setdefault(channel, []).append(piece)
        for pieces in channels.values():
            texts = [piece.holder[piece.name] for piece in pieces]
            for start, end in reversed(self._spans("".join(texts))):
                _cut_out(texts, start, end)
            for piece, text in zip(pieces, texts, strict=True):
                piece.holder[piece.name] = text

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where something is to be taken out, in order; none of them touch."""
        found = [match.span() for form in self._patterns for match in form.finditer(text)]
        found += [match.span(1) for form in self._inner for match in form.finditer(text)]
        spans: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if text[start:end] in {"", REDACTED}:
                continue
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(end, spans[-1][1])
            else:
                spans.append((start, end))
        return spans


def _cut_out(texts: list[str], start: int, end: int) -> None:
    """Put the sign where a span begins, and leave the rest of it out of all pieces."""
    at = 0
    sign = REDACTED
    for number, text in enumerate(texts):
        first, last = max(start - at, 0), min(end - at, len(text))
        if first < last:
            texts[number] = text[:first] + sign + text[last:]
            sign = ""
        at += len(text)


def _pieces(event: Any) -> Iterator[tuple[tuple[Any, ...], _Piece]]:
    """The growing texts of an event, each with what tells it from the others."""
    choices = event.get("choices") if isinstance(event, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            continue
        index = choice.get("index")
        for name in TEXTS:
            if isinstance(delta.get(name), str):
                yield (index, name), _Piece(delta, name)
        for call in delta.get("tool_calls") or ():
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                yield (index, "call", call.get("index")), _Piece(function, "arguments")


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
