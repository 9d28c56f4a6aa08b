"""Functions the model may call, and the calls it makes.

Source: cloud.baidu.com/doc/qianfan-docs/s/xm95lyys5 (function calling).
"""

from typing import Annotated, Any, Literal

from annotated_types import MinLen

from ernie_async.types.wire import AnswerModel, RequestModel, TaggedModel

__all__ = [
    "FunctionCall",
    "FunctionCallDelta",
    "FunctionName",
    "FunctionSpec",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
]


class FunctionSpec(RequestModel):
    """A function as the model sees it; `parameters` is a JSON schema of type object."""

    name: Annotated[str, MinLen(1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(TaggedModel):
    """A function offered to the model. Tools add roughly 300 tokens to the prompt."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class FunctionName(RequestModel):
    """The one function the model must call."""

    name: Annotated[str, MinLen(1)]


class ToolChoice(TaggedModel):
    """Make the model call this function, and no other."""

    type: Literal["function"] = "function"
    function: FunctionName


class FunctionCall(AnswerModel):
    """Which function, with which arguments: a JSON text that the model wrote and may be invalid."""

    name: str
    arguments: str = ""


class ToolCall(AnswerModel):
    """A call the model asks for. Answer it with `tool_result(call.id, ...)`."""

    id: str
    type: str = "function"
    function: FunctionCall

    def model_post_init(self, _context: object, /) -> None:
        """Count `type` as set, since calls are sent back as part of the conversation."""
        self.model_fields_set.add("type")


class FunctionCallDelta(AnswerModel):
    """A fragment of a function call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(AnswerModel):
    """A fragment of a tool call; fragments with the same `index` belong together."""

    index: int = 0
    id: str | None = None
    type: str | None = None
    function: FunctionCallDelta | None = None
