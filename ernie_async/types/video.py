"""A video that is being made, and the words in which services say how far it is.

Source: cloud.baidu.com/doc/qianfan-api/s/Amg0lgcx4 (create), Bmg0ma4hf (query) and Jmwbl4dg3 (the
families under `/beta/video`). Each family has words of its own.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ernie_async.types.wire import AnswerModel

__all__ = ["STATES", "VideoTask"]

State = Literal["waiting", "running", "succeeded", "failed"]

# Words in lower case. One that is not here counts as running: a task is given up by its deadline,
# and never because a word was not known.
STATES: Mapping[str, State] = {
    "pending": "waiting",
    "created": "waiting",
    "submitted": "waiting",
    "queued": "waiting",
    "queueing": "waiting",
    "queuing": "waiting",
    "preparing": "waiting",
    "running": "running",
    "processing": "running",
    "in_progress": "running",
    "succeeded": "succeeded",
    "succeed": "succeeded",
    "success": "succeeded",
    "completed": "succeeded",
    "failed": "failed",
    "failure": "failed",
    "fail": "failed",
    "cancelled": "failed",
    "canceled": "failed",
    "expired": "failed",
}


class VideoTask(AnswerModel):
    """One task, as it stood when the service was asked.

    Attributes:
        task_id: What to ask for; not the `id`, which is that of the request.
        status: The service's own word; `state` has the same in four words.
        content: Where MuseSteamer puts the address.
        creations: Where the unified family puts the addresses.
    """

    task_id: str | None = None
    id: str | None = None
    model: str | None = None
    status: str = ""
    content: dict[str, Any] | None = None
    creations: list[dict[str, Any]] | None = None
    url: str | None = None
    file_id: str | None = None

    @property
    def state(self) -> State:
        """`waiting`, `running`, `succeeded` or `failed`."""
        return STATES.get(self.status.lower(), "running")

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in {"succeeded", "failed"}

    @property
    def video_url(self) -> str | None:
        """Where the video can be downloaded, for 24 hours; `None` if there is none."""
        places: list[Mapping[str, Any]] = [self.content or {}, *(self.creations or [])]
        found = (place.get(name) for place in places for name in ("video_url", "url"))
        return next((str(url) for url in found if url), self.url)
