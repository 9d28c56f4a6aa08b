"""Server-sent events: bytes to events, and back again for our own servers.

Written from the WHATWG HTML standard, section 9.2 "Server-sent events". Knows nothing of JSON,
except that a line that starts with `{` counts as an event: some gateways report errors so.

A `ServerSentEvent` holds its data as bytes, since the models are read straight from them.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ernie_async.errors import DecodeError

__all__ = [
    "BARE_JSON",
    "DEFAULT_MAX_EVENT_BYTES",
    "EventDecoder",
    "ServerSentEvent",
    "encode_event",
]

T = TypeVar("T")

# One event holds one delta; 8 MiB leaves room for a picture as base64 in one of them.
DEFAULT_MAX_EVENT_BYTES = 8 * 1024 * 1024

# The type of the event that such a line becomes.
BARE_JSON = "bare JSON"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Three years in milliseconds; Python refuses to read numbers of thousands of digits.
MAX_RETRY_DIGITS = 11


class ServerSentEvent(NamedTuple):
    """One event.

    Attributes:
        data: The data lines, joined by line feeds; as sent, so perhaps not valid UTF-8.
        event: The event's type; empty for the usual `message`.
        id: The last event id as of this event; empty if none was ever sent.
    """

    data: bytes
    event: str = ""
    id: str = ""


class EventDecoder:
    """Turns one stream's bytes, cut anywhere, into its events. Serves one response.

    Attributes:
        last_event_id: The id as of the last complete event, to be sent as `Last-Event-ID`; empty if
            none. The id of an event that is cut off does not count: it was not delivered.
        retry: The server's last `retry:` in milliseconds; `None` if none.
        comments: How many comment lines came; servers send them as heartbeats.
        failure: What comes after the events returned last; the next call raises it.
        is_fresh: Nothing was decoded yet, so that a byte order mark may come.
    """

    __slots__ = (
        "_data",
        "_data_size",
        "_event",
        "_id",
        "_is_between",
        "_pending",
        "_skip_line_feed",
        "comments",
        "failure",
        "is_fresh",
        "last_event_id",
        "max_event_bytes",
        "retry",
    )

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self.max_event_bytes: int = max_event_bytes
        self.last_event_id: str = ""
        self.retry: int | None = None
        self.comments: int = 0
        self.failure: DecodeError | None = None
        self.is_fresh: bool = True
        self._pending = bytearray()  # an unfinished line
        self._skip_line_feed = False  # the last packet ended in CR
        self._data: list[bytes] = []
        self._data_size = 0  # of the data lines, with the field's name
        self._event = ""
        self._is_between = False  # two events: no field of the next one was read
        self._id = ""  # of the event that is coming in

    def feed(self, packet: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that became complete.

        Raises:
            DecodeError: A line or an event is larger than `max_event_bytes`. Events that were
                complete before it are returned first; the error comes with the next call.
        """
        if self.failure is not None:
            raise self.failure
        events: list[ServerSentEvent] = []
        try:
            if packet:
                self._feed(packet, events)
        except DecodeError as error:
            if not events:
                raise
            self.failure = error.with_traceback(None)
        return events

    def _feed(self, packet: bytes, events: list[ServerSentEvent]) -> None:
        plain = self.feed_plain(packet)
        if plain is None:
            self._feed_lines(packet, events)
        else:
            # This is what `ServerSentEvent(...)` does, in half the time.
            make, last_id = tuple.__new__, self.last_event_id
            events += [make(ServerSentEvent, (data, "", last_id)) for data in plain]

    def may_skip(self, packet: bytes) -> bool:
        """Whether a packet that is one plain event need not be fed, if somebody else reads it."""
        return (
            self._is_between
            and not self._pending
            and self.failure is None
            and len(packet) <= self.max_event_bytes
        )

    def feed_plain(self, packet: bytes) -> list[bytes] | None:
        """Take the next bytes if they are plain: their events have one data line, nothing else.

        That is what all servers send nearly always, and splitting it costs a fraction of going
        through its lines.

        Returns:
            The data of the events that became complete; `None` if the bytes are not plain or come
            within an event, and were not taken.
        """
        if self.is_fresh and packet.startswith(b"data: ") and not self._pending:
            self.is_fresh, self._is_between = False, True
        if self.failure is not None or not self._is_between or b"\r" in packet:
            return None
        pending = self._pending
        if not pending and packet.find(b"\n") == len(packet) - 2 and packet.endswith(b"\n\n"):
            # One event, as it comes from a model that is slower than the network.
            is_plain = packet.startswith(b"data: ") and len(packet) <= self.max_event_bytes
            return [packet[6:-2]] if is_plain else None
        if pending:
            if b"\n" not in packet:
                return None
            whole = bytes(pending) + packet
        else:
            whole = packet
        end = whole.rfind(b"\n\n")
        if end < 0 or not whole.startswith(b"data: ") or end > self.max_event_bytes:
            return None
        events = whole[6:end].split(b"\n\ndata: ")
        tail = whole[end + 2 :]
        if whole.count(b"\n") != 2 * len(events) or len(tail) > self.max_event_bytes:
            return None
        pending.clear()
        pending += tail
        return events

    def feed_through(
        self, packet: bytes, read: Callable[[bytes], tuple[list[T], int]]
    ) -> tuple[list[T], bytes]:
        """Have somebody else read the first of the events that become complete.

        Args:
            packet: The next bytes.
            read: Is given whole events as they came; returns what it made of the first of them, and
                how many bytes those took.

        Returns:
            What was read, and the bytes that are still to be fed.
        """
        if not self._is_between or self.failure is not None or b"\n" not in packet:
            return [], packet
        whole = bytes(self._pending) + packet if self._pending else packet
        end = whole.rfind(b"\n\n") + 2
        tail = whole[end:]
        # A line that is whole is not left for later: it may be a heartbeat, or an error.
        if end < 2 or b"\n" in tail or b"\r" in whole:
            return [], packet
        if max(end, len(tail)) > self.max_event_bytes:
            return [], packet
        known, taken = read(whole[:end] if tail else whole)
        if taken == end:
            if tail or self._pending:
                self._pending[:] = tail
            return known, b""
        if taken:
            self._pending.clear()
            return known, whole[taken:]
        return [], packet

    def close(self) -> ServerSentEvent | None:
        """The stream is over: return the event that was never finished, if it had data.

        The standard says to drop it. Some servers forget the last empty line, so the caller gets
        it and decides: it may be whole, or cut anywhere.
        """
        bare = None
        if self._pending:
            line = bytes(self._pending)
            self._pending.clear()
            bare = self._read_line(line)
        return bare or self._take_event()

    def _feed_lines(self, packet: bytes, events: list[ServerSentEvent]) -> None:
        if self._skip_line_feed:
            self._skip_line_feed = False
            packet = packet.removeprefix(b"\n")
        if self._pending and not self.is_fresh and b"\n" not in packet and b"\r" not in packet:
            # Only appended, not searched again: a long line in small packets stays linear.
            self._hold(packet)
            return
        if self._pending:
            packet = bytes(self._pending) + packet
            self._pending.clear()
        if self.is_fresh:
            if len(packet) < 3 and BYTE_ORDER_MARK.startswith(packet):
                self._hold(packet)
                return
            self.is_fresh = False
            packet = packet.removeprefix(BYTE_ORDER_MARK)
        for line in packet.splitlines(keepends=True):
            stripped = line.rstrip(b"\r\n")
            if len(stripped) == len(line):
                self._hold(line)
            elif stripped:
                if (bare := self._read_line(stripped)) is not None:
                    events.append(bare)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        self._skip_line_feed = packet.endswith(b"\r")
        self._is_between = not (
            self._data or self._event or self._skip_line_feed or self._id != self.last_event_id
        )

    def _hold(self, piece: bytes) -> None:
        self._check_size(len(self._pending) + len(piece), piece)
        self._pending += piece

    def _read_line(self, line: bytes) -> ServerSentEvent | None:
        """Take one field; return a line that is none but looks like JSON, as an event."""
        self._check_size(len(line), line)
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_size += len(line)
            self._check_size(self._data_size, value)
            self._data.append(value)
        elif not name and colon:
            self.comments += 1
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry":
            if value.isdigit() and len(value) <= MAX_RETRY_DIGITS:
                self.retry = int(value)
        elif line.lstrip().startswith(b"{"):
            return ServerSentEvent(line, BARE_JSON, self.last_event_id)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        self.last_event_id = self._id
        return self._take_event()

    def _take_event(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._event = ""
        if not data:
            return None
        self._data, self._data_size = [], 0
        return ServerSentEvent(b"\n".join(data), event, self._id)

    def _check_size(self, size: int, piece: bytes) -> None:
        if size > self.max_event_bytes:
            raise DecodeError(
                f"an event of more than {self.max_event_bytes:,} bytes came; "
                "raise max_event_bytes if the server really sends such events",
                body=piece,
            )


def encode_event(data: bytes, *, event: str = "", event_id: str = "") -> bytes:
    """Write one event; every line of `data` becomes a data line.

    Raises:
        ValueError: A line break in `event` or `event_id` would begin another field.
    """
    if not {"\r", "\n", "\0"}.isdisjoint(event + event_id):
        raise ValueError("event and event_id: expected text of one line")
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {event}\n" if event else "")
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return head.encode() + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
