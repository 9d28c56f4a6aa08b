"""Messages and answers in the form of OpenTelemetry's conventions."""

import json
from typing import Any

from ernie_async import ChatCompletion, ImagePart, ImageURL, Message, system, tool_result, user
from ernie_async.sansio.trace_content import input_messages, output_messages
from ernie_async.types.content import VideoPart, VideoURL

CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"城":"北京"}'},
}


def asked(*messages: Message) -> Any:
    return json.loads(input_messages(messages))


def test_text_keeps_its_role() -> None:
    assert asked(system("简短"), user("你好")) == [
        {"role": "system", "parts": [{"type": "text", "content": "简短"}]},
        {"role": "user", "parts": [{"type": "text", "content": "你好"}]},
    ]


def test_chinese_is_not_escaped() -> None:
    assert "你好" in input_messages([user("你好")])


def test_a_picture_is_an_address_and_never_its_bytes() -> None:
    there = ImagePart(image_url=ImageURL(url="https://example.com/a.png"))
    here = ImagePart(image_url=ImageURL(url="data:image/png;base64,QUJD"))
    assert asked(user(["看", there, here]))[0]["parts"] == [
        {"type": "text", "content": "看"},
        {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"},
        {"type": "blob", "modality": "image", "mime_type": "image/png"},
    ]


def test_so_is_a_video() -> None:
    there = VideoPart(video_url=VideoURL(url="https://example.com/a.mp4"))
    here = VideoPart(video_url=VideoURL(url="data:video/mp4;base64,QUJD"))
    assert asked(user([there, here]))[0]["parts"] == [
        {"type": "uri", "modality": "video", "uri": "https://example.com/a.mp4"},
        {"type": "blob", "modality": "video", "mime_type": "video/mp4"},
    ]


def test_a_tool_call_and_its_result() -> None:
    call = Message.model_validate({"role": "assistant", "tool_calls": [CALL]})
    assert asked(call, tool_result("c1", "晴")) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"城": "北京"}}
            ],
        },
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c1", "response": "晴"}],
        },
    ]


def test_an_answer_with_a_thought_and_broken_arguments() -> None:
    broken = {**CALL, "function": {"name": "weather", "arguments": '{"城":'}}
    message = {"content": "好", "reasoning_content": "想", "tool_calls": [broken]}
    answer = ChatCompletion.model_validate(
        {"choices": [{"message": message, "finish_reason": "tool_calls"}, {"message": {}}]}
    )
    assert json.loads(output_messages(answer)) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "想"},
                {"type": "text", "content": "好"},
                {"type": "tool_call", "id": "c1", "name": "weather", "arguments": '{"城":'},
            ],
            "finish_reason": "tool_calls",
        },
        {"role": "assistant", "parts": [], "finish_reason": ""},
    ]
