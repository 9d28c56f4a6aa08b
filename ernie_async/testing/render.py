"""Steps as bytes, in the shapes Qianfan V2 was recorded with.

Pure: ids and the date come in as arguments. Knows no connection; `play` decides when each piece
is sent.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ernie_async.sansio.sse import encode_event
from ernie_async.testing.script import SAMPLE_TEXT, Cut, Heartbeats, Refuse, Reply, Stall, Telling

CODES = {
    400: "invalid_argument",
    401: "invalid_iam_token",
    403: "access_denied",
    404: "invalid_model",
    405: "method_not_supported",
    429: "rpm_rate_limit_exceeded",
}
"""The usual code of a status; other 4xx are taken for 400, and 5xx for internal_error."""

# Characters of a prompt: at a typing pace, nobody waits for more.
ECHOED = 200

MESSAGES = {
    "account_overdue": "Access denied due to overdue account",
    "cluster_rate_limit_exceeded": "request limit by resouce cluster reached",  # spelled so there
    "internal_error": "Internal error",
    "invalid_model": "The model does not exist or you do not have access to it.",
    "malformed_json": "Invalid Argument",
    "method_not_supported": "Only POST requests are accepted",
    "model_offline": "The model is offline",
    "rpm_rate_limit_exceeded": "Rate limit reached for RPM",
    "system_unsafe": "the content of system field is invalid",
    "tokens_too_long": "Prompt tokens too long",
    "tpm_rate_limit_exceeded": "Rate limit reached for TPM",
    "user_rate_limit_exceeded": "qps request limit by APP ID reached",
}
"""Recorded or documented; a code without one is its own message, as invalid_iam_token is."""


def to_json(value: Any) -> bytes:
    """JSON as the service writes it: no spaces, Chinese as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def error_body(status: int, code: str | None, message: str | None, *, body_id: str) -> bytes:
    """The error envelope; None stands for the usual code and message."""
    code = code or CODES.get(status, "internal_error" if status >= 500 else CODES[400])
    if code.endswith("_unsafe"):
        kind = "unsafe_request"
    elif code.endswith("internal_error"):
        kind = "Internal_error"
    elif "rate_limit" in code:
        kind = "rate_limit_exceeded"
    else:
        kinds = {403: "access_denied", 429: "rate_limit_exceeded"}
        kind = kinds.get(status, "Internal_error" if status >= 500 else "invalid_request_error")
    text = MESSAGES.get(code, code) if message is None else message
    return to_json({"error": {"code": code, "message": text, "type": kind}, "id": body_id})


def refusal_body(step: Refuse, *, body_id: str) -> bytes:
    """What a `refuse` step says."""
    if step.body is None:
        return error_body(step.status, step.code, step.message, body_id=body_id)
    return step.body.encode() if isinstance(step.body, str) else step.body


def told_reply(step: Telling) -> Reply:
    """The whole answer that a step tells, or tells a part of."""
    if isinstance(step, Reply):
        return step
    return step.of or Reply(step.text)


def split_events(step: Telling, events: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What is sent before the step does its own thing, and what would have come after."""
    if isinstance(step, Reply):
        return list(events), []
    if isinstance(step, Cut) and step.after_bytes is not None:
        return list(first_bytes(events, step.after_bytes)), []
    n = len(events) // 2 if step.after_chunks is None else step.after_chunks
    return list(events[:n]), list(events[n:])


def split_body(step: Cut | Stall | Heartbeats, body: bytes) -> tuple[list[bytes], list[bytes]]:
    """The same for a JSON answer."""
    if isinstance(step, Heartbeats):
        return [], [body]
    if isinstance(step, Cut) and step.after_bytes is not None:
        return [body[: step.after_bytes]], []
    return [body[: 0 if step.after_chunks == 0 else len(body) // 2]], []


def first_bytes(pieces: Sequence[bytes], n_bytes: int) -> Iterator[bytes]:
    """The first `n_bytes` of all pieces together, in the pieces they came in."""
    for piece in pieces:
        if n_bytes <= 0:
            return
        yield piece[:n_bytes]
        n_bytes -= len(piece)


def heartbeat(step: Heartbeats, *, is_stream: bool) -> bytes:
    """One sign of life: a comment, or white space, which JSON allows before it."""
    return f": {step.comment}\n\n".encode() if is_stream else b"\n"


def completion(
    reply: Reply, request: Mapping[str, Any], *, body_id: str, created: int
) -> dict[str, Any]:
    """The JSON answer to `request`, its parsed body; `created` in Unix seconds."""
    message: dict[str, Any] = {"role": "assistant", "content": reply_text(reply)}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = whole_tool_calls(reply)
    return {
        "id": body_id,
        "object": "chat.completion",
        "created": created,
        "model": request["model"],
        "choices": [{"index": 0, "message": message} | ending(reply)],
        "usage": count_usage(reply, request),
    } | search_results(reply)


def events(reply: Reply, request: Mapping[str, Any], *, body_id: str, created: int) -> list[bytes]:
    """The SSE events of the answer to `request`; `created` in Unix seconds."""
    deltas = [*reply_deltas(reply), {"content": ""}]
    deltas[0]["role"] = "assistant"
    choices = [{"index": 0, "delta": delta, "flag": 0} for delta in deltas]
    choices[-1].update(ending(reply))
    head = {
        "id": body_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": request["model"],
    }
    chunks: list[dict[str, Any]] = [head | {"choices": [choice]} for choice in choices]
    chunks[0].update(search_results(reply))
    if (request.get("stream_options") or {}).get("include_usage"):
        chunks[-1]["usage"] = count_usage(reply, request)
    bodies = [to_json(chunk) for chunk in chunks]
    sent = [
        encode_event(body, event_id=str(number) if reply.ids else "")
        for number, body in enumerate(bodies, 1)
    ]
    return [*sent, encode_event(b"[DONE]")] if reply.done else sent


def ending(reply: Reply) -> dict[str, Any]:
    """What a choice says once it is over."""
    last: dict[str, Any] = {}
    if reply.finish_reason is not None:
        by_tools = reply.tool_calls and reply.finish_reason == "stop"
        last["finish_reason"] = "tool_calls" if by_tools else reply.finish_reason
    last["flag"] = reply.flag
    return last | ({"ban_round": -1} if reply.flag else {})


def search_results(reply: Reply) -> dict[str, Any]:
    """The field, if the reply has it."""
    return {} if reply.search_results is None else {"search_results": reply.search_results}


def reply_text(reply: Reply) -> str:
    """The answer's text."""
    if reply.text is not None:
        return reply.text
    return "" if reply.tool_calls else SAMPLE_TEXT


def whole_tool_calls(reply: Reply) -> list[dict[str, Any]]:
    """The reply's calls with nothing left out."""
    calls = []
    for index, call in enumerate(reply.tool_calls):
        arguments = call["function"].get("arguments", "")
        if not isinstance(arguments, str):
            arguments = to_json(arguments).decode()
        function = {"name": call["function"]["name"], "arguments": arguments}
        calls.append({"id": f"call_{index}", "type": "function", **call, "function": function})
    return calls


def reply_deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    """The deltas of all chunks but the last: thinking, text, then tool calls."""
    for part in chunked(reply.reasoning or "", reply.chunk_chars):
        yield {"content": None, "reasoning_content": part}
    for part in chunked(reply_text(reply), reply.chunk_chars):
        yield {"content": part}
    for index, call in enumerate(whole_tool_calls(reply)):
        function = call["function"]
        opening = {"index": index, **call, "function": {**function, "arguments": ""}}
        yield {"content": "", "tool_calls": [opening]}
        for part in chunked(function["arguments"], reply.chunk_chars):
            yield {"content": "", "tool_calls": [{"index": index, "function": {"arguments": part}}]}


def chunked(text: str, n_chars: int) -> Iterator[str]:
    """The text in pieces of `n_chars`."""
    return (text[start : start + n_chars] for start in range(0, len(text), n_chars))


def count_usage(reply: Reply, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The reply's usage, or a rough one: a token for each character."""
    if reply.usage is not None:
        return reply.usage
    prompt = sum(len(message_text(message)) for message in request["messages"])
    thought = len(reply.reasoning or "")
    spoken = len(reply_text(reply))
    called = sum(len(call["function"]["arguments"]) for call in whole_tool_calls(reply))
    completion_tokens = thought + spoken + called
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
    }
    if thought:
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message of a request, without images and videos."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def canned_reply(request: Mapping[str, Any], *, chunk_ms: float) -> Reply:
    """What the mock says when nobody told it what to say."""
    asked = [message_text(m) for m in request["messages"] if m.get("role") == "user"]
    said = asked[-1] if asked else ""
    part = f" (the first {ECHOED} of {len(said)} characters)" if len(said) > ECHOED else ""
    return Reply(
        "这是模拟服务器的固定回答，没有模型参与。 This is a canned answer from a mock server; "
        f"no model was asked. 你说的是 You said{part}: {said[:ECHOED]}",
        chunk_ms=chunk_ms,
    )
