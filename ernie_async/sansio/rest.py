"""A call as a value, and its answer: a whole body into a model, one event into a chunk.

What may be asked is in `sansio.chat_request`, what a refusal means in `sansio.refusals`.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from ernie_async.errors import DecodeError, shorten
from ernie_async.sansio.refusals import holds_error, refusal
from ernie_async.types.chunk import ChatChunk

__all__ = ["Request", "read_answer", "read_chunk", "refuse_non_stream"]

T = TypeVar("T", bound=BaseModel)


class Request(NamedTuple):
    """What one call asks for, whatever number of attempts it takes.

    Attributes:
        method: The HTTP method.
        path: Below the base URL, with a slash in front.
        body: The JSON to send; `None` for no body.
        headers: Headers besides those of every call.
        request_id: Sent as `X-Request-Id`.
        model: The model asked for, if any.
        is_stream: Whether the answer is to be streamed.
        prompt_tokens: Estimate; 0 if nobody counts tokens.
        answer_tokens: Estimate of the most it will say; 0 if nobody counts tokens.
    """

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    request_id: str
    model: str | None = None
    is_stream: bool = False
    prompt_tokens: int = 0
    answer_tokens: int = 0


def read_answer(
    model: type[T], status: int, headers: Mapping[str, str], body: bytes, *, utc_now: float
) -> T:
    """Read the body of an answer.

    Raises:
        APIError: The service refused, whatever the status says.
        DecodeError: The body is not what this model describes.
    """
    if not 200 <= status < 300:
        raise refusal(status, body, headers, utc_now=utc_now)
    try:
        answer = model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    else:
        if _is_error(answer):
            raise refusal(status, body, headers, utc_now=utc_now)
        return answer
    try:
        fields = from_json(body)
    except ValueError:
        fields = None
    if isinstance(fields, dict) and holds_error(fields):
        raise refusal(status, body, headers, utc_now=utc_now)
    raise DecodeError(
        f"the answer is not a {model.__name__}: {reason}",
        body=body,
    )


def read_chunk(data: bytes) -> ChatChunk:
    """Read the data of one event.

    Raises:
        APIError: It is an error, not a chunk. `partial` is for the caller to fill in.
        DecodeError: It is neither.
    """
    # For every token: the validator itself instead of the method around it, and the slot instead of
    # the property, save a microsecond.
    try:
        chunk: ChatChunk = ChatChunk.__pydantic_validator__.validate_json(data)
    except ValidationError:
        return _read_odd_chunk(data)
    if chunk.__pydantic_extra__ and _is_error(chunk):
        raise refusal(200, data, {}, utc_now=0.0)
    return chunk


def _is_error(answer: BaseModel) -> bool:
    """Whether an answer of the right form is really an error: that leaves unknown fields over."""
    extra = answer.model_extra
    return extra is not None and bool(extra) and holds_error({**answer.__dict__, **extra})


def _read_odd_chunk(data: bytes) -> ChatChunk:
    """An event that did not fit at once: invalid UTF-8, an error in an odd shape, or rubbish."""
    try:
        fields = from_json(data)
    except ValueError:
        fields = None
    if isinstance(fields, dict) and holds_error(fields):
        raise refusal(200, fields, {}, utc_now=0.0)
    try:
        # The standard decodes with replacement characters, where JSON would be refused whole.
        return ChatChunk.model_validate_json(data.decode("utf-8", "replace"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "event"
    raise DecodeError(
        f"an event is not a chunk: {where}: {first['msg']}",
        body=data,
    )


def refuse_non_stream(
    status: int, headers: Mapping[str, str], body: bytes, *, utc_now: float
) -> Exception:
    """The error for a stream request that was not answered with a stream."""
    content_type = next((headers[n] for n in headers if n.lower() == "content-type"), "none")
    try:
        fields = from_json(body)
    except ValueError:
        fields = None
    if not 200 <= status < 300 or (isinstance(fields, dict) and holds_error(fields)):
        return refusal(status, body, headers, utc_now=utc_now)
    return DecodeError(f"expected an event stream, got content type {content_type}", body=body)
