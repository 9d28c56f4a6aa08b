"""One response's bytes to chunks, up to whatever ends them: the end mark, an error, a verdict.

Everything a server may put into a stream is sorted out here. Knows no socket and no clock, and not
whether the answer is whole: that takes the answers asked for, see `accumulate`.
"""

from pydantic import ValidationError

from ernie_async.errors import DecodeError, ErnieError
from ernie_async.sansio.chunk_template import ChunkTemplate
from ernie_async.sansio.event_ids import EventLedger
from ernie_async.sansio.rest import is_error, read_chunk
from ernie_async.sansio.sse import EventDecoder, ServerSentEvent
from ernie_async.sansio.verdict import find_verdict
from ernie_async.types.chunk import ChatChunk

__all__ = ["ChunkReader"]

END_MARK = b"[DONE]"

# Where every event differs in more than its text, so many templates are tried in vain.
MAX_MISSES = 8

# A first packet that is so many times as long as its first event is worth a template, which costs
# as much as reading two.
MANY = 4


class ChunkReader:
    """Turns one response's bytes, cut anywhere, into its chunks. Serves one response.

    Attributes:
        failure: What comes after the chunks returned so far, if it is an error: to be raised once
            they are delivered. Nothing is read after it.
        is_done: The end mark came. Nothing is read after it.
        heartbeats: Comments that came.
    """

    __slots__ = (
        "_decoder",
        "_has_begun",
        "_ledger",
        "_misses",
        "_template",
        "failure",
        "heartbeats",
        "is_done",
    )

    def __init__(self, ledger: EventLedger, *, max_event_bytes: int) -> None:
        self._decoder = EventDecoder(max_event_bytes=max_event_bytes)
        self._ledger = ledger
        self._has_begun = False
        self._template: ChunkTemplate | None = None
        self._misses = 0  # templates that were made since one was of use
        self.failure: ErnieError | None = None
        self.is_done: bool = False
        self.heartbeats: int = 0

    def feed(self, packet: bytes) -> list[ChatChunk]:
        """Take the next bytes; return the chunks that became complete."""
        if self.is_done or self.failure is not None:
            return []
        # One event as it is known, as it comes from a model that is slower than the network.
        template = self._template
        if template is not None and self._decoder.may_skip(packet):
            known = template.read_one(packet)
            if known is not None:
                self._misses = 0
                return known
        if self._decoder.is_fresh:
            end = packet.find(b"\n\n") + 2
            if 2 <= end < len(packet) // MANY:
                # Only the first one is special, most likely.
                return [*self._feed(packet[:end]), *self.feed(packet[end:])]
        return self._feed(packet)

    def _feed(self, packet: bytes) -> list[ChatChunk]:
        decoder = self._decoder
        chunks: list[ChatChunk] = []
        events: list[ServerSentEvent] | None = None
        if not decoder.last_event_id and not self._ledger.last_event_id:
            if self._has_begun:  # the first chunk has the role, and somebody waits for it
                known, packet = decoder.feed_through(packet, self._read_alike)
                if not packet:
                    return known
                chunks = list(known)
            plain = decoder.feed_plain(packet)
            if plain is not None:
                read = self._read_plain(plain)
                if read is not None:
                    return chunks + read if chunks else read
                events = [ServerSentEvent(data) for data in plain]
        try:
            if events is None:
                events = decoder.feed(packet)
                self.heartbeats = decoder.comments
            self._read(events, chunks)
            if decoder.failure is not None:
                raise decoder.failure
        except ErnieError as error:
            self._fail(error)
        else:
            if decoder.last_event_id:
                self._ledger.last_event_id = decoder.last_event_id
                self._template = None  # what has an id may have come before
            if decoder.retry is not None:
                self._ledger.retry = decoder.retry
        return chunks

    def close(self) -> list[ChatChunk]:
        """The body is over: return the chunk that lacks only its last empty line, if there is one.

        The standard says to drop it. Some servers forget the line; of those that number their
        events, it will be had again.
        """
        chunks: list[ChatChunk] = []
        if self.is_done or self.failure is not None:
            return chunks
        try:
            last = self._decoder.close()
        except DecodeError as error:  # too large
            self._fail(error)
            return chunks
        if last is None:
            return chunks
        # Its own id may be cut as well, even to nothing.
        is_numbered = self._decoder.last_event_id or last.id
        try:
            if is_numbered and not last.data.strip().startswith(END_MARK):
                read_chunk(last.data)  # only to see whether it is an error
            else:
                self._read([last], chunks)
        except DecodeError:
            pass  # cut in the middle of it
        except ErnieError as error:
            self._fail(error)
        return chunks

    def _read_plain(self, events: list[bytes]) -> list[ChatChunk] | None:
        """What `_read` does, in half the time; `None` if there is anything but harmless chunks."""
        is_done = bool(events) and events[-1] == END_MARK
        if is_done:
            events.pop()
        try:
            # The validator itself instead of the method around it: a microsecond for each token.
            chunks = [*map(ChatChunk.__pydantic_validator__.validate_json, events)]
        except ValidationError:
            chunks = None
        for chunk in chunks or ():
            choices = chunk.choices
            if (
                len(choices) != 1
                or choices[0].flag
                or choices[0].finish_reason
                or chunk.__pydantic_extra__
            ) and (is_error(chunk) or find_verdict(choices)):
                chunks = None
                break
        if chunks is None:
            events += [END_MARK] * is_done
            return None
        self.is_done = is_done
        self._has_begun = True
        return chunks

    def _read_alike(self, events: bytes) -> tuple[list[ChatChunk], int]:
        """Read by the template the events up to the last one that is like it, or none of them.

        If the first one is of another form, it becomes the template, unless that was in vain too
        often.
        """
        if self._template is not None:
            known = self._template.read(events)
            if known[0] or self._template.fits(events):
                self._misses = 0
                return known
        if self._misses >= MAX_MISSES or not events.startswith(b"data: "):
            return [], 0
        self._misses += 1
        template = ChunkTemplate.of(events[6 : events.find(b"\n\n")])
        if template is None:
            return [], 0  # the one there was may be of use again
        self._template = template
        return template.read(events)

    def _read(self, events: list[ServerSentEvent], chunks: list[ChatChunk]) -> None:
        """Read the events up to the end mark.

        Raises:
            APIError: An event is an error.
            BlockedError: The service forbids to show it.
            DecodeError: An event is neither chunk nor error.
        """
        has_ids = bool(self._decoder.last_event_id or self._ledger.last_event_id)
        for event in events:
            data = event[0]
            if data[:1] != b"{":
                data = data.strip()
                if data.startswith(END_MARK):
                    self.is_done = True
                    return
                if not data:
                    continue
            chunk = read_chunk(data)
            if has_ids and not self._ledger.admit(event.id, chunk.id):
                continue
            choices = chunk.choices
            if len(choices) != 1 or choices[0].flag or choices[0].finish_reason:
                blocked = find_verdict(choices)
                if blocked is not None:
                    if blocked.flag is None:
                        chunks.append(chunk)
                    raise blocked
            chunks.append(chunk)

    def _fail(self, error: ErnieError) -> None:
        # Its frames refer back here; so kept, the cycle would hold a dropped stream open.
        self.failure = error.with_traceback(None)
