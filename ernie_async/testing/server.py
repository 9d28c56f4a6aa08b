"""`MockErnie`: Qianfan V2 on a free port of 127.0.0.1, answering as the script says.

Knows who may ask (key, quotas, well-formed requests), which step comes next, and what is open.
Playing a step is left to `play`, and what other endpoints than chat say to `endpoints`. It judges
no sampling parameter and no model name.
"""

import asyncio
import random
import string
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self

import anyio
from aiohttp import web

from ernie_async.testing import render
from ernie_async.testing.endpoints import Route, find_route, takes_method
from ernie_async.testing.iam import TOKEN_PATH, TokenOffice
from ernie_async.testing.in_thread import InThread
from ernie_async.testing.play import Exchange, play, send_json, send_whole
from ernie_async.testing.script import ErrorEvent, Raw, Refuse, Reply, Step
from ernie_async.testing.seen import Asked, Seen, Shelf, check_chat, parse_body

RATE_WINDOW = 60.0
"""Seconds that `requests_per_minute` looks back."""

KEPT_REQUESTS = 10_000
"""Requests remembered: more than a test asserts on, and no leak in a mock left running."""

STOP_SECONDS = 5.0
"""Seconds that stopping may take; it takes milliseconds unless the machine is starved."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

CHAT = "/chat/completions"


class Connections:
    """The TCP connections of a server: numbered from 1, forgotten when lost."""

    def __init__(self) -> None:
        self.n_made = 0
        self.numbers: dict[web.RequestHandler, int] = {}


class CountingServer(web.Server):
    """aiohttp's low-level server, which also tells `Connections` what comes and goes."""

    def __init__(self, handler: Handler, book: Connections) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None)
        self._book = book

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Number a new connection."""
        super().connection_made(handler, transport)
        self._book.n_made += 1
        self._book.numbers[handler] = self._book.n_made

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        self._book.numbers.pop(handler, None)


class MockErnie(InThread):
    """A server that speaks Qianfan V2: chat as JSON and SSE, and the endpoints around it.

    Enter it with `async with`, and it runs in the same event loop; or with `with`, and it runs in
    a thread with a loop of its own. Without a script it repeats the beginning of what it was told,
    and says that the answer is canned. Vectors, rankings and pictures are made from what was asked,
    and files are kept as long as it runs.

    Args:
        port: TCP port; 0 takes a free one.
        api_key: The only key accepted; None accepts anything, even nothing.
        iam_keys: An access key and its secret key. The server then makes short-lived tokens for
            who signs with them, and accepts those tokens and `api_key` alone.
        requests_per_minute: Requests to models let in within any 60 seconds; None is no limit.
        concurrency: Requests to models answered at the same time; None is no limit.
        chunk_ms: Milliseconds between the chunks of the canned answer.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        api_key: str | None = None,
        iam_keys: tuple[str, str] | None = None,
        requests_per_minute: int | None = None,
        concurrency: int | None = None,
        chunk_ms: float = 0,
    ) -> None:
        self.requests: list[Seen] = []
        """The newest 10,000 requests of every kind, oldest first."""
        self.requests_made: int = 0
        self._port = port
        self._api_key = api_key
        self.tokens: TokenOffice | None = None if iam_keys is None else TokenOffice(*iam_keys)
        """What makes short-lived tokens; None without `iam_keys`."""
        self._requests_per_minute = requests_per_minute
        self._concurrency = concurrency
        self._chunk_ms = chunk_ms
        self._script: deque[Step] = deque()
        self._scripts: defaultdict[str, deque[Step]] = defaultdict(deque)
        self._shelf = Shelf()
        self._default: Step | None = None
        self._let_in: deque[float] = deque()
        self._n_counted = 0
        self._running: dict[asyncio.Task[Any], Seen] = {}
        self._connections = Connections()
        self._runner: web.ServerRunner | None = None

    @property
    def base_url(self) -> str:
        """What to give a client as `base_url`."""
        if not self._port:
            raise RuntimeError("MockErnie has no port before it is entered with `with`")
        return f"http://127.0.0.1:{self._port}/v2"

    @property
    def iam_url(self) -> str:
        """What to give `IamKeys` as `iam_url`."""
        return self.base_url.removesuffix("/v2")

    @property
    def connections_made(self) -> int:
        """TCP connections accepted so far."""
        return self._connections.n_made

    @property
    def open_connections(self) -> int:
        """TCP connections open now, idle ones included."""
        return len(self._connections.numbers)

    @property
    def open_streams(self) -> int:
        """Requests with `stream: true` being answered now."""
        return sum(seen.is_stream for seen in list(self._running.values()))

    @property
    def steps_left(self) -> int:
        """Steps of all scripts not yet played."""
        return len(self._script) + sum(map(len, self._scripts.values()))

    def script(self, *steps: Step, path: str = CHAT) -> None:
        """Append steps. Each request to this path that is let in takes the next one.

        Args:
            *steps: What to do. For another path than that of chat, `reply()` is its usual answer,
                which other steps break or refuse.
            path: What the path ends with, such as `/embeddings` or `/files`.

        Raises:
            TypeError: One is not a step.
        """
        for step in steps:
            if not isinstance(step, Step):
                raise TypeError(f"expected a step such as reply('hi'), got {step!r}")
        (self._script if path == CHAT else self._scripts[path]).extend(steps)

    def default(self, step: Step) -> None:
        """Answer with this step whenever the script is used up, instead of the canned text."""
        self._default = step

    async def wait_idle(self, timeout: float = 1.0, *, connections: bool = False) -> None:  # noqa: ASYNC109 - a test's patience, not a cancel scope
        """Wait until no request is being answered.

        It only looks, so any event loop will do: `anyio.run(server.wait_idle)` from plain code.

        Args:
            timeout: Seconds to wait at most.
            connections: Wait for the last TCP connection to be closed, too.

        Raises:
            TimeoutError: The server is still busy; the message says with what.
        """
        deadline = monotonic() + timeout
        while self._running or (connections and self.open_connections):
            if monotonic() > deadline:
                busy = [f"{s.method} {s.path}" for s in list(self._running.values())]
                raise TimeoutError(
                    f"after {timeout:g} s still answering {busy or 'nothing'}, "
                    f"{self.open_connections} connections open"
                )
            await anyio.sleep(0.002)

    async def __aenter__(self) -> Self:
        server = CountingServer(self._answer, self._connections)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port, backlog=4096).start()
        except OSError:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runner, self._runner = self._runner, None
        assert runner is not None
        with anyio.move_on_after(STOP_SECONDS, shield=True):
            for task, seen in self._running.items():
                seen.ended = seen.ended or "cut"
                task.cancel()
            await runner.cleanup()
            await self.wait_idle(STOP_SECONDS, connections=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record a request and answer it. The connection may be lost at any `await`."""
        number = self._connections.numbers.get(request.protocol, 0)
        seen = Seen(request.method, request.path, request.headers, monotonic(), number)
        self._remember(seen)
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = seen
        body_id = "as-" + "".join(random.choices(string.ascii_lowercase + string.digits, k=10))
        headers = {"X-Request-Id": request.headers.get("X-Request-Id", body_id)}
        try:
            seen.body = await request.content.read()
            seen.json = parse_body(seen.body)
            response = await self._route(Exchange(request, seen, body_id, headers))
            seen.ended = seen.ended or "done"
            return response
        except asyncio.CancelledError:
            seen.ended = seen.ended or "client_gone"
            raise
        except ConnectionError:
            seen.ended = seen.ended or "client_gone"
            return web.StreamResponse()  # aiohttp notices, too, and lets the connection go
        finally:
            seen.ended = seen.ended or "done"  # a mistake in a step: aiohttp answers 500, logs it
            del self._running[task]

    def _remember(self, seen: Seen) -> None:
        self.requests_made += 1
        self.requests.append(seen)
        if len(self.requests) > KEPT_REQUESTS:
            del self.requests[0]

    async def _route(self, exchange: Exchange) -> web.StreamResponse:
        seen = exchange.seen
        is_chat = seen.path.endswith(CHAT)
        if self.tokens is not None and seen.path == TOKEN_PATH:
            told = self.tokens.answer(
                seen.method, seen.path, exchange.request.query, exchange.request.headers
            )
            if isinstance(told, Refuse):
                return await play(told, exchange)
            return await send_json(exchange, told)
        found = find_route(seen.method, seen.path)
        if not is_chat and found is None and not takes_method(seen.path):
            plain = {"Content-Type": "text/plain"}
            return await send_whole(exchange, b"404 page not found", status=404, headers=plain)
        needs_key = found is None or found[0].needs_key
        if needs_key and not self._may_ask(seen.headers.get("Authorization")):
            return await play(Refuse(401), exchange)
        if is_chat and seen.method == "POST":
            return await self._chat(exchange)
        if found is None:
            return await play(Refuse(405), exchange)
        return await self._endpoint(*found, exchange)

    async def _endpoint(self, route: Route, name: str, exchange: Exchange) -> web.StreamResponse:
        seen = exchange.seen
        refusal = self._admit(exchange) if route.is_counted else None
        steps = next((held for path, held in self._scripts.items() if seen.path.endswith(path)), ())
        step = refusal or (steps.popleft() if steps else Reply())
        self._n_counted += route.is_counted
        try:
            if isinstance(step, Refuse | Raw | ErrorEvent):
                return await play(step, exchange, whole=b"{}")
            answer = route.handler(
                Asked(
                    json=seen.json,
                    body=seen.body,
                    headers=seen.headers,
                    query=exchange.request.query,
                    name=name,
                    origin=self.base_url.removesuffix("/v2"),
                    body_id=exchange.body_id,
                    created=int(time.time()),
                    shelf=self._shelf,
                )
            )
            if isinstance(answer, Refuse | Raw):
                return await play(answer, exchange)
            return await play(step, exchange, whole=render.to_json(answer))
        finally:
            self._n_counted -= route.is_counted

    def _may_ask(self, given: str | None) -> bool:
        if self._api_key is None and self.tokens is None:
            return True
        if self.tokens is not None and self.tokens.accepts(given):
            return True
        return self._api_key is not None and given == f"Bearer {self._api_key}"

    async def _chat(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.seen.json
        refusal = check_chat(request) or self._admit(exchange)
        if refusal is not None:
            return await play(refusal, exchange)
        if self._script:
            step = self._script.popleft()
        else:
            step = self._default or render.canned_reply(request, chunk_ms=self._chunk_ms)
        self._n_counted += 1
        try:
            return await play(step, exchange)
        finally:
            self._n_counted -= 1

    def _admit(self, exchange: Exchange) -> Refuse | None:
        """Refuse what is over a quota; a refused request does not use any up."""
        if self._concurrency is not None and self._n_counted >= self._concurrency:
            return Refuse(429, "cluster_rate_limit_exceeded")
        limit = self._requests_per_minute
        if limit is None:
            return None
        now = exchange.seen.received_at
        while self._let_in and self._let_in[0] <= now - RATE_WINDOW:
            self._let_in.popleft()
        is_full = len(self._let_in) >= limit
        if not is_full:
            self._let_in.append(now)
        exchange.headers["X-Ratelimit-Limit-Requests"] = str(limit)
        exchange.headers["X-Ratelimit-Remaining-Requests"] = str(limit - len(self._let_in))
        return Refuse(429, "rpm_rate_limit_exceeded") if is_full else None
