"""A function goes over the texts of whole answers and of prompts, and over nothing else."""

from typing import Any

import pytest

from ernie_async.sansio.filter_values import Channel
from ernie_async.sansio.message_texts import rewrite_completion, rewrite_prompt, said_by_user
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message, assistant, system, tool_result, user
from ernie_async.types.request import ChatRequest

ALL: tuple[Channel, ...] = ("content", "reasoning", "tool_arguments")
PICTURE = {"type": "image_url", "image_url": {"url": "https://a.cn/x.png"}}


def completion(*messages: dict[str, Any], **fields: Any) -> ChatCompletion:
    choices = [{"index": n, "message": message} for n, message in enumerate(messages)]
    return ChatCompletion.model_validate({"id": "as-1", "choices": choices, **fields})


def message_with_all() -> dict[str, Any]:
    calls = [
        {"id": f"c{n}", "function": {"name": "f", "arguments": arguments}}
        for n, arguments in enumerate(["arguments", ""])
    ]
    return {"content": "content", "reasoning_content": "thought", "tool_calls": calls}


def mark(channel: Channel, text: str) -> str:
    assert text, "nothing is asked of an empty text"
    return f"{text} of {channel}"


@pytest.mark.parametrize("channels", [(), *((channel,) for channel in ALL), ALL])
def test_the_texts_of_the_channels_are_changed(channels: tuple[Channel, ...]) -> None:
    before = completion(message_with_all(), {"content": "other", "reasoning": "renamed"})
    told = before.model_dump()
    after = rewrite_completion(before, channels, mark)
    assert before.model_dump() == told, "an answer is nobody's to change"
    first, second = (choice.message for choice in after.choices)
    assert first.tool_calls is not None
    for channel, old, new in (
        ("content", "content", first.content),
        ("content", "other", second.content),
        ("reasoning", "thought", first.reasoning_content),
        ("reasoning", "renamed", second.reasoning),
        ("tool_arguments", "arguments", first.tool_calls[0].function.arguments),
    ):
        assert new == (f"{old} of {channel}" if channel in channels else old)
    assert [call.id for call in first.tool_calls] == ["c0", "c1"]
    assert first.tool_calls[1].function.arguments == ""
    assert (after.id, first.role, second.tool_calls) == ("as-1", "assistant", None)


def test_an_answer_that_does_not_change_is_the_very_same() -> None:
    before = completion(message_with_all(), {"content": None}, {"content": ""})
    assert rewrite_completion(before, ALL, lambda _channel, text: text) is before
    assert rewrite_completion(before, (), mark) is before


def test_of_several_answers_those_that_do_not_change_are_the_same() -> None:
    before = completion({"content": "a"}, {"content": "b"})
    after = rewrite_completion(before, ALL, lambda _channel, text: text.replace("b", "x"))
    assert after.choices[0] is before.choices[0]
    assert after.choices[1].message.content == "x"


def test_logprobs_are_hidden_since_they_tell_every_token() -> None:
    choices = [
        {"message": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}, "more": 1},
        {"message": {"content": "a"}, "logprobs": None, "more": 1},
    ]
    before = ChatCompletion.model_validate({"choices": choices})
    after = rewrite_completion(before, ALL, lambda _channel, text: text)
    assert after.choices[0].model_dump()["logprobs"] is None
    assert (after.choices[0].message.content, after.choices[0].model_dump()["more"]) == ("a", 1)
    assert after.choices[1] is before.choices[1]


def test_of_a_prompt_what_the_user_says_is_changed() -> None:
    others = [system("say"), assistant("say"), tool_result("c1", "say")]
    before = ChatRequest(
        messages=[
            *others,
            user("say"),
            Message.model_validate(
                {"role": "user", "content": [{"type": "text", "text": "say"}, PICTURE]}
            ),
            user("else"),
        ],
        temperature=0.5,
    )
    after = rewrite_prompt(before, lambda text: text.replace("say", "***"))
    assert all(new is old for new, old in zip(after.messages, others, strict=False))
    assert after.messages[3].content == "***"
    [text, picture] = after.messages[4].model_dump(exclude_none=True)["content"]
    assert (text, picture) == ({"type": "text", "text": "***"}, PICTURE)
    assert after.messages[5] is before.messages[5]
    assert after.temperature == 0.5
    assert before.messages[3].content == "say"


def test_a_prompt_that_does_not_change_is_the_very_same() -> None:
    parts = Message.model_validate({"role": "user", "content": [PICTURE, PICTURE]})
    silent = Message.model_construct(role="user", content=None)
    request = ChatRequest.model_construct(messages=[user("a"), silent, parts, system("b")])
    assert rewrite_prompt(request, lambda text: text) is request
    assert rewrite_prompt(request, lambda text: text.replace("b", "x")) is request


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (user("a"), "a"),
        (user(["a", "b"]), "a\nb"),
        (Message.model_validate({"role": "user", "content": [PICTURE]}), ""),
        (Message.model_construct(role="user", content=None), ""),
        (system("a"), ""),
        (assistant("a"), ""),
    ],
)
def test_what_a_user_said_is_text(message: Message, said: str) -> None:
    assert said_by_user(message) == said
