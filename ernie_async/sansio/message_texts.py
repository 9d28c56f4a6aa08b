"""The texts of whole answers and of prompts, each led through a function and put back.

What `chunk_texts` is for streams. Knows nothing of what the function does.
"""

from collections.abc import Callable, Collection
from typing import Any

from ernie_async.sansio.filter_values import Channel
from ernie_async.types.completion import ChatCompletion, Choice
from ernie_async.types.content import ContentPart, TextPart
from ernie_async.types.messages import AnswerMessage, Message
from ernie_async.types.request import ChatRequest
from ernie_async.types.tools import ToolCall

__all__ = ["rewrite_completion", "rewrite_prompt", "said_by_user"]


def rewrite_completion(
    completion: ChatCompletion,
    channels: Collection[Channel],
    change: Callable[[Channel, str], str],
) -> ChatCompletion:
    """The same answer with other texts; the very same if none of them changed.

    Args:
        completion: A whole answer.
        channels: Which texts.
        change: Takes a text and what it is; returns what to put there.
    """
    choices = [_changed_choice(choice, channels, change) for choice in completion.choices]
    if all(new is old for new, old in zip(choices, completion.choices, strict=True)):
        return completion
    return completion.model_copy(update={"choices": choices})


def _changed_choice(
    choice: Choice, channels: Collection[Channel], change: Callable[[Channel, str], str]
) -> Choice:
    news: dict[str, Any] = {}
    if changed := _changed(choice.message, channels, change):
        news["message"] = choice.message.model_copy(update=changed)
    if choice.model_extra and choice.model_extra.get("logprobs") is not None:
        news["logprobs"] = None  # they tell every token as it was
    return choice.model_copy(update=news) if news else choice


def _changed(
    message: AnswerMessage,
    channels: Collection[Channel],
    change: Callable[[Channel, str], str],
) -> dict[str, Any]:
    names: dict[str, Channel] = {
        "reasoning_content": "reasoning",
        "reasoning": "reasoning",
        "content": "content",
    }
    news: dict[str, Any] = {}
    for name, channel in names.items():
        text: str | None = getattr(message, name)
        if text and channel in channels and (new := change(channel, text)) != text:
            news[name] = new
    if message.tool_calls and "tool_arguments" in channels:
        calls = [_changed_call(call, change) for call in message.tool_calls]
        if any(new is not old for new, old in zip(calls, message.tool_calls, strict=True)):
            news["tool_calls"] = calls
    return news


def _changed_call(call: ToolCall, change: Callable[[Channel, str], str]) -> ToolCall:
    arguments = call.function.arguments
    new = change("tool_arguments", arguments) if arguments else arguments
    if new == arguments:
        return call
    function = call.function.model_copy(update={"arguments": new})
    return call.model_copy(update={"function": function})


def rewrite_prompt(request: ChatRequest, change: Callable[[str], str]) -> ChatRequest:
    """The same request with other texts of the user; the very same if none of them changed."""
    messages = [
        _changed_message(message, change) if message.role == "user" else message
        for message in request.messages
    ]
    if all(new is old for new, old in zip(messages, request.messages, strict=True)):
        return request
    return request.model_copy(update={"messages": messages})


def _changed_message(message: Message, change: Callable[[str], str]) -> Message:
    content = message.content
    if content is None:
        return message
    if isinstance(content, str):
        new = change(content)
        return message if new == content else message.model_copy(update={"content": new})
    parts: list[ContentPart] = []
    for part in content:
        if isinstance(part, TextPart) and (new := change(part.text)) != part.text:
            parts.append(part.model_copy(update={"text": new}))
        else:
            parts.append(part)
    is_same = all(new is old for new, old in zip(parts, content, strict=True))
    return message if is_same else message.model_copy(update={"content": parts})


def said_by_user(message: Message) -> str:
    """The text of a user's message; empty for those of others."""
    if message.role != "user" or message.content is None:
        return ""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))
