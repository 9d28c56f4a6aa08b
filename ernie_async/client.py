"""The client: one verb for each thing the service can do.

Builds a `Request` with `sansio`, has `net` make it, and returns what was read. Knows the wings by
nothing. Reads the environment once, when it is made; opens nothing before the first call.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar, Unpack, overload

import aiohttp

from ernie_async.calling import answer_chat, ask, ask_chat
from ernie_async.net.admission import AnyLimiter
from ernie_async.net.answer import get_answer
from ernie_async.net.budget import Budget
from ernie_async.net.hooks import Hook
from ernie_async.net.key_pool import KeyPool
from ernie_async.net.roster import DrainReport
from ernie_async.net.stream import ChatStream
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
from ernie_async.sansio.chat_request import Prompt, chat_request, json_body
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.hedging import Hedging
from ernie_async.sansio.ledger import Totals
from ernie_async.sansio.read_buffer import ReadBuffer
from ernie_async.sansio.resume import ResumeMode, ResumePolicy
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.servers import Server, ServerName
from ernie_async.sansio.sse import DEFAULT_MAX_EVENT_BYTES
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import estimate_prompt
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
    ClientSettings,
    FallbackModel,
    changed_desk,
    choose_model,
    make_desk,
    read_hooks,
    refuse_unknown,
)
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.embeddings import Embeddings
from ernie_async.types.images import ImageResult, Images
from ernie_async.types.models import AnyAnswer, ModelCard, ModelList
from ernie_async.types.prices import Prices
from ernie_async.types.rerank import Ranking
from ernie_async.types.search import SearchAnswer
from ernie_async.types.video import VideoTask

if TYPE_CHECKING:
    from ernie_async.files import Files
    from ernie_async.parsing import ParsedStream
    from ernie_async.sansio.embedding import EmbeddingInput

__all__ = ["AsyncClient"]

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item


class AsyncClient:
    """A client of ERNIE on Qianfan V2, or of any server that speaks the same.

    Use it in `async with`, or call `aclose` at the end. One client serves a whole program: it keeps
    connections open between calls, one session for each event loop that uses it. It may be made
    outside any loop, used from several, pickled and copied; a copy opens connections of its own. A
    pickle holds the key if it was passed, and not if it came from the environment.

    Args:
        api_key: An API key (`bce-v3/ALTAK-...`), `IamKeys`, or a `KeyPool`; `None` to look into the
            environment, for `QIANFAN_API_KEY` first. A server that is not Baidu's may need none.
        server: Who speaks at the base URL, where servers differ: `"qianfan"`, `"aistudio"`,
            `"fastdeploy"`, `"vllm"`, `"sglang"`, `"llama.cpp"`, or a `Server` of your own. For all
            but the first, no variable `QIANFAN_...` is read.
        base_url: Where to send requests; `None` to read `QIANFAN_BASE_URL`, else the server's own.
        model: For calls that name none; `None` to read `QIANFAN_MODEL`, else the server's own, if
            it has one, such as `ernie-5.1`.
        timeouts: How long calls may take.
        retry: How often, and how patiently, a failed call is tried again.
        breaker: When the requests to a model are stopped because the server fails; `None` for
            never. A `Breaker` is shared with the other clients that were given it.
        resume: What to do when a stream breaks after its first chunk: `"server"`, `"continue"`,
            `"never"`, or a `ResumePolicy`.
        fallback: Models to ask when one cannot answer, in order, each by its name or as
            `(client, name)`.
        hedge: When to send a chat a second time because it is late; `None` for never.
        coalesce: Whether the same chat, asked while it is being answered, is asked once for all.
        read_buffer: How much of a stream is read at once.
        limits: What may be asked of the service, for each account and model. A `Limiter` is shared
            with the other clients that were given it, an `ernie_async.redis.RedisLimiter` with
            other processes.
        hooks: Told of every call, retry and end.
        prices: For `totals`; `None` for the table that comes with this version.
        app_id: A V2 application id (`app-...`), sent as `appid`.
        session: Used instead of our own, and never closed. Its own timeouts do not apply.
        proxy: An HTTP proxy; `None` to read `https_proxy` and its relatives.
        ca_file: Certificates to trust instead of the system's, a PEM file.
        max_event_bytes: The largest event of a stream; a larger one is a `DecodeError`.
        content_filter: What must not be shown of chats, and what to do about it.

    Raises:
        ConfigError: Something is missing, or of the wrong kind.
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
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        content_filter: ContentFilter | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown)
        # At once, since a tool that prints the locals of a traceback would print these as well.
        api_key = ApiKey(api_key) if isinstance(api_key, str) else api_key
        proxy = None if proxy is None else MaskedStr(proxy)
        self._settings = ClientSettings(
            api_key=api_key,
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
            hooks=read_hooks(hooks),
            prices=prices,
            app_id=app_id,
            proxy=proxy,
            ca_file=ca_file,
            max_event_bytes=max_event_bytes,
            content_filter=content_filter,
        )
        self._desk = make_desk(self._settings, session, os.environ)
        self._model = choose_model(self._settings, os.environ)

    async def chat(self, messages: Prompt, **options: Unpack[ChatOptions]) -> ChatCompletion:
        """Ask, and wait for the whole answer.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            **options: See `ChatOptions`.

        Raises:
            ConfigError: The request cannot be right; nothing was sent.
            ErnieError: See the tree in `errors`.
        """
        return await answer_chat(
            *ask_chat(self._desk, messages, options, model=self._model, is_stream=False)
        )

    def stream(self, messages: Prompt, **options: Unpack[ChatOptions]) -> ChatStream:
        """Ask, and read the answer while it is being written. Not awaited.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            **options: See `ChatOptions`.

        Raises:
            ConfigError: The request cannot be right; nothing was sent.
        """
        return ChatStream(
            *ask_chat(self._desk, messages, options, model=self._model, is_stream=True)
        )

    @overload
    async def parse(
        self, messages: Prompt, into: type[T], **options: Unpack[ParseOptions]
    ) -> T: ...
    @overload
    async def parse(
        self, messages: Prompt, into: UnionType, **options: Unpack[ParseOptions]
    ) -> Any: ...
    async def parse(self, messages: Prompt, into: Any, **options: Unpack[ParseOptions]) -> Any:
        """Ask, and return the answer as a value of a type.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            into: A pydantic model, or any type that pydantic knows, such as `list[Invoice]` or
                `Invoice | None`.
            **options: See `ParseOptions`.

        Raises:
            OutputError: The answer does not fit; it has the `text`.
            ErnieError: See the tree in `errors`.
        """
        from ernie_async.parsing import parse

        return await parse(self._desk, self._model, messages, into, options)

    @overload
    def stream_parse(
        self, messages: Prompt, into: type[list[I]], **options: Unpack[ParseOptions]
    ) -> "ParsedStream[I, list[I]]": ...
    @overload
    def stream_parse(
        self, messages: Prompt, into: type[T], **options: Unpack[ParseOptions]
    ) -> "ParsedStream[T, T]": ...
    @overload
    def stream_parse(
        self, messages: Prompt, into: UnionType, **options: Unpack[ParseOptions]
    ) -> "ParsedStream[Any, Any]": ...
    def stream_parse(
        self, messages: Prompt, into: Any, **options: Unpack[ParseOptions]
    ) -> "ParsedStream[Any, Any]":
        """Ask, and read the answer as a value of a type while it is being written. Not awaited.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            into: As for `parse`. A `list[...]` comes item by item, others as what is there so far.
            **options: See `ParseOptions`.

        Raises:
            ConfigError: The request cannot be right; nothing was sent.
        """
        from ernie_async.parsing import ParsedStream

        return ParsedStream(self._desk, self._model, messages, into, options)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        **options: Unpack[CallOptions],
    ) -> dict[str, Any]:
        """Call any endpoint, with limits, retry and errors as for every other.

        Args:
            method: The HTTP method.
            path: Below the base URL, such as `/embeddings`.
            json: The body; `None` for none.
            **options: See `CallOptions`.

        Returns:
            The answer, which has to be a JSON object.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        extra = options.get("extra_body")
        content = {**(json or {}), **extra} if extra else json
        body = None if content is None else json_body(content)
        desk, request = ask(self._desk, method, path, body, options)
        return (await get_answer(desk, request, AnyAnswer)).model_extra or {}

    async def list_models(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """List the models that this key may use.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        desk, request = ask(self._desk, "GET", "/models", None, options)
        return (await get_answer(desk, request, ModelList)).data

    # What the verbs below need besides is imported by their first call: many programs only chat.

    async def embed(
        self,
        texts: "EmbeddingInput | Sequence[EmbeddingInput]",
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Turn texts into vectors, in as many requests as their number takes.

        Args:
            texts: One or many. A multimodal model takes `{"text": ..., "image": ...}` instead, the
                image as a URL or in base64.
            **options: See `EmbedOptions`.

        Raises:
            ConfigError: A text is empty or too long; nothing was sent.
            ErnieError: One request failed, so there is no answer at all.
        """
        from ernie_async.embedding import embed

        return await embed(self._desk, texts, options)

    async def rerank(
        self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
    ) -> Ranking:
        """Order documents by how well they answer a query, the best first.

        Raises:
            ConfigError: A text is empty, or more than the model takes; nothing was sent.
            ErnieError: See the tree in `errors`.
        """
        from ernie_async.searching import rerank

        return await rerank(self._desk, query, documents, options)

    async def generate_image(self, prompt: str, **options: Unpack[ImageOptions]) -> Images:
        """Have a model draw; `qwen-image`, if none is named. Takes up to a minute.

        Raises:
            ConfigError: The request cannot be right; nothing was sent.
            ErnieError: See the tree in `errors`. If no picture could be made, it is an `APIError`.
        """
        from ernie_async.images import generate_image

        return await generate_image(self._desk, prompt, options)

    async def edit_image(
        self, image: str | Sequence[str], prompt: str, **options: Unpack[ImageOptions]
    ) -> Images:
        """Have a model change a picture, or merge several; `qwen-image-edit`, if none is named.

        Args:
            image: A URL or data URI. Several are sent as a list, which is not documented.
            prompt: What to change.
            **options: See `ImageFields` and `CallOptions`.

        Raises:
            ErnieError: As for `generate_image`.
        """
        from ernie_async.images import edit_image

        return await edit_image(self._desk, image, prompt, options)

    async def download_image(self, image: ImageResult, **options: Unpack[CallOptions]) -> bytes:
        """The bytes of a picture, downloaded if only its address came.

        Raises:
            NotFoundError: The address leads nowhere any more; it is valid for 24 hours.
        """
        from ernie_async.images import download_image

        return await download_image(self._desk, image, options)

    async def save_image(
        self, image: ImageResult, path: str | os.PathLike[str], **options: Unpack[CallOptions]
    ) -> Path:
        """Write a picture into a file, which is there only if it is whole; return its path.

        Raises:
            ConfigError: The path cannot be written.
            NotFoundError: The address leads nowhere any more; it is valid for 24 hours.
        """
        from ernie_async.images import save_image

        return await save_image(self._desk, image, path, options)

    async def web_search(self, query: str, **options: Unpack[SearchOptions]) -> SearchAnswer:
        """Search the web with Baidu, without a model.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        from ernie_async.searching import web_search

        return await web_search(self._desk, query, options)

    async def generate_video(
        self, prompt: str, *, model: str, **options: Unpack[VideoOptions]
    ) -> VideoTask:
        """Have a model make a video, and wait until it is there.

        Raises:
            DeadlineError: It is not ready yet; `video_task` asks for it later.
            ErnieError: See the tree in `errors`. If the task failed, it is an `APIError`.
        """
        from ernie_async.videos import generate_video

        return await generate_video(self._desk, prompt, model, options)

    async def video_task(
        self, task_id: str, *, path: str = "/video/generations", **options: Unpack[CallOptions]
    ) -> VideoTask:
        """How far a video is. `path` is the one it was made with."""
        from ernie_async.videos import video_task

        return await video_task(self._desk, task_id, path, options)

    @property
    def files(self) -> "Files":
        """The files that the service keeps: `upload`, `list`, `all`, `content` and others."""
        from ernie_async.files import Files

        return Files(self._desk)

    def with_options(self, **changes: Unpack[ClientOptions]) -> "AsyncClient":
        """A client with other settings that shares this one's connections and limiter.

        Closing either closes the connections of both.
        """
        other = object.__new__(AsyncClient)
        other._desk = changed_desk(self._desk, changes)
        other._model = changes.get("model", self._model)
        other._settings = {**self._settings, **changes}
        return other

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at its end."""
        return self._desk.transport.base_url

    @property
    def model(self) -> str | None:
        """The model of calls that name none; `None` if they have to."""
        return self._model

    @property
    def limiter(self) -> AnyLimiter | None:
        """What stands in front of every request; `None` if nothing is limited."""
        return self._desk.limiter

    @property
    def totals(self) -> Totals:
        """What this client, and those that `with_options` made of it, used for chats so far."""
        return self._desk.ledger.totals

    def estimate_tokens(self, messages: Prompt, *, model: str | None = None) -> int:
        """Tokens of a prompt, roughly, corrected by what earlier answers of the model told.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            model: Instead of the client's.

        Raises:
            ConfigError: The request cannot be right.
        """
        request = chat_request(messages, {})
        name = model or request.model or self._model
        return self._desk.ledger.correction.corrected(name, estimate_prompt(request.messages))

    def budget(self, *, tokens: int | None = None, cost: float | None = None) -> Budget:
        """What the calls inside an `async with` block may use together.

        Once it is spent, streams are cut and no call begins: `BudgetError` has what was used.

        Args:
            tokens: Prompts and answers together; `None` for no limit.
            cost: CNY; `None` for no limit. Every model that is asked must have a price.

        Raises:
            ConfigError: Neither is given, or one is no amount.
        """
        return Budget(self._desk.roster, tokens=tokens, cost=cost)

    async def drain(self, timeout: float | None = 10.0) -> DrainReport:  # noqa: ASYNC109
        """Let no call begin any more, and wait for those that are under way.

        Args:
            timeout: Seconds; what is not over then is cancelled. `None` to wait till the end.

        Returns:
            How many calls came to their end, and which were cancelled.
        """
        return await self._desk.roster.drain(timeout)

    async def aclose(self) -> None:
        """Close the connections of the running loop. A closed client makes no more calls.

        A chat under way in this loop raises `DrainError`, a stream `InterruptedStreamError`.
        """
        await self._desk.roster.stop_here("the client was closed before this call was over")
        await self._desk.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if not hasattr(self, "_desk"):  # shown by a traceback of its own construction
            return "AsyncClient(unfinished)"
        key = self._desk.pool or self._desk.key
        return f"AsyncClient({key!r}, base_url={self.base_url!r}, model={self._model!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        settings = dict(self._settings)
        return _make_client, (settings,)


def _make_client(settings: dict[str, Any]) -> AsyncClient:
    return AsyncClient(settings.pop("api_key"), **settings)
