"""An answer as it comes: its head at once, its body in pieces."""

import asyncio
from collections.abc import Mapping

import aiohttp

from ernie_async.errors import ConnectError, ErnieError
from ernie_async.net.http_errors import HTTP_ERRORS, translate

__all__ = ["BusyError", "Reply"]


class BusyError(RuntimeError):
    """Two tasks read the same stream at once. The first one goes on; the second has to wait."""

    def __init__(self) -> None:
        super().__init__("another task is waiting for this stream's next chunk; tee serves several")


class Reply:
    """An answer whose head has come, and whose body is being read.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
    """

    __slots__ = ("_content", "_failure", "_response", "headers", "loop", "status")

    def __init__(self, response: aiohttp.ClientResponse, loop: asyncio.AbstractEventLoop) -> None:
        self._response = response
        self._content = response.content
        self._failure: ErnieError | None = None
        self.loop: asyncio.AbstractEventLoop = loop
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_at_end(self) -> bool:
        """Whether the whole body was read; its connection is back in the pool then."""
        return self._content.at_eof()

    async def read(self, most: int) -> bytes:
        """Wait for bytes of the body; nothing at its end.

        Args:
            most: Bytes to return at most, however many are here.

        Raises:
            BusyError: Another task is reading.
            ConnectError: The body was cut. What came before the cut is returned first.
            ErnieError: What `fail` was given.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return await self._content.read(most)
        except HTTP_ERRORS as error:
            # A `DeadlineError` of `fail` is an `OSError` too.
            failure = error if isinstance(error, ErnieError) else translate(error)
            # aiohttp's frames hold a future that holds the error. Left so, this circle would keep
            # the frames of all callers, on Python 3.12 and newer, and a dropped stream among them.
            error.__traceback__ = None
        except RuntimeError as error:
            if str(error) != "Connection closed.":
                raise BusyError from None  # of aiohttp, since two tasks read at once
            failure = ConnectError("the connection was closed")
        # The reader would tell of the end alone, with what came before it still in its buffer.
        self._content.set_exception(None)  # type: ignore[arg-type]
        if rest := self._content.read_nowait():
            # Its frames refer back here; so kept, the cycle would hold a dropped stream open.
            self._failure = failure.with_traceback(None)
            return rest
        try:
            raise failure
        finally:
            del failure  # for the same reason: its traceback holds this frame

    def read_whole(self, most: int) -> bytes | None:
        """The whole body if it is here; `None` if some has yet to come, or never will.

        Short answers come in one packet, and three coroutines less are needed to take it. To be
        asked before `read` is.

        Args:
            most: Bytes; a longer body is left for `read`.
        """
        content = self._content
        is_here = content.is_eof() and content.total_bytes <= most and content.exception() is None
        return content.read_nowait() if is_here else None

    async def pile_up(self, seconds: float, most: int) -> bytes:
        """Let packets pile up in the system, and take what came; nothing also after a failure.

        Args:
            seconds: To take no notice of the connection, which is what saves work.
            most: Bytes to return at most.
        """
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        if protocol is None:  # the body is over
            return b""
        protocol.pause_reading()
        try:
            await asyncio.sleep(seconds)
        finally:
            protocol.resume_reading()
        await asyncio.sleep(0)  # the loop looks,
        await asyncio.sleep(0)  # and reads
        if self._failure is not None or self._content.exception() is not None:
            return b""
        return self._content.read_nowait(most)

    @property
    def arrived(self) -> int:
        """Bytes of the body that have come so far, read or not."""
        return self._content.total_bytes

    def fail(self, error: ErnieError) -> None:
        """Have `read` raise this error, also where a task waits in it right now."""
        self._content.set_exception(error)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if self._content.at_eof():  # it is back in the pool
            return
        self._response.close()
        if self.loop.is_closed() and (connection := self._response.connection) is not None:
            connection.release()  # closed with its loop, but aiohttp would still miss it
