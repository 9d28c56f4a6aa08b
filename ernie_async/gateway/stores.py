"""Where the answers of a hub are kept for the other processes, and for a client that asks twice.

`MemoryStore` serves one process, which has everything at hand already. `gateway.redis` serves many.
"""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from ernie_async.sansio.replay import AnswerLog, StreamEvent

__all__ = ["MemoryStore", "Store", "StreamRecord"]


class StreamRecord(NamedTuple):
    """What does not change of a stream.

    Attributes:
        stream_id: 128 random bits, as text.
        epoch: Of its events' ids.
        tenant: Whose it is.
        model: As was asked for; may be empty.
        created: Seconds since 1970.
        fingerprint: Of the request; empty if nobody may resume by event id alone.
    """

    stream_id: str
    epoch: str
    tenant: str
    model: str
    created: int
    fingerprint: str = ""


class Store:
    """What a hub asks of the place where answers are kept; as it is, there is no other process."""

    async def open(self, on_cancel: Callable[[str], object]) -> None:
        """Be ready; `on_cancel` gets the ids of streams that another process wants cancelled."""

    async def claim(self, key: str, stream_id: str, *, keep: float) -> str:
        """Take a key for a start, or say who has it. One of two at the same time gets it.

        Args:
            key: The tenant's name and the key it chose.
            stream_id: Of the stream that is to be started.
            keep: Seconds.

        Returns:
            Of the stream that has the key.
        """
        raise NotImplementedError

    async def unclaim(self, key: str, stream_id: str) -> None:
        """Give a key back, if this stream has it."""
        raise NotImplementedError

    async def begin(self, record: StreamRecord, *, keep: float) -> None:
        """A stream of this process begins; all of it is kept for so many seconds."""

    def append(self, stream_id: str, event: StreamEvent) -> None:
        """It says more. Returns at once."""

    async def finish(self, stream_id: str) -> None:
        """It has said all, or never began."""

    async def find(self, stream_id: str) -> StreamRecord | None:
        """What is known of a stream that another process produces."""

    async def find_epoch(self, epoch: str) -> str | None:
        """The id of the stream with this epoch, if another process produces it."""

    async def follow(self, record: StreamRecord, log: AnswerLog, wake: Callable[[], None]) -> None:
        """Have the events of another process's stream put into `log`; `wake` is told of them."""

    async def unfollow(self, stream_id: str) -> None:
        """Follow it no longer."""

    async def is_watched(self, stream_id: str) -> bool:
        """Whether somebody follows it in another process."""
        return False

    async def cancel(self, stream_id: str) -> None:
        """Have the process that produces it cancel it."""

    async def aclose(self) -> None:
        """Leave nothing behind."""


class MemoryStore(Store):
    """Keeps what one process needs: which key started which stream."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, float]] = {}

    async def claim(self, key: str, stream_id: str, *, keep: float) -> str:
        """Take a key for a start, or say who has it."""
        now = monotonic()
        # All are kept equally long, so the oldest come first.
        while self._claims and next(iter(self._claims.values()))[1] < now:
            self._claims.pop(next(iter(self._claims)))
        return self._claims.setdefault(key, (stream_id, now + keep))[0]

    async def unclaim(self, key: str, stream_id: str) -> None:
        """Give a key back, if this stream has it."""
        if key in self._claims and self._claims[key][0] == stream_id:
            del self._claims[key]
