"""One answer as numbered events, kept so that whoever lost some of them can have them again.

The numbers have no holes, and what is kept is bounded: of what fell out of the window only the text
is left, which then comes as one `reset`. Knows no connection and no clock.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from pydantic_core import to_json

from ernie_async.errors import ConfigError, shorten

__all__ = [
    "HEARTBEAT",
    "LAGGED",
    "OPENING",
    "AnswerLog",
    "Cursor",
    "StreamEvent",
    "encode_events",
    "format_id",
    "merge_deltas",
    "read_cursor",
]

# The first bytes of a response, for proxies that open a stream only when something came.
OPENING = b": ok\nretry: 3000\n\n"
HEARTBEAT = b": hb\n\n"
LAGGED = b": lagged\n\n"

CURSOR = re.compile(r"([A-Za-z0-9_-]{8})-([1-9][0-9]{0,11})")

# What an event weighs besides its text.
OVERHEAD_BYTES = 64


class Cursor(NamedTuple):
    """Up to where somebody has read."""

    epoch: str
    seq: int


def read_cursor(text: str | None) -> Cursor | None:
    """Read an event id; `None` if there is none.

    Raises:
        ConfigError: It is no id of ours.
    """
    if not text:
        return None
    found = CURSOR.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"Last-Event-ID: expected an id as the events have it, got {shorten(text)}"
        )
    return Cursor(found[1], int(found[2]))


def format_id(epoch: str, seq: int) -> str:
    """The id of an event."""
    return f"{epoch}-{seq}"


class StreamEvent(NamedTuple):
    """One event of an answer.

    Attributes:
        seq: Its number, from 1; of merged events the last one's.
        kind: `start`, `delta`, `tool_call`, `retract`, `reset`, `usage`, `done` or `error`.
        payload: What it says, to be sent as JSON; of a `delta` one piece of text or of thinking.
    """

    seq: int
    kind: str
    payload: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        if self.kind == "delta":
            return _text_size(self.payload[_channel(self)])
        return OVERHEAD_BYTES + len(to_json(self.payload))


Kept = tuple[str, str] | StreamEvent
"""What is kept of an event: of a `delta` its channel and its text, of others all.

A stream keeps thousands. A pair of texts is nothing that Python's garbage collector comes back to;
an event is, and each of its full collections would halt all streams for as long as it takes to look
at every event of all.
"""


def _keep(event: StreamEvent) -> Kept:
    if event.kind != "delta":
        return event
    name = _channel(event)
    return name, event.payload[name]


def _delta(seq: int, name: str, text: str) -> StreamEvent:
    return StreamEvent(seq, "delta", {name: text, "index": 0})


def _text_size(text: str) -> int:
    return OVERHEAD_BYTES + (len(text) if text.isascii() else 3 * len(text))


def encode_events(epoch: str, events: Iterable[StreamEvent]) -> bytes:
    """Write events as server-sent events, one frame each."""
    return b"".join(
        b"id: %s-%d\nevent: %s\ndata: %s\n\n"
        % (epoch.encode(), seq, kind.encode(), to_json(payload))
        for seq, kind, payload in events
    )


def merge_deltas(events: Sequence[StreamEvent]) -> list[StreamEvent]:
    """The same with neighbouring pieces of text in one event, which has the number of the last."""
    if len(events) < 2:
        return list(events)
    merged: list[StreamEvent] = []
    held: list[StreamEvent] = []

    def flush() -> None:
        if len(held) > 1:
            name = _channel(held[0])
            text = "".join(event.payload[name] for event in held)
            merged.append(_delta(held[-1].seq, name, text))
        else:
            merged.extend(held)
        held.clear()

    for event in events:
        if event.kind != "delta":
            flush()
            merged.append(event)
            continue
        if held and _channel(held[0]) != _channel(event):
            flush()
        held.append(event)
    flush()
    return merged


def _changed(text: str, payload: dict[str, Any]) -> str:
    new: str = payload["replacement"]
    return text[: payload["from_char"]] + new + text[payload["to_char"] :]


def _channel(event: StreamEvent) -> str:
    return "text" if "text" in event.payload else "reasoning"


class AnswerLog:
    """The events of one answer, the newest of them kept. Serves one stream and all its viewers.

    Args:
        stream_id: Of the stream.
        epoch: Eight characters, unique to this numbering.
        max_events: Kept at most.
        max_bytes: Kept at most, roughly.

    Attributes:
        status: `running`, and in the end `done`, `error` or `cancelled`.
        last_seq: The number of the newest event; 0 if there is none.
        n_bytes: What is kept, roughly.
        end: What the last event of all says; `None` while there is none.
    """

    def __init__(
        self, stream_id: str, epoch: str, *, max_events: int = 4096, max_bytes: int = 1 << 20
    ) -> None:
        self.stream_id = stream_id
        self.epoch = epoch
        self.status: str = "running"
        self.last_seq: int = 0
        self.n_bytes: int = 0
        self.end: dict[str, Any] | None = None
        self._max_events, self._max_bytes = max_events, max_bytes
        self._window: deque[Kept] = deque()  # the last of them is `_newest`
        self._newest: StreamEvent | None = None
        self._start: StreamEvent | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []

    def append(self, kind: str, payload: dict[str, Any]) -> StreamEvent:
        """Number an event and keep it."""
        event = StreamEvent(self.last_seq + 1, kind, payload)
        self.add(event)
        return event

    def add(self, event: StreamEvent) -> bool:
        """Keep an event that was numbered elsewhere; say whether it is the next one.

        One that is known already, and any after the end, changes nothing.
        """
        if event.seq != self.last_seq + 1 or self.is_over:
            return False
        self.last_seq = event.seq
        match event.kind:
            case "delta":
                name = _channel(event)
                place = self._text if name == "text" else self._reasoning
                place.append(event.payload[name])
                if len(place) > 256:
                    place[:] = ["".join(place)]
            case "start":
                self._start = event
            case "retract":
                self._take_back(event.payload)
            case "done":
                self.status = "cancelled" if event.payload.get("cancelled") else "done"
                self.end = event.payload
            case "error":
                self.status = "error"
                self.end = event.payload
        self._newest = event
        self._window.append(_keep(event))
        self.n_bytes += event.size
        while len(self._window) > self._max_events or self.n_bytes > self._max_bytes:
            if len(self._window) == 1:
                break
            gone = self._window.popleft()
            self.n_bytes -= gone.size if isinstance(gone, StreamEvent) else _text_size(gone[1])
        return True

    def _take_back(self, payload: dict[str, Any]) -> None:
        if "to_char" not in payload:
            self._text, self._reasoning = [payload["replacement"]], []
        elif payload.get("channel") == "reasoning":
            self._reasoning = [_changed(self.reasoning, payload)]
        else:
            self._text = [_changed(self.text, payload)]
        # Nobody who comes later may see what was taken back: they get the text as it is now.
        self._window.clear()
        self.n_bytes = 0

    @property
    def text(self) -> str:
        """The answer so far, without what was taken back."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The thinking so far."""
        return "".join(self._reasoning)

    @property
    def is_over(self) -> bool:
        """Whether the last event of all is there."""
        return self.end is not None

    def knows(self, cursor: Cursor | None) -> bool:
        """Whether all events after a cursor are still there."""
        oldest = self.last_seq + 1 - len(self._window)
        if cursor is None:
            return oldest <= 1
        return cursor.epoch == self.epoch and oldest - 1 <= cursor.seq <= self.last_seq

    def has_seen_all(self, cursor: Cursor | None) -> bool:
        """Whether a cursor stands at the end of all."""
        return self.is_over and cursor == Cursor(self.epoch, self.last_seq)

    def catch_up(self, cursor: Cursor | None) -> list[StreamEvent]:
        """What somebody has to get who has read up to `cursor`; from the start for `None`.

        Where events are gone, one `reset` with the whole text so far stands for them.
        """
        if self.knows(cursor):
            n_new = self.last_seq - (0 if cursor is None else cursor.seq)
            if n_new == 1 and self._newest is not None:
                return [self._newest]
            new = islice(self._window, len(self._window) - n_new, None)
            return [
                kept if isinstance(kept, StreamEvent) else _delta(seq, *kept)
                for seq, kept in enumerate(new, self.last_seq - n_new + 1)
            ]
        # The last event of all is no text, so it is told as it is.
        last = self._newest if self.is_over else None
        seq = self.last_seq - (last is not None)
        told = {"text": self.text}
        if self._reasoning:
            told["reasoning"] = self.reasoning
        reset = StreamEvent(max(1, seq), "reset", told)
        begin = [self._start] if self._start is not None and cursor is None else []
        return [*begin, reset, *([] if last is None else [last])]

    def snapshot(self) -> dict[str, Any]:
        """The answer so far, in JSON."""
        end = self.end or {}
        told: dict[str, Any] = {
            "stream_id": self.stream_id,
            "status": self.status,
            "text": self.text,
            "last_event_id": format_id(self.epoch, self.last_seq) if self.last_seq else None,
            "usage": end.get("usage"),
            "finish_reason": end.get("finish_reason"),
        }
        if self.status == "error":
            told["error"] = end
        return told
