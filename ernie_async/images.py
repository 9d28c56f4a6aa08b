"""Make pictures, change them, and bring them home.

A picture that came as an address is downloaded from the host it names, which is sent neither the
credential nor anything else of the client's.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

from ernie_async.calling import ask, post, split_options
from ernie_async.errors import ConfigError
from ernie_async.net.answer import fetch, get_answer
from ernie_async.net.desk import Desk
from ernie_async.net.files import write_whole
from ernie_async.net.reply import Reply
from ernie_async.options import ImageOptions
from ernie_async.sansio.images import (
    EDIT_PATH,
    edit_fields,
    expired,
    generation_path,
    image_fields,
    read_images,
)
from ernie_async.sansio.refusals import refusal
from ernie_async.settings import CallOptions
from ernie_async.types.images import ImageResult, Images

__all__ = ["download_image", "edit_image", "generate_image", "save_image"]

# Where a picture was and is no more, or may no more be seen.
GONE = {403, 404, 410}

DEFAULT_MODEL = "qwen-image"
DEFAULT_EDIT_MODEL = "qwen-image-edit"


async def generate_image(desk: Desk, prompt: str, options: ImageOptions) -> Images:
    """See `AsyncClient.generate_image`."""
    fields, call = split_options(options, ImageOptions)
    body = image_fields(prompt, fields, DEFAULT_MODEL)
    return await _images(desk, generation_path(body["model"]), body, call)


async def edit_image(
    desk: Desk, image: str | Sequence[str], prompt: str, options: ImageOptions
) -> Images:
    """See `AsyncClient.edit_image`."""
    fields, call = split_options(options, ImageOptions)
    body = edit_fields(image, prompt, fields, DEFAULT_EDIT_MODEL)
    return await _images(desk, EDIT_PATH, body, call)


async def download_image(desk: Desk, image: ImageResult, options: CallOptions) -> bytes:
    """See `AsyncClient.download_image`."""
    if image.content is not None:
        return image.content
    if image.url is None:
        raise ConfigError("image: this one could not be made, so there is nothing to download")
    _, call = split_options(options, CallOptions)
    asked, request = ask(desk, "GET", image.url, None, call)
    return await fetch(asked, request, _read)


async def save_image(
    desk: Desk, image: ImageResult, path: str | os.PathLike[str], options: CallOptions
) -> Path:
    """See `AsyncClient.save_image`."""
    content = await download_image(desk, image, options)
    return await asyncio.to_thread(write_whole, path, content)


async def _images(desk: Desk, path: str, fields: Mapping[str, Any], options: CallOptions) -> Images:
    asked, request = post(desk, path, fields, options)
    return await get_answer(asked, request, Images, check=read_images)


def _read(reply: Reply, body: bytes) -> bytes:
    if reply.status in GONE:
        raise expired(reply.status)
    if reply.status != 200:
        raise refusal(reply.status, body, reply.headers, utc_now=time())
    return body
