"""Server-sent events: bytes to events, and back again for our own servers.

Written from the WHATWG HTML standard, section 9.2 "Server-sent events". Knows nothing of JSON,
except that a line starting with `{` outside any field is kept: some gateways report errors so.

A `ServerSentEvent` holds its data as bytes, since the models are read straight from them.
"""

from typing import NamedTuple

from ernie_async.errors import DecodeError

__all__ = ["DEFAULT_MAX_EVENT_BYTES", "EventDecoder", "ServerSentEvent", "encode_event"]

# One event holds one delta; 8 MiB leaves room for a picture as base64 in one of them.
DEFAULT_MAX_EVENT_BYTES = 8 * 1024 * 1024

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
        bare_json: The last line that began with `{` and belonged to no field; `None` if none.
    """

    __slots__ = (
        "_data",
        "_data_size",
        "_event",
        "_failure",
        "_fresh",
        "_id",
        "_is_between",
        "_pending",
        "_skip_line_feed",
        "bare_json",
        "comments",
        "last_event_id",
        "max_event_bytes",
        "retry",
    )

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        self.last_event_id = ""
        self.retry: int | None = None
        self.comments = 0
        self.bare_json: bytes | None = None
        self._failure: DecodeError | None = None  # to be raised by the next call
        self._fresh = True  # nothing decoded yet: a byte order mark may come
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
        if self._failure is not None:
            raise self._failure
        events: list[ServerSentEvent] = []
        try:
            if packet:
                self._feed(packet, events)
        except DecodeError as error:
            if not events:
                raise
            self._failure = error
        return events

    def _feed(self, packet: bytes, events: list[ServerSentEvent]) -> None:
        # Between two events, and no CR: the packet can be split at once, which costs a fraction
        # of going through its lines.
        if not self._is_between or b"\r" in packet:
            self._feed_lines(packet, events)
            return
        if self._pending:
            if b"\n" not in packet:
                self._hold(packet)
                return
            packet = bytes(self._pending) + packet
            self._pending.clear()
        self._feed_blocks(packet, events)

    def close(self) -> ServerSentEvent | None:
        """The stream is over: return the event that was never finished, if it had data.

        The standard says to drop it. Some servers forget the last empty line, so the caller gets
        it and decides: it may be whole, or cut anywhere.
        """
        if self._pending:
            line = bytes(self._pending)
            self._pending.clear()
            self._read_line(line)
        return self._take_event()

    def _feed_blocks(self, packet: bytes, events: list[ServerSentEvent]) -> None:
        if (
            packet.startswith(b"data: ")
            and packet.endswith(b"\n\n")
            and packet.find(b"\n") == len(packet) - 2
            and len(packet) <= self.max_event_bytes
        ):
            # One event, as it comes from a model that is slower than the network.
            events.append(ServerSentEvent(packet[6:-2], "", self.last_event_id))
            return
        blocks = packet.split(b"\n\n")
        tail = blocks.pop()
        n_lines = packet.count(b"\n") - tail.count(b"\n")
        n_plain = packet.count(b"\n\ndata: ") + packet.startswith(b"data: ")
        if (
            n_lines == 2 * len(blocks)
            and n_plain - tail.startswith(b"data: ") == len(blocks)
            and len(packet) <= self.max_event_bytes
        ):
            # Nothing but blocks of one data line each, which is what all servers send. This is
            # what `ServerSentEvent(...)` does, in half the time.
            make, last_id = tuple.__new__, self.last_event_id
            events += [make(ServerSentEvent, (block[6:], "", last_id)) for block in blocks]
        else:
            for block in blocks:
                self._feed_lines(block + b"\n\n", events)
        if tail:
            self._feed_lines(tail, events)

    def _feed_lines(self, packet: bytes, events: list[ServerSentEvent]) -> None:
        if self._skip_line_feed:
            self._skip_line_feed = False
            packet = packet.removeprefix(b"\n")
        if self._pending and not self._fresh and b"\n" not in packet and b"\r" not in packet:
            # Only appended, not searched again: a long line in small packets stays linear.
            self._hold(packet)
            return
        if self._pending:
            packet = bytes(self._pending) + packet
            self._pending.clear()
        if self._fresh:
            if len(packet) < 3 and BYTE_ORDER_MARK.startswith(packet):
                self._hold(packet)
                return
            self._fresh = False
            packet = packet.removeprefix(BYTE_ORDER_MARK)
        for line in packet.splitlines(keepends=True):
            stripped = line.rstrip(b"\r\n")
            if len(stripped) == len(line):
                self._hold(line)
            elif stripped:
                self._read_line(stripped)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        self._skip_line_feed = packet.endswith(b"\r")
        self._is_between = not (
            self._data or self._event or self._skip_line_feed or self._id != self.last_event_id
        )

    def _hold(self, piece: bytes) -> None:
        self._check_size(len(self._pending) + len(piece), piece)
        self._pending += piece

    def _read_line(self, line: bytes) -> None:
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
            self.bare_json = line

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
