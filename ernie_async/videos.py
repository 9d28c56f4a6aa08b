"""Have a video made: create a task, then ask until it is over."""

import asyncio
from math import inf
from time import monotonic

from ernie_async.calling import ask, post, split_options
from ernie_async.errors import ConfigError, DeadlineError, DecodeError
from ernie_async.net.answer import get_answer
from ernie_async.net.desk import Desk
from ernie_async.options import VideoOptions
from ernie_async.sansio.video import VIDEO_PATH, refuse_failed, video_address, video_fields
from ernie_async.settings import CallOptions
from ernie_async.types.video import VideoTask

__all__ = ["generate_video", "video_task"]

# Videos take minutes, and wait in line before.
DEADLINE_SECONDS = 1800.0
POLL_SECONDS = 5.0


async def generate_video(desk: Desk, prompt: str, model: str, options: VideoOptions) -> VideoTask:
    """See `AsyncClient.generate_video`."""
    given, call = split_options(options, VideoOptions)
    path = given.pop("path", VIDEO_PATH)
    deadline = given.pop("deadline", DEADLINE_SECONDS)
    poll_every = given.pop("poll_every", POLL_SECONDS)
    if not poll_every > 0:
        raise ConfigError(f"poll_every: expected seconds above 0, got {poll_every}")
    if deadline is not None and not deadline > 0:
        raise ConfigError(f"deadline: expected seconds above 0, or None, got {deadline}")
    ends_at = inf if deadline is None else monotonic() + deadline
    body = video_fields(prompt, model, given)
    asked, request = post(desk, video_address(desk.transport.base_url, path), body, call)
    task = await get_answer(asked, request, VideoTask)
    task_id = task.task_id
    if not task_id:
        raise DecodeError("expected a task_id in the answer, got none")
    call.pop("request_id", None)  # that of the task; each question has one of its own
    # Asked at least once, since an answer to the creation has no address in it.
    while True:
        left = ends_at - monotonic()
        if left <= 0:
            raise DeadlineError(
                f"the video was not ready within {deadline:g} s (deadline), its status is "
                f"{task.status!r}; client.video_task({task_id!r}) asks again",
                clock="deadline",
                seconds=deadline or 0.0,
            )
        await asyncio.sleep(min(poll_every, left))
        task = await video_task(desk, task_id, path, call)
        if task.state == "failed":
            raise refuse_failed(task)
        if task.is_over:
            return task


async def video_task(desk: Desk, task_id: str, path: str, options: CallOptions) -> VideoTask:
    """See `AsyncClient.video_task`."""
    _, call = split_options(options, CallOptions)
    address = video_address(desk.transport.base_url, path, task_id)
    asked, request = ask(desk, "GET", address, None, call)
    return await get_answer(asked, request, VideoTask)
