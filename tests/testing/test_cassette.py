"""Recording from a real server, and playing without one."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_async import (
    AsyncClient,
    BadRequestError,
    Client,
    ErnieError,
    InterruptedStreamError,
    RateLimitError,
    RetryPolicy,
    user,
)
from ernie_async.testing import (
    Cassette,
    CassetteError,
    MockErnie,
    VirtualClock,
    cut,
    raw,
    refuse,
    reply,
    stall,
)

pytestmark = pytest.mark.anyio

KEY = "bce-v3/ALTAK-planted01/0123456789abcdef0123"
ONCE = RetryPolicy(attempts=1)


def held(path: Path) -> str:
    return path.read_text("utf-8")


def client_of(cassette: Cassette, key: str = KEY) -> AsyncClient:
    return AsyncClient(key, base_url=cassette.base_url, retry=ONCE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "one.json"


@pytest.fixture
def recording(path: Path, server: MockErnie) -> Callable[..., Cassette]:
    return lambda **options: Cassette(path, record=True, upstream=server.base_url, **options)


async def test_what_was_recorded_is_played_without_the_server(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(reply("量子", reasoning="想"), reply("纠缠"))
    async with recording() as cassette, client_of(cassette) as client:
        whole = await client.chat("问")
        streamed = await client.stream("问").final()
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    asked = server.requests_made
    async with Cassette(path) as cassette, client_of(cassette, "other") as client:
        assert len(cassette.unplayed) == 2
        again = await client.chat("问")
        assert (again.text, again.reasoning, again.id) == ("量子", "想", whole.id)
        assert (await client.stream("问").final()).id == streamed.id
        assert cassette.unplayed == []
    assert server.requests_made == asked


async def test_a_stream_keeps_its_chunks(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    pieces = [b"data: ", b'{"choices":[{"index":0,"delta":{"content":"\xe9\x87', b'\x8f"}}]}\n\n']
    pieces += [b": ping\n\n", b"data: [DONE]\n\n"]
    server.script(raw(pieces, pause_ms=5))
    async with recording() as cassette, client_of(cassette) as client:
        assert (await client.stream("问").final()).text == "量"
    (exchange,) = json.loads(held(path))["exchanges"]
    chunks = exchange["answer"]["chunks"]
    assert [chunk for chunk in chunks if isinstance(chunk, str)] == [
        "data: ",
        ": ping\n\n",
        "data: [DONE]\n\n",
    ]
    async with Cassette(path) as cassette, client_of(cassette) as client:
        stream = client.stream("问")
        assert (await stream.final()).text == "量"
        assert stream.heartbeats == 1


async def test_the_file_can_be_read_and_compared(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(reply("你好"))
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("问好", model="ernie-5.1")
    text = held(path)
    lines = text.splitlines()
    assert '"content": "问好"' in [line.strip(" ,") for line in lines]
    assert max(map(len, lines)) < 120
    assert "127.0.0.1" not in text
    server.script(reply("你好"))
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("问好", model="ernie-5.1")
    changed = set(held(path).splitlines()) ^ set(lines)
    assert {line.split(":")[0].strip() for line in changed} <= {'"id"', '"created"'}


async def test_no_credential_and_nothing_personal_is_kept(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(
        reply(f"你的 key 是 {KEY}，电话 13800138000", headers={"Set-Cookie": "a=planted"})
    )
    server.script(reply(f"{KEY} 13800138000", chunk_chars=3), refuse(400, message=f"bad {KEY}"))
    redact = ["user", re.compile(r"1\d{10}")]
    messages = [user(f"我的 key {KEY}，电话 13800138000")]
    async with recording(redact=redact) as cassette, client_of(cassette) as client:
        assert KEY in (await client.chat(messages, user="u-planted")).text
        await client.stream(messages, user="u-planted").final()
        with pytest.raises(BadRequestError):
            await client.chat("三")
    text = held(path)
    for planted in ("planted", "0123456789abcdef", "13800138000", "Cookie", "Authorization"):
        assert planted not in text
    async with Cassette(path, redact=redact) as cassette, client_of(cassette) as client:
        other = [user(f"我的 key {KEY}，电话 13911139111")]
        assert (
            await client.chat(other, user="u-2")
        ).text == "你的 key 是 [redacted]，电话 [redacted]"
        answer = await client.stream(other, user="u-3").final()
        assert answer.text == "[redacted] [redacted]"


async def test_equal_requests_are_played_in_their_order(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(reply("一"), refuse(429, retry_after=7), reply("二"))
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("数")
        with pytest.raises(RateLimitError):
            await client.chat("数")
        await client.chat("数")
    async with Cassette(path) as cassette, client_of(cassette) as client:
        assert (await client.chat("数")).text == "一"
        with pytest.raises(RateLimitError) as caught:
            await client.chat("数")
        assert caught.value.retry_after == 7
        assert (await client.chat("数")).text == "二"


async def test_a_cut_is_a_cut_again(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(cut(after_chunks=3))
    async with recording() as cassette, client_of(cassette) as client:
        with pytest.raises(InterruptedStreamError) as caught:
            await client.stream("问").final()
    assert caught.value.partial is not None
    async with Cassette(path) as cassette, client_of(cassette) as client:
        with pytest.raises(InterruptedStreamError) as again:
            await client.stream("问").final()
    assert again.value.partial is not None
    assert again.value.partial.text == caught.value.partial.text


async def test_a_stream_that_is_left_is_recorded_as_far_as_it_came(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(stall(after_chunks=3))
    async with recording() as cassette, client_of(cassette) as client:
        async with client.stream("问") as stream:
            async for _ in stream:
                break
        await server.wait_idle()
    async with Cassette(path) as cassette, client_of(cassette) as client:
        with pytest.raises(InterruptedStreamError):
            await client.stream("问").final()


async def test_an_unknown_request_says_what_differs(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("今天天气", temperature=0.5)
        await client.chat("量子纠缠")
    with pytest.raises(CassetteError) as caught:
        async with Cassette(path) as cassette, client_of(cassette) as client:
            with pytest.raises(BadRequestError) as told:
                await client.chat("明天天气", temperature=0.5)
    text = str(caught.value)
    assert text in str(told.value.message)
    assert "From the nearest recording, number 1, it differs in" in text
    assert 'messages[0].content: "今天天气" was recorded, "明天天气" came' in text
    assert "temperature" not in text


async def test_an_unknown_path_and_one_time_too_many(
    path: Path, recording: Callable[..., Cassette]
) -> None:
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("一")
    with pytest.raises(CassetteError, match=r"path: .*chat/completions.* was recorded"):
        async with Cassette(path) as cassette, client_of(cassette) as client:
            with pytest.raises(BadRequestError):
                await client.embed("一")
    with pytest.raises(CassetteError, match="recorded 1 times, and this is one more"):
        async with Cassette(path) as cassette, client_of(cassette) as client:
            await client.chat("一")
            with pytest.raises(BadRequestError):
                await client.chat("一")


async def test_without_strictness_the_nearest_is_played(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    server.script(reply("晴"), reply("纠缠"))
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("今天天气", temperature=0.5)
        await client.chat("量子纠缠")
    async with Cassette(path, strict=False) as cassette, client_of(cassette) as client:
        assert (await client.chat("明天天气", temperature=0.5)).text == "晴"
        assert (await client.chat("量子纠缠")).text == "纠缠"
        assert (await client.chat("量子纠缠")).text == "纠缠"


async def test_other_endpoints_and_uploads(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    async def work(client: AsyncClient) -> list[object]:
        file = await client.files.upload(b'{"a": 1}\n', purpose="batch", filename="a.jsonl")
        return [
            file.id,
            (await client.files.list(limit=3)).data[0].id,
            await client.files.content(file.id),
            (await client.embed(["一", "二"])).vectors,
            [card.id for card in await client.list_models()],
        ]

    async with recording() as cassette, client_of(cassette) as client:
        recorded = await work(client)
    async with Cassette(path) as cassette, client_of(cassette) as client:
        assert await work(client) == recorded
        assert cassette.unplayed == []


async def test_many_at_once_are_kept_apart(
    path: Path, server: MockErnie, recording: Callable[..., Cassette]
) -> None:
    async def work(client: AsyncClient) -> list[str]:
        calls = (client.stream(f"第{n}个").final() for n in range(50))
        return [answer.text for answer in await asyncio.gather(*calls)]

    async with recording() as cassette, client_of(cassette) as client:
        texts = await work(client)
    assert texts[7].endswith("第7个")
    async with Cassette(path) as cassette, client_of(cassette) as client:
        assert await work(client) == texts


def test_the_pace_is_kept_if_it_was_asked_for(path: Path) -> None:
    with VirtualClock() as clock:

        async def scenario() -> float:
            async with MockErnie() as server:
                server.script(reply("一二三四五六", first_ms=2000, chunk_ms=1000))
                async with (
                    Cassette(path, record=True, upstream=server.base_url, pace=True) as cassette,
                    client_of(cassette) as client,
                ):
                    await client.stream("数").final()
            async with Cassette(path, pace=True) as cassette, client_of(cassette) as client:
                stream = client.stream("数")
                await stream.final()
            return stream.timing.total

        assert clock.run(scenario()) == pytest.approx(5, abs=1.5)


def test_it_serves_plain_code_from_a_thread(path: Path, tmp_path: Path) -> None:
    with MockErnie() as server:
        server.script(reply("好"))
        with (
            Cassette(path, record=True, upstream=server.base_url) as cassette,
            Client(KEY, base_url=cassette.base_url) as client,
        ):
            client.chat("问")
    with Cassette(path) as cassette, Client("k", base_url=cassette.base_url) as client:
        assert client.chat("问").text == "好"
    with pytest.raises(CassetteError, match="was not recorded"):
        with Cassette(path) as cassette, Client("k", base_url=cassette.base_url) as client:
            with pytest.raises(BadRequestError):
                client.chat("别的")


async def test_an_error_of_the_test_is_not_hidden(
    path: Path, recording: Callable[..., Cassette]
) -> None:
    async with recording() as cassette, client_of(cassette) as client:
        await client.chat("一")
    with pytest.raises(BadRequestError):
        async with Cassette(path) as cassette, client_of(cassette) as client:
            await client.chat("二")


async def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match="pytest --ernie-record"):
        async with Cassette(tmp_path / "none.json"):
            pass
    (tmp_path / "other.json").write_text('{"cassette": 99}')
    with pytest.raises(CassetteError, match="no recording of version 1"):
        async with Cassette(tmp_path / "other.json"):
            pass


async def test_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with Cassette(
        tmp_path / "a.json", record=True, upstream="http://127.0.0.1:9/v2"
    ) as cassette:
        async with client_of(cassette) as client:
            with pytest.raises(ErnieError, match="no answer of"):
                await client.chat("问")
    assert not (tmp_path / "a.json").exists()


@pytest.mark.ernie_cassette(redact=["user"])
async def test_the_fixture_plays_what_is_beside_the_test(ernie_cassette: Cassette) -> None:
    async with client_of(ernie_cassette) as client:
        assert (await client.chat("你好", user="u-9")).text == "你好！我是文心一言。"
