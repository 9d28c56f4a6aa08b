"""How a verb asks: its options become a `Request`, and the clocks that it shall obey.

What every verb has in common, and the body of a chat.
"""

from collections.abc import Coroutine, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import randbytes
from typing import Any, Literal

from ernie_async.errors import ConfigError, shorten
from ernie_async.net.answer import get_answer
from ernie_async.net.desk import Desk
from ernie_async.sansio.chat_request import Prompt, chat_body, chat_request, json_body
from ernie_async.sansio.rest import Body, Request
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import estimate_prompt, is_countable
from ernie_async.settings import (
    CALL_OPTIONS,
    CHAT_CALL_OPTIONS,
    CallOptions,
    ChatOptions,
    FallbackModel,
    check_headers,
    check_kind,
    read_fallback,
)
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.request import ChatRequest

__all__ = ["answer_chat", "ask", "ask_chat", "post", "split_options"]

CHAT_PATH = "/chat/completions"

NOTHING: Mapping[str, Any] = {}


def ask(
    desk: Desk,
    method: str,
    path: str,
    body: Body | None,
    options: CallOptions,
    *,
    headers: Mapping[str, str] | None = None,
    **known: Any,
) -> tuple[Desk, Request]:
    """The request, and the desk that is to make it.

    Args:
        desk: The client's.
        method: The HTTP method.
        path: Below the base URL, or a whole address.
        body: What to send; `extra_body` is in it already.
        options: The caller's. Others than `CallOptions` are left alone.
        headers: The verb's own.
        **known: Further fields of `Request`.

    Raises:
        ConfigError: An option is of the wrong kind.
    """
    given, request_id, priority, max_wait = _read_options(options)
    request = Request(
        method=method,
        path=path,
        body=body,
        headers={**given, **(headers or {})},
        request_id=request_id,
        priority=priority,
        max_wait=max_wait,
        **known,
    )
    return _with_clocks(desk, options), request


def _read_options(
    options: CallOptions,
) -> tuple[Mapping[str, str], str, Literal["interactive", "batch"], float | None]:
    """The headers, id, priority and patience of a call."""
    new_id = "ea-" + randbytes(8).hex()
    if not options:
        return NOTHING, new_id, "interactive", None
    given = options.get("extra_headers")
    request_id = options.get("request_id")
    if request_id is not None:
        check_headers({"request_id": request_id}, "request_id")
    priority, max_wait = options.get("priority", "interactive"), options.get("max_wait")
    if priority not in {"interactive", "batch"}:
        raise ConfigError(f"priority: expected 'interactive' or 'batch', got {shorten(priority)}")
    if max_wait is not None and not (isinstance(max_wait, int | float) and max_wait >= 0):
        raise ConfigError(f"max_wait: expected seconds, or None, got {shorten(max_wait)}")
    headers = check_headers(given, "extra_headers") if given else {}
    # What the body is says who writes it; a header would win over that.
    headers = {name: headers[name] for name in headers if name.lower() != "content-type"}
    return headers, request_id or new_id, priority, max_wait


def _with_clocks(desk: Desk, options: CallOptions) -> Desk:
    """The desk with the clocks of a call, if it has its own."""
    timeouts = options.get("timeouts")
    if timeouts is None:
        return desk
    check_kind("timeouts", timeouts, Timeouts)
    return replace(desk, timeouts=timeouts)


def post(
    desk: Desk, path: str, fields: Mapping[str, Any], options: CallOptions, **known: Any
) -> tuple[Desk, Request]:
    """The request that posts these fields as JSON, `extra_body` on top.

    Raises:
        ConfigError: An option is of the wrong kind, or a field cannot be written as JSON.
    """
    content = {**fields, **options.get("extra_body", {})}
    known |= {"model": content.get("model"), "user": content.get("user")}
    return ask(desk, "POST", path, json_body(content), options, **known)


def split_options(given: Mapping[str, Any], kind: type) -> tuple[dict[str, Any], CallOptions]:
    """The keywords of a verb: those of its capability, and those of the call.

    Args:
        given: What the caller wrote.
        kind: The `TypedDict` of the verb.

    Raises:
        ConfigError: There is one that this verb does not have.
    """
    known = kind.__annotations__.keys()
    own = known - CHAT_CALL_OPTIONS
    call: Any = {}
    fields = {}
    for name, value in given.items():
        if name in CALL_OPTIONS or (name in CHAT_CALL_OPTIONS and name in known):
            call[name] = value
        elif name in own:
            fields[name] = value
        else:
            from difflib import get_close_matches  # only a typing error needs it

            close = get_close_matches(name, own, n=1)
            meant = f"did you mean {close[0]}? Otherwise" if close else "to send it anyway,"
            raise ConfigError(f"{name}: no such option; {meant} pass extra_body={{{name!r}: ...}}")
    return fields, call


def ask_chat(
    desk: Desk, messages: Prompt, options: ChatOptions, *, model: str | None, is_stream: bool
) -> tuple[Desk, Request]:
    """The request of a chat, streamed or not.

    Args:
        desk: The client's.
        messages: What to say.
        options: The caller's.
        model: If none is named in the options or the messages; `None` if one has to be.
        is_stream: Whether the answer is to be streamed.

    Raises:
        ConfigError: The request cannot be right.
        BlockedError: The content filter forbids to send it.
    """
    fields = {name: value for name, value in options.items() if name not in CHAT_CALL_OPTIONS}
    request = chat_request(messages, fields)
    content_filter = desk.content_filter
    if content_filter is not None and "prompt" in content_filter.channels:
        from ernie_async.net.screening import filter_prompt  # few need it

        request = filter_prompt(content_filter, request, desk.hooks)
    extra = options.get("extra_body", NOTHING)
    model = request.model or model or extra.get("model")
    if model is None:
        raise ConfigError(f"model: name the one that {desk.server.name} serves")
    added: dict[str, Any] = {"model": model}
    if is_stream:
        added["stream"] = True
    elif request.stream_options is not None:
        raise ConfigError("stream_options: only for client.stream(...), not for client.chat(...)")
    body = chat_body(request, {**added, **extra}, desk.server)
    limiter = desk.limiter
    correction = desk.ledger.correction
    is_counted = limiter is not None and limiter.counts_tokens
    estimate = estimate_prompt(request.messages) if is_counted or correction.wants(model) else 0
    models = options.get("fallback", desk.fallback)
    is_shared = options.get("coalesce", desk.is_coalescing)
    headers, request_id, priority, max_wait = _read_options(options)
    # In the order of the fields, since their names would take 1 % of a call.
    asked = Request(
        "POST",
        CHAT_PATH,
        body,
        headers,
        request_id,
        model,
        is_stream,
        request.n or 1,
        request.messages,
        correction.corrected(model, estimate) if is_counted else 0,
        desk.output.tokens(request) if is_counted else 0,
        estimate if estimate and is_countable(request) else 0,
        priority,
        max_wait,
        request.user,
        _ways(desk, request, options, models, is_stream=is_stream) if models else (),
        _what_is_shared(desk, body, options, models) if is_shared else None,
    )
    return (_with_clocks(desk, options) if options else desk), asked


def answer_chat(desk: Desk, request: Request) -> Coroutine[Any, Any, ChatCompletion]:
    """Make a chat whose answer comes in one piece, or wait for one that is the same; filter it.

    Raises:
        BlockedError: The content filter forbids to send the prompt, or to show the answer.
        ErnieError: See the tree in `errors`.
    """
    return _answer(desk, request) if desk.content_filter is None else _screened(desk, request)


async def _screened(desk: Desk, request: Request) -> ChatCompletion:
    from ernie_async.net.screening import judge_prompt, screen_completion  # few need it

    content_filter, hooks = desk.content_filter, desk.hooks
    assert content_filter is not None
    await judge_prompt(content_filter, request.messages, hooks)
    return await screen_completion(content_filter, await _answer(desk, request), hooks)


def _answer(desk: Desk, request: Request) -> Coroutine[Any, Any, ChatCompletion]:
    if request.shared_as is None:
        return get_answer(desk, request, ChatCompletion)
    from ernie_async.net.flights import share  # most calls are not shared

    return share(desk, request, lambda: get_answer(desk, request, ChatCompletion))


def _ways(
    desk: Desk,
    request: ChatRequest,
    options: ChatOptions,
    models: Sequence[FallbackModel],
    *,
    is_stream: bool,
) -> tuple[partial[tuple[Desk, Request]], ...]:
    """How to ask each of these models the same."""
    extra = {k: v for k, v in options.get("extra_body", {}).items() if k != "model"}
    same: Any = {name: value for name, value in options.items() if name in CALL_OPTIONS}
    same |= {"extra_body": extra, "fallback": (), "coalesce": False}
    ways = []
    for model in read_fallback(models):
        other, name = (desk, model) if isinstance(model, str) else (model[0]._desk, model[1])
        renamed = request.model_copy(update={"model": name})
        asked = _as_of(desk, other)
        ways.append(partial(ask_chat, asked, renamed, same, model=None, is_stream=is_stream))
    return tuple(ways)


def _as_of(desk: Desk, other: Desk) -> Desk:
    """Another client's desk for a call of this one: its way to the model, but our patience."""
    if other is desk:
        return desk
    return replace(
        other,
        timeouts=desk.timeouts,
        hooks=desk.hooks,
        roster=desk.roster,
        resume=replace(desk.resume, continuation=other.resume.continuation),
    )


def _what_is_shared(
    desk: Desk, body: bytes, options: ChatOptions, models: Sequence[FallbackModel]
) -> Hashable:
    """What two calls must have in common to be one: what is sent, and how failures are met."""
    from ernie_async.sansio.single_flight import fingerprint  # most do not share

    asked = fingerprint(body, options.get("extra_headers", {}))
    patience = (
        options.get("timeouts", desk.timeouts),
        options.get("priority", "interactive"),
        options.get("max_wait"),
    )
    return asked, patience, desk.retry, desk.resume, desk.content_filter, tuple(models)
