"""One question to the model: every field of the V2 chat request.

Source: cloud.baidu.com/doc/qianfan-api/s/wmwbl48n4 and the tables it replaced. A range here is the
widest that any served model accepts, since each model has its own; model ids are never checked.
Only what the caller set is sent.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypedDict

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ernie_async.types.messages import Message
from ernie_async.types.tools import Tool, ToolChoice
from ernie_async.types.wire import RequestModel

__all__ = [
    "ChatFields",
    "ChatRequest",
    "ResponseFormat",
    "StreamOptions",
    "Thinking",
    "WebSearch",
]

JsonObject = Mapping[str, Any]


class StreamOptions(RequestModel):
    """What a stream reports besides text.

    Attributes:
        include_usage: Send the usage of the whole call at the end.
        chunk_include_usage: Send running usage with every chunk (Qianfan).
        continuous_usage_stats: The same (FastDeploy, vLLM).
    """

    include_usage: bool | None = None
    chunk_include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class ResponseFormat(RequestModel):
    """The form of the answer. `json_schema` works on some models only."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class WebSearch(RequestModel):
    """Let the service search the web before it answers.

    Attributes:
        enable: Search at all; the service's default is no.
        enable_citation: Put marks such as `^[1]^` into the text; needs `enable`.
        enable_trace: Return the sources, as `search_results`.
        enable_status: Report the search's progress.
        search_mode: How to search; the known words are the service's.
    """

    enable: bool | None = None
    enable_citation: bool | None = None
    enable_trace: bool | None = None
    enable_status: bool | None = None
    search_mode: str | None = None


class Thinking(RequestModel):
    """Switch thinking on or off for the DeepSeek, Kimi and GLM models that take this form."""

    type: Literal["enabled", "disabled"]


class ChatRequest(RequestModel):
    """A whole chat request as a value. `ChatOptions` describes the same fields as keywords.

    `None` is the same as not set: the field is not sent and the service's default holds.
    """

    messages: Annotated[list[Message], MinLen(1)]
    model: Annotated[str, MinLen(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Ge(0), Le(1)] | None = None
    penalty_score: Annotated[float, Ge(1), Le(2)] | None = None
    frequency_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    presence_penalty: Annotated[float, Ge(-2), Le(2)] | None = None
    repetition_penalty: Annotated[float, Gt(0), Le(2)] | None = None
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    max_tokens: Annotated[int, Ge(1)] | None = None
    seed: Annotated[int, Ge(0), Lt(2**63)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Ge(1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Ge(0)] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    web_search: WebSearch | None = None
    enable_thinking: bool | None = None
    thinking: Thinking | None = None
    thinking_budget: Annotated[int, Ge(0)] | None = None
    reasoning_effort: str | None = None
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], MaxLen(16)] | None = None
    fps: Annotated[float, Ge(0.2), Le(5)] | None = None
    safety: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _conversation_can_be_answered(self) -> Self:
        messages = self.messages
        content = messages[-1].content
        if isinstance(content, str) and content.isspace():
            raise PydanticCustomError("blank_last", "the last message must not be blank")
        if len(messages) > 1 and any(message.prefix for message in messages[:-1]):
            raise PydanticCustomError("prefix_not_last", "only the last message may have prefix")
        return self


class ChatFields(TypedDict, total=False):
    """Every field of `ChatRequest` except the messages, as keywords for `chat` and `stream`.

    Where the model has a class, a plain dict of the same fields does as well.
    """

    model: str | None
    temperature: float | None
    top_p: float | None
    penalty_score: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    max_completion_tokens: int | None
    max_tokens: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    n: int | None
    logprobs: bool | None
    top_logprobs: int | None
    logit_bias: Mapping[str, float] | None
    user: str | None
    tools: Sequence[Tool | JsonObject] | None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | JsonObject | None
    parallel_tool_calls: bool | None
    response_format: ResponseFormat | JsonObject | None
    web_search: WebSearch | JsonObject | None
    enable_thinking: bool | None
    thinking: Thinking | JsonObject | None
    thinking_budget: int | None
    reasoning_effort: str | None
    stream_options: StreamOptions | JsonObject | None
    metadata: Mapping[str, str] | None
    fps: float | None
    safety: JsonObject | None
