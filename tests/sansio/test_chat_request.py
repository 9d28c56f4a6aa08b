"""From what the caller wrote to the bytes that are sent, or to words that say what is wrong."""

import json
import sys
from collections import UserDict, deque
from collections.abc import Sequence
from math import inf, nan
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.chat_request import Prompt, chat_body, chat_request, json_body
from ernie_async.sansio.servers import read_server
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.content import ImagePart, ImageURL, TextPart, VideoPart, VideoURL
from ernie_async.types.messages import AnswerMessage, Message, assistant, system, tool_result, user
from ernie_async.types.request import (
    ChatRequest,
    ResponseFormat,
    StreamOptions,
    Thinking,
    WebSearch,
)
from ernie_async.types.tools import FunctionName, FunctionSpec, Tool, ToolChoice

QIANFAN = read_server("qianfan")

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "default": None}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def sent(prompt: Prompt, /, extra: dict[str, Any] | None = None, **options: Any) -> Any:
    """The fields that go on the wire."""
    return json.loads(chat_body(chat_request(prompt, options), extra or {}, QIANFAN))


def refused(prompt: Any, /, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        chat_request(prompt, options)
    return str(caught.value)


def test_text_is_one_user_message() -> None:
    assert sent("你好") == {"messages": [{"role": "user", "content": "你好"}]}


def test_text_goes_out_as_utf8() -> None:
    assert chat_body(chat_request("你好😀", {}), {}, QIANFAN) == (
        '{"messages":[{"role":"user","content":"你好😀"}]}'.encode()
    )


def test_only_what_was_set_is_sent() -> None:
    assert sent("x", temperature=0.5, stream_options={"include_usage": True}) == {
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("name", [n for n in ChatRequest.model_fields if n != "messages"])
def test_none_is_the_same_as_not_set(name: str) -> None:
    assert sent("x", **{name: None}) == sent("x")


def test_none_inside_a_schema_is_sent() -> None:
    assert sent("x", tools=[WEATHER])["tools"] == [WEATHER]


def test_false_and_zero_are_sent() -> None:
    fields = {"temperature": 0, "enable_thinking": False, "seed": 0, "parallel_tool_calls": False}
    assert sent("x", **fields).items() >= fields.items()


# The same thing as a dict and as a model.
SAME: dict[str, tuple[Any, Any]] = {
    "tools": ([WEATHER], [Tool(function=FunctionSpec.model_validate(WEATHER["function"]))]),
    "tool_choice": (
        {"type": "function", "function": {"name": "f"}},
        ToolChoice(function=FunctionName(name="f")),
    ),
    "response_format": ({"type": "json_object"}, ResponseFormat(type="json_object")),
    "web_search": ({"enable": True}, WebSearch(enable=True)),
    "thinking": ({"type": "disabled"}, Thinking(type="disabled")),
    "stream_options": (
        {"include_usage": True, "chunk_include_usage": None},
        StreamOptions(include_usage=True),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_dicts_and_models_are_the_same_on_the_wire(name: str) -> None:
    as_dict, as_model = SAME[name]
    assert sent("x", **{name: as_dict}) == sent("x", **{name: as_model})
    assert sent("x", **{name: as_model})[name]


def test_type_of_a_tool_is_sent_although_nobody_wrote_it() -> None:
    assert sent("x", tools=[{"function": {"name": "f"}}])["tools"] == [
        {"type": "function", "function": {"name": "f"}}
    ]


def test_messages_as_dicts_and_as_models_are_the_same_on_the_wire() -> None:
    parts = [
        TextPart(text="a"),
        ImagePart(image_url=ImageURL(url="https://example.com/a.png", detail="low")),
        VideoPart(video_url=VideoURL(url="data:video/mp4;base64,AA==")),
    ]
    models: list[Message] = [
        system("s"), user(parts, name="n"), assistant("a"),
        Message.model_validate({"role": "assistant", "tool_calls": [CALL]}),
        tool_result("c1", "r"), assistant("p", prefix=True),
    ]  # fmt: skip
    dicts = [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url",
                 "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}},
            ],
            "name": "n",
        },
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "r", "tool_call_id": "c1"},
        {"role": "assistant", "content": "p", "prefix": True},
    ]  # fmt: skip
    assert sent(models) == sent(dicts) == {"messages": dicts}


@pytest.mark.parametrize("make", [list, tuple, deque], ids=lambda make: make.__name__)
def test_any_sequence_will_do(make: type[Sequence[Any]]) -> None:
    parts = make([{"type": "text", "text": "x"}])
    fields = sent(
        make([{"role": "user", "content": parts}]), stop=make(["a", "b"]), tools=make([WEATHER])
    )
    assert fields == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "stop": ["a", "b"],
        "tools": [WEATHER],
    }


@pytest.mark.parametrize("make", [dict, MappingProxyType, UserDict], ids=lambda make: make.__name__)
def test_any_mapping_will_do(make: Any) -> None:
    fields = sent(
        [make({"role": "user", "content": "x"})],
        metadata=make({"a": "b"}),
        logit_bias=make({"5": 1.0}),
        web_search=make({"enable": True}),
        tools=[make({"type": "function", "function": make({"name": "f"})})],
    )
    assert fields == {
        "messages": [{"role": "user", "content": "x"}],
        "metadata": {"a": "b"},
        "logit_bias": {"5": 1.0},
        "web_search": {"enable": True},
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }


def test_whole_request_is_a_prompt() -> None:
    request = ChatRequest(messages=[user("x")], temperature=0.5)
    assert chat_request(request, {}) is request
    assert sent(request, temperature=0.9, seed=1) == {
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.9,
        "seed": 1,
    }
    assert request.temperature == 0.5


def test_callers_objects_are_left_as_they_were() -> None:
    messages = [{"role": "assistant", "content": "a", "reasoning_content": "r"}, user("x")]
    tools = (WEATHER,)
    before = repr((messages, tools))
    sent(messages, tools=tools)
    assert repr((messages, tools)) == before


ANSWER = {
    "role": "assistant",
    "content": "a",
    "reasoning_content": "thinking",
    "reasoning": "thinking",
    "tool_calls": [CALL],
    "mood": "good",
}


def test_answer_is_replayed_without_its_thinking_text() -> None:
    message = AnswerMessage.model_validate(ANSWER)
    completion = ChatCompletion.model_validate({"choices": [{"message": ANSWER}]})
    for replayed in (message, completion.message):
        assert sent([user("hi"), replayed, user("x")])["messages"][1] == {
            "role": "assistant",
            "content": "a",
            "tool_calls": [CALL],
        }


def test_answer_as_a_dict_is_replayed_without_its_thinking_text() -> None:
    fields = AnswerMessage.model_validate({**ANSWER, "tool_calls": None}).model_dump(
        exclude={"mood"}
    )
    assert sent([fields])["messages"] == [{"role": "assistant", "content": "a"}]


def test_answer_that_only_called_tools_is_replayed() -> None:
    message = AnswerMessage.model_validate({**ANSWER, "content": None})
    assert sent([message])["messages"] == [{"role": "assistant", "tool_calls": [CALL]}]


def test_extra_body_wins() -> None:
    fields = sent("x", {"temperature": 9, "brand_new": {"a": [1]}}, temperature=0.5)
    assert (fields["temperature"], fields["brand_new"]) == (9, {"a": [1]})


# What is wrong, and the whole of what is said about it.
RANGES: list[tuple[str, Any, str]] = [
    ("temperature", -0.1, "a number from 0 to 2"),
    ("temperature", 2.1, "a number from 0 to 2"),
    ("temperature", nan, "a number from 0 to 2"),
    ("temperature", inf, "a number from 0 to 2"),
    ("temperature", "0.5", "a number from 0 to 2"),
    ("temperature", True, "a number from 0 to 2"),
    ("top_p", 1.1, "a number from 0 to 1"),
    ("penalty_score", 0.9, "a number from 1 to 2"),
    ("frequency_penalty", -2.1, "a number from -2 to 2"),
    ("presence_penalty", 2.1, "a number from -2 to 2"),
    ("repetition_penalty", 0, "a number above 0 and at most 2"),
    ("max_completion_tokens", 0, "a whole number at least 1"),
    ("max_tokens", 1.5, "a whole number at least 1"),
    ("max_tokens", "1", "a whole number at least 1"),
    ("seed", -1, "a whole number at least 0 and below 9223372036854775808"),
    ("n", 0, "a whole number at least 1"),
    ("top_logprobs", -1, "a whole number at least 0"),
    ("thinking_budget", -1, "a whole number at least 0"),
    ("fps", 0.1, "a number from 0.2 to 5"),
    ("enable_thinking", 1, "a boolean"),
    ("user", 5, "a string"),
    ("stop", 5, "a string, or a list"),
    ("tool_choice", "sometimes",
     "'none', 'auto' or 'required', or a dictionary or instance of ToolChoice"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), RANGES)
def test_value_out_of_range_is_refused_with_the_range(
    name: str, value: object, expected: str
) -> None:
    message = refused("x", **{name: value})
    assert message.replace("a valid ", "a ") == f"{name}: expected {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("options", "start", "end"),
    [
        ({"metadata": dict.fromkeys(map(str, range(17)), "")}, "metadata: expected at", "..."),
        ({"metadata": {"k": 5}}, "metadata.k: expected a string", "got 5"),
        ({"model": ""}, "model: expected text at least 1 long", "got ''"),
        ({"model": "\ud83d"}, "model: expected text that can be written as UTF-8", "ud83d'"),
        ({"stop": ["a", 5]}, "stop.1: expected a string", "got 5"),
        ({"response_format": {"type": "xml"}},
         "response_format.type: expected 'text', 'json_object' or 'json_schema'", "got 'xml'"),
        ({"thinking": {"type": "on"}},
         "thinking.type: expected 'enabled' or 'disabled'", "got 'on'"),
        ({"tools": [{"function": {}}]}, "tools.0.function.name: Field required", "got {}"),
        ({"tools": [WEATHER, {"function": {"name": ""}}]}, "tools.1.function.name: ", "got ''"),
        ({"tool_choice": {"function": {"name": 5}}}, "tool_choice.function.name: expected a string",
         "got 5"),
    ],
)  # fmt: skip
def test_refusal_names_the_field_and_the_value(
    options: dict[str, Any], start: str, end: str
) -> None:
    message = refused("x", **options)
    assert message.startswith(start)
    assert message.endswith(end)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "messages: expected a list at least 1 long, got []"),
        ("", "messages.0: content must not be empty, got {'role': 'user', 'content': ''}"),
        (" \n", "messages: the last message must not be blank"),
        ([user("a"), {"role": "user", "content": "\t"}], "the last message must not be blank"),
        ([{"role": "user"}], "messages.0: content must not be empty"),
        ([{"role": "user", "content": []}], "messages.0: content must not be empty"),
        ([user("a"), {"role": "bot", "content": "x"}],
         "messages.1.role: expected 'system', 'developer', 'user', 'assistant' or 'tool', got 'b"),
        ([{"content": "x"}], "messages.0.role: Field required"),
        ([{"role": "user", "content": 5}],
         "messages.0.content: expected a string, or a list, got 5"),
        ([{"role": "tool", "content": "x"}], "messages.0: a tool message needs tool_call_id"),
        ([{"role": "user", "content": "x", "tool_call_id": "c"}],
         "messages.0: only a tool message has tool_call_id"),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}],
         "messages.0: only an assistant message has tool_calls or prefix"),
        ([{"role": "user", "content": "x", "prefix": False}],
         "messages.0: only an assistant message has tool_calls or prefix"),
        ([assistant("a", prefix=True), user("b")],
         "messages: only the last message may have prefix"),
        ([{"role": "user", "content": [{"type": "text", "text": ""}]}],
         "messages.0.content.0.text: "),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}],
         "messages.0.content.0.image_url.url: "),
        ([{"role": "user", "content": [TextPart(text="a"), {"type": "audio"}]}],
         "messages.0.content.1: Input tag 'audio'"),
        ([5], "messages.0: expected a dictionary or instance of Message, got 5"),
        (None, "messages: expected text, a list of messages or a ChatRequest, got None (NoneType)"),
        ({"role": "user"}, "messages: expected text, a list of messages or a ChatRequest"),
        (b"x", "messages: expected text, a list of messages or a ChatRequest, got b'x' (bytes)"),
        (iter([]), "messages: expected text, a list of messages or a ChatRequest"),
    ],
)  # fmt: skip
def test_impossible_conversation_is_refused_with_its_place(messages: Any, said: str) -> None:
    assert said in refused(messages)


def test_every_wrong_field_has_its_line() -> None:
    lines = refused([{"role": "bot", "content": "x"}], temperature=3, nn=1).splitlines()
    assert [line.split(":")[0] for line in lines] == ["messages.0.role", "temperature", "nn"]


def test_long_value_is_shortened() -> None:
    assert len(refused([{"role": "x" * 10_000, "content": "x"}])) < 300


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "did you mean temperature? Otherwise pass extra_body={'temprature': ...}"),
        ("max_token", "did you mean max_tokens?"),
        ("brand_new", "to send it anyway, pass extra_body={'brand_new': ...}"),
        ("stream", "call client.stream(...) for a stream"),
        ("timeout", "pass timeouts=Timeouts(...)"),
        ("max_retries", "use client.with_options(retry=RetryPolicy(attempts=...))"),
        ("max_output_tokens", "the V2 name is max_completion_tokens"),
        ("system", "put system('...') first in the messages"),
        ("api_key", "give it to the client"),
    ],
)
def test_unknown_option_is_refused_with_a_hint(name: str, hint: str) -> None:
    message = refused("x", **{name: 1})
    assert message.startswith(f"{name}: no such field; ")
    assert hint in message


def test_unknown_field_inside_an_option_is_refused_with_a_way_to_send_it() -> None:
    assert refused("x", web_search={"enabled": True}) == (
        "web_search.enabled: no such field; to send it anyway, pass extra_body={'web_search': ...}"
    )
    assert refused([{"role": "user", "content": "x", "weight": 1}]).startswith(
        "messages.0.weight: no such field"
    )


def test_refusal_hides_how_it_was_found() -> None:
    with pytest.raises(ConfigError) as caught:
        chat_request("x", {"temperature": 3})
    assert caught.value.__cause__ is caught.value.__context__ is None


HALF = "a\ud83d"
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("prompt", "options", "extra", "said"),
    [
        (HALF, {}, {}, "messages.0.content holds half a character"),
        ([user("a"), user(HALF)], {}, {}, "messages.1.content holds half"),
        ("x", {"user": HALF}, {}, "user holds half"),
        ("x", {"metadata": {"k": HALF}}, {}, "metadata.k holds half"),
        ("x", {"metadata": {HALF: "v"}}, {}, "surrogate"),
        ("\udcc4", {}, {}, "messages.0.content holds bytes that were no text"),
        ("x", {"safety": {"a": [1, {"b": nan}]}}, {}, "safety.a.1.b is nan"),
        ("x", {"safety": {"a": -inf}}, {}, "safety.a is -inf"),
        ("x", {}, {"top": inf}, "top is inf"),
        ("x", {}, {"a": (1.5, nan, inf)}, "a.1 is nan"),
        ("x", {}, {"a": {nan}}, "a.0 is nan"),
        ("x", {}, {"a": deque([nan])}, "a.0 is nan"),
        ("x", {}, {"a": object()}, "object"),
        ("x", {}, {"a": b"\xff"}, "utf-8"),
        ("x", {}, {"a": CIRCLE}, "holds itself"),
    ],
)  # fmt: skip
def test_what_json_cannot_hold_is_refused_with_its_place(
    prompt: Prompt, options: dict[str, Any], extra: dict[str, Any], said: str
) -> None:
    request = chat_request(prompt, options)
    with pytest.raises(ConfigError, match=r"^the request cannot be written as JSON: ") as caught:
        chat_body(request, extra, QIANFAN)
    assert said in str(caught.value)


def test_it_does_not_matter_how_deep_in_calls_the_caller_is() -> None:
    def call(depth: int) -> None:
        if depth:
            call(depth - 1)
        else:
            json_body({"a": CIRCLE})

    with pytest.raises(ConfigError, match="holds itself"):
        call(sys.getrecursionlimit() // 2)


def test_text_about_nan_is_only_text() -> None:
    assert json.loads(json_body({"a": "NaN, Infinity", "b": ["-Infinity"]})) == {
        "a": "NaN, Infinity",
        "b": ["-Infinity"],
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda held: (
        st.lists(held, max_size=3) | st.dictionaries(st.text(max_size=3), held, max_size=3)
    ),
    max_leaves=6,
)


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=3))
def test_body_is_strict_json_or_refused(fields: dict[str, Any]) -> None:
    try:
        body = json_body(fields)
    except ConfigError:
        return
    assert json.loads(body, parse_constant=refuse_constant) == fields


@given(st.text(min_size=1).filter(lambda text: not text.isspace()))
def test_any_text_arrives_as_it_was(text: str) -> None:
    assert sent(text)["messages"][0]["content"] == text
