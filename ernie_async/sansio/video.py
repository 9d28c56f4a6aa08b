"""Ask for a video, and read what became of it.

Source: cloud.baidu.com/doc/qianfan-api/s/Amg0lgcx4 (create) and Bmg0ma4hf (query).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from pydantic_core import to_json

from ernie_async.errors import APIError, ConfigError, shorten
from ernie_async.sansio.address import origin
from ernie_async.sansio.refusals import refusal
from ernie_async.types.video import VideoTask

__all__ = ["VIDEO_PATH", "refuse_failed", "video_address", "video_fields"]

# Below the host: unlike everything else, without `/v2` in front.
VIDEO_PATH = "/video/generations"


def video_address(base_url: str, path: str, task_id: str | None = None) -> str:
    """Where to create a task, or to ask for one.

    Raises:
        ConfigError: There is no id to ask for.
    """
    if task_id == "":
        raise ConfigError("task_id: expected that of a video task, got an empty text")
    query = "" if task_id is None else f"?{urlencode({'task_id': task_id})}"
    return f"{origin(base_url)}{path}{query}"


def video_fields(prompt: str, model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the request.

    Raises:
        ConfigError: There is no prompt.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"prompt: expected text, got {shorten(prompt)}")
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    others = dict(given)
    if (image := others.pop("image", None)) is not None:
        content.append({"type": "image_url", "image_url": {"url": image}})
    return {"model": model, "content": content, **others}


def refuse_failed(task: VideoTask) -> APIError:
    """The error for a task that came to nothing. Not tried again: each task may be paid for."""
    extra = task.model_extra or {}
    reason = extra.get("error") or extra.get("base_resp") or {}
    said = reason if isinstance(reason, Mapping) else {"message": str(reason)}
    code = said.get("code") or said.get("status_code")
    message = said.get("message") or said.get("status_msg") or "no reason was given"
    text = f"the video task {task.task_id} ended as {task.status!r}: {message}"
    told = refusal(
        200,
        to_json({"error": {"code": code, "message": text}, "id": task.id}),
        {},
        utc_now=0.0,
    )
    return type(told)(told.message, status=200, code=told.code, request_id=task.id)
