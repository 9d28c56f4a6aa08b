"""A call as a value, and its answer: a whole body into a model, one event into a chunk.

What may be asked is in `sansio.chat_request`, what a refusal means in `sansio.refusals`.
"""

from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from ernie_async.errors import DecodeError
from ernie_async.sansio.refusals import holds_error, refusal
from ernie_async.sansio.verdict import find_verdict
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message
from ernie_async.types.wire import read_json

__all__ = [
    "Body",
    "Request",
    "Ways",
    "is_error",
    "is_event_stream",
    "read_answer",
    "read_chunk",
    "refuse_non_stream",
]

T = TypeVar("T", bound=BaseModel)

# What is sent: bytes, or what makes the same pieces anew each time they have to be sent.
Body = bytes | Callable[[], AsyncIterator[bytes]]


@dataclass(slots=True)  # not frozen, which would take longer to make; and it is read often
class Request:
    """What one call asks for, whatever number of attempts it takes. Nobody changes it.

    Attributes:
        method: The HTTP method.
        path: Below the base URL, with a slash in front; or a whole address. Only the base URL's
            own host is sent the credential.
        body: The JSON to send; `None` for no body. A body in pieces has its type in `headers`.
        headers: Headers besides those of every call.
        request_id: Sent as `X-Request-Id`.
        model: The model asked for, if any.
        is_stream: Whether the answer is to be streamed.
        n: How many answers were asked for.
        messages: The conversation, to estimate its tokens if the service does not tell.
        prompt_tokens: Estimate; 0 if nobody counts tokens.
        answer_tokens: Estimate of the most it will say; 0 if nobody counts tokens.
        estimate: Of the prompt, not corrected, to be compared with the real number; 0 if not.
        priority: Whether it goes before others in the line of the limiter, or lets them go.
        max_wait: Seconds that it may stand in line; `None` for no end.
        user: For whom it is, if that was said.
        fallback: Ways to ask other models, the first one to be tried first. Each makes the request
            for another model, and names who is to make it.
        shared_as: What calls have in common that may be one; `None` if this is not to be shared.
        is_once: Not even a connection that turns out dead makes it be sent again.
    """

    method: str
    path: str
    body: Body | None
    headers: Mapping[str, str]
    request_id: str
    model: str | None = None
    is_stream: bool = False
    n: int = 1
    messages: Sequence[Message] = ()
    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimate: int = 0
    priority: Literal["interactive", "batch"] = "interactive"
    max_wait: float | None = None
    user: str | None = None
    fallback: "Ways" = ()
    shared_as: Hashable = None
    is_once: bool = False


# Of who asks and what, for each of other models.
Ways = tuple[Callable[[], tuple[Any, Request]], ...]


def read_answer(
    model: type[T], status: int, headers: Mapping[str, str], body: bytes, *, utc_now: float
) -> T:
    """Read the body of an answer.

    Raises:
        APIError: The service refused, whatever the status says.
        BlockedError: The service forbids to show it.
        DecodeError: The body is not what this model describes.
    """
    if not 200 <= status < 300:
        raise refusal(status, body, headers, utc_now=utc_now)
    try:
        answer: T = model.__pydantic_validator__.validate_json(body)  # as in `read_chunk`
    except ValidationError:
        answer = _read_leniently(model, status, headers, body, utc_now)
    if answer.__pydantic_extra__ and is_error(answer):
        raise refusal(status, body, headers, utc_now=utc_now)
    if isinstance(answer, ChatCompletion):
        if not answer.choices:
            raise DecodeError("this is not a ChatCompletion: no choices", body=body)
        blocked = find_verdict(answer.choices)
        if blocked is not None:
            blocked.partial = answer if blocked.flag is None else None
            blocked.request_id = answer.id
            raise blocked
    return answer


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
        return _read_leniently(ChatChunk, 200, {}, data, 0.0)
    if chunk.__pydantic_extra__ and is_error(chunk):
        raise refusal(200, data, {}, utc_now=0.0)
    return chunk


def is_error(answer: BaseModel) -> bool:
    """Whether an answer of the right form is really an error: that leaves unknown fields over."""
    extra = answer.model_extra
    return extra is not None and bool(extra) and holds_error({**answer.__dict__, **extra})


def _read_leniently(
    model: type[T], status: int, headers: Mapping[str, str], body: bytes, utc_now: float
) -> T:
    """What did not fit at once: an error, a null for a missing field, invalid UTF-8, or rubbish."""
    try:
        # The standard of events decodes with replacement characters, and so it is done here.
        fields = read_json(body.decode("utf-8", "replace"))
    except ValueError:
        reason = "not JSON"
    else:
        if isinstance(fields, dict) and holds_error(fields):
            raise refusal(status, body, headers, utc_now=utc_now)
        try:
            return model.model_validate(_without_nulls(fields))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    # Outside the handlers: what pydantic says repeats the answer's text.
    raise DecodeError(f"this is not a {model.__name__}: {reason}", body=body)


def _without_nulls(value: Any) -> Any:
    """Without the fields that are null, which says no more than leaving them out."""
    if isinstance(value, dict):
        return {name: _without_nulls(held) for name, held in value.items() if held is not None}
    if isinstance(value, list):
        return [_without_nulls(held) for held in value]
    return value


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether to read a body as events: anything but what is plainly something else."""
    content_type = _content_type(headers)
    return "json" not in content_type and "html" not in content_type


def _content_type(headers: Mapping[str, str]) -> str:
    return next((headers[name] for name in headers if name.lower() == "content-type"), "").lower()


def refuse_non_stream(
    status: int, headers: Mapping[str, str], body: bytes, *, utc_now: float
) -> Exception:
    """The error for a stream request that was not answered with a stream."""
    try:
        fields = read_json(body)
    except ValueError:
        fields = None
    if not 200 <= status < 300 or (isinstance(fields, dict) and holds_error(fields)):
        return refusal(status, body, headers, utc_now=utc_now)
    return DecodeError(
        f"expected an event stream with status 200, got status {status} and content type "
        f"{_content_type(headers) or 'none'}",
        body=body,
    )
