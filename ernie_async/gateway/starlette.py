"""Streams for routes of Starlette and FastAPI.

Requires the extra `starlette`. It is the only file that knows the library.
"""

import asyncio
from contextlib import aclosing

from ernie_async.gateway.frames import cursor_of, event_framing, frames, sse_headers
from ernie_async.gateway.live import LiveStream, Viewer

try:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send
except ImportError as error:
    raise ImportError(
        "sse_response needs Starlette: pip install 'ernie-async[starlette]'"
    ) from error

__all__ = ["sse_response"]


def sse_response(stream: LiveStream, request: Request) -> Response:
    """Answer a request with a stream, from where its client has read.

    Args:
        stream: As the hub gave it.
        request: Its `Last-Event-ID` is read here.

    Raises:
        ConfigError: The client's cursor cannot be read.
    """
    cursor = cursor_of(request.headers, request.query_params)
    if stream.log.has_seen_all(cursor):
        return Response(status_code=204)  # what stops a browser from coming back again
    return _StreamResponse(stream, stream.view(cursor), request.scope["http_version"])


class _StreamResponse(Response):
    """Sends a stream. Takes nothing before it is called, so one that never is leaves nothing."""

    def __init__(self, stream: LiveStream, viewer: Viewer, http: str) -> None:
        super().__init__(headers=sse_headers(stream, http=http))
        del self.headers["content-length"]  # it is not known in advance
        self._stream, self._viewer = stream, viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send pieces until all is told, or the client leaves."""
        with self._viewer:
            telling = asyncio.ensure_future(self._tell(send))
            leaving = asyncio.ensure_future(_until_left(receive))
            try:
                await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (telling, leaving):
                    task.cancel()
                await asyncio.wait((telling, leaving))
            if not telling.cancelled():
                await telling  # its failure, if there was one

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(frames(self._viewer, event_framing(self._stream))) as pieces:
            async for piece in pieces:
                told = {"type": "http.response.body", "body": piece, "more_body": True}
                async with asyncio.timeout(self._stream.limits.send):
                    await send(told)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
