"""The clock of a running stream: no event for too long, or too long in all."""

import asyncio
from time import monotonic

from ernie_async.errors import DeadlineError
from ernie_async.net.call import Call
from ernie_async.net.reply import Reply

__all__ = ["Watch"]

# After the finish reason only usage and the end mark may follow; a server that forgets to close is
# not waited for as if it were thinking.
SECONDS_AFTER_FINISH = 5.0


class Watch:
    """Ends a stream that is silent for too long: one timer for the whole stream.

    A timer for each read would cost 40 to 67 % more for each chunk. Refers to the reply and not to
    the stream, so that a dropped stream is not kept alive by its timer.

    Attributes:
        since: When the consumer began to wait for an event, whatever heartbeats came meanwhile;
            `None` while it does not wait.
    """

    __slots__ = ("_handle", "_idle", "_loop", "_reply", "_total", "_until", "since")

    def __init__(self, reply: Reply, call: Call) -> None:
        self._loop = reply.loop
        self._reply = reply
        self._idle = call.desk.timeouts.idle
        self.since: float | None = None
        self._total = call.total
        self._until = call.ends_at
        self._handle: asyncio.Handle | None = None
        if self._idle is not None or self._until is not None:
            self._look()

    def hurry(self) -> None:
        """Every answer has its finish reason: what may still follow is not waited for as long."""
        if self._idle is None or self._idle > SECONDS_AFTER_FINISH:
            self._idle = SECONDS_AFTER_FINISH
            self.stop()
            self._look()

    def stop(self) -> None:
        """Never look again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        """Is the time up? If not, look again when it may be."""
        now = monotonic()
        nexts: list[float] = []
        if self._until is not None:
            if now >= self._until:
                self._end("total", self._total, "the stream was not over")
                return
            nexts.append(self._until)
        if self._idle is not None:
            due = self._idle + (now if self.since is None else self.since)
            if now >= due:
                # After a pause of the whole loop, what came meanwhile is read in the next turn.
                self._handle = self._loop.call_soon(self._end_if_still_idle, self.since)
                return
            nexts.append(due)
        self._handle = self._loop.call_at(min(nexts), self._look)

    def _end_if_still_idle(self, since: float | None) -> None:
        if self.since is since and since is not None:
            self._end("idle", self._idle, "no event")
        else:
            self._look()

    def _end(self, clock: str, seconds: float | None, what: str) -> None:
        self._handle = None
        self._reply.fail(
            DeadlineError(
                f"{what} within {seconds:g} s (Timeouts.{clock})",
                clock=clock,
                seconds=seconds or 0.0,
            )
        )
