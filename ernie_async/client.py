"""The client: one verb for each thing the service can do.

Builds a `Request` with `sansio`, has `net` make it, and returns what was read. Knows the wings by
nothing. Reads the environment once, when it is made; opens nothing before the first call.
"""

import os
from collections.abc import Mapping, Sequence
from random import getrandbits
from types import TracebackType, UnionType
from typing import Any, Self, TypedDict, Unpack

import aiohttp

from ernie_async.errors import ConfigError, shorten
from ernie_async.net.call import Desk
from ernie_async.net.hooks import Hook
from ernie_async.net.limiter import Limiter
from ernie_async.net.stream import ChatStream
from ernie_async.net.transport import Transport
from ernie_async.sansio.address import (
    DEFAULT_BASE_URL,
    find_proxy,
    is_qianfan,
    read_base_url,
    read_proxy,
)
from ernie_async.sansio.auth import KEY_PAGE, ApiKey, MaskedStr, from_env
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.chat_request import Prompt, chat_body, chat_request, json_body
from ernie_async.sansio.read_buffer import ReadBuffer
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import ResumeMode, ResumePolicy, read_resume
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.sse import DEFAULT_MAX_EVENT_BYTES
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import OutputEstimate, estimate_prompt
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.models import AnyAnswer, ModelCard, ModelList
from ernie_async.types.request import ChatFields
from ernie_async.version import __version__

__all__ = ["DEFAULT_MODEL", "AsyncClient", "CallOptions", "ChatOptions", "ClientOptions"]

# The newest text model that is no preview, as of November 2026.
DEFAULT_MODEL = "ernie-5.1"

CHAT_PATH = "/chat/completions"
DEFAULT_TIMEOUTS = Timeouts()
DEFAULT_RETRY = RetryPolicy()
DEFAULT_RESUME = ResumePolicy()
DEFAULT_READ_BUFFER = ReadBuffer()
NO_LIMITS = Limits()


class CallOptions(TypedDict, total=False):
    """What every verb takes besides its own fields.

    Attributes:
        timeouts: Instead of the client's, for this call.
        extra_headers: Sent besides the client's own headers.
        extra_body: Fields of the body that have no name here; they win over those that have.
        request_id: Sent as `X-Request-Id`; without it one is made up.
    """

    timeouts: Timeouts
    extra_headers: Mapping[str, str]
    extra_body: Mapping[str, Any]
    request_id: str


class ChatOptions(ChatFields, CallOptions, total=False):
    """The keywords of `chat` and `stream`: every field of `ChatRequest`, and `CallOptions`."""


class ClientOptions(TypedDict, total=False):
    """What `AsyncClient.with_options` can change; see `AsyncClient`."""

    model: str
    timeouts: Timeouts
    retry: RetryPolicy
    resume: ResumeMode | ResumePolicy
    hooks: Sequence[Hook]


class AsyncClient:
    """A client of ERNIE on Qianfan V2, or of any server that speaks the same.

    Use it in `async with`, or call `aclose` at the end. One client serves a whole program: it keeps
    connections open between calls, one session for each event loop that uses it. It may be made
    outside any loop, used from several, pickled and copied; a copy opens connections of its own. A
    pickle holds the key if it was passed, and not if it came from the environment.

    Args:
        api_key: An API key (`bce-v3/ALTAK-...`); `None` to read `QIANFAN_API_KEY`. A server that is
            not Baidu's may need none.
        base_url: Where to send requests; `None` to read `QIANFAN_BASE_URL`, else Qianfan V2.
        model: For calls that name none; `None` to read `QIANFAN_MODEL`, else `ernie-5.1`.
        timeouts: How long calls may take.
        retry: How often, and how patiently, a failed call is tried again.
        resume: What to do when a stream breaks after its first chunk: `"server"`, `"continue"`,
            `"never"`, or a `ResumePolicy`.
        read_buffer: How much of a stream is read at once.
        limits: What may be asked of the service. A `Limiter` is shared with the other clients that
            were given it.
        hooks: Told of every call, retry and end.
        app_id: A V2 application id (`app-...`), sent as `appid`.
        session: Used instead of our own, and never closed. Its own timeouts do not apply.
        proxy: An HTTP proxy; `None` to read `https_proxy` and its relatives.
        ca_file: Certificates to trust instead of the system's, a PEM file.
        max_event_bytes: The largest event of a stream; a larger one is a `DecodeError`.

    Raises:
        ConfigError: Something is missing, or of the wrong kind.
    """

    def __init__(
        self,
        api_key: str | ApiKey | None = None,
        *,
        base_url: str | None = None,
        model: str | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retry: RetryPolicy = DEFAULT_RETRY,
        resume: ResumeMode | ResumePolicy = DEFAULT_RESUME,
        read_buffer: ReadBuffer = DEFAULT_READ_BUFFER,
        limits: Limits | Limiter = NO_LIMITS,
        hooks: Sequence[Hook] = (),
        app_id: str | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> None:
        if isinstance(api_key, str):
            api_key = ApiKey(api_key)
        _check_kind("timeouts", timeouts, Timeouts)
        _check_kind("retry", retry, RetryPolicy)
        _check_kind("read_buffer", read_buffer, ReadBuffer)
        _check_kind("limits", limits, Limits | Limiter)
        # What a pickle or a copy is made of. A session cannot travel, so it is not among them.
        self._settings: dict[str, Any] = {
            "api_key": api_key,
            "base_url": base_url,
            "model": model,
            "timeouts": timeouts,
            "retry": retry,
            "resume": resume,
            "read_buffer": read_buffer,
            "limits": limits,
            "hooks": tuple(hooks),
            "app_id": app_id,
            "proxy": proxy,
            "ca_file": ca_file,
            "max_event_bytes": max_event_bytes,
        }
        # Masked, since a tool that prints the locals of a traceback would print the whole of it.
        environ = {name: MaskedStr(value) for name, value in os.environ.items()}
        url = read_base_url(base_url or os.environ.get("QIANFAN_BASE_URL") or DEFAULT_BASE_URL)
        key = api_key or from_env(environ)
        if key is None and is_qianfan(url):
            raise ConfigError(
                "no API key: pass api_key or set QIANFAN_API_KEY (bce-v3/ALTAK-...); "
                f"keys are made at {KEY_PAGE}"
            )
        self._model = model or os.environ.get("QIANFAN_MODEL") or DEFAULT_MODEL
        headers = {"User-Agent": f"ernie-async/{__version__}"}
        if app_id is not None:
            headers |= _checked_headers({"appid": app_id}, "app_id")
        self._desk = Desk(
            transport=Transport(
                url,
                headers=headers,
                session=session,
                proxy=find_proxy(url, environ) if proxy is None else read_proxy(proxy),
                ca_file=ca_file,
            ),
            key=key,
            limiter=_limiter(limits),
            retry=retry,
            resume=read_resume(resume),
            read_buffer=read_buffer,
            timeouts=timeouts,
            hooks=tuple(hooks),
            output=OutputEstimate(),
            max_event_bytes=max_event_bytes,
        )

    async def chat(self, messages: Prompt, **options: Unpack[ChatOptions]) -> ChatCompletion:
        """Ask, and wait for the whole answer.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            **options: See `ChatOptions`.

        Raises:
            ConfigError: The request cannot be right; nothing was sent.
            ErnieError: See the tree in `errors`.
        """
        desk, request = self._chat_request(messages, options, is_stream=False)
        return await desk.answer(request, ChatCompletion)

    def stream(self, messages: Prompt, **options: Unpack[ChatOptions]) -> ChatStream:
        """Ask, and read the answer while it is being written. Not awaited.

        Args:
            messages: Text, a conversation, or a `ChatRequest`.
            **options: See `ChatOptions`.

        Raises:
            ConfigError: The request cannot be right; nothing was sent.
        """
        return ChatStream(*self._chat_request(messages, options, is_stream=True))

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
        desk, request = self._request(method, path, body, options)
        return (await desk.answer(request, AnyAnswer)).model_extra or {}

    async def list_models(self, **options: Unpack[CallOptions]) -> list[ModelCard]:
        """List the models that this key may use.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        desk, request = self._request("GET", "/models", None, options)
        return (await desk.answer(request, ModelList)).data

    def with_options(self, **changes: Unpack[ClientOptions]) -> "AsyncClient":
        """A client with other settings that shares this one's connections and limiter.

        Closing either closes the connections of both.
        """
        if unknown := changes.keys() - ClientOptions.__annotations__.keys():
            raise ConfigError(
                f"with_options: {', '.join(sorted(unknown))}: expected some of "
                f"{', '.join(ClientOptions.__annotations__)}"
            )
        _check_kind("timeouts", changes.get("timeouts", self._desk.timeouts), Timeouts)
        _check_kind("retry", changes.get("retry", self._desk.retry), RetryPolicy)
        other = object.__new__(AsyncClient)
        other._settings = self._settings | changes
        other._model = changes.get("model", self._model)
        other._desk = self._desk._replace(
            timeouts=changes.get("timeouts", self._desk.timeouts),
            retry=changes.get("retry", self._desk.retry),
            resume=read_resume(changes.get("resume", self._desk.resume)),
            hooks=tuple(changes.get("hooks", self._desk.hooks)),
        )
        return other

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at its end."""
        return self._desk.transport.base_url

    @property
    def limiter(self) -> Limiter | None:
        """What stands in front of every request; `None` if nothing is limited."""
        return self._desk.limiter

    async def aclose(self) -> None:
        """Close the connections of the running loop. A closed client makes no more calls."""
        await self._desk.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if not hasattr(self, "_desk"):  # shown by a traceback of its own construction
            return "AsyncClient(unfinished)"
        return f"AsyncClient({self._desk.key!r}, base_url={self.base_url!r}, model={self._model!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        settings = dict(self._settings)
        return _make_client, (settings,)

    def _chat_request(
        self, messages: Prompt, options: ChatOptions, *, is_stream: bool
    ) -> tuple[Desk, Request]:
        fields = {name: value for name, value in options.items() if name not in CALL_OPTIONS}
        request = chat_request(messages, fields)
        model = request.model or self._model
        added: dict[str, Any] = {"model": model}
        if is_stream:
            added["stream"] = True
        elif request.stream_options is not None:
            raise ConfigError(
                "stream_options: only for client.stream(...), not for client.chat(...)"
            )
        body = chat_body(request, {**added, **options.get("extra_body", {})})
        limiter = self._desk.limiter
        is_counted = limiter is not None and limiter.counts_tokens
        return self._request(
            "POST",
            CHAT_PATH,
            body,
            options,
            model=model,
            is_stream=is_stream,
            n=request.n or 1,
            messages=request.messages,
            prompt_tokens=estimate_prompt(request.messages) if is_counted else 0,
            answer_tokens=self._desk.output.tokens(request) if is_counted else 0,
        )

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        options: CallOptions,
        **known: Any,
    ) -> tuple[Desk, Request]:
        headers = options.get("extra_headers")
        request_id = options.get("request_id")
        if request_id is not None:
            _checked_headers({"request_id": request_id}, "request_id")
        request = Request(
            method=method,
            path=path,
            body=body,
            headers=_checked_headers(headers, "extra_headers") if headers else {},
            request_id=request_id or f"ea-{getrandbits(64):016x}",
            **known,
        )
        timeouts = options.get("timeouts")
        if timeouts is not None:
            _check_kind("timeouts", timeouts, Timeouts)
        desk = self._desk if timeouts is None else self._desk._replace(timeouts=timeouts)
        return desk, request


CALL_OPTIONS = frozenset(CallOptions.__annotations__)


def _check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """Refuse a number where a policy is expected, before it fails far from here."""
    if not isinstance(value, kind):
        expected = getattr(kind, "__name__", "Limits or a Limiter")
        raise ConfigError(f"{name}: expected {expected}, got {shorten(value)}")


def _make_client(settings: dict[str, Any]) -> AsyncClient:
    return AsyncClient(settings.pop("api_key"), **settings)


def _limiter(limits: Limits | Limiter) -> Limiter | None:
    if isinstance(limits, Limiter):
        return limits
    return None if limits.is_unlimited else Limiter(limits)


def _checked_headers(headers: Mapping[str, str], source: str) -> dict[str, str]:
    for name, value in headers.items():
        if not all(
            isinstance(text, str) and text.isascii() and text.isprintable()
            for text in (name, value)
        ):
            raise ConfigError(
                f"{source}: {shorten(name)}: expected printable ASCII, got {shorten(value)}"
            )
        if name.lower() == "authorization":
            raise ConfigError(f"{source}: give the credential as api_key, not as a header")
    return dict(headers)
