"""Pictures and videos. Each picture is a real PNG of one colour, which the prompt decides."""

import struct
import zlib
from base64 import b64encode
from typing import Any

from ernie_async.testing.endpoints_text import check_model
from ernie_async.testing.script import Raw, Refuse
from ernie_async.testing.seen import Asked

__all__ = ["ask_for_video", "edit_image", "generate_image", "make_video", "show_image"]

# Pixels on each side: enough to be seen, and below a kilobyte.
SIDE = 16

# What a task says when it is asked for the first, the second and the third time.
STEPS = ("queued", "running", "succeeded")


def generate_image(asked: Asked) -> dict[str, Any] | Refuse:
    """Pictures as addresses on this server, or in base64 where that is asked for."""
    if (refusal := check_model(asked.json)) is not None:
        return refusal
    prompt = asked.json.get("prompt")
    if not prompt:
        return Refuse(400, "invalid_image_generation_prompt", "prompt cannot be empty")
    colours = [zlib.crc32(f"{prompt}{number}".encode()) for number in range(asked.json.get("n", 1))]
    is_inline = asked.json.get("response_format") == "b64_json"
    data = [
        {"b64_json": b64encode(png(colour)).decode()}
        if is_inline
        else {"url": f"{asked.origin}/pictures/{colour:08x}.png"}
        for colour in colours
    ]
    return {"id": asked.body_id, "created": asked.created, "data": data}


def edit_image(asked: Asked) -> dict[str, Any] | Refuse:
    """The same, if there is a picture to change."""
    if isinstance(asked.json, dict) and not asked.json.get("image"):
        return Refuse(400, "invalid_image_url", "image cannot be empty")
    return generate_image(asked)


def show_image(asked: Asked) -> Raw:
    """The picture at such an address."""
    return Raw(png(int(asked.name, 16)), content_type="image/png")


def png(colour: int) -> bytes:
    """A small picture of one colour, the lowest three bytes of a number."""
    row = b"\0" + (colour & 0xFFFFFF).to_bytes(3, "big") * SIDE
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * SIDE)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def make_video(asked: Asked) -> dict[str, Any] | Refuse:
    """A task, which is over when it is asked for the third time."""
    if (refusal := check_model(asked.json)) is not None:
        return refusal
    task_id = f"task-{len(asked.shelf.tasks) + 1}"
    asked.shelf.tasks[task_id] = 0
    return {"id": asked.body_id, "task_id": task_id}


def ask_for_video(asked: Asked) -> dict[str, Any] | Refuse:
    """How far the task is."""
    task_id = asked.query.get("task_id", "")
    tasks = asked.shelf.tasks
    if task_id not in tasks:
        return Refuse(404, "invalid_argument", "task not found")
    status = STEPS[min(tasks[task_id], len(STEPS) - 1)]
    tasks[task_id] += 1
    is_ready = status == STEPS[-1]
    content = {"video_url": f"{asked.origin}/videos/{task_id}.mp4"} if is_ready else None
    return {"id": asked.body_id, "task_id": task_id, "status": status, "content": content}
