"""The same client without `await`: `Client` runs an `AsyncClient` in a thread of its own.

No second implementation: every verb is handed to the asynchronous client through a portal. A
`Client` may be used from several threads.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar, Unpack, overload

from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError
from ernie_async.net.admission import AnyLimiter
from ernie_async.net.budget import Budget
from ernie_async.net.hooks import Hook
from ernie_async.net.key_pool import KeyPool
from ernie_async.net.roster import DrainReport
from ernie_async.options import (
    EmbedOptions,
    ImageOptions,
    ParseOptions,
    RerankOptions,
    SearchOptions,
    VideoOptions,
)
from ernie_async.sansio.auth import ApiKey, IamKeys, MaskedStr
from ernie_async.sansio.breaker import Breaker, BreakerPolicy
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.chat_request import Prompt
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.hedging import Hedging
from ernie_async.sansio.ledger import Totals
from ernie_async.sansio.read_buffer import ReadBuffer
from ernie_async.sansio.resume import ResumeMode, ResumePolicy
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.servers import Server, ServerName
from ernie_async.sansio.sse import DEFAULT_MAX_EVENT_BYTES
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.settings import (
    DEFAULT_BREAKER,
    DEFAULT_READ_BUFFER,
    DEFAULT_RESUME,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUTS,
    NO_LIMITS,
    CallOptions,
    ChatOptions,
    ClientOptions,
    FallbackModel,
)
from ernie_async.sync.files import SyncFiles
from ernie_async.sync.streams import SyncChatStream, SyncParsedStream
from ernie_async.sync.thread import LoopThread
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.embeddings import Embeddings
from ernie_async.types.images import ImageResult, Images
from ernie_async.types.models import ModelCard
from ernie_async.types.prices import Prices
from ernie_async.types.rerank import Ranking
from ernie_async.types.search import SearchAnswer
from ernie_async.types.video import VideoTask

if TYPE_CHECKING:
    from ernie_async.net.desk import Desk
    from ernie_async.sansio.embedding import EmbeddingInput

__all__ = ["Client"]

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item


class Client:
    """`AsyncClient` for programs without an event loop: the same arguments, verbs and errors.

    All but `session`, which belongs to one event loop. Use it in `with`, or call `close` at the
    end. The thread is started by the first call.

    Raises:
        ConfigError: As for `AsyncClient`, or a session is given.
    """

    def __init__(
        self,
        api_key: str | ApiKey | IamKeys | KeyPool | None = None,
        *,
        server: ServerName | Server = "qianfan",
        base_url: str | None = None,
        model: str | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retry: RetryPolicy = DEFAULT_RETRY,
        breaker: BreakerPolicy | Breaker | None = DEFAULT_BREAKER,
        resume: ResumeMode | ResumePolicy = DEFAULT_RESUME,
        fallback: Sequence[FallbackModel] = (),
        hedge: Hedging | None = None,
        coalesce: bool = False,
        read_buffer: ReadBuffer = DEFAULT_READ_BUFFER,
        limits: Limits | AnyLimiter = NO_LIMITS,
        hooks: Sequence[Hook] = (),
        prices: Prices | None = None,
        app_id: str | None = None,
        proxy: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        content_filter: ContentFilter | None = None,
        **unknown: Never,
    ) -> None:
        if "session" in unknown:
            raise ConfigError(
                "session: a Client has an event loop of its own, and a session works in the one "
                "that it was made in; leave it out, or use AsyncClient"
            )
        # As `AsyncClient` does it.
        api_key = ApiKey(api_key) if isinstance(api_key, str) else api_key
        proxy = None if proxy is None else MaskedStr(proxy)
        self._client = AsyncClient(
            api_key,
            server=server,
            base_url=base_url,
            model=model,
            timeouts=timeouts,
            retry=retry,
            breaker=breaker,
            resume=resume,
            fallback=fallback,
            hedge=hedge,
            coalesce=coalesce,
            read_buffer=read_buffer,
            limits=limits,
            hooks=hooks,
            prices=prices,
            app_id=app_id,
            proxy=proxy,
            ca_file=ca_file,
            max_event_bytes=max_event_bytes,
            content_filter=content_filter,
            **unknown,
        )
        self._thread = LoopThread()

    def chat(self, messages: Prompt, **options: Unpack[ChatOptions]) -> ChatCompletion:
        """Ask, and wait for the whole answer. See `AsyncClient.chat`."""
        return self._thread.run(lambda: self._client.chat(messages, **options))

    def stream(self, messages: Prompt, **options: Unpack[ChatOptions]) -> SyncChatStream:
        """Ask, and read the answer while it is being written. See `AsyncClient.stream`."""
        return SyncChatStream(self._client.stream(messages, **options), self._thread)

    @overload
    def parse(self, messages: Prompt, into: type[T], **options: Unpack[ParseOptions]) -> T: ...
    @overload
    def parse(self, messages: Prompt, into: UnionType, **options: Unpack[ParseOptions]) -> Any: ...
    def parse(self, messages: Prompt, into: Any, **options: Unpack[ParseOptions]) -> Any:
        """Ask, and return the answer as a value of a type. See `AsyncClient.parse`."""
        return self._thread.run(lambda: self._client.parse(messages, into, **options))

    @overload
    def stream_parse(
        self, messages: Prompt, into: type[list[I]], **options: Unpack[ParseOptions]
    ) -> SyncParsedStream[I, list[I]]: ...
    @overload
    def stream_parse(
        self, messages: Prompt, into: type[T], **options: Unpack[ParseOptions]
    ) -> SyncParsedStream[T, T]: ...
    @overload
    def stream_parse(
        self, messages: Prompt, into: UnionType, **options: Unpack[ParseOptions]
    ) -> SyncParsedStream[Any, Any]: ...
    def stream_parse(
        self, messages: Prompt, into: Any, **options: Unpack[ParseOptions]
    ) -> SyncParsedStream[Any, Any]:
        """Ask, and read the answer as a value of a type while it is being written.

        See `AsyncClient.stream_parse`.
        """
        stream = self._client.stream_parse(messages, into, **options)
        return SyncParsedStream(stream, self._thread)

    def request(
        self, method: str, path: str, *, json: Any = None, **options: Unpack[CallOptions]
    ) -> dict[str, Any]:
        """Call any endpoint. See `AsyncClient.request`."""
        return self._thread.run(lambda: self._client.request(method, path, json=json, **options))

    def list_models(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """List the models that this key may use. See `AsyncClient.list_models`."""
        return self._thread.run(lambda: self._client.list_models(**options))

    def embed(
        self,
        texts: "EmbeddingInput | Sequence[EmbeddingInput]",
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Turn texts into vectors. See `AsyncClient.embed`."""
        return self._thread.run(lambda: self._client.embed(texts, **options))

    def rerank(
        self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
    ) -> Ranking:
        """Order documents by how well they answer a query. See `AsyncClient.rerank`."""
        return self._thread.run(lambda: self._client.rerank(query, documents, **options))

    def generate_image(self, prompt: str, **options: Unpack[ImageOptions]) -> Images:
        """Have a model draw. See `AsyncClient.generate_image`."""
        return self._thread.run(lambda: self._client.generate_image(prompt, **options))

    def edit_image(
        self, image: str | Sequence[str], prompt: str, **options: Unpack[ImageOptions]
    ) -> Images:
        """Have a model change a picture. See `AsyncClient.edit_image`."""
        return self._thread.run(lambda: self._client.edit_image(image, prompt, **options))

    def download_image(self, image: ImageResult, **options: Unpack[CallOptions]) -> bytes:
        """The bytes of a picture. See `AsyncClient.download_image`."""
        return self._thread.run(lambda: self._client.download_image(image, **options))

    def save_image(
        self, image: ImageResult, path: str | os.PathLike[str], **options: Unpack[CallOptions]
    ) -> Path:
        """Write a picture into a file. See `AsyncClient.save_image`."""
        return self._thread.run(lambda: self._client.save_image(image, path, **options))

    def web_search(self, query: str, **options: Unpack[SearchOptions]) -> SearchAnswer:
        """Search the web with Baidu. See `AsyncClient.web_search`."""
        return self._thread.run(lambda: self._client.web_search(query, **options))

    def generate_video(
        self, prompt: str, *, model: str, **options: Unpack[VideoOptions]
    ) -> VideoTask:
        """Have a model make a video, and wait for it. See `AsyncClient.generate_video`."""
        return self._thread.run(lambda: self._client.generate_video(prompt, model=model, **options))

    def video_task(
        self, task_id: str, *, path: str = "/video/generations", **options: Unpack[CallOptions]
    ) -> VideoTask:
        """How far a video is. See `AsyncClient.video_task`."""
        return self._thread.run(lambda: self._client.video_task(task_id, path=path, **options))

    @property
    def files(self) -> SyncFiles:
        """The files that the service keeps. See `AsyncClient.files`."""
        return SyncFiles(self._client.files, self._thread)

    def with_options(self, **changes: Unpack[ClientOptions]) -> "Client":
        """A client with other settings that shares this one's thread and connections."""
        other = object.__new__(Client)
        other._client = self._client.with_options(**changes)
        other._thread = self._thread
        return other

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at its end."""
        return self._client.base_url

    @property
    def model(self) -> str | None:
        """The model of calls that name none; `None` if they have to."""
        return self._client.model

    @property
    def limiter(self) -> AnyLimiter | None:
        """What stands in front of every request; `None` if nothing is limited."""
        return self._client.limiter

    @property
    def totals(self) -> Totals:
        """What this client used for chats so far. See `AsyncClient.totals`."""
        return self._client.totals

    def estimate_tokens(self, messages: Prompt, *, model: str | None = None) -> int:
        """Tokens of a prompt, roughly. See `AsyncClient.estimate_tokens`."""
        return self._client.estimate_tokens(messages, model=model)

    def budget(self, *, tokens: int | None = None, cost: float | None = None) -> Budget:
        """What the calls inside a `with` block may use together. See `AsyncClient.budget`."""
        return self._client.budget(tokens=tokens, cost=cost)

    def drain(self, timeout: float | None = 10.0) -> DrainReport:
        """Wait for the calls of other threads, and let none begin. See `AsyncClient.drain`."""
        return self._thread.run(lambda: self._client.drain(timeout))

    @property
    def _desk(self) -> "Desk":
        """For a client that has this one's models as a fallback."""
        return self._client._desk

    def close(self) -> None:
        """Close the connections and end the thread. A closed client makes no more calls.

        Calls that other threads are waiting for raise `DrainError`, streams
        `InterruptedStreamError`.
        """
        self._thread.close(self._client.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "_client"):  # shown by a traceback of its own construction
            return "Client(unfinished)"
        return repr(self._client).removeprefix("Async")

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_client, (self._client,)


def _make_client(client: AsyncClient) -> Client:
    made = object.__new__(Client)
    made._client = client
    made._thread = LoopThread()
    return made
