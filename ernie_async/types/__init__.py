"""What travels: pydantic models of requests and answers. Re-exports, nothing else."""

from ernie_async.types.chunk import ChatChunk, ChunkChoice, Delta
from ernie_async.types.completion import ChatCompletion, Choice, SearchResult
from ernie_async.types.content import ImagePart, ImageURL, TextPart, VideoPart, VideoURL
from ernie_async.types.messages import (
    AnswerMessage,
    Message,
    MessageInput,
    assistant,
    developer,
    system,
    tool_result,
    user,
)
from ernie_async.types.models import ModelCard
from ernie_async.types.request import (
    ChatFields,
    ChatRequest,
    ResponseFormat,
    StreamOptions,
    Thinking,
    WebSearch,
)
from ernie_async.types.tools import (
    FunctionCall,
    FunctionName,
    FunctionSpec,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
)
from ernie_async.types.usage import Timing, Usage

__all__ = [
    "AnswerMessage",
    "ChatChunk",
    "ChatCompletion",
    "ChatFields",
    "ChatRequest",
    "Choice",
    "ChunkChoice",
    "Delta",
    "FunctionCall",
    "FunctionName",
    "FunctionSpec",
    "ImagePart",
    "ImageURL",
    "Message",
    "MessageInput",
    "ModelCard",
    "ResponseFormat",
    "SearchResult",
    "StreamOptions",
    "TextPart",
    "Thinking",
    "Timing",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Usage",
    "VideoPart",
    "VideoURL",
    "WebSearch",
    "assistant",
    "developer",
    "system",
    "tool_result",
    "user",
]
