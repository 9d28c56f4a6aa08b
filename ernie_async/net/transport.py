"""The one `ClientSession` of each event loop: how a request goes out, and its answer begins.

The only file that speaks HTTP outwards. Knows no retry, no limit and no JSON.
"""

import asyncio
import io
import os
import socket
import ssl
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

from ernie_async.errors import ConfigError
from ernie_async.net.http_errors import HTTP_ERRORS, translate
from ernie_async.net.reply import Reply
from ernie_async.sansio.address import origin
from ernie_async.sansio.rest import Body

__all__ = ["Transport"]

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

JSON = "application/json"

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
    ) -> Reply:
        """Send a request and wait for the head of its answer, whatever its status.

        A connection that was kept alive may have died unnoticed. If it breaks within a second and
        before the first byte of an answer, the request is sent once more at once, unless `is_once`.

        Args:
            method: The HTTP method.
            path: Below the base URL, or a whole address.
            body: What to send: JSON, or what is made anew for each sending and has its type in
                `headers`.
            headers: Besides those of every request; another host is sent these alone.
            connect: Seconds to find the host and to connect, TLS and proxy included.
            is_once: Whether it must not be sent a second time.

        Raises:
            ConfigError: The client is closed, or the session that it was given.
            ConnectError: No connection, or it broke before an answer began.
            DeadlineError: `connect` ran out.
        """
        url = self.base_url + path if path.startswith("/") else path
        told = {**self._headers, **headers} if self.is_home(path) else headers
        self._check_open()
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop) or await self._session()
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
                failure = translate(error, connect=connect)
                was_stale = (
                    reuse[0]
                    and not session.closed
                    and isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
                    and monotonic() - started < STALE_SECONDS
                )
            else:
                return Reply(response, loop)
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


def _payload(body: Body | None) -> aiohttp.Payload | AsyncIterator[bytes] | None:
    """What to give aiohttp to send it once. Bytes are JSON."""
    if isinstance(body, bytes):
        if len(body) <= LARGE_BODY:
            return aiohttp.BytesPayload(body, content_type=JSON)
        return aiohttp.BytesIOPayload(io.BytesIO(body), content_type=JSON)
    return None if body is None else body()


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


def _read_certificates(ca_file: str | os.PathLike[str]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=os.fspath(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ca_file: cannot read certificates from {os.fspath(ca_file)!r}: {error}"
        ) from error
