"""One request of a streamed answer: its permit, its response, its clocks, its chunks.

`ChatStream` makes one, and another for each retry and each resume. Says how a response ended, and
not whether the answer is whole.
"""

import asyncio
from time import monotonic, time

from ernie_async.errors import ConnectError, DeadlineError, ErnieError, InterruptedStreamError
from ernie_async.net.admission import AnyPermit
from ernie_async.net.body import read_body
from ernie_async.net.call import Call
from ernie_async.net.deadline import Deadline
from ernie_async.net.feedback import settle_failed
from ernie_async.net.hooks import HeartbeatSeen, tell
from ernie_async.net.reply import Reply
from ernie_async.net.watch import Watch
from ernie_async.sansio.chunk_reader import ChunkReader
from ernie_async.sansio.event_ids import EventLedger
from ernie_async.sansio.read_buffer import ReadGauge
from ernie_async.sansio.rest import is_event_stream, refuse_non_stream
from ernie_async.types.chunk import ChatChunk

__all__ = ["Attempt"]

# To use the connection again, the body must be read to its end. More than this costs more than a
# new connection does.
DRAIN_SECONDS = 0.05
DRAIN_BYTES = 4096

# A stream that is faster than its consumer lets other tasks have a turn after so many bytes, shared
# with the calls that are under way: seventy events of 170 bytes if there is no other call, and one
# read if there are many. Shorter turns would only cost a lone stream (`python -m benchmarks`, one).
TURN_BYTES = 24576


class Attempt:
    """One request and its response. Nothing refers back to the stream."""

    __slots__ = (
        "_call",
        "_cut",
        "_gauge",
        "_had_more",
        "_held",
        "_is_admitted",
        "_is_at_end",
        "_ledger",
        "_n_heartbeats",
        "_n_read",
        "_permit",
        "_reader",
        "_reply",
        "_turn_at",
        "_watch",
    )

    def __init__(
        self,
        call: Call,
        ledger: EventLedger,
        gauge: ReadGauge,
        permit: AnyPermit | None = None,
        *,
        is_admitted: bool = False,
    ) -> None:
        self._call = call
        self._reader = ChunkReader(ledger, max_event_bytes=call.desk.max_event_bytes)
        self._ledger = ledger
        self._gauge = gauge
        self._permit = permit
        self._is_admitted = is_admitted
        self._reply: Reply | None = None
        self._watch: Watch | None = None
        self._held: list[ChatChunk] = []
        self._n_read = 0  # bytes in all
        self._turn_at = 0  # as many when others last had their turn
        self._n_heartbeats = 0  # that observers know of
        self._had_more = False  # bytes were left by the read before
        self._is_at_end = False  # of the body
        self._cut: str | None = None  # why the body ended, if not by itself

    @property
    def heartbeats(self) -> int:
        """Comments that the server sent to keep the connection alive."""
        return self._reader.heartbeats

    @property
    def is_done(self) -> bool:
        """Whether the end mark came."""
        return self._reader.is_done

    async def open(self, *, may_be_empty: bool) -> list[ChatChunk]:
        """Send the request and read up to the first chunks.

        Args:
            may_be_empty: The end mark may come at once: what came before it was read already.

        Raises:
            ErnieError: The attempt failed, and is closed.
        """
        try:
            if not self._is_admitted:
                self._permit = await self._call.admit()
            seconds = self._call.desk.timeouts.first_event
            try:
                with Deadline(seconds):
                    chunks = await self._open(may_be_empty=may_be_empty)
            except TimeoutError as error:
                if isinstance(error, ErnieError):
                    raise
            else:
                assert self._reply is not None
                self._watch = Watch(self._reply, self._call)
                return chunks
            # Raised outside the handler: the cancellation inside is no news to the caller. And held
            # by no name, since its traceback holds this frame.
            raise DeadlineError(
                f"no event within {seconds:g} s (Timeouts.first_event); "
                f"{self.heartbeats} heartbeats came",
                clock="first_event",
                seconds=seconds or 0.0,
            )
        except ErnieError as error:
            self.report(error)
            if self._permit is not None:
                settle_failed(self._permit, error)
            self.close(used=None)
            raise
        except BaseException:
            self.close(used=None)
            raise

    async def _open(self, *, may_be_empty: bool) -> list[ChatChunk]:
        reply = self._reply = await self._call.send()
        if self._permit is not None:
            self._call.learn(self._permit, reply)
        if reply.status != 200 or not is_event_stream(reply.headers):
            body = await read_body(reply)
            raise refuse_non_stream(reply.status, reply.headers, body, utc_now=time())
        chunks = await self.read(is_finished=False)
        if chunks or (may_be_empty and self.is_done):
            return chunks
        raise self.interrupted()

    async def read(self, *, is_finished: bool) -> list[ChatChunk]:
        """Wait for the next chunks, all that came at once; none at the end.

        A read that is cancelled loses nothing.

        Args:
            is_finished: Every answer has its finish reason: only usage and the end mark may follow.

        Raises:
            ErnieError: An error came instead, or nothing for too long. The attempt is still open.
        """
        reader, reply, watch, gauge = self._reader, self._reply, self._watch, self._gauge
        assert reply is not None
        while not self._held:
            if reader.failure is not None:
                self._raise_failure()
            if reader.is_done or self._is_at_end:
                return []
            if not self._had_more:
                self._turn_at = self._n_read  # others have a turn while it waits
            elif self._n_read - self._turn_at >= TURN_BYTES // (1 + len(self._call.desk.roster)):
                self._turn_at = self._n_read
                await asyncio.sleep(0)
            began = monotonic()
            if watch is not None:
                if watch.since is None:
                    watch.since = began
                if is_finished:
                    watch.hurry()
            try:
                # A stream that is ahead of its reader is read in the largest pieces.
                packet = await reply.read(gauge.most if self._had_more else gauge.size)
            except ConnectError as error:
                self._cut, packet = f"the stream was cut: {error.message}", b""
            except DeadlineError:
                if not is_finished:
                    raise
                packet = b""
            delay = self._take(packet, began)
            if delay:
                more = await reply.pile_up(delay, gauge.most)
                self._n_read += len(more)
                self._held = [*self._held, *reader.feed(more)]
        chunks, self._held = self._held, []
        return chunks

    def _take(self, packet: bytes, began: float) -> float:
        """Decode a packet; say for how many seconds to hold its chunks."""
        reader, reply = self._reader, self._reply
        assert reply is not None
        if not packet:
            self._is_at_end = True
            self._held = reader.close()
            return 0.0
        size, arrived, now = len(packet), reply.arrived, monotonic()
        self._n_read += size
        had_more = arrived > self._n_read
        was_there, self._had_more = self._had_more, had_more
        self._gauge.note(now, arrived, now - began)
        self._held = reader.feed(packet)
        if reader.heartbeats != self._n_heartbeats:
            self._n_heartbeats = reader.heartbeats
            seen = HeartbeatSeen(call=self._call.number, heartbeats=self._n_heartbeats)
            tell(self._call.desk.hooks, seen)
        if not self._held or self._watch is None:
            return 0.0  # nothing, or the first chunk
        self._watch.since = None
        # What has been waiting here already is not held any longer.
        if was_there or had_more or not self._gauge.max_delay:
            return 0.0
        return self._gauge.delay(size)

    def _raise_failure(self) -> None:
        failure, self._reader.failure = self._reader.failure, None
        assert failure is not None
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    def interrupted(self) -> InterruptedStreamError:
        """The error for a body that ended before the answer did."""
        why = self._cut or "the stream ended with neither a finish reason nor [DONE]"
        retry = self._ledger.retry
        return InterruptedStreamError(
            why,
            last_event_id=self._ledger.last_event_id or None,
            retry_after=None if retry is None else retry / 1000,
        )

    async def drain(self) -> None:
        """Read on to the end of the body, if it is near, so that its connection can be reused."""
        reply = self._reply
        assert reply is not None
        size = 0
        if reply.is_at_end:
            return
        try:
            with Deadline(DRAIN_SECONDS):
                while not reply.is_at_end and size <= DRAIN_BYTES:
                    size += len(await reply.read(DRAIN_BYTES))
        except (ErnieError, TimeoutError):
            pass  # to be closed, and nothing of the answer is missing

    def succeeded(self) -> None:
        """Have the limiter learn that all went well."""
        if self._permit is not None:
            # And not how quick it was: the reader of a stream sets its pace.
            self._permit.succeeded()

    def report(self, error: ErnieError) -> None:
        """Have the limiter learn from what went wrong."""
        if self._permit is not None:
            self._call.report(self._permit, error)

    def close(self, *, used: int | None) -> None:
        """Leave nothing behind: no timer, no socket, no permit. May be called twice.

        Args:
            used: Tokens, for the limiter; `None` if that is not known, or settled already.
        """
        if self._watch is not None:
            self._watch.stop()
        if self._reply is not None:
            self._reply.close()
        permit, self._permit = self._permit, None
        if permit is not None:
            if used is not None and permit.tokens:
                permit.settle(tokens=used)
            permit.release()
