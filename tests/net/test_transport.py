"""Connections: reuse, loops, proxies, certificates, and errors that keep secrets."""

import asyncio
import gc
import os
import pickle
import socket
import ssl
import sys
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web

from ernie_async import (
    AsyncClient,
    ConfigError,
    ConnectError,
    DeadlineError,
    DrainError,
    ErnieError,
    RetryPolicy,
    Timeouts,
)
from ernie_async.net.transport import Transport
from ernie_async.testing import MockErnie, cut, error_event, raw, refuse, reply

ONCE = RetryPolicy(attempts=1)
SECRET = "bce-v3/ALTAK-planted/0123456789abcdef"


@asynccontextmanager
async def raw_server(handle) -> AsyncIterator[str]:
    """Bytes on a bare socket; gives the base URL."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v2"


@pytest.mark.anyio
async def test_a_stale_connection_costs_no_attempt() -> None:
    """The server closes a kept-alive connection just when the next request is sent."""
    n_requests = n_connections = 0
    body = b'{"choices":[{"message":{"content":"ok"}}]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_requests, n_connections
        n_connections += 1
        is_first = True
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
            n_requests += 1
            if not is_first:
                break  # read the second request, answer nothing
            is_first = False
            writer.write(answer % (len(body), body))
        writer.close()

    async with raw_server(handle) as url, AsyncClient("k", base_url=url, retry=ONCE) as client:
        for _ in range(3):
            assert (await client.chat("hi")).text == "ok"
    assert (n_connections, n_requests) == (3, 5)


@pytest.mark.anyio
async def test_a_body_is_taken_at_once_if_all_of_it_is_here() -> None:
    is_asked = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
        await is_asked.wait()
        writer.write(b"ay")
        writer.close()

    async with raw_server(handle) as url:
        transport = Transport(url, headers={}, session=None, proxy=None, ca_file=None)
        reply = await transport.open("GET", "/", body=None, headers={}, connect=5)
        assert reply.read_whole(1024) is None
        is_asked.set()
        with anyio.fail_after(5):
            while reply.arrived < 4:
                await asyncio.sleep(0)
        assert reply.read_whole(3) is None
        assert (reply.read_whole(4), reply.is_at_end) == (b"okay", True)
        reply.fail(DeadlineError("too late", clock="total", seconds=1))
        assert reply.read_whole(1024) is None
        with pytest.raises(DeadlineError):
            await reply.read(1024)
        await transport.aclose()


@pytest.mark.anyio
async def test_a_new_connection_that_dies_is_not_resent(server: MockErnie) -> None:
    server.script(cut(before_headers=True))
    async with AsyncClient("k", base_url=server.base_url, retry=ONCE) as client:
        with pytest.raises(ConnectError) as caught:
            await client.chat("hi")
    assert caught.value.was_sent
    assert len(server.requests) == 1


@pytest.mark.anyio
async def test_no_server_is_a_clear_error_and_nothing_was_sent() -> None:
    async with MockErnie() as gone:
        url = gone.base_url
    async with AsyncClient("k", base_url=url, retry=ONCE) as client:
        with pytest.raises(
            ConnectError, match=r"cannot connect to 127\.0\.0\.1:\d+: Connection refused"
        ) as caught:
            await client.chat("hi")
    assert not caught.value.was_sent
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.anyio
async def test_connecting_has_its_own_clock() -> None:
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]

    class NeverConnects(aiohttp.abc.AbstractResolver):
        async def resolve(self, host, port=0, family=0):
            await asyncio.sleep(60)

        async def close(self) -> None:
            pass

    connector = aiohttp.TCPConnector(resolver=NeverConnects())
    async with listener, aiohttp.ClientSession(connector=connector) as session:
        client = AsyncClient(
            "k",
            base_url=f"http://some.test:{port}/v2",
            session=session,
            retry=ONCE,
            timeouts=Timeouts(connect=0.05),
        )
        with pytest.raises(DeadlineError, match=r"Timeouts\.connect") as caught:
            await client.chat("hi")
        assert caught.value.clock == "connect"
        await client.aclose()
        assert not session.closed


def test_one_client_works_in_successive_loops_and_leaves_nothing_open(
    mock_ernie: MockErnie,
) -> None:
    def use_in_three_loops() -> None:
        client = AsyncClient("k", base_url=mock_ernie.base_url)

        async def use() -> None:
            async for _ in client.stream("hi"):
                pass
            assert (await client.chat("hi")).text

        for _ in range(3):
            asyncio.run(use())
            anyio.run(lambda: mock_ernie.wait_idle(connections=True))

    use_in_three_loops()
    gc.collect()  # a client whose loops are gone has nothing left to warn about
    assert mock_ernie.connections_made == 3


def test_loops_may_come_and_go_in_many_threads_at_once(mock_ernie: MockErnie) -> None:
    client = AsyncClient("k", base_url=mock_ernie.base_url)
    errors: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(15):
                asyncio.run(client.chat("hi"))
        except BaseException as error:  # noqa: BLE001 - none may come
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_one_client_works_in_several_threads_at_once(mock_ernie: MockErnie) -> None:
    client = AsyncClient("k", base_url=mock_ernie.base_url)

    async def use() -> list[str]:
        return [(await client.chat("hi")).text for _ in range(5)]

    async def main() -> None:
        results = await asyncio.gather(
            *(asyncio.to_thread(lambda: asyncio.run(use())) for _ in range(4))
        )
        assert len({text for texts in results for text in texts}) == 1

    asyncio.run(main())
    anyio.run(lambda: mock_ernie.wait_idle(connections=True))


@pytest.mark.anyio
async def test_a_forgotten_client_warns_and_its_connections_are_closed(server: MockErnie) -> None:
    async def forget() -> None:
        client = AsyncClient("k", base_url=server.base_url)
        await client.chat("hi")

    with pytest.warns(ResourceWarning, match="dropped without being closed"):
        await forget()
        gc.collect()
    await server.wait_idle(connections=True)


@pytest.mark.anyio
async def test_a_closed_client_says_so(server: MockErnie) -> None:
    client = AsyncClient("k", base_url=server.base_url)
    await client.aclose()
    await client.aclose()
    with pytest.raises(ConfigError, match="closed"):
        await client.chat("hi")


def open_sockets() -> Iterator[socket.socket]:
    """Copies of all sockets of this process, each open until the next one is asked for."""
    for entry in Path("/proc/self/fd").iterdir():
        if os.path.realpath(entry).partition("/fd/")[2].startswith("socket:"):
            with socket.socket(fileno=os.dup(int(entry.name))) as held:
                yield held


def peer_port(held: socket.socket) -> int | None:
    try:
        return held.getpeername()[1]
    except OSError:
        return None


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_sockets_are_kept_alive_every_30_s(server: MockErnie) -> None:
    port = int(server.base_url.split(":")[2].split("/")[0])
    server.script(reply(chunk_ms=50))
    async with AsyncClient("k", base_url=server.base_url) as client:
        async with client.stream("hi") as stream:
            await anext(stream)
            ours = [
                [
                    held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    held.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                ]
                for held in open_sockets()
                if held.family == socket.AF_INET and peer_port(held) == port
            ]
    assert ours == [[1, 30, 30]]


@pytest.mark.anyio
async def test_an_injected_session_is_used_and_never_closed(server: MockErnie) -> None:
    async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as session:
        async with AsyncClient("k", base_url=server.base_url, session=session) as client:
            await client.chat("hi")
        assert not session.closed
    assert server.requests[0].headers["X-Mine"] == "1"
    client = AsyncClient("k", base_url=server.base_url, session=session)
    with pytest.raises(ConfigError, match="session given to this client is closed"):
        await client.chat("hi")


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_a_proxy_is_used(
    server: MockErnie, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The mock is the proxy: a proxied request names the whole URL."""
    proxy = server.base_url.removesuffix("/v2")
    if how == "environment":
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
    async with AsyncClient(
        "k",
        base_url="http://ernie.invalid/v2",
        proxy=proxy if how == "argument" else None,
    ) as client:
        assert (await client.chat("hi")).text
    assert server.requests[0].headers["Host"] == "ernie.invalid"


@pytest.mark.anyio
async def test_clocks_may_be_endless(server: MockErnie) -> None:
    endless = Timeouts(connect=inf, first_event=inf, idle=inf, total=inf)
    async with AsyncClient("k", base_url=server.base_url, timeouts=endless) as client:
        assert (await client.chat("hi")).text
        assert await client.stream("hi").text()


@pytest.mark.anyio
async def test_tls_with_a_ca_file(tmp_path) -> None:
    trustme = pytest.importorskip("trustme", reason="trustme makes the certificates")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "safe"}}]})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/v2"
    async with AsyncClient("k", base_url=url, ca_file=tmp_path / "ca.pem") as client:
        assert (await client.chat("hi")).text == "safe"
    async with AsyncClient("k", base_url=url, retry=ONCE) as client:
        with pytest.raises(ConnectError, match="TLS failed"):
            await client.chat("hi")
    await runner.cleanup()


@pytest.mark.anyio
async def test_a_client_that_is_closed_while_it_reads_certificates_opens_no_session(
    server: MockErnie, tmp_path
) -> None:
    trustme = pytest.importorskip("trustme", reason="trustme makes the certificates")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client = AsyncClient("k", base_url=server.base_url, ca_file=tmp_path / "ca.pem")
    call = asyncio.create_task(client.chat("hi"))
    await asyncio.sleep(0)
    await client.aclose()
    with pytest.raises(DrainError, match="closed"):
        await call
    assert not server.requests
    with pytest.raises(ConfigError, match="closed"):
        await client.chat("hi")


@pytest.mark.anyio
async def test_a_ca_file_that_is_none_is_a_clear_error(server: MockErnie, tmp_path) -> None:
    async with AsyncClient("k", base_url=server.base_url, ca_file=tmp_path / "no.pem") as client:
        with pytest.raises(ConfigError, match="ca_file: cannot read certificates"):
            await client.chat("hi")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "step",
    [
        refuse(401),
        refuse(500),
        cut(before_headers=True),
        cut(1),
        error_event(after_chunks=1),
        raw(b"<html>"),
        raw(b"zz\r\n", framing=False),
        refuse(307, headers={"Location": "http://127.0.0.1:1/"}),
    ],
)
async def test_no_secret_is_in_any_error(
    server: MockErnie, caplog: pytest.LogCaptureFixture, step
) -> None:
    caplog.set_level("DEBUG")
    server.script(step, step)
    async with AsyncClient(SECRET, base_url=server.base_url, retry=ONCE) as client:
        for call in (client.chat("hi"), client.stream("hi").text()):
            with pytest.raises(ErnieError) as caught:
                await call
            shown = "".join(
                traceback.TracebackException.from_exception(
                    caught.value, capture_locals=True
                ).format()
            )
            assert server.requests[-1].headers["Authorization"] == f"Bearer {SECRET}"
            for text in (shown, repr(caught.value), pickle.dumps(caught.value).decode("latin-1")):
                assert "planted" not in text
        assert "planted" not in repr(client)
    assert "planted" not in caplog.text
    assert caplog.text, "the log is not merely empty"


@pytest.mark.anyio
async def test_a_redirect_is_not_followed(server: MockErnie) -> None:
    server.script(refuse(307, headers={"Location": f"{server.base_url}/chat/completions"}), reply())
    async with AsyncClient("k", base_url=server.base_url, retry=ONCE) as client:
        with pytest.raises(ErnieError, match="307"):
            await client.chat("hi")
    assert len(server.requests) == 1


@pytest.mark.anyio
async def test_a_large_body_is_sent_without_a_warning(server: MockErnie) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with AsyncClient("k", base_url=server.base_url) as client:
            assert (await client.chat("字" * 1_000_000)).text
    assert len(server.requests[0].body) > 3_000_000


BOMBS = {
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "a long status line": b"HTTP/1.1 200 " + b"O" * 2_000_000 + b"\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01" * 1000 + b"\r\n\r\n",
    "a chunk of negative size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
}


@pytest.mark.anyio
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
async def test_garbage_of_http_is_a_typed_error(bomb: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bomb)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with (
        raw_server(handle) as base_url,
        AsyncClient("k", base_url=base_url, retry=ONCE, timeouts=Timeouts(first_event=2)) as client,
    ):
        with pytest.raises(ErnieError) as caught:
            await client.stream("hi").text()
        assert len(str(caught.value)) < 1000
