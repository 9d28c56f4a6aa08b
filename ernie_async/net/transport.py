"""The one `ClientSession` of each event loop, and aiohttp's errors made into ours.

The only file that speaks HTTP outwards. Knows no retry, no limit and no JSON. An error of aiohttp
is never chained: it holds the request's headers, the credential among them.
"""

import asyncio
import io
import os
import socket
import ssl
import textwrap
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from math import inf
from time import monotonic
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from ernie_async.errors import ConfigError, ConnectError, DeadlineError, ErnieError
from ernie_async.sansio.address import origin
from ernie_async.sansio.rest import Body

__all__ = ["BusyError", "Reply", "Transport"]

# What aiohttp and the loop raise when a connection fails.
HTTP_ERRORS = (aiohttp.ClientError, OSError, asyncio.TimeoutError)

# Longer than most pauses of a conversation, shorter than most servers' own limit (60 s and more).
KEEP_ALIVE_SECONDS = 30.0
DNS_CACHE_SECONDS = 60

# Of TCP: below the minute or more after which routers and load balancers forget an idle connection.
PROBE_SECONDS = 30

# What a connection holds of a body that nobody reads: aiohttp stops reading at twice the first, and
# asyncio takes the second at once. With their own numbers, 64 and 256 KiB, and events of 170 bytes
# it is 850 kB for each stalled stream instead of 71 (`python -m benchmarks.stalled`).
BUFFER_BYTES = 16384
RECEIVE_BYTES = 32768

# aiohttp warns about larger bodies as bytes, and sends them better from a file object.
LARGE_BODY = 1024 * 1024

# A dead connection shows at once. What breaks later may have been worked on, and paid for.
STALE_SECONDS = 1.0

_was_reused: ContextVar[list[bool]] = ContextVar("_was_reused")


class _Connector(aiohttp.TCPConnector):
    """Tells the call under way whether its connection had been used before."""

    def __init__(self, context: ssl.SSLContext | bool) -> None:
        # No limit of its own: that would be a second, silent queue behind the limiter.
        super().__init__(
            limit=0,
            ssl=context,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=DNS_CACHE_SECONDS,
        )
        self._known: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the name is aiohttp's
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if protocol is not None:
            if protocol in self._known:
                _was_reused.get([False])[0] = True
            else:
                self._known.add(protocol)
                _set_up(protocol.transport)
        return connection


def _set_up(transport: asyncio.Transport | None) -> None:
    """Have the operating system notice a peer that is gone, and read little at once."""
    connection = None if transport is None else transport.get_extra_info("socket")
    if transport is None or connection is None:
        return
    if hasattr(transport, "max_size"):  # asyncio's own, without TLS
        transport.max_size = RECEIVE_BYTES  # pyright: ignore[reportAttributeAccessIssue]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The moment of the first probe and the pause between two; macOS has another name for the first.
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, PROBE_SECONDS)


class Transport:
    """Opens responses below one base URL. Belongs to one client, and to as many loops as use it.

    Args:
        base_url: Without a slash at its end.
        headers: Sent with every request.
        session: Used instead of our own, and never closed by us.
        proxy: An HTTP proxy, or `None` to go directly.
        ca_file: Certificates to trust instead of the system's.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        session: aiohttp.ClientSession | None,
        proxy: str | None,
        ca_file: str | os.PathLike[str] | None,
    ) -> None:
        self.base_url = base_url
        self._headers = dict(headers)
        self._given_session = session
        self._proxy = proxy
        self._ca_file = ca_file
        # Changed by several threads, each for its own loop and in one step.
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._lifetimes: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}
        self._is_closed = False

    def __del__(self) -> None:
        # The loops themselves close what is left, see `_close_with_loop`; but late, so say so.
        if any(not loop.is_closed() for loop in list(getattr(self, "_sessions", ()))):
            warnings.warn(
                f"a client of {self.base_url} was dropped without being closed; "
                "use `async with AsyncClient(...)` or `await client.aclose()`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def is_home(self, path: str) -> bool:
        """Whether a path leads to the host of the base URL, which alone may see who asks."""
        return path.startswith("/") or origin(path) == origin(self.base_url)

    async def open(
        self,
        method: str,
        path: str,
        *,
        body: Body | None,
        headers: Mapping[str, str],
        connect: float | None,
        is_once: bool = False,
    ) -> "Reply":
        """Send a request and wait for the head of its answer, whatever its status.

        A connection that was kept alive may have died unnoticed. If it breaks within a second and
        before the first byte of an answer, the request is sent once more at once, unless `is_once`.

        Args:
            method: The HTTP method.
            path: Below the base URL, or a whole address.
            body: What to send; made anew for each sending, if it is not bytes.
            headers: Besides those of every request; another host is sent these alone.
            connect: Seconds to find the host and to connect, TLS and proxy included.
            is_once: Whether it must not be sent a second time.

        Raises:
            ConfigError: The client is closed, or the session that it was given.
            ConnectError: No connection, or it broke before an answer began.
            DeadlineError: `connect` ran out.
        """
        is_home = self.is_home(path)
        url = self.base_url + path if path.startswith("/") else path
        told = {**self._headers, **headers} if is_home else headers
        self._check_open()
        session = self._sessions.get(asyncio.get_running_loop()) or await self._session()
        while True:
            reuse = [False]
            started = monotonic()
            token = _was_reused.set(reuse)
            try:
                response = await session.request(
                    method,
                    url,
                    data=_payload(body),
                    headers=told,
                    proxy=self._proxy,
                    allow_redirects=False,
                    timeout=_clock_of(connect),
                    read_bufsize=BUFFER_BYTES,
                )
            except HTTP_ERRORS as error:
                failure = _translate(error, connect=connect)
                was_stale = (
                    reuse[0]
                    and not session.closed
                    and isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
                    and monotonic() - started < STALE_SECONDS
                )
            else:
                return Reply(response)
            finally:
                _was_reused.reset(token)
            if is_once or not was_stale:
                break
            is_once = True
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    async def _session(self) -> aiohttp.ClientSession:
        """The session of the running loop, opened at its first call."""
        if self._given_session is not None:
            if self._given_session.closed:
                raise ConfigError("the session given to this client is closed")
            return self._given_session
        for loop in list(self._sessions):
            if loop.is_closed():
                self._sessions.pop(loop, None)
                self._lifetimes.pop(loop, None)
        context: ssl.SSLContext | bool = True
        if self._ca_file is not None:
            context = await asyncio.to_thread(_read_certificates, self._ca_file)
            self._check_open()
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            session = aiohttp.ClientSession(
                connector=_Connector(context), cookie_jar=aiohttp.DummyCookieJar()
            )
            lifetime = _close_with_loop(session)
            await anext(lifetime)
            self._sessions[loop], self._lifetimes[loop] = session, lifetime
        return self._sessions[loop]

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("this client is closed; make a new one")

    async def aclose(self) -> None:
        """Close the running loop's session; those of other loops end with their loops."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        self._sessions.pop(loop, None)
        lifetime = self._lifetimes.pop(loop, None)
        if lifetime is not None:
            await lifetime.aclose()


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

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self._failure: ErnieError | None = None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
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
            failure = error if isinstance(error, ErnieError) else _translate(error)
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
        """The rest of the body if all of it is here; `None` if some has yet to come, or never will.

        Short answers come in one packet, and two coroutines less are needed to take it.

        Args:
            most: Bytes to return at most; what is left is for `read`.
        """
        content = self._content
        is_here = content.is_eof() and content.exception() is None
        return content.read_nowait(most) if is_here else None

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


def _payload(body: Body | None) -> bytes | io.BytesIO | AsyncIterator[bytes] | None:
    """What to give aiohttp to send it once."""
    if callable(body):
        return body()
    return io.BytesIO(body) if body is not None and len(body) > LARGE_BODY else body


@lru_cache(maxsize=16)  # to make one takes 1 % of a call
def _clock_of(connect: float | None) -> aiohttp.ClientTimeout:
    # aiohttp rounds moments up, which infinity is not.
    return aiohttp.ClientTimeout(total=None, connect=None if connect == inf else connect)


async def _close_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Hold a session open until this generator is closed, which `asyncio.run` does at its end.

    So a client that outlives its loop leaves no socket behind, and one that is dropped inside it
    has its session closed by the loop.
    """
    try:
        yield
    finally:
        await session.close()


def _translate(error: BaseException, *, connect: float | None = None) -> ErnieError:
    """Make an error of aiohttp into ours, free of what must not be seen.

    Only an `OSError` below it is chained, since that holds nothing but its number and text.
    """
    if isinstance(error, asyncio.TimeoutError):
        return DeadlineError(
            f"no connection within {connect:g} s (Timeouts.connect)"
            if connect is not None
            else "the connection timed out",
            clock="connect",
            seconds=connect or 0.0,
        )
    cause = getattr(error, "os_error", error if isinstance(error, OSError) else None)
    match error:
        case aiohttp.ClientProxyConnectionError():
            text = "cannot connect to the proxy"
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy refused with status {error.status}"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            why = getattr(cause, "verify_message", None) or getattr(cause, "reason", None)
            text = f"cannot connect to {error.host}:{error.port}: TLS failed: {why or 'no reason'}"
        case aiohttp.ClientConnectorError():
            text = f"cannot connect to {error.host}:{error.port}"
        case aiohttp.ServerDisconnectedError():
            text = "the server closed the connection without an answer"
        case aiohttp.ClientResponseError():
            # aiohttp repeats what came, however long it is.
            text = f"the answer is not valid HTTP: {textwrap.shorten(error.message, 200)}"
        case aiohttp.ClientPayloadError():
            text = "the answer's body was cut"
        case _:
            text = f"the connection broke ({type(error).__name__})"
    never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError)
    if not isinstance(cause, OSError) or cause.errno is None or isinstance(cause, ssl.SSLError):
        return ConnectError(text, was_sent=not never_sent)
    # Made anew from its number, since the one at hand may hold more than that.
    reason = os.strerror(cause.errno) if cause.errno > 0 else "host not found"
    failure = ConnectError(f"{text}: {reason}", was_sent=not never_sent)
    failure.__cause__ = OSError(cause.errno, reason)
    return failure


def _read_certificates(ca_file: str | os.PathLike[str]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=os.fspath(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ca_file: cannot read certificates from {os.fspath(ca_file)!r}: {error}"
        ) from error
