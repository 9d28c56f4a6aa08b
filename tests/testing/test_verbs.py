"""The mock has an answer for every verb of the client, without a script."""

import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_async import AsyncClient
from ernie_async.files import Files
from ernie_async.testing import MockErnie, reply

pytestmark = pytest.mark.anyio

# These ask nothing, or nothing that is not a chat.
NO_VERBS = {"aclose", "drain", "parse", "stream_parse"}


async def picture(client: AsyncClient, folder: Path) -> None:
    images = await client.generate_image("猫")
    assert await client.download_image(images.first)
    assert (await client.save_image(images.first, folder / "cat.png")).stat().st_size
    assert (await client.edit_image("https://example.com/cat.png", "狗")).first


async def video(client: AsyncClient, _: Path) -> None:
    task = await client.generate_video("海浪", model="m", poll_every=0.001)
    assert (await client.video_task(task.task_id)).state == "succeeded"


async def files(client: AsyncClient, folder: Path) -> None:
    file = await client.files.upload(b"{}\n", purpose="batch")
    assert (await client.files.list()).data
    assert [found.id async for found in client.files.all()] == [file.id]
    assert await client.files.content(file.id) == b"{}\n"
    assert (await client.files.download(file.id, folder / "copy")).read_bytes() == b"{}\n"
    assert await client.files.delete(file.id)


VERBS: dict[str, Callable[[AsyncClient, Path], Awaitable[Any]]] = {
    "chat": lambda c, _: c.chat("问"),
    "stream": lambda c, _: c.stream("问").final(),
    "request": lambda c, _: c.request("GET", "/models"),
    "list_models": lambda c, _: c.list_models(),
    "embed": lambda c, _: c.embed(["一", "二"]),
    "rerank": lambda c, _: c.rerank("问", ["一", "二"]),
    "web_search": lambda c, _: c.web_search("油价"),
    "generate_image download_image save_image edit_image": picture,
    "generate_video video_task": video,
    "upload list all content download delete": files,
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
async def test_the_mock_answers(
    verb: Any, server: MockErnie, client: AsyncClient, tmp_path: Path
) -> None:
    await verb(client, tmp_path)
    assert {seen.ended for seen in server.requests} == {"done"}


async def test_an_answer_of_a_type_is_scripted(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply('{"城": "北京"}'))
    assert await client.parse("问", dict[str, str]) == {"城": "北京"}


def test_no_verb_is_forgotten() -> None:
    tried = set(" ".join(VERBS).split()) | NO_VERBS
    for kind in (AsyncClient, Files):
        methods = inspect.getmembers(kind, inspect.isfunction)
        verbs = {
            name
            for name, method in methods
            if not name.startswith("_")
            and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
        }
        assert verbs
        assert verbs <= tried
