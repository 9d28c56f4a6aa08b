"""Read what a client of a gateway asks for, and refuse what it may not.

What could send the request elsewhere (an address, a key, a proxy) is no field of a chat, and so it
is refused like any other unknown name.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from ernie_async.errors import ConfigError, shorten
from ernie_async.sansio.chat_request import chat_request
from ernie_async.sansio.media_hosts import check_media
from ernie_async.sansio.on_disconnect import read_policy
from ernie_async.types.request import ChatRequest
from ernie_async.types.wire import read_json

__all__ = ["Ask", "AskRules", "read_ask"]

# Sent by programs written for OpenAI; they ask nothing of a model.
IGNORED = {"store", "service_tier", "prompt_cache_key", "safety_identifier", "user_id"}

LENGTHS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRules:
    """What may be asked for.

    Attributes:
        models: These only; empty for any.
        max_tokens: The longest answer, in tokens; `None` for no limit.
        on_disconnect: The policies that a request may choose.
        media_hosts: Hosts inside the operator's network that pictures and videos may be on.
    """

    models: Collection[str] = ()
    max_tokens: int | None = None
    on_disconnect: Collection[str] = ("cancel", "linger")
    media_hosts: Collection[str] = ()


class Ask(NamedTuple):
    """A chat that somebody asks for.

    Attributes:
        request: The chat. It has a model, unless nobody named one.
        is_stream: Whether the answer is to be streamed.
        has_usage: Whether a streamed answer shall tell its usage.
        on_disconnect: The policy that was chosen; `None` for the usual one.
    """

    request: ChatRequest
    is_stream: bool
    has_usage: bool
    on_disconnect: str | None


def read_ask(
    told: bytes | dict[str, Any], rules: AskRules, *, model: str | None, is_stream: bool = False
) -> Ask:
    """Read a request.

    Args:
        told: JSON, or what was read from it.
        rules: What may be asked for.
        model: Of requests that name none.
        is_stream: Whether the answer is streamed even if the request does not say so.

    Raises:
        ConfigError: It is not JSON, or asks for something it may not.
    """
    if isinstance(told, bytes):
        try:
            told = read_json(told)
        except ValueError:
            raise ConfigError("expected a chat request as JSON") from None
    if not isinstance(told, dict):
        raise ConfigError("expected a chat request, which is an object")
    fields = {name: value for name, value in told.items() if name not in IGNORED}
    wants_stream = fields.pop("stream", None)
    if not isinstance(wants_stream, bool | None):
        raise ConfigError(f"stream: expected true or false, got {shorten(wants_stream)}")
    policy = fields.pop("on_disconnect", None)
    if policy is not None:
        read_policy(policy, allowed=rules.on_disconnect)
    messages = fields.pop("messages", None)
    if not isinstance(messages, list):
        raise ConfigError("messages: expected a list of messages")
    for name in sorted(fields.keys() - ChatRequest.model_fields.keys()):
        raise ConfigError(f"{name}: no such field")
    _limit(fields, rules, model)
    request = chat_request(messages, fields, has_hints=False)
    check_media(request.messages, rules.media_hosts)
    is_stream = is_stream or bool(wants_stream)
    if is_stream:
        _check_stream(request)
    options = request.stream_options
    return Ask(
        request=request,
        is_stream=is_stream,
        has_usage=bool(options and options.include_usage),
        on_disconnect=policy,
    )


def _check_stream(request: ChatRequest) -> None:
    """Refuse what the events of a stream cannot tell, rather than leave it out."""
    if (request.n or 1) > 1:
        raise ConfigError(f"n: expected 1 for a stream, got {request.n}")
    if request.logprobs or request.top_logprobs:
        raise ConfigError("logprobs: a stream does not tell them; ask without stream")


def _limit(fields: dict[str, Any], rules: AskRules, model: str | None) -> None:
    if fields.get("model") is None and model is not None:
        fields["model"] = model
    if rules.models and fields.get("model") not in list(rules.models):
        raise ConfigError(f"model: expected one of {', '.join(sorted(rules.models))}")
    most = rules.max_tokens
    if most is None:
        return
    given = [field for field in LENGTHS if fields.get(field) is not None]
    for field in given:
        if not isinstance(fields[field], int) or fields[field] > most:
            raise ConfigError(f"{field}: expected at most {most}, got {shorten(fields[field])}")
    if not given:
        fields[LENGTHS[0]] = most
