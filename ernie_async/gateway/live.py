"""One answer in this process, and those who watch it.

A viewer is a place in the answer's log and no copy of it: a thousand of them cost little, and one
that does not read delays nobody. Knows no framework and no store.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ernie_async.errors import ConfigError
from ernie_async.gateway.stores import StreamRecord
from ernie_async.sansio.replay import AnswerLog, Cursor, StreamEvent, merge_deltas

__all__ = ["LiveStream", "StreamLimits", "Viewer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What a hub keeps, and how long it waits. All times are in seconds.

    Attributes:
        streams: Answers under way in this process.
        window_events: Events of one answer that are kept for who comes back.
        window_bytes: The same in bytes, roughly.
        retention: How long an answer is kept after its end.
        kept_bytes: All answers that are over together; the oldest go first.
        queue_events: How far a viewer may fall behind before it has to come back.
        queue_bytes: The same in bytes, roughly.
        send: How long sending one piece to a viewer may take.
        life: How long one answer may take.
        chars: The longest answer, in characters.
        drain_for_usage: How long to read on, unseen, after a cancel, for the real usage.
    """

    streams: int = 1000
    window_events: int = 4096
    window_bytes: int = 1 << 20
    retention: float = 600.0
    kept_bytes: int = 256 << 20
    queue_events: int = 256
    queue_bytes: int = 256 << 10
    send: float = 10.0
    life: float = 600.0
    chars: int = 200_000
    drain_for_usage: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            least = 0 if name in {"drain_for_usage", "retention", "kept_bytes"} else 1e-3
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
                raise ConfigError(f"{name}: expected a number above 0, got {value!r}")


class LiveStream:
    """An answer that is being written, or was. Serves all its viewers in one event loop.

    Attributes:
        record: What does not change of it.
        log: Its events.
        heartbeat: Seconds of silence after which its viewers send a comment.
        viewers: Those who watch it now.
        on_abandoned: Called when nobody came back in time.
        is_closing: All viewers have to leave.
        n_lagged: Viewers that fell behind so far.
    """

    def __init__(
        self, record: StreamRecord, limits: StreamLimits, *, heartbeat: float, linger: float | None
    ) -> None:
        self.record = record
        self.limits = limits
        self.heartbeat = heartbeat
        self.log: AnswerLog = AnswerLog(
            record.stream_id,
            record.epoch,
            max_events=limits.window_events,
            max_bytes=limits.window_bytes,
        )
        self.viewers: set[Viewer] = set()
        self.on_abandoned: Callable[[LiveStream], object] | None = None
        self.is_closing: bool = False
        self.n_lagged = 0
        self._linger = linger
        self._timer: asyncio.TimerHandle | None = None

    @property
    def stream_id(self) -> str:
        """Its id."""
        return self.record.stream_id

    def view(self, cursor: Cursor | None = None) -> "Viewer":
        """Somebody who has read up to `cursor` wants the rest; `None` wants everything."""
        return Viewer(self, cursor)

    def append(self, kind: str, payload: dict[str, Any]) -> StreamEvent:
        """It says something; whoever waits for it is woken."""
        event = self.log.append(kind, payload)
        self.wake()
        return event

    def wake(self) -> None:
        """There is something new."""
        for viewer in self.viewers:
            viewer.wake()

    def close_viewers(self) -> None:
        """Have everybody leave, to come back elsewhere."""
        self.is_closing = True
        self.wake()

    def expect_viewers(self, *, at_least: float = 0.0) -> None:
        """Nobody is here: start to wait for somebody, as long as the policy says.

        Args:
            at_least: Seconds.
        """
        if self._linger is not None and self.on_abandoned is not None and not self.viewers:
            self.stop_waiting()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(at_least, self._linger), self.on_abandoned, self)

    def stop_waiting(self) -> None:
        """Somebody came, or it does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Viewer:
    """Somebody who watches a stream, to be used in `with`. Serves one task.

    Attributes:
        is_over: Nothing more will come: the last event came, or it has to leave.
        has_lagged: It fell behind too far, and has to come back.
    """

    __slots__ = ("_beat", "_cursor", "_seen", "_since", "_stream", "_woken",
                 "has_lagged", "is_over")  # fmt: skip

    def __init__(self, stream: LiveStream, cursor: Cursor | None) -> None:
        self._stream = stream
        self._cursor = cursor
        self._seen = -1  # the last event that was handed over; nothing yet
        self._woken: asyncio.Future[None] | None = None
        self._since = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self.is_over: bool = False
        self.has_lagged: bool = False

    def __enter__(self) -> Self:
        self._stream.viewers.add(self)
        self._stream.stop_waiting()
        return self

    def __exit__(self, *_: object) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._stream.viewers.discard(self)
        self._stream.expect_viewers()

    async def wait(self) -> list[StreamEvent]:
        """Wait for the next events; none if it is time for a heartbeat, or all is over."""
        events = self._take()
        if events or self.is_over:
            return events
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        if self._beat is None:
            self._beat = loop.call_later(self._stream.heartbeat, self._look)
        self._woken = loop.create_future()
        try:
            await self._woken
        finally:
            self._woken = None
        return self._take()

    def _look(self) -> None:
        """One timer serves many waits: see how long this one has been silent."""
        loop = asyncio.get_running_loop()
        left = self._since + self._stream.heartbeat - loop.time()
        self._beat = loop.call_later(left, self._look) if left > 0 else None
        if left <= 0:
            self.wake()

    def wake(self) -> None:
        """There is something new, or it is time for a heartbeat."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _take(self) -> list[StreamEvent]:
        """What is new; several pieces of text that waited become one."""
        stream, log = self._stream, self._stream.log
        if self._seen == log.last_seq:
            self.is_over = log.is_over or stream.is_closing
            return []
        is_first = self._seen < 0
        events = log.catch_up(self._cursor if is_first else Cursor(log.epoch, self._seen))
        if not is_first and len(events) > 1 and _is_too_much(events, stream.limits):
            self.is_over = self.has_lagged = True
            stream.n_lagged += 1
            return []
        self._seen = log.last_seq
        self.is_over = log.is_over
        return merge_deltas(events)


def _is_too_much(events: Sequence[StreamEvent], limits: StreamLimits) -> bool:
    if len(events) > limits.queue_events:
        return True
    return sum(event.size for event in events) > limits.queue_bytes
