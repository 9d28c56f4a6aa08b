"""Chunks of a model to events of a gateway, and errors to what a stranger may know of them.

The provider's own words are passed on only where they are about the request; its key, its address
and its bill are nobody's business.
"""

from typing import Any, NamedTuple

from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    BlockedError,
    ConfigError,
    DeadlineError,
    ErnieError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
)
from ernie_async.sansio.retry import may_pass
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import CLOSE_FLAG
from ernie_async.types.tools import ToolCallDelta
from ernie_async.types.usage import Usage

__all__ = ["OUR_MISTAKE", "ChunkRelay", "Fault", "GatewayError", "fault_of", "usage_payload"]

Told = tuple[str, dict[str, Any]]


class Fault(NamedTuple):
    """An error as clients of a gateway see it.

    Attributes:
        status: The HTTP status, if nothing was sent yet.
        code: One of the gateway's own.
        message: In words.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds to wait; `None` if nobody said so.
    """

    status: int
    code: str
    message: str
    retryable: bool = False
    retry_after: float | None = None

    @property
    def payload(self) -> dict[str, Any]:
        """What the `error` event says."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


OUR_MISTAKE = Fault(502, "upstream_error", "the gateway failed")
"""Of any other exception, which is in the log and no stranger's business."""


class GatewayError(ErnieError):
    """The gateway says no, before any byte of an answer.

    Attributes:
        fault: Status, code and words.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault

    @classmethod
    def unknown_stream(cls) -> "GatewayError":
        """There is no such stream, or it is somebody else's, which is not told apart."""
        return cls(Fault(404, "not_found", "no such stream, or it is kept no longer"))

    @classmethod
    def overloaded(cls, message: str, retry_after: float = 1.0) -> "GatewayError":
        """There is no room at the moment."""
        return cls(Fault(503, "overloaded", message, retryable=True, retry_after=retry_after))


def fault_of(error: ErnieError) -> Fault:
    """What to tell of an error of the gateway or of its client."""
    retryable = may_pass(error)
    match error:
        case GatewayError():
            return error.fault
        case BlockedError() | RefusedError():
            return Fault(400, "content_filter", "the content filter stopped it")
        case ConfigError() | BadRequestError():
            return Fault(400, "invalid_request", error.message)
        case NotFoundError():
            return Fault(404, "not_found", error.message)
        case RateLimitError():
            wait = error.retry_after
            return Fault(429, "rate_limited", "the model is busy", retryable, wait)
        case AuthError() | QuotaError():
            return Fault(502, "upstream_error", "the gateway may not ask the model")
        case DeadlineError():
            message = f"the model took too long ({error.clock})"
            return Fault(504, "upstream_timeout", message, retryable)
        case APIError():
            return Fault(502, "upstream_error", "the model's service failed", retryable)
        case _:
            return Fault(502, "upstream_error", "the answer of the model broke off", retryable)


def usage_payload(usage: Usage | None) -> dict[str, Any]:
    """Tokens as events tell them; zero of an answer that was never asked for."""
    if usage is None:
        usage = Usage.estimated(prompt_tokens=0, completion_tokens=0)
    told: dict[str, Any] = usage.model_dump(exclude_unset=True)
    return {**told, "estimated": True} if usage.is_estimate else told


class ChunkRelay:
    """Turns the chunks of one answer into what its events say. Serves one stream.

    Args:
        max_chars: Of text and thinking together; what is beyond is left out.

    Attributes:
        chars: How many came.
        is_full: The answer is longer than it may be.
        finish_reason: As told; `length` if it is longer than it may be.
        is_closed: The service demands that the conversation ends here.
        search_results: Of a web search, in JSON; `None` if there was none.
    """

    def __init__(self, *, max_chars: int) -> None:
        self._max_chars = max_chars
        self.chars: int = 0
        self.is_full: bool = False
        self.is_closed: bool = False
        self.finish_reason: str | None = None
        self.search_results: Any = None

    def feed(self, chunk: ChatChunk) -> list[Told]:
        """Take the next chunk; return kind and payload of its events."""
        told: list[Told] = []
        for choice in chunk.choices:
            if choice.index:
                continue
            delta = choice.delta
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning and (reasoning := self._cut(reasoning)):
                told.append(("delta", {"reasoning": reasoning, "index": 0}))
            if delta.content and (text := self._cut(delta.content)):
                told.append(("delta", {"text": text, "index": 0}))
            told.extend(("tool_call", self._tool_call(call)) for call in delta.tool_calls or ())
            if choice.finish_reason and not self.is_full:
                self.finish_reason = choice.finish_reason
            if choice.flag == CLOSE_FLAG:
                self.is_closed = True
        if chunk.search_results is not None:
            self.search_results = chunk.model_dump(exclude_unset=True)["search_results"]
        return told

    def _tool_call(self, call: ToolCallDelta) -> dict[str, Any]:
        function = call.function
        arguments = self._cut((function and function.arguments) or "")
        told: dict[str, Any] = {"index": call.index or 0, "arguments_delta": arguments}
        if call.id:
            told["id"] = call.id
        if function and function.name:
            told["name"] = function.name
        return told

    def _cut(self, text: str) -> str:
        room = self._max_chars - self.chars
        if len(text) > room:
            self.is_full, self.finish_reason = True, "length"
            text = text[:room]
        self.chars += len(text)
        return text

    def done(self, usage: Usage | None, *, cancelled: bool = False) -> dict[str, Any]:
        """What the `done` event says."""
        told = {
            "finish_reason": self.finish_reason,
            "usage": usage_payload(usage),
            "chars": self.chars,
            "cancelled": cancelled,
        }
        if self.is_closed:
            told["conversation_closed"] = True
        if self.search_results is not None:
            told["search_results"] = self.search_results
        return told
