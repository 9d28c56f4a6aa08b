"""Pictures and videos on their way into a message."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ernie_async import AsyncClient, ConfigError, image, image_part, user, video, video_part
from ernie_async.testing import MockErnie
from tests.pictures import png


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"%PDF-1.7", "expected a PNG"),
        ("no/such/file.png", "no/such/file.png: cannot be read: No such file"),
        (".", "cannot be read|bytes"),
        ("https://example.com/" + "x" * 1100, "1,024 bytes"),
        (7, "a path, bytes or a URL, got int"),
    ],
)
def test_what_the_service_would_refuse_is_refused_here(source: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        image_part(source)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    with pytest.raises(ConfigError, match=r"large\.mp4: expected 1 to 134,217,728 bytes"):
        video_part(large)


@pytest.mark.anyio
async def test_the_event_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 100 * 1024 * 1024)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    task = asyncio.create_task(count())
    part = await video(path)
    task.cancel()
    assert len(part.video_url.url) > 100 * 1024 * 1024
    assert turns >= 5


@pytest.mark.anyio
async def test_a_message_with_a_picture(
    server: MockErnie, client: AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    address = "https://example.com/a.png"
    await client.chat(
        [user(["这是什么？", await image(path, detail="low"), await image(address), "比较一下"])]
    )
    first, second, third, fourth = server.requests[-1].json["messages"][0]["content"]
    assert first == {"type": "text", "text": "这是什么？"}
    assert second["image_url"]["detail"] == "low"
    assert second["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert third == {"type": "image_url", "image_url": {"url": address}}
    assert fourth["text"] == "比较一下"
