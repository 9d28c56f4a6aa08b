"""Pictures that a model made, and what can be asked of it.

Source: cloud.baidu.com/doc/qianfan-api/s/8m7u6un8a (generation), Ymio9i9i4 (MuseSteamer), and
cloud.baidu.com/doc/qianfan-docs/s/bm8wv3h6f (editing). Ranges differ from model to model, and are
the service's to check.
"""

from base64 import b64decode
from typing import Any, TypedDict

from pydantic import field_validator

from ernie_async.types.wire import AnswerModel

__all__ = ["ImageFields", "ImageResult", "Images"]


class ImageFields(TypedDict, total=False):
    """What can be asked of a picture besides the prompt. Only what is set is sent.

    Attributes:
        model: Such as `qwen-image`; `musesteamer-air-image` has an endpoint of its own, which is
            taken by itself.
        negative_prompt: What the picture should not show.
        n: How many pictures; some models make only one.
        size: `"1024x1024"` and others.
        steps: How often the picture is refined.
        seed: For pictures that can be repeated.
        guidance: How closely the prompt is followed.
        prompt_extend: Whether the service may enrich the prompt.
        watermark: Whether to mark the picture as made by a machine.
        refer_image: A picture to start from, as a URL or data URI.
        response_format: `"url"` or `"b64_json"`, where the model has both.
        user: Who asks, for the service's own records.
    """

    model: str
    negative_prompt: str
    n: int
    size: str
    steps: int
    seed: int
    guidance: float
    prompt_extend: bool
    watermark: bool
    refer_image: str
    response_format: str
    user: str


class ImageResult(AnswerModel):
    """One picture: its address, which the service keeps for 24 hours, or its bytes.

    `client.save_image` and `client.download_image` take either.

    Attributes:
        url: Where it can be downloaded, without a credential.
        b64_json: The picture itself, in base64.
        task_status: `FAILED` if it could not be made while others could.
        task_error_code: Why not.
    """

    url: str | None = None
    b64_json: str | None = None
    task_status: str | None = None
    task_error_code: str | int | None = None

    @property
    def content(self) -> bytes | None:
        """The picture's bytes if they came with the answer; `None` if only its address did."""
        return None if self.b64_json is None else b64decode(self.b64_json)

    @property
    def has_failed(self) -> bool:
        """Whether there is no picture."""
        return (self.task_status or "").upper() == "FAILED"


class Images(AnswerModel):
    """The pictures of one request. At least one of them could be made."""

    data: list[ImageResult]
    id: str | None = None
    created: int | None = None

    @field_validator("data", mode="before")
    @classmethod
    def _always_a_list(cls, value: Any) -> Any:
        # The page of MuseSteamer says "object", its example shows a list.
        return [value] if isinstance(value, dict) else value

    @property
    def first(self) -> ImageResult:
        """The first picture that could be made."""
        return next((image for image in self.data if not image.has_failed), self.data[0])
