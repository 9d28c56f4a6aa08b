"""How a verb asks: its options become a `Request`, and the clocks that it shall obey.

What every verb has in common, and the body of a chat.
"""

from collections.abc import Mapping
from random import getrandbits
from typing import Any

from ernie_async.errors import ConfigError
from ernie_async.net.call import Desk
from ernie_async.sansio.chat_request import Prompt, chat_body, chat_request, json_body
from ernie_async.sansio.rest import Body, Request
from ernie_async.sansio.timeouts import Timeouts
from ernie_async.sansio.tokens import estimate_prompt, is_countable
from ernie_async.settings import CALL_OPTIONS, CallOptions, ChatOptions, check_headers, check_kind
from ernie_async.types.completion import ChatCompletion

__all__ = ["answer_chat", "ask", "ask_chat", "post", "split_options"]

CHAT_PATH = "/chat/completions"


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
    given = options.get("extra_headers")
    request_id = options.get("request_id")
    if request_id is not None:
        check_headers({"request_id": request_id}, "request_id")
    request = Request(
        method=method,
        path=path,
        body=body,
        headers={**(check_headers(given, "extra_headers") if given else {}), **(headers or {})},
        request_id=request_id or f"ea-{getrandbits(64):016x}",
        **known,
    )
    timeouts = options.get("timeouts")
    if timeouts is not None:
        check_kind("timeouts", timeouts, Timeouts)
    return desk if timeouts is None else desk._replace(timeouts=timeouts), request


def post(
    desk: Desk, path: str, fields: Mapping[str, Any], options: CallOptions, **known: Any
) -> tuple[Desk, Request]:
    """The request that posts these fields as JSON, `extra_body` on top.

    Raises:
        ConfigError: An option is of the wrong kind, or a field cannot be written as JSON.
    """
    content = {**fields, **options.get("extra_body", {})}
    return ask(desk, "POST", path, json_body(content), options, model=content.get("model"), **known)


def split_options(given: Mapping[str, Any], kind: type) -> tuple[dict[str, Any], CallOptions]:
    """The keywords of a verb: those of its capability, and those of the call.

    Args:
        given: What the caller wrote.
        kind: The `TypedDict` of the verb.

    Raises:
        ConfigError: There is one that this verb does not have.
    """
    own = kind.__annotations__.keys() - CALL_OPTIONS
    call: Any = {}
    fields = {}
    for name, value in given.items():
        if name in CALL_OPTIONS:
            call[name] = value
        elif name in own:
            fields[name] = value
        else:
            from difflib import get_close_matches  # noqa: PLC0415 - only a typing error needs it

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
    fields = {name: value for name, value in options.items() if name not in CALL_OPTIONS}
    request = chat_request(messages, fields)
    content_filter = desk.content_filter
    if content_filter is not None and "prompt" in content_filter.channels:
        from ernie_async.net.screening import filter_prompt  # noqa: PLC0415 - few need it

        request = filter_prompt(content_filter, request, desk.hooks)
    model = request.model or model or options.get("extra_body", {}).get("model")
    if model is None:
        raise ConfigError(f"model: name the one that {desk.server.name} serves")
    added: dict[str, Any] = {"model": model}
    if is_stream:
        added["stream"] = True
    elif request.stream_options is not None:
        raise ConfigError("stream_options: only for client.stream(...), not for client.chat(...)")
    body = chat_body(request, {**added, **options.get("extra_body", {})}, desk.server)
    is_counted = desk.limiter is not None and desk.limiter.counts_tokens
    correction = desk.ledger.correction
    is_comparable = is_countable(request)
    is_estimated = is_counted or (is_comparable and correction.wants(model))
    estimate = estimate_prompt(request.messages) if is_estimated else 0
    return ask(
        desk,
        "POST",
        CHAT_PATH,
        body,
        options,
        model=model,
        is_stream=is_stream,
        n=request.n or 1,
        messages=request.messages,
        prompt_tokens=correction.corrected(model, estimate) if is_counted else 0,
        answer_tokens=desk.output.tokens(request) if is_counted else 0,
        estimate=estimate if is_comparable else 0,
    )


async def answer_chat(desk: Desk, request: Request) -> ChatCompletion:
    """Make a chat whose answer comes in one piece, and filter it.

    Raises:
        BlockedError: The content filter forbids to send the prompt, or to show the answer.
        ErnieError: See the tree in `errors`.
    """
    content_filter, hooks = desk.content_filter, desk.hooks
    if content_filter is None:
        return await desk.answer(request, ChatCompletion)
    from ernie_async.net.screening import judge_prompt, screen_completion  # noqa: PLC0415

    await judge_prompt(content_filter, request.messages, hooks)
    answer = await desk.answer(request, ChatCompletion)
    return await screen_completion(content_filter, answer, hooks)
