"""What travels: pydantic models of requests and answers. Re-exports, nothing else."""

from ernie_async.types.chunk import ChatChunk, ChunkChoice, Delta
from ernie_async.types.completion import ChatCompletion, Choice, Citation, SearchResult
from ernie_async.types.content import ImagePart, ImageURL, TextPart, VideoPart, VideoURL
from ernie_async.types.embeddings import Embedding, Embeddings
from ernie_async.types.files import FileObject, FilePage
from ernie_async.types.images import ImageFields, ImageResult, Images
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
from ernie_async.types.rerank import RankedDocument, Ranking
from ernie_async.types.search import SearchAnswer, SearchReference
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
from ernie_async.types.video import VideoTask

__all__ = [
    "AnswerMessage",
    "ChatChunk",
    "ChatCompletion",
    "ChatFields",
    "ChatRequest",
    "Choice",
    "ChunkChoice",
    "Citation",
    "Delta",
    "Embedding",
    "Embeddings",
    "FileObject",
    "FilePage",
    "FunctionCall",
    "FunctionName",
    "FunctionSpec",
    "ImageFields",
    "ImagePart",
    "ImageResult",
    "ImageURL",
    "Images",
    "Message",
    "MessageInput",
    "ModelCard",
    "RankedDocument",
    "Ranking",
    "ResponseFormat",
    "SearchAnswer",
    "SearchReference",
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
    "VideoTask",
    "VideoURL",
    "WebSearch",
    "assistant",
    "developer",
    "system",
    "tool_result",
    "user",
]
