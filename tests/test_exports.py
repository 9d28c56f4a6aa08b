"""The public names, word for word: a name is added on purpose or not at all."""

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

import ernie_async
from ernie_async.types import ChatFields
from ernie_async.types.wire import RequestModel

PUBLIC = [
    "APIError",
    "ApiKey",
    "AsyncClient",
    "AuthError",
    "BadRequestError",
    "BlockedError",
    "CallEnded",
    "CallOptions",
    "CallStarted",
    "ChatChunk",
    "ChatCompletion",
    "ChatOptions",
    "ChatRequest",
    "ChatStream",
    "ChunkBranch",
    "Clause",
    "Client",
    "ClientOptions",
    "ConfigError",
    "ConnectError",
    "ContentFilter",
    "ContentFiltered",
    "DeadlineError",
    "DecodeError",
    "EmbedOptions",
    "Embedding",
    "Embeddings",
    "ErnieError",
    "FailedAttempt",
    "FileObject",
    "FilePage",
    "FunctionName",
    "FunctionSpec",
    "HeartbeatSeen",
    "Hook",
    "IamKeys",
    "ImageFields",
    "ImageOptions",
    "ImagePart",
    "ImageResult",
    "ImageURL",
    "Images",
    "InterruptedStreamError",
    "Limiter",
    "Limits",
    "Message",
    "MessageFinding",
    "MessageInput",
    "ModelCard",
    "NotFoundError",
    "OutputError",
    "ParseOptions",
    "Permit",
    "Price",
    "Prices",
    "QuotaError",
    "RankedDocument",
    "Ranking",
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

# Aliases of types: what they are stands where they are made.
ALIASES = {"Hook", "MessageInput", "Record", "__version__"}


def test_public_names_are_these() -> None:
    assert ernie_async.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC


def test_nothing_public_is_left_out() -> None:
    found = {
        name
        for name, value in vars(ernie_async).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert found <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_can_be_imported(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from ernie_async import {name}", namespace)
    assert namespace[name] is not None


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ALIASES])
def test_public_name_is_described(name: str) -> None:
    described = (
        vars(getattr(ernie_async, name)).get("__doc__") or getattr(ernie_async, name).__doc__
    )
    assert described
    # A docstring that Python made up begins with the signature.
    assert not described.startswith(f"{name}(")


def methods() -> list[tuple[str, str]]:
    return [
        (kind, name)
        for kind in ("AsyncClient", "Client", "ChatStream", "SyncChatStream", "Limiter", "Permit",
                     "ChatCompletion", "ChatChunk", "ApiKey", "RetryPolicy", "Timeouts", "Limits")
        for name, value in vars(getattr(ernie_async, kind)).items()
        if not name.startswith("_") and isinstance(value, types.FunctionType | property)
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), methods())
def test_public_method_is_described(kind: str, name: str) -> None:
    assert inspect.getdoc(inspect.getattr_static(getattr(ernie_async, kind), name))


def widened(hint: Any) -> Any:
    """The type of a keyword that a field of this type takes: containers and models as they come."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return widened(inner[0])
    if origin is list:
        return Sequence[widened(inner[0])]
    if origin is dict:
        return Mapping[inner[0], inner[1]]
    if origin in {Union, types.UnionType}:
        return Union[tuple(map(widened, inner))]  # noqa: UP007 - as many as there are
    if isinstance(hint, type) and issubclass(hint, RequestModel):
        return hint | Mapping[str, Any]
    return hint


def test_keywords_of_chat_are_the_fields_of_a_request() -> None:
    keywords = get_type_hints(ernie_async.ChatOptions)
    for name in get_type_hints(ernie_async.CallOptions):
        del keywords[name]
    fields = get_type_hints(ernie_async.ChatRequest, include_extras=True)
    wanted = {
        name: widened(fields[name])
        for name in ernie_async.ChatRequest.model_fields
        if name != "messages"
    }
    assert list(keywords) == list(wanted)
    assert keywords == wanted
    assert get_type_hints(ChatFields) == wanted


def test_keywords_of_chat_are_all_optional() -> None:
    assert ernie_async.ChatOptions.__required_keys__ == frozenset()


def test_names_of_a_call_and_of_a_request_do_not_meet() -> None:
    assert not ernie_async.CallOptions.__annotations__.keys() & ernie_async.ChatRequest.model_fields
