"""The answers that a process can show: those under way, and for a while those that are over."""

import asyncio
from collections.abc import Iterator

from ernie_async.gateway.live import LiveStream

__all__ = ["Shelf"]


class Shelf:
    """Finds streams by id or epoch, and forgets them in time. Serves one event loop.

    Args:
        retention: Seconds that one is kept after its end.
        max_bytes: Of all that are over together, roughly; the oldest go first.
    """

    def __init__(self, *, retention: float, max_bytes: int) -> None:
        self._retention = retention
        self._max_bytes = max_bytes
        self._streams: dict[str, LiveStream] = {}
        self._epochs: dict[str, str] = {}
        self._over: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._n_bytes = 0

    def __iter__(self) -> Iterator[LiveStream]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: LiveStream) -> None:
        """One begins."""
        self._streams[stream.stream_id] = stream
        self._epochs[stream.record.epoch] = stream.stream_id

    def get(self, stream_id: str) -> LiveStream | None:
        """The one with this id."""
        return self._streams.get(stream_id)

    def find_epoch(self, epoch: str) -> str | None:
        """The id of the one with this epoch."""
        return self._epochs.get(epoch)

    def end(self, stream: LiveStream) -> None:
        """One is over: keep it for a while, if there is room."""
        stream_id = stream.stream_id
        n_bytes = stream.log.n_bytes + 3 * len(stream.log.text)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._retention, self.forget, stream_id)
        self._over[stream_id] = n_bytes, timer
        self._n_bytes += n_bytes
        while self._n_bytes > self._max_bytes:
            self.forget(next(iter(self._over)))

    def forget(self, stream_id: str) -> None:
        """Keep one no longer."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._epochs.pop(stream.record.epoch, None)
        if stream_id in self._over:
            n_bytes, timer = self._over.pop(stream_id)
            timer.cancel()
            self._n_bytes -= n_bytes

    def clear(self) -> None:
        """Keep none."""
        for stream in self:
            self.forget(stream.stream_id)
            stream.on_abandoned = None
            stream.stop_waiting()
