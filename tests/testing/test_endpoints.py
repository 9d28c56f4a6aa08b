"""The endpoints of the mock besides chat, asked by a client that is not ours."""

import struct
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ernie_async.testing import MockErnie, cut, error_event, raw, refuse, reply
from ernie_async.testing.endpoints import ROUTES, find_route
from ernie_async.testing.endpoints_files import read_form
from ernie_async.testing.endpoints_media import png
from ernie_async.testing.endpoints_text import vector, words

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def likeness(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_vectors_are_the_same_in_every_run_and_alike_for_like_texts() -> None:
    assert vector("上海天气")[:2] == vector("上海天气")[:2]
    assert abs(likeness(vector("上海天气"), vector("上海天气")) - 1) < 1e-3
    near, far = vector("上海的天气"), vector("quantum computing")
    assert likeness(vector("上海天气"), near) > 0.4 > likeness(vector("上海天气"), far)


def test_words_are_latin_words_and_chinese_characters() -> None:
    assert words("Hello 上海, v2!") == {"hello", "上", "海", "v2"}


def test_picture_is_a_real_png() -> None:
    picture = png(0x00FF00AA)
    at, kinds = 8, []
    while at < len(picture):
        (size,) = struct.unpack(">I", picture[at : at + 4])
        body = picture[at + 4 : at + 8 + size]
        (check,) = struct.unpack(">I", picture[at + 8 + size : at + 12 + size])
        assert zlib.crc32(body) == check
        kinds.append(body[:4])
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_form_is_read_byte_by_byte() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n\r\n\0\r\n'
        b"--x--\r\n"
    )
    found = read_form("multipart/form-data; boundary=x", body)
    assert found == {"purpose": ("", b"batch"), "file": ("a", b"\r\n\r\n\0")}


def test_routes_are_found_by_the_end_of_the_path() -> None:
    route, name = find_route("GET", "/v2/coding/files/file-1/content") or (None, "")
    assert route in ROUTES
    assert name == "file-1"
    assert find_route("POST", "/v2/nothing") is None


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/embeddings", {"input": ["a"]}, "model"),
        ("/embeddings", {"model": "m", "input": []}, "input"),
        ("/embeddings", {"model": "m", "input": ["a", ""]}, "empty"),
        ("/rerank", {"model": "m", "query": "", "documents": ["a"]}, "query"),
        ("/images/generations", {"model": "m"}, "prompt"),
        ("/images/edits", {"model": "m", "prompt": "p"}, "image"),
        ("/ai_search/web_search", {}, "messages"),
        ("/files", {"purpose": "batch"}, "file"),
        ("/embeddings", None, "Invalid Argument"),
    ],
)
async def test_what_the_service_refuses_is_refused(server, session, path, body, message) -> None:
    async with session.post(server.base_url + path, json=body) as response:
        assert response.status == 400
        assert message in (await response.json())["error"]["message"]


@pytest.mark.parametrize("path", ["/embeddings", "/files/file-1/content", "/rerank"])
async def test_key_and_method_are_checked(session, path) -> None:
    async with MockErnie(api_key="k") as server:
        async with session.put(server.base_url + path) as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer k"}
        async with session.put(server.base_url + path, headers=headers) as response:
            assert response.status == 405


async def test_quotas_hold_for_models_and_not_for_files(session) -> None:
    async with MockErnie(requests_per_minute=1) as server:
        body = {"model": "m", "input": "a"}
        statuses = []
        for _ in range(2):
            async with session.post(f"{server.base_url}/embeddings", json=body) as response:
                statuses.append(response.status)
        async with session.get(f"{server.base_url}/files") as response:
            statuses.append(response.status)
    assert statuses == [200, 429, 200]


async def test_each_path_has_a_script_of_its_own(server, session) -> None:
    server.script(refuse(429), cut(after_bytes=3), reply(), path="/embeddings")
    server.script(error_event(), raw(b"[]"), path="/rerank")
    assert server.steps_left == 5
    body = {"model": "m", "input": "a", "query": "q", "documents": ["d"]}
    async with session.post(f"{server.base_url}/rerank", json=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (
            200,
            "internal_error",
        )
    async with session.post(f"{server.base_url}/embeddings", json=body) as response:
        assert response.status == 429
    async with session.post(f"{server.base_url}/rerank", json=body) as response:
        assert await response.read() == b"[]"
    with pytest.raises(aiohttp.ClientPayloadError):
        async with session.post(f"{server.base_url}/embeddings", json=body) as response:
            await response.read()
    async with session.post(f"{server.base_url}/embeddings", json=body) as response:
        assert len((await response.json())["data"]) == 1
    assert server.steps_left == 0
