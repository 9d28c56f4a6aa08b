"""One event of a streamed answer.

Read straight from the event's bytes, once for each token, so these models hold no validators.
Source: cloud.baidu.com/doc/qianfan-api/s/wmwbl48n4, recorded streams, and the compatible servers:
every field may be missing, `choices` may be empty, one index may come several times.
"""

from typing import Any

from pydantic import Field, JsonValue

from ernie_async.types.completion import SearchResult
from ernie_async.types.tools import ToolCallDelta
from ernie_async.types.usage import Usage
from ernie_async.types.wire import AnswerModel

__all__ = ["ChatChunk", "ChunkChoice", "Delta"]


class Delta(AnswerModel):
    """What is new since the last chunk."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(AnswerModel):
    """News of one of the answers; the fields are those of `Choice`."""

    index: int = 0
    delta: Delta = Field(default_factory=Delta)
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    flag: int | None = None
    ban_round: int | None = None


class ChatChunk(AnswerModel):
    """One piece of a streamed answer. The properties speak of the first choice (index 0)."""

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    search_results: list[SearchResult] | dict[str, JsonValue] | None = None

    @property
    def text(self) -> str:
        """New text; empty in a chunk that carries something else."""
        choices = self.choices
        if len(choices) == 1 and not choices[0].index:
            return choices[0].delta.content or ""
        return "".join(choice.delta.content or "" for choice in choices if not choice.index)

    @property
    def reasoning(self) -> str:
        """New thinking text; empty in a chunk that carries something else."""
        return "".join(
            choice.delta.reasoning_content or choice.delta.reasoning or ""
            for choice in self.choices
            if not choice.index
        )

    @property
    def tool_calls(self) -> list[ToolCallDelta]:
        """New fragments of tool calls."""
        return [
            fragment
            for choice in self.choices
            if not choice.index
            for fragment in choice.delta.tool_calls or ()
        ]

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in the chunk that says so; see `Choice`."""
        reasons = [choice.finish_reason for choice in self.choices if not choice.index]
        return next((reason for reason in reasons if reason), None)
