"""Ask for pictures, and tell a picture from the news that there is none.

The service's paths and ranges differ by model; only what no model accepts is refused here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from ernie_async.errors import APIError, ConfigError, DecodeError, NotFoundError, shorten
from ernie_async.sansio.refusals import CODES, refusal
from ernie_async.types.images import ImageResult, Images

__all__ = ["EDIT_PATH", "edit_fields", "expired", "generation_path", "image_fields", "read_images"]

EDIT_PATH = "/images/edits"

# The generic path accepts MuseSteamer too, and then never answers (recorded 2026-09-02).
PATHS = {"musesteamer-air-image": "/musesteamer/images/generations"}


def generation_path(model: str) -> str:
    """Where to ask this model for a picture."""
    return PATHS.get(model.lower(), "/images/generations")


def image_fields(prompt: str, fields: Mapping[str, Any], default: str) -> dict[str, Any]:
    """The body of the request: what is set, and no more.

    Args:
        prompt: What to draw.
        fields: See `ImageFields`; `None` is the same as not set.
        default: The model, if none is set.

    Raises:
        ConfigError: There is no prompt, or a number that cannot be.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"prompt: expected text, got {shorten(prompt)}")
    given = {name: value for name, value in fields.items() if value is not None}
    for name in ("n", "steps"):
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected a whole number, at least 1, got {shorten(value)}")
    return {"model": default, "prompt": prompt, **given}


def edit_fields(
    image: str | Sequence[str], prompt: str, fields: Mapping[str, Any], default: str
) -> dict[str, Any]:
    """The body of the request to change a picture.

    Raises:
        ConfigError: As `image_fields`; or an image is neither a web address nor a data URI.
    """
    images = [image] if isinstance(image, str) else list(image)
    for place, address in enumerate(images):
        if not isinstance(address, str) or not address.startswith(("http://", "https://", "data:")):
            where = "image" if isinstance(image, str) else f"image.{place}"
            raise ConfigError(
                f"{where}: expected an http(s) address or a data URI, got {shorten(address)}"
            )
    if not images:
        raise ConfigError("image: expected at least one, got none")
    # How several pictures are passed is not documented; a list is what the field's name suggests.
    held = images[0] if len(images) == 1 else images
    return {**image_fields(prompt, fields, default), "image": held}


def read_images(answer: Images) -> Images:
    """The same, if there is at least one picture.

    Raises:
        APIError: The service says, with status 200, that it made none.
        DecodeError: There is no picture and no reason.
    """
    failed = [image for image in answer.data if image.has_failed]
    if failed and len(failed) == len(answer.data):
        raise _failure(failed[0], answer.id)
    for place, image in enumerate(answer.data):
        if not image.has_failed and image.url is None and image.b64_json is None:
            raise DecodeError(f"data.{place}: expected a url or b64_json, got neither")
    if not answer.data:
        raise DecodeError("expected a picture, got none")
    return answer


def _failure(image: ImageResult, request_id: str | None) -> APIError:
    code = None if image.task_error_code is None else str(image.task_error_code)
    body = to_json(
        {
            "error": {"code": code, "message": "the picture could not be made (FAILED)"},
            "id": request_id,
        }
    )
    told = refusal(200, body, {}, utc_now=0.0)
    if code is not None and code.lower() in CODES:
        return told
    # Of a reason that is not known, nobody can say whether it will pass; each try may cost.
    return APIError(told.message, status=200, code=code, request_id=request_id)


def expired(status: int) -> NotFoundError:
    """The error for an address that leads to no picture any more."""
    return NotFoundError(
        f"{status}: there is no picture at this address (any more): the service keeps it for 24 "
        "hours",
        status=status,
    )
