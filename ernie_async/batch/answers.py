"""What came of one attempt, and how the body of an answer is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from ernie_async.batch.lines import CHAT_PATH, EMBEDDINGS_PATH, IMAGES_PATH, Fault, Line
from ernie_async.batch.records import BatchResult
from ernie_async.errors import DecodeError, ErnieError
from ernie_async.sansio.images import read_images
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.sansio.rest import read_answer
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.embeddings import Embeddings
from ernie_async.types.images import Images
from ernie_async.types.usage import Usage
from ernie_async.types.wire import read_json

__all__ = ["Answer", "AnyAnswer", "read_body_of", "readable"]

AnyAnswer = ChatCompletion | Embeddings | Images

KINDS: dict[str, type[AnyAnswer]] = {
    CHAT_PATH: ChatCompletion,
    EMBEDDINGS_PATH: Embeddings,
    IMAGES_PATH: Images,
}


@dataclass(slots=True)
class Answer:
    """What came of one attempt.

    Attributes:
        status: HTTP status; `None` if no answer came.
        request_id: What to quote to the service's support.
        body: The answer, read; text if it was no JSON; `None` if none came.
        usage: What it used; `None` if nobody knows.
        cost: CNY; `None` if there is no price.
        error: What went wrong; `None` if nothing.
        limits: What the service told of its limits.
        seconds: How long it took.
        is_sent: Whether there was an attempt: false if the run stopped before it.
    """

    status: int | None = None
    request_id: str | None = None
    body: Any = None
    usage: Usage | None = None
    cost: float | None = None
    error: ErnieError | None = None
    limits: RateHeaders | None = None
    seconds: float = 0.0
    is_sent: bool = True

    def result_for(
        self, line: Line | Fault, code: str | None = None, message: str = "", **more: Any
    ) -> BatchResult:
        """What it means for a line.

        Args:
            line: The line.
            code: What went wrong; `None` if nothing.
            message: The same for people.
            more: Further fields of the result.
        """
        usage = self.usage
        return BatchResult(
            custom_id=line.custom_id,
            number=line.number,
            key=line.key,
            metadata=line.metadata,
            code=code,
            message=message,
            status=self.status,
            request_id=self.request_id,
            body=self.body,
            latency=self.seconds,
            finished_at=time(),
            cost=self.cost,
            prompt_tokens=0 if usage is None else usage.prompt_tokens,
            completion_tokens=0 if usage is None else usage.completion_tokens,
            **more,
        )


def read_body_of(path: str, answer: Answer, raw: bytes, headers: Mapping[str, str]) -> AnyAnswer:
    """Read the body of an answer, which has its status and body already, and note its usage.

    Raises:
        ErnieError: It is a refusal, or no answer.
    """
    kind = KINDS[path]
    found = read_answer(kind, answer.status or 0, headers, raw, utc_now=time())
    if not isinstance(answer.body, dict):
        raise DecodeError("the answer holds what no JSON may hold", body=raw)
    if isinstance(found, Images):
        return read_images(found)
    if "usage" in found.model_fields_set:
        answer.usage = found.usage
    return found


def readable(raw: bytes) -> Any:
    """A body as JSON, or as text if it is none."""
    try:
        return read_json(raw, allow_inf_nan=False)
    except ValueError:
        return raw.decode("utf-8", "replace")
