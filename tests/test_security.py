"""What must not get out: secrets are planted and then looked for. And where requests may go."""

import copy
import io
import logging
import pickle
import pprint
import ssl
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ernie_async import (
    AsyncClient,
    Client,
    ConnectError,
    ErnieError,
    IamKeys,
    KeyPool,
    Record,
    RetryPolicy,
    Timeouts,
)
from ernie_async.otel import OTelHooks
from ernie_async.testing import FAULTS, Cassette, Fault, MockErnie, refuse, reply

pytestmark = pytest.mark.anyio

KEY = "bce-v3/ALTAK-planted0key/0123456789planted0123456789planted"
OTHER = "bce-v3/ALTAK-planted1key/9876543210planted9876543210planted"
PAIR = IamKeys("ALTAKplantedaccess0001", "0123456789plantedsecret0123456789")
PLANTED = "planted"
ONCE = RetryPolicy(attempts=1)
IMPATIENT = Timeouts(connect=2, first_event=0.2, idle=0.2, total=0.5)


class Ears:
    """All that is logged by anybody, and all records of hooks."""

    def __init__(self) -> None:
        self.log = io.StringIO()
        self.records: list[Record] = []
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def hooks(self) -> list[Any]:
        return [self.records.append, OTelHooks(tracer_provider=self.tracers)]

    def heard(self) -> str:
        spans = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        return self.log.getvalue() + pprint.pformat(self.records) + spans


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    handler = logging.StreamHandler(ears.log)
    level = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    yield ears
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)


def shown(error: BaseException) -> str:
    """Every way in which an error is shown, and sent to another process."""
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)  # without the test's own names
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    pickled = pickle.dumps(error).decode("latin-1")
    return "".join(told.format()) + repr(error) + str(error) + pickled + repr(vars(error))


@contextmanager
def suppress_and_show() -> Iterator[list[str]]:
    """What the error shows with which the block ended, if there was one."""
    told: list[str] = []
    try:
        yield told
    except ErnieError as error:
        told.append(shown(error))


def key_of(kind: str, server: MockErnie) -> Any:
    if kind == "pool":
        return KeyPool([KEY, OTHER])
    if kind == "pair":
        return IamKeys(PAIR.access_key, PAIR.secret_key, iam_url=server.iam_url)
    return KEY


@pytest.mark.parametrize("fault", FAULTS.values(), ids=str)
async def test_no_failure_shows_the_key(fault: Fault, ears: Ears) -> None:
    async with MockErnie() as server:
        server.default(fault.step)
        async with AsyncClient(
            KEY, base_url=server.base_url, retry=ONCE, timeouts=IMPATIENT, hooks=ears.hooks
        ) as client:
            for ask in (lambda: client.chat("hi"), lambda: client.stream("hi").final()):
                with suppress_and_show() as told:
                    await ask()
                assert PLANTED not in "".join(told)
        assert PLANTED in str(server.requests[-1].headers["Authorization"])
    assert PLANTED not in ears.heard()
    assert len(ears.heard()) > 500


@pytest.mark.parametrize("kind", ["key", "pool", "pair"])
async def test_no_credential_is_shown_by_what_holds_it(kind: str, ears: Ears) -> None:
    keys = (PAIR.access_key, PAIR.secret_key) if kind == "pair" else None
    async with MockErnie(iam_keys=keys) as server:
        key = key_of(kind, server)
        async with AsyncClient(key, base_url=server.base_url, hooks=ears.hooks) as client:
            stream = client.stream("hi")
            answer = await stream.final()
            server.script(refuse(401, "invalid_iam_token"), refuse(401, "invalid_iam_token"))
            with pytest.raises(ErnieError) as caught:
                await client.with_options(retry=ONCE).chat("hi")
            held = (
                client,
                client._desk.key,
                client._settings,
                client._desk,
                stream,
                answer,
                copy.copy(client),
            )
            for thing in held:
                assert PLANTED not in repr(thing)
                assert PLANTED not in pprint.pformat(getattr(thing, "__dict__", thing))
            assert PLANTED not in pickle.dumps(answer).decode("latin-1")
            assert PLANTED not in shown(caught.value)
    assert PLANTED not in ears.heard()


def test_a_key_of_the_environment_is_not_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIANFAN_API_KEY", KEY)
    assert PLANTED not in pickle.dumps(AsyncClient()).decode("latin-1")


def test_the_client_without_await_shows_nothing_either(ears: Ears) -> None:
    with MockErnie() as server:
        server.default(refuse(400))
        with Client(KEY, base_url=server.base_url, hooks=ears.hooks) as client:
            with pytest.raises(ErnieError) as caught:
                client.chat("hi")
            assert PLANTED not in repr(client) + pprint.pformat(vars(client))
    assert PLANTED not in shown(caught.value) + ears.heard()


HOLDERS = {
    "a key": {"api_key": KEY},
    "a proxy": {"api_key": "k", "proxy": "http://u:planted@127.0.0.1:9"},
    "a proxy without a scheme": {"api_key": "k", "proxy": "u:planted@127.0.0.1:9"},
    "a proxy of another kind": {"api_key": "k", "proxy": "socks5://u:planted@127.0.0.1:9"},
}


@pytest.mark.parametrize("kind", [AsyncClient, Client])
@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS.keys())
@pytest.mark.parametrize("fault", [{"timeouts": 5}, {"app_id": "a\n"}, {"hedge": 3}])
def test_a_client_that_cannot_be_made_shows_nothing(
    kind: type[AsyncClient | Client], holder: dict[str, Any], fault: dict[str, Any]
) -> None:
    with pytest.raises(ErnieError) as caught:
        kind(**holder, **fault)
    told = shown(caught.value)
    assert PLANTED not in told
    assert "unfinished" in told


async def test_a_prompt_and_an_answer_are_neither_logged_nor_traced(ears: Ears) -> None:
    async with MockErnie() as server:
        server.script(reply("planted answer"), reply("planted answer"), refuse(500), reply("x"))
        async with AsyncClient(
            "k",
            base_url=server.base_url,
            retry=RetryPolicy(attempts=2, base_delay=0.001),
            hooks=ears.hooks,
        ) as client:
            await client.chat("planted question")
            await client.stream("planted question").final()
            await client.chat("planted question", user="planted user")
            await client.embed("planted text")
            await client.rerank("planted query", ["planted document"])
    assert PLANTED not in ears.heard()


async def test_a_recording_has_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    async with MockErnie() as server:
        server.script(reply(f"{KEY} and {OTHER}"), reply(OTHER, chunk_chars=3))
        async with Cassette(path, record=True, upstream=server.base_url) as cassette:
            async with AsyncClient(KEY, base_url=cassette.base_url) as client:
                await client.chat(f"my key is {KEY}", extra_headers={"X-Auth": OTHER})
                await client.stream(f"and {OTHER}").final()
                await client.request("GET", f"/models?access_token={OTHER}")
    assert PLANTED not in await anyio.Path(path).read_text("utf-8")


# Where requests may go

GO = {
    "chat": lambda c, _: c.chat("planted"),
    "stream": lambda c, _: c.stream("planted").final(),
    "embed": lambda c, _: c.embed("planted"),
    "models": lambda c, _: c.list_models(),
    "upload": lambda c, _: c.files.upload(b"planted", purpose="batch"),
    "content": lambda c, _: c.files.content("file-1"),
    "download": lambda c, to: c.files.download("file-1", to / "file"),
    "delete": lambda c, _: c.files.delete("file-1"),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("go", GO.values(), ids=GO)
async def test_a_redirect_takes_nothing_to_another_host(
    go: Callable[[AsyncClient, Path], Awaitable[Any]], status: int, tmp_path: Path
) -> None:
    reached = []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        reached.append((request.headers, await request.read()))
        return web.json_response({"id": "x", "data": []})

    async def away(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{port}/x"})

    async with serving(elsewhere) as port, serving(away) as home:
        url = f"http://127.0.0.1:{home}/v2"
        async with AsyncClient(KEY, base_url=url, retry=ONCE) as client:
            with pytest.raises(ErnieError, match=str(status)):
                await go(client, tmp_path)
    assert reached == []


async def test_the_request_for_a_token_is_not_redirected() -> None:
    reached = []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        reached.append(request)
        return web.json_response({"token": "x"})

    async def away(_: web.BaseRequest) -> web.Response:
        return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{port}/x"})

    async with serving(elsewhere) as port, serving(away) as home, MockErnie() as server:
        iam_url = f"http://127.0.0.1:{home}"
        pair = IamKeys(PAIR.access_key, PAIR.secret_key, iam_url=iam_url)
        async with AsyncClient(pair, base_url=server.base_url, retry=ONCE) as client:
            with pytest.raises(ErnieError):
                await client.chat("hi")
        assert server.requests == []
    assert reached == []


async def test_a_certificate_of_nobody_known_is_refused() -> None:
    seen = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.json_response({})

    certificate = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    async with serving(answer, context) as port:
        async with AsyncClient(KEY, base_url=f"https://127.0.0.1:{port}", retry=ONCE) as client:
            with pytest.raises(ConnectError, match="TLS failed") as caught:
                await client.chat("hi")
    assert PLANTED not in shown(caught.value)
    assert seen == []


def test_the_usual_address_is_one_of_tls() -> None:
    assert AsyncClient(KEY).base_url.startswith("https://")


class serving:  # noqa: N801 - used like a function
    """A server on 127.0.0.1 with this handler; its port."""

    def __init__(self, handler: Any, context: ssl.SSLContext | None = None) -> None:
        self._runner = web.ServerRunner(web.Server(handler), shutdown_timeout=1)
        self._context = context

    async def __aenter__(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        return int(self._runner.addresses[0][1])

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
