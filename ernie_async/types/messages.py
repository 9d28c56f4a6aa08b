"""The messages of a conversation, and short ways to write them.

Source: cloud.baidu.com/doc/qianfan-api/s/wmwbl48n4; the roles are those the server listed in a
recorded refusal of 2026-08-31.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from ernie_async.types.content import ContentPart, TextPart
from ernie_async.types.tools import ToolCall
from ernie_async.types.wire import AnswerModel, RequestModel

__all__ = [
    "AnswerMessage",
    "Message",
    "MessageInput",
    "assistant",
    "developer",
    "system",
    "tool_result",
    "user",
]


class AnswerMessage(AnswerModel):
    """What the model said. Put it into the next request's messages as it is."""

    role: str = "assistant"
    content: str | None = None
    # Servers disagree on the name of the thinking text: vLLM renamed it in autumn 2025.
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class Message(RequestModel):
    """One turn of the conversation; `user(...)`, `system(...)` and friends write it shorter.

    Attributes:
        content: Text, or parts (text, pictures, videos). Must not be empty; only an assistant
            turn that carries `tool_calls` may have none.
        name: Who speaks, where the model tells speakers apart.
        tool_calls: In an assistant turn: the calls the model had asked for.
        tool_call_id: In a tool turn, where it is required: the id of the call this answers.
        prefix: In a last, assistant turn: go on from this text (the models that can are DeepSeek
            and Qwen models; no ERNIE model is listed).
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_answer(cls, value: Any) -> Any:
        """Take an answer's message; leave its thinking text out, which the service refuses."""
        kept: Mapping[str, Any]
        if isinstance(value, dict):
            kept = value
        elif isinstance(value, AnswerMessage):
            kept = {"role": value.role, "content": value.content, "tool_calls": value.tool_calls}
        else:
            return value
        if kept.get("role") != "assistant":
            return kept
        return {
            name: field
            for name, field in kept.items()
            if field is not None and name not in {"reasoning_content", "reasoning"}
        }

    @model_validator(mode="after")
    def _fields_fit_role(self) -> Self:
        if self.role == "tool" and not self.tool_call_id:
            raise PydanticCustomError(
                "tool_call_id", "a tool message needs tool_call_id, the id of the call it answers"
            )
        if self.role != "tool" and self.tool_call_id is not None:
            raise PydanticCustomError("tool_call_id", "only a tool message has tool_call_id")
        if self.role != "assistant" and (self.tool_calls or self.prefix is not None):
            raise PydanticCustomError(
                "assistant_only", "only an assistant message has tool_calls or prefix"
            )
        if not self.content and not self.tool_calls:
            raise PydanticCustomError("empty_content", "content must not be empty")
        return self


MessageInput = Message | AnswerMessage | Mapping[str, Any]
"""What `messages` may hold: ours, an answer's message, or a plain dict of the same fields."""


def system(content: str) -> Message:
    """Instructions for the whole conversation."""
    return Message(role="system", content=content)


def developer(content: str) -> Message:
    """Instructions, under the name newer models give them."""
    return Message(role="developer", content=content)


def user(content: str | Sequence[ContentPart | str], *, name: str | None = None) -> Message:
    """Something the user says: text, or parts with texts, pictures and videos."""
    if isinstance(content, str) or not isinstance(content, Sequence):  # the model says what it is
        return Message(role="user", content=content, name=name)
    return Message(role="user", content=[_part(part) for part in content], name=name)


def _part(part: ContentPart | str) -> ContentPart:
    return TextPart(text=part) if isinstance(part, str) else part


def assistant(content: str, *, prefix: bool = False) -> Message:
    """Something the model said before; with `prefix`, the text it has to go on from."""
    return Message(role="assistant", content=content, prefix=prefix or None)


def tool_result(tool_call_id: str, content: str) -> Message:
    """What a function returned, for the call with this id."""
    return Message(role="tool", content=content, tool_call_id=tool_call_id)
