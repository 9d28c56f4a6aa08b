"""What a client is made of: the options of its verbs, its defaults, and its settings, checked.

Knows the environment as a mapping that it is handed. Opens nothing.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, get_args

import aiohttp

from ernie_async.errors import ConfigError, shorten
from ernie_async.net.admission import AnyLimiter, Priority
from ernie_async.net.desk import Desk
from ernie_async.net.hooks import Hook
from ernie_async.net.key_pool import KeyPool, PoolTokens
from ernie_async.net.limiter import Limiter
from ernie_async.net.roster import Roster
from ernie_async.net.transport import Transport
from ernie_async.sansio.address import (
    find_proxy,
    is_qianfan,
    read_base_url,
    read_proxy,
)
from ernie_async.sansio.auth import KEY_PAGE, ApiKey, IamKeys, MaskedStr, from_env
from ernie_async.sansio.breaker import Breaker, BreakerPolicy
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.hedging import Hedging
from ernie_async.sansio.ledger import Ledger
from ernie_async.sansio.read_buffer import ReadBuffer
from ernie_async.sansio.resume import ResumeMode, ResumePolicy, read_resume
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.retry_budget import RetryBudget
from ernie_async.sansio.servers import Server, ServerName, read_server
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import OutputEstimate
from ernie_async.types.prices import Prices, standard_prices
from ernie_async.types.request import ChatFields
from ernie_async.version import __version__

if TYPE_CHECKING:
    from ernie_async.net.credentials import IamTokens
    from ernie_async.net.hedging import Hedger

__all__ = [
    "CALL_OPTIONS",
    "CHAT_CALL_OPTIONS",
    "DEFAULT_BREAKER",
    "DEFAULT_READ_BUFFER",
    "DEFAULT_RESUME",
    "DEFAULT_RETRY",
    "DEFAULT_TIMEOUTS",
    "NO_LIMITS",
    "CallOptions",
    "ChatOptions",
    "ClientOptions",
    "ClientSettings",
    "FallbackModel",
    "HasDesk",
    "changed_desk",
    "check_headers",
    "check_kind",
    "choose_model",
    "make_desk",
    "read_fallback",
    "read_hooks",
    "refuse_unknown",
]

DEFAULT_TIMEOUTS = Timeouts()
DEFAULT_RETRY = RetryPolicy()
DEFAULT_BREAKER = BreakerPolicy()
DEFAULT_RESUME = ResumePolicy()
DEFAULT_READ_BUFFER = ReadBuffer()
NO_LIMITS = Limits()

# Names that people bring from elsewhere, and those of other places here.
ELSEWHERE = {
    "timeout": "pass timeouts=Timeouts(...), such as Timeouts(total=30)",
    "max_retries": "pass retry=RetryPolicy(attempts=...), the first one counted",
    "http_client": "pass session=, an aiohttp.ClientSession",
    "default_headers": "pass extra_headers= with each call",
    "access_token": "V1 was shut down on 2026-08-31; pass a V2 API key as api_key=",
    **dict.fromkeys(("ak", "sk", "access_key", "secret_key"), "pass api_key=IamKeys(...)"),
}


class CallOptions(TypedDict, total=False):
    """What every verb takes besides its own fields.

    Attributes:
        timeouts: Instead of the client's, for this call.
        extra_headers: Sent besides the client's own headers.
        extra_body: Fields of the body that have no name here; they win over those that have.
        request_id: Sent as `X-Request-Id`; without it one is made up.
        priority: In the line of the limiter. `"batch"` lets those that are `"interactive"`, as all
            are without it, go before it.
        max_wait: Seconds in that line, each time, after which it is not worth it any more; `None`,
            as without it, for no end but that of `Timeouts.total`.
    """

    timeouts: Timeouts
    extra_headers: Mapping[str, str]
    extra_body: Mapping[str, Any]
    request_id: str
    priority: Priority
    max_wait: float | None


class HasDesk(Protocol):
    """A client, as far as another one has to know it to ask its models."""

    @property
    def _desk(self) -> Desk: ...


FallbackModel = str | tuple[HasDesk, str]
"""A model to ask instead: of the same client, or of another one."""


class ChatOptions(ChatFields, CallOptions, total=False):
    """The keywords of `chat` and `stream`: every field of `ChatRequest`, and `CallOptions`.

    Attributes:
        fallback: Instead of the client's, for this call.
        coalesce: Likewise.
    """

    fallback: Sequence[FallbackModel]
    coalesce: bool


class ClientOptions(TypedDict, total=False):
    """What `AsyncClient.with_options` can change; see `AsyncClient`."""

    model: str
    timeouts: Timeouts
    retry: RetryPolicy
    resume: ResumeMode | ResumePolicy
    fallback: Sequence[FallbackModel]
    hedge: Hedging | None
    coalesce: bool
    hooks: Sequence[Hook]
    content_filter: ContentFilter | None


class ClientSettings(TypedDict):
    """What `AsyncClient` was given, except a session: what a pickle or a copy of it is made of."""

    api_key: ApiKey | IamKeys | KeyPool | None
    server: ServerName | Server
    base_url: str | None
    model: str | None
    timeouts: Timeouts
    retry: RetryPolicy
    breaker: BreakerPolicy | Breaker | None
    resume: ResumeMode | ResumePolicy
    fallback: Sequence[FallbackModel]
    hedge: Hedging | None
    coalesce: bool
    read_buffer: ReadBuffer
    limits: Limits | AnyLimiter
    hooks: Sequence[Hook]
    app_id: str | None
    prices: Prices | None
    proxy: str | None
    ca_file: str | os.PathLike[str] | None
    max_event_bytes: int
    content_filter: ContentFilter | None


CALL_OPTIONS = frozenset(CallOptions.__annotations__)

# What a chat takes that is no field of its request.
CHAT_CALL_OPTIONS = CALL_OPTIONS | {"fallback", "coalesce"}


def make_desk(
    given: ClientSettings, session: aiohttp.ClientSession | None, environ: Mapping[str, str]
) -> Desk:
    """What all calls of a new client share.

    Raises:
        ConfigError: Something is missing, or of the wrong kind.
    """
    check_kind("timeouts", given["timeouts"], Timeouts)
    check_kind("retry", given["retry"], RetryPolicy)
    check_kind("breaker", given["breaker"], BreakerPolicy | Breaker | None)
    check_kind("read_buffer", given["read_buffer"], ReadBuffer)
    if not isinstance(given["limits"], AnyLimiter):
        check_kind("limits", given["limits"], Limits | Limiter)
    check_kind("base_url", given["base_url"], str | None)
    check_kind("model", given["model"], str | None)
    server = read_server(given["server"])
    # What the environment says of Qianfan is not for other servers, its key least of all.
    is_default = server.name == "qianfan"
    url_of_environ = environ.get("QIANFAN_BASE_URL") if is_default else None
    url = read_base_url(given["base_url"] or url_of_environ or server.base_url)
    # Masked, since a tool that prints the locals of a traceback would print the whole of it.
    environ = {name: MaskedStr(value) for name, value in environ.items()}
    key = given["api_key"] or (from_env(environ) if is_default else _key_of(server, environ))
    check_kind("api_key", key, ApiKey | IamKeys | KeyPool | None)
    if key is None and is_qianfan(url):
        raise ConfigError(
            "no API key: pass api_key or set QIANFAN_API_KEY (bce-v3/ALTAK-...); "
            f"keys are made at {KEY_PAGE}"
        )
    agent = {"User-Agent": f"ernie-async/{__version__}"}
    headers = dict(agent)
    if given["app_id"] is not None:
        headers |= check_headers({"appid": given["app_id"]}, "app_id")
    proxy, prices = given["proxy"], given["prices"]
    check_kind("prices", prices, Prices | None)

    def way_to(url: str, headers: dict[str, str]) -> Transport:
        return Transport(
            url,
            headers=headers,
            session=session,
            proxy=find_proxy(url, environ) if proxy is None else read_proxy(proxy),
            ca_file=given["ca_file"],
        )

    def tokens_of(keys: IamKeys) -> "IamTokens":
        from ernie_async.net.credentials import IamTokens  # most have one key

        return IamTokens(keys, way_to(keys.iam_url, agent))

    pool = None
    if isinstance(key, KeyPool):
        pool, key = PoolTokens(key, {pair: tokens_of(pair) for pair in key.pairs()}), None
    return Desk(
        transport=way_to(url, headers),
        key=tokens_of(key) if isinstance(key, IamKeys) else key,
        pool=pool,
        limiter=_limiter(given["limits"]),
        account="" if key is None else key.account,
        retry=given["retry"],
        retry_budget=_budget(given["retry"]),
        breaker=_breaker(given["breaker"]),
        server=server,
        resume=_resume(given["resume"], server),
        read_buffer=given["read_buffer"],
        timeouts=given["timeouts"],
        hooks=tuple(given["hooks"]),
        output=OutputEstimate(),
        ledger=Ledger(standard_prices if prices is None else lambda: prices),
        max_event_bytes=given["max_event_bytes"],
        content_filter=_filter(given["content_filter"]),
        formless_models=set(),
        roster=Roster(),
        flights={},
        hedger=_hedger(given["hedge"]),
        fallback=read_fallback(given["fallback"]),
        is_coalescing=given["coalesce"],
    )


def changed_desk(desk: Desk, changes: ClientOptions) -> Desk:
    """The same with other settings.

    Raises:
        ConfigError: One is unknown, or of the wrong kind.
    """
    if unknown := changes.keys() - ClientOptions.__annotations__.keys():
        raise ConfigError(
            f"with_options: {', '.join(sorted(unknown))}: expected some of "
            f"{', '.join(ClientOptions.__annotations__)}"
        )
    check_kind("timeouts", changes.get("timeouts", desk.timeouts), Timeouts)
    check_kind("retry", changes.get("retry", desk.retry), RetryPolicy)
    retry = changes.get("retry", desk.retry)
    told, now_told = ((policy.budget_ratio, policy.budget_floor) for policy in (desk.retry, retry))
    return replace(
        desk,
        timeouts=changes.get("timeouts", desk.timeouts),
        retry=retry,
        retry_budget=desk.retry_budget if told == now_told else _budget(retry),
        resume=_resume(changes.get("resume", desk.resume), desk.server),
        hooks=read_hooks(changes.get("hooks", desk.hooks)),
        content_filter=_filter(changes.get("content_filter", desk.content_filter)),
        hedger=_hedger(changes["hedge"]) if "hedge" in changes else desk.hedger,
        fallback=read_fallback(changes.get("fallback", desk.fallback)),
        is_coalescing=changes.get("coalesce", desk.is_coalescing),
    )


def refuse_unknown(unknown: Iterable[str]) -> None:
    """Refuse what no client has.

    Raises:
        ConfigError: There is something; it says what is meant, most likely.
    """
    for name in unknown:
        if name in ELSEWHERE:
            raise ConfigError(f"{name}: no such setting; {ELSEWHERE[name]}")
        if name in ChatOptions.__annotations__:
            raise ConfigError(f"{name}: no such setting; give it to each call")
        from difflib import get_close_matches  # only a typing error needs it

        close = get_close_matches(name, ClientSettings.__annotations__, n=1)
        raise ConfigError(
            f"{name}: no such setting" + "".join(f"; did you mean {c}?" for c in close)
        )


def choose_model(given: ClientSettings, environ: Mapping[str, str]) -> str | None:
    """The model of calls that name none; `None` if they have to."""
    server = read_server(given["server"])
    of_environ = environ.get("QIANFAN_MODEL") if server.name == "qianfan" else None
    return given["model"] or of_environ or server.model


def _key_of(server: Server, environ: Mapping[str, str]) -> ApiKey | None:
    name = server.key_variable
    if name is None:
        return None
    value = environ.get(name, "")
    if not value.strip():
        raise ConfigError(f"no API key for {server.name}: pass api_key or set {name}")
    return ApiKey(value, source=name)


def _resume(resume: ResumeMode | ResumePolicy, server: Server) -> ResumePolicy:
    policy = read_resume(resume)
    if policy.continuation == "auto":
        policy = replace(policy, continuation=server.continuation)
    return policy


def _filter(content_filter: ContentFilter | None) -> ContentFilter | None:
    check_kind("content_filter", content_filter, ContentFilter | None)
    if content_filter is not None:
        content_filter.check_live()
    return content_filter


def read_fallback(fallback: Sequence[FallbackModel]) -> tuple[FallbackModel, ...]:
    """The models to ask instead, checked.

    Raises:
        ConfigError: One is neither a name nor a client and a name.
    """
    for model in (fallback,) if isinstance(fallback, str) else fallback:
        client, name = model if isinstance(model, tuple) and len(model) == 2 else (None, model)
        is_client = client is None or isinstance(getattr(client, "_desk", None), Desk)
        if isinstance(fallback, str) or not (is_client and isinstance(name, str) and name):
            raise ConfigError(
                "fallback: expected a list of models, each a name or (client, name), "
                f"got {shorten(model)}"
            )
    return tuple(fallback)


def _hedger(hedge: Hedging | None) -> "Hedger | None":
    if hedge is None:
        return None
    from ernie_async.net.hedging import Hedger  # most programs do not

    check_kind("hedge", hedge, Hedging)
    return Hedger(hedge)


def check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """Refuse a number where a policy is expected, before it fails far from here."""
    if not isinstance(value, kind):
        kinds: list[Any] = [part for part in get_args(kind) or (kind,) if part is not NoneType]
        expected = " or ".join(part.__name__ for part in kinds)
        raise ConfigError(f"{name}: expected {expected}, got {shorten(value)}")


def read_hooks(hooks: object) -> tuple[Hook, ...]:
    """The hooks as a value of their own; one alone, which is easily given, is refused."""
    if not isinstance(hooks, Iterable) or not all(map(callable, given := tuple(hooks))):
        raise ConfigError(f"hooks: expected a list of functions, got {shorten(hooks)}")
    return given


def _budget(policy: RetryPolicy) -> RetryBudget | None:
    if policy.budget_ratio is None:
        return None
    return RetryBudget(policy.budget_ratio, policy.budget_floor, monotonic())


def _breaker(breaker: BreakerPolicy | Breaker | None) -> Breaker | None:
    return Breaker(breaker) if isinstance(breaker, BreakerPolicy) else breaker


def _limiter(limits: Limits | AnyLimiter) -> AnyLimiter | None:
    if not isinstance(limits, Limits):
        return limits
    return None if limits.is_unlimited else Limiter(limits)


def check_headers(headers: Mapping[str, str], source: str) -> dict[str, str]:
    """The same headers, if they can be sent.

    Raises:
        ConfigError: One cannot, or is the credential.
    """
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
