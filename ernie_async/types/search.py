"""What the web says, found by Baidu.

Source: cloud.baidu.com/doc/qianfan-api/s/Wmbq4z7e5. No whole answer was ever recorded, so every
field may be missing.
"""

from pydantic import JsonValue

from ernie_async.types.wire import AnswerModel

__all__ = ["SearchAnswer", "SearchReference"]


class SearchReference(AnswerModel):
    """One page, picture or video that was found.

    Attributes:
        content: A part of the page.
        web_anchor: The text of its title or link.
        date: As the page tells it, in no fixed form.
        type: `web`, `image`, `video` or another word.
        image: More on a picture.
        video: More on a video.
    """

    id: int | str | None = None
    title: str | None = None
    url: str | None = None
    web_anchor: str | None = None
    icon: str | None = None
    content: str | None = None
    date: str | None = None
    type: str | None = None
    image: JsonValue = None
    video: JsonValue = None


class SearchAnswer(AnswerModel):
    """What was found, best first."""

    references: list[SearchReference] = []
    request_id: str | None = None
