"""Pictures and videos on their way into a message."""

import asyncio
import base64
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async import AsyncClient, ConfigError, image, image_part, user, video, video_part
from ernie_async.sansio.media import picture_uri, video_uri
from ernie_async.testing import MockErnie


def png(width: int = 16, height: int = 16, extra: int = 0) -> bytes:
    def block(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (3 * width + 1) * min(height, 16))
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", rows + b"\0" * extra)


def jpeg(width: int, height: int) -> bytes:
    table = b"\xff\xc4" + struct.pack(">H", 21) + b"\0" * 19
    size = b"\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + b"\0" * 10
    note = b"\xff\xe1" + struct.pack(">H", 10) + b"Exif\0\0\xff\xc0"
    return b"\xff\xd8" + note + b"\xff" + table + size


def webp(form: bytes, body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBP" + form + b"\0\0\0\0" + body


PICTURES = {
    "png": (png(300, 200), "png"),
    "jpeg": (jpeg(300, 200), "jpeg"),
    "gif": (b"GIF89a" + struct.pack("<HH", 300, 200) + b"\0" * 10, "gif"),
    "bmp": (b"BM" + b"\0" * 16 + struct.pack("<ii", 300, -200), "bmp"),
    "webp": (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 300, 200)), "webp"),
    "lossless webp": (webp(b"VP8L", b"\x2f" + struct.pack("<I", 299 | 199 << 14)), "webp"),
    "extended webp": (webp(b"VP8X", b"\0\0\0\0" + b"\x2b\x01\0" + b"\xc7\0\0"), "webp"),
}


@pytest.mark.parametrize(("data", "kind"), PICTURES.values(), ids=PICTURES)
def test_a_picture_is_known_by_its_bytes(data: bytes, kind: str) -> None:
    url = image_part(data).image_url.url
    head, _, body = url.partition(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(body) == data


@pytest.mark.parametrize(("width", "height"), [(4, 100), (100, 4), (6001, 100), (100, 6001)])
def test_sides_are_checked_in_every_format(width: int, height: int) -> None:
    told = f"got {width:,} x {height:,}"
    for data in (
        png(width, height),
        jpeg(width, height),
        b"GIF89a" + struct.pack("<HH", width, height),
        b"BM" + b"\0" * 16 + struct.pack("<ii", width, height),
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)),
        webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)),
        webp(b"VP8X", b"\0" * 4 + (width - 1 | height - 1 << 24).to_bytes(6, "little")),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="5 to 6,000") as caught:
            image_part(data)
        assert told in str(caught.value)


VIDEOS = {
    b"\0\0\0\x20ftypisom": "mp4",
    b"\0\0\0\x20ftypqt  ": "quicktime",
    b"RIFF\0\0\0\0AVI LIST": "x-msvideo",
    b"\x1aE\xdf\xa3....webm": "webm",
    b"\x1aE\xdf\xa3....matroska": "x-matroska",
    b"FLV\x01": "x-flv",
}


@pytest.mark.parametrize(("data", "kind"), VIDEOS.items(), ids=VIDEOS.values())
def test_a_video_is_known_by_its_bytes(data: bytes, kind: str) -> None:
    assert video_part(data).video_url.url.startswith(f"data:video/{kind};base64,")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"", "1 to 10,485,760 bytes, got 0"),
        (png(extra=10 * 1024 * 1024), "10,485,760 bytes, got 10,"),
        (b"%PDF-1.7", "expected a PNG"),
        (b"\x89PNG\r\n\x1a\n\0\0", "without its size"),
        (jpeg(300, 200)[:20], "without its size"),
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


@given(st.binary(max_size=80), st.sampled_from([data[:30] for data, _ in PICTURES.values()]))
def test_garbage_is_a_clear_error(tail: bytes, head: bytes) -> None:
    for encode in (picture_uri, video_uri):
        for data in (tail, head + tail):
            with suppress(ConfigError):
                encode(data, name="it")


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
