"""The async Python SDK for Baidu's ERNIE models (文心一言).

```python
import asyncio
from ernie_async import AsyncClient

async def main() -> None:
    async with AsyncClient() as client:  # the key from QIANFAN_API_KEY
        async for chunk in client.stream("解释量子纠缠现象"):
            print(chunk.text, end="", flush=True)

asyncio.run(main())
```
"""

from ernie_async.client import AsyncClient
from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    BlockedError,
    BudgetError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    DrainError,
    ErnieError,
    FailedAttempt,
    InterruptedStreamError,
    LimiterError,
    NoKeyError,
    NotFoundError,
    OutputError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
    ToolLoopError,
    TransportError,
)
from ernie_async.media import image, image_part, video, video_part
from ernie_async.net.admission import AnyLimiter, AnyPermit, LimiterSnapshot
from ernie_async.net.budget import Budget
from ernie_async.net.hooks import (
    CallEnded,
    CallStarted,
    CircuitChanged,
    ContentFiltered,
    FellBack,
    HeartbeatSeen,
    Hedged,
    Hook,
    LimiterPaused,
    Queued,
    Record,
    RetryScheduled,
    RetryWithheld,
    StreamResumed,
)
from ernie_async.net.key_pool import KeyPool
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.net.roster import DrainReport
from ernie_async.net.stream import ChatStream
from ernie_async.net.tee import ChunkBranch, TextDeltas, ToolCallEvents
from ernie_async.options import (
    EmbedOptions,
    ImageOptions,
    ParseOptions,
    RerankOptions,
    SearchOptions,
    VideoOptions,
)
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.auth import ApiKey, IamKeys, from_env
from ernie_async.sansio.breaker import Breaker, BreakerPolicy
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.conversation import MessageFinding, fix_messages, lint_messages
from ernie_async.sansio.filter_values import Clause, Term, TextChecker, TextMatch, TextPattern
from ernie_async.sansio.hedging import Hedging
from ernie_async.sansio.key_pool import KeyHealth, PooledKey
from ernie_async.sansio.ledger import Totals
from ernie_async.sansio.legacy import V1Translation, translate_v1
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.sansio.read_buffer import ReadBuffer, ReadGauge
from ernie_async.sansio.resume import ResumePolicy
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.servers import Server
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tool_calls import ToolCallEvent
from ernie_async.settings import CallOptions, ChatOptions, ClientOptions
from ernie_async.sync.client import Client
from ernie_async.sync.files import SyncFiles
from ernie_async.sync.streams import SyncChatStream, SyncParsedStream
from ernie_async.types import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Embedding,
    Embeddings,
    FileObject,
    FilePage,
    FunctionName,
    FunctionSpec,
    ImageFields,
    ImagePart,
    ImageResult,
    Images,
    ImageURL,
    Message,
    MessageInput,
    ModelCard,
    RankedDocument,
    Ranking,
    ResponseFormat,
    SearchAnswer,
    SearchReference,
    StreamOptions,
    TextPart,
    Thinking,
    Timing,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
    VideoPart,
    VideoTask,
    VideoURL,
    WebSearch,
    assistant,
    developer,
    system,
    tool_result,
    user,
)
from ernie_async.types.prices import Price, Prices, standard_prices
from ernie_async.version import __version__

__all__ = [
    "APIError",
    "Adaptive",
    "AnyLimiter",
    "AnyPermit",
    "ApiKey",
    "AsyncClient",
    "AuthError",
    "BadRequestError",
    "BlockedError",
    "Breaker",
    "BreakerPolicy",
    "Budget",
    "BudgetError",
    "CallEnded",
    "CallOptions",
    "CallStarted",
    "ChatChunk",
    "ChatCompletion",
    "ChatOptions",
    "ChatRequest",
    "ChatStream",
    "ChunkBranch",
    "CircuitChanged",
    "CircuitOpenError",
    "Clause",
    "Client",
    "ClientOptions",
    "ConfigError",
    "ConnectError",
    "ContentFilter",
    "ContentFiltered",
    "DeadlineError",
    "DecodeError",
    "DrainError",
    "DrainReport",
    "EmbedOptions",
    "Embedding",
    "Embeddings",
    "ErnieError",
    "FailedAttempt",
    "FellBack",
    "FileObject",
    "FilePage",
    "FunctionName",
    "FunctionSpec",
    "HeartbeatSeen",
    "Hedged",
    "Hedging",
    "Hook",
    "IamKeys",
    "ImageFields",
    "ImageOptions",
    "ImagePart",
    "ImageResult",
    "ImageURL",
    "Images",
    "InterruptedStreamError",
    "KeyHealth",
    "KeyPool",
    "Limiter",
    "LimiterError",
    "LimiterPaused",
    "LimiterSnapshot",
    "Limits",
    "Message",
    "MessageFinding",
    "MessageInput",
    "ModelCard",
    "NoKeyError",
    "NotFoundError",
    "OutputError",
    "ParseOptions",
    "Permit",
    "PooledKey",
    "Price",
    "Prices",
    "Queued",
    "QuotaError",
    "RankedDocument",
    "Ranking",
    "RateHeaders",
    "RateLimitError",
    "ReadBuffer",
    "ReadGauge",
    "Record",
    "RefusedError",
    "RerankOptions",
    "ResponseFormat",
    "ResumePolicy",
    "RetryPolicy",
    "RetryScheduled",
    "RetryWithheld",
    "SearchAnswer",
    "SearchOptions",
    "SearchReference",
    "Server",
    "ServerError",
    "StreamOptions",
    "StreamResumed",
    "SyncChatStream",
    "SyncFiles",
    "SyncParsedStream",
    "Term",
    "TextChecker",
    "TextDeltas",
    "TextMatch",
    "TextPart",
    "TextPattern",
    "Thinking",
    "Timeouts",
    "Timing",
    "Tool",
    "ToolCall",
    "ToolCallEvent",
    "ToolCallEvents",
    "ToolChoice",
    "ToolLoopError",
    "Totals",
    "TransportError",
    "Usage",
    "V1Translation",
    "VideoOptions",
    "VideoPart",
    "VideoTask",
    "VideoURL",
    "WebSearch",
    "__version__",
    "assistant",
    "developer",
    "fix_messages",
    "from_env",
    "image",
    "image_part",
    "lint_messages",
    "standard_prices",
    "system",
    "tool_result",
    "translate_v1",
    "user",
    "video",
    "video_part",
]
