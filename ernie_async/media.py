"""Parts of a message that hold pictures and videos: from a file, from bytes, from an address."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ernie_async.errors import ConfigError
from ernie_async.sansio.media import (
    MAX_PICTURE_BYTES,
    MAX_VIDEO_BYTES,
    check_address,
    check_size,
    picture_uri,
    video_uri,
)
from ernie_async.types.content import ImagePart, ImageURL, VideoPart, VideoURL

__all__ = ["image", "image_part", "video", "video_part"]

Source = str | os.PathLike[str] | bytes
Detail = Literal["low", "high", "auto"]


async def image(source: Source, *, detail: Detail | None = None) -> ImagePart:
    """A picture for `user([...])`. Reads and encodes it in a worker thread.

    Args:
        source: A path, the bytes of a file, or a URL, which is sent as it is.
        detail: How closely to look; understood by ERNIE 4.5 only.

    Raises:
        ConfigError: It cannot be read, is no picture, or is larger than the service takes: 10 MB,
            sides of 5 to 6,000 pixels.
    """
    return await asyncio.to_thread(image_part, source, detail=detail)


async def video(source: Source) -> VideoPart:
    """A video for `user([...])`. Reads and encodes it in a worker thread.

    Args:
        source: A path, the bytes of a file, or a URL, which is sent as it is.

    Raises:
        ConfigError: It cannot be read, is no video, or is larger than 128 MB.
    """
    return await asyncio.to_thread(video_part, source)


def image_part(source: Source, *, detail: Detail | None = None) -> ImagePart:
    """The same as `image`, for programs without an event loop."""
    url = _address(source, picture_uri, MAX_PICTURE_BYTES)
    return ImagePart(image_url=ImageURL(url=url, detail=detail))


def video_part(source: Source) -> VideoPart:
    """The same as `video`, for programs without an event loop."""
    return VideoPart(video_url=VideoURL(url=_address(source, video_uri, MAX_VIDEO_BYTES)))


def _address(source: Source, encode: Callable[..., str], most: int) -> str:
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
        check_address(source)
        return source
    if isinstance(source, bytes):
        return encode(source, name="the bytes given")
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"expected a path, bytes or a URL, got {type(source).__name__}")
    path = Path(source)
    try:
        check_size(path.stat().st_size, most, str(path))  # before all of it is read
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    return encode(data, name=str(path))
