"""What one message may hold besides plain text: parts for text, pictures and videos.

Source: cloud.baidu.com/doc/qianfan-api/s/rm7u7qdiq (vision). Sizes are the service's to check.
"""

from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import Field

from ernie_async.types.wire import RequestModel

__all__ = ["ContentPart", "ImagePart", "ImageURL", "TextPart", "VideoPart", "VideoURL"]

# A web address, or the bytes themselves as a data URI.
MediaAddress = Annotated[str, Field(pattern=r"^(https?://|data:)\S+$")]


class TextPart(RequestModel):
    """Some text."""

    type: Literal["text"] = "text"
    text: Annotated[str, MinLen(1)]


class ImageURL(RequestModel):
    """Where a picture is: an `http(s)` URL or a `data:image/...;base64,` URI.

    The service takes URLs of at most 1,024 bytes and pictures of at most 10 MB, each side 5 to
    6,000 pixels. `detail` is understood by ERNIE 4.5 only.
    """

    url: MediaAddress
    detail: Literal["low", "high", "auto"] | None = None


class ImagePart(RequestModel):
    """A picture."""

    type: Literal["image_url"] = "image_url"
    image_url: ImageURL


class VideoURL(RequestModel):
    """Where a video is. At most 128 MB for ERNIE 4.5 Turbo VL and ERNIE 5.0, else 64 MB."""

    url: MediaAddress


class VideoPart(RequestModel):
    """A video; `fps` of the request says how densely it is sampled."""

    type: Literal["video_url"] = "video_url"
    video_url: VideoURL


ContentPart = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]
