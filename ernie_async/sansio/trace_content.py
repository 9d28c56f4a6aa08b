"""Messages and answers as traces hold them: JSON by OpenTelemetry's conventions for GenAI.

Source: the JSON schemas of `gen_ai.input.messages` and `gen_ai.output.messages`.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pydantic_core import to_json

from ernie_async.types.completion import ChatCompletion
from ernie_async.types.content import ContentPart, ImagePart, TextPart
from ernie_async.types.messages import Message
from ernie_async.types.tools import ToolCall
from ernie_async.types.wire import read_json

__all__ = ["input_messages", "output_messages"]

Part = dict[str, Any]


def input_messages(messages: Sequence[Message]) -> str:
    """What was asked."""
    return to_json([_asked(message) for message in messages]).decode()


def output_messages(answer: ChatCompletion) -> str:
    """What was answered, every choice of it."""
    return to_json([_said(answer, index) for index in range(len(answer.choices))]).decode()


def _asked(message: Message) -> Part:
    content = message.content
    if message.role == "tool":
        result = {"type": "tool_call_response", "id": message.tool_call_id, "response": content}
        return {"role": "tool", "parts": [result]}
    held = [TextPart(text=content)] if isinstance(content, str) and content else content
    parts = [_part(part) for part in held or () if not isinstance(part, str)]
    return {"role": message.role, "parts": [*parts, *_calls(message.tool_calls)]}


def _part(part: ContentPart) -> Part:
    if isinstance(part, TextPart):
        return {"type": "text", "content": part.text}
    if isinstance(part, ImagePart):
        modality, url = "image", part.image_url.url
    else:
        modality, url = "video", part.video_url.url
    if not url.startswith("data:"):
        return {"type": "uri", "modality": modality, "uri": url}
    # The bytes themselves are too large for a span, and of no use there.
    kind = url.removeprefix("data:").partition(",")[0].partition(";")[0]
    return {"type": "blob", "modality": modality, "mime_type": kind}


def _calls(calls: Sequence[ToolCall] | None) -> Iterator[Part]:
    for call in calls or ():
        arguments: Any = call.function.arguments
        with suppress(ValueError):  # else as the model wrote them
            arguments = read_json(arguments)
        yield {
            "type": "tool_call",
            "id": call.id,
            "name": call.function.name,
            "arguments": arguments,
        }


def _said(answer: ChatCompletion, index: int) -> Part:
    choice = answer.choices[index]
    message = choice.message
    parts: list[Part] = []
    if thought := message.reasoning_content or message.reasoning:
        parts.append({"type": "reasoning", "content": thought})
    if message.content:
        parts.append({"type": "text", "content": message.content})
    parts += _calls(message.tool_calls)
    return {"role": message.role, "parts": parts, "finish_reason": choice.finish_reason or ""}
