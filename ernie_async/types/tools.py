"""Functions the model may call, and the calls it makes.

Source: cloud.baidu.com/doc/qianfan-docs/s/xm95lyys5 (function calling).
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from annotated_types import MinLen

from ernie_async.types.wire import AnswerModel, RequestModel

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


class Tool(RequestModel):
    """A function offered to the model. Tools add roughly 300 tokens to the prompt."""

    type: Literal["function"] = "function"
    function: FunctionSpec

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> Self:
        """Describe a function of Python: its annotations, its docstring, its defaults.

        Args:
            function: It may be asynchronous. Its arguments may be of any type that pydantic knows.
            name: Instead of its own.
            description: Instead of the docstring's text before the arguments.

        Raises:
            TypeError: It cannot be described, for example since it takes `*args`.
        """
        # Imported here: it takes a while, and most programs have no tools.
        from ernie_async.types.functions import shape_of_function

        shape = shape_of_function(function, name=name, description=description)
        return cls(
            function=FunctionSpec(
                name=shape.name, description=shape.description, parameters=shape.schema
            )
        )


class FunctionName(RequestModel):
    """The one function the model must call."""

    name: Annotated[str, MinLen(1)]


class ToolChoice(RequestModel):
    """Make the model call this function, and no other."""

    type: Literal["function"] = "function"
    function: FunctionName


class FunctionCall(AnswerModel):
    """Which function, with which arguments: a JSON text that the model wrote and may be invalid."""

    name: str
    arguments: str = ""


class ToolCall(AnswerModel):
    """A call the model asks for. Answer it with `tool_result(call.id, ...)`.

    Attributes:
        id: Empty if the server gave none; a `Toolbox` then gives one.
    """

    id: str = ""
    type: str = "function"
    function: FunctionCall


class FunctionCallDelta(AnswerModel):
    """A fragment of a function call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(AnswerModel):
    """A fragment of a tool call; fragments with the same `index` belong together.

    Without an index, a fragment with another `id` begins another call.
    """

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionCallDelta | None = None
