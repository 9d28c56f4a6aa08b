"""What the caller writes: strict, frozen, and short to write."""

import copy
import pickle
from math import inf, nan
from typing import Any

import pytest
from pydantic import ValidationError

from ernie_async.types.content import ImagePart, ImageURL, TextPart, VideoPart, VideoURL
from ernie_async.types.messages import (
    AnswerMessage,
    Message,
    assistant,
    developer,
    system,
    tool_result,
    user,
)
from ernie_async.types.request import (
    ChatRequest,
    ResponseFormat,
    StreamOptions,
    Thinking,
    WebSearch,
)
from ernie_async.types.tools import FunctionName, FunctionSpec, Tool, ToolChoice
from ernie_async.types.wire import RequestModel

# Every model of a request, as little of it as can be.
REQUESTS: list[RequestModel] = [
    ChatRequest(messages=[user("x")]),
    FunctionName(name="f"),
    FunctionSpec(name="f"),
    ImagePart(image_url=ImageURL(url="https://example.com/a.png")),
    ImageURL(url="https://example.com/a.png"),
    Message(role="user", content="x"),
    ResponseFormat(type="text"),
    StreamOptions(),
    TextPart(text="x"),
    Thinking(type="enabled"),
    Tool(function=FunctionSpec(name="f")),
    ToolChoice(function=FunctionName(name="f")),
    VideoPart(video_url=VideoURL(url="https://example.com/a.mp4")),
    VideoURL(url="https://example.com/a.mp4"),
    WebSearch(),
]
each = pytest.mark.parametrize("request_model", REQUESTS, ids=lambda model: type(model).__name__)


def test_every_model_of_a_request_is_in_the_table() -> None:
    assert {type(model) for model in REQUESTS} == set(RequestModel.__subclasses__())


@each
def test_unknown_field_is_refused(request_model: RequestModel) -> None:
    fields = request_model.model_dump(exclude_none=True)
    with pytest.raises(ValidationError, match="brand_new"):
        type(request_model).model_validate({**fields, "brand_new": 1})


@each
def test_request_cannot_be_changed(request_model: RequestModel) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(request_model, next(iter(type(request_model).model_fields)), None)


@each
def test_request_can_be_copied_and_pickled(request_model: RequestModel) -> None:
    for again in (pickle.loads(pickle.dumps(request_model)), copy.deepcopy(request_model)):
        assert again == request_model
        assert again.model_fields_set == request_model.model_fields_set


@each
def test_request_made_of_its_own_dump_is_the_same(request_model: RequestModel) -> None:
    dump = request_model.model_dump(exclude_none=True)
    again = type(request_model).model_validate(dump)
    assert again == request_model
    assert again.model_dump(exclude_none=True) == dump


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "0.5"}, {"temperature": nan}, {"temperature": inf}, {"temperature": True},
        {"max_tokens": 1.0}, {"max_tokens": "1"}, {"max_tokens": True}, {"enable_thinking": 1},
        {"enable_thinking": "true"}, {"user": 1}, {"logit_bias": {"1": nan}},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_is_converted(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        ChatRequest(messages=[user("x")], **fields)


def test_whole_number_is_a_number() -> None:
    assert ChatRequest(messages=[user("x")], temperature=1).temperature == 1


@pytest.mark.parametrize(
    "url", ["", "a.png", "ftp://example.com/a", "file:///a.png", "https://", "https://a b", "data:"]
)
def test_address_of_a_picture_is_a_web_address_or_its_bytes(url: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        ImageURL(url=url)


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png?x=1", "http://h/a", "data:image/png;base64,AAAA"]
)
def test_address_of_a_picture_is_kept_as_it_is(url: str) -> None:
    assert ImageURL(url=url).url == url


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (system("x"), {"role": "system", "content": "x"}),
        (developer("x"), {"role": "developer", "content": "x"}),
        (user("x", name="n"), {"role": "user", "content": "x", "name": "n"}),
        (assistant("x"), {"role": "assistant", "content": "x"}),
        (assistant("x", prefix=True), {"role": "assistant", "content": "x", "prefix": True}),
        (tool_result("c1", "x"), {"role": "tool", "content": "x", "tool_call_id": "c1"}),
        (user((TextPart(text="x"),)),
         {"role": "user", "content": [{"type": "text", "text": "x"}]}),
    ],
    ids=str,
)  # fmt: skip
def test_short_way_to_write_a_message(short: Message, long: dict[str, Any]) -> None:
    assert short == Message.model_validate(long)
    assert short.model_dump(exclude_none=True) == long


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"role": "user"}, "content must not be empty"),
        ({"role": "assistant", "content": ""}, "content must not be empty"),
        (
            {"role": "assistant", "content": "x", "tool_calls": [], "tool_call_id": "c"},
            "only a tool",
        ),
        ({"role": "tool", "content": "x"}, "needs tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": ""}, "needs tool_call_id"),
        ({"role": "tool", "content": "", "tool_call_id": "c"}, "content must not be empty"),
        ({"role": "system", "content": "x", "prefix": True}, "only an assistant"),
        ({"role": "function", "content": "x"}, "role"),
        ({"role": "user", "content": "x", "reasoning_content": "y"}, "reasoning_content"),
    ],
)
def test_fields_of_a_message_have_to_fit_its_role(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Message.model_validate(fields)


def test_thinking_text_of_an_answer_is_left_out() -> None:
    answer = AnswerMessage.model_validate(
        {"content": "a", "reasoning_content": "r", "reasoning": "r", "mood": 1}
    )
    expected = Message(role="assistant", content="a")
    assert Message.model_validate(answer) == expected
    assert Message.model_validate(answer.model_dump(exclude={"mood"})) == expected
    assert ChatRequest.model_validate({"messages": [answer]}).messages == [expected]


def test_last_message_must_not_be_blank() -> None:
    assert ChatRequest(messages=[user(" "), user("x")]).messages[0].content == " "
    with pytest.raises(ValidationError, match="blank"):
        ChatRequest(messages=[user("x"), user(" ")])


def test_prefix_may_only_be_last() -> None:
    assert ChatRequest(messages=[user("x"), assistant("a", prefix=True)]).messages[-1].prefix
    with pytest.raises(ValidationError, match="only the last message may have prefix"):
        ChatRequest(messages=[assistant("a", prefix=True), user("x")])


@pytest.mark.parametrize("content", [5, None, b"hi", [5], {"type": "text"}])
def test_what_is_no_content_is_refused_by_the_model(content: Any) -> None:
    with pytest.raises(ValidationError, match="content"):
        user(content)
