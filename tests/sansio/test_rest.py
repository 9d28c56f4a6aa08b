"""Bodies and events to models, or to the error they mean."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_async.errors import (
    APIError,
    BadRequestError,
    BlockedError,
    DecodeError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.rest import is_event_stream, read_answer, read_chunk, refuse_non_stream
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.models import AnyAnswer, ModelList
from ernie_async.types.usage import Usage
from ernie_async.types.wire import read_json

CHAT_V2 = Path(__file__).parents[1] / "fixtures" / "chat_v2"

ENVELOPE = b'{"error":{"code":"rpm_rate_limit_exceeded","message":"slow down"},"id":"as-1"}'


def read(body: bytes | str, status: int = 200, **headers: str) -> ChatCompletion:
    body = body.encode() if isinstance(body, str) else body
    return read_answer(ChatCompletion, status, headers, body, utc_now=0.0)


@pytest.mark.parametrize("path", sorted(CHAT_V2.glob("chat_*.json")), ids=lambda path: path.stem)
def test_recorded_answer_keeps_every_field(path: Path) -> None:
    body = path.read_bytes()
    # Of a blocked answer, which `read_answer` refuses, the fields are there all the same.
    answer = ChatCompletion.model_validate_json(body) if "blocked" in path.stem else read(body)
    assert json.loads(answer.model_dump_json(exclude_unset=True)) == json.loads(body)


def test_recorded_answer_of_a_thinking_model() -> None:
    answer = read((CHAT_V2 / "chat_reasoning_ernie_5_0_thinking_preview.json").read_bytes())
    assert answer.text == "Hello! How can I help you today?"
    assert answer.reasoning.startswith("The user just said")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 218
    assert answer.request_id == "as-yqqxsmi5np"


def test_unknown_fields_of_an_answer_are_kept_at_every_depth() -> None:
    body = {
        "choices": [{"message": {"content": "a", "mood": 1}, "colour": [2]}],
        "usage": {"total_tokens": 1, "price": 0.5},
        "weather": {"rain": None},
    }
    answer = read(json.dumps(body))
    assert answer.model_dump(exclude_unset=True) == body
    assert answer.model_extra == {"weather": {"rain": None}}


@pytest.mark.parametrize("status", [200, 201, 299])
def test_answer_with_any_good_status_is_read(status: int) -> None:
    assert read('{"id":"as-1","choices":[{}]}', status).id == "as-1"


@pytest.mark.parametrize("body", ["{}", '{"id":"as-1"}', '{"choices":[]}', '{"choices":null}'])
def test_answer_without_choices_is_none(body: str) -> None:
    with pytest.raises(DecodeError, match="no choices"):
        read(body)


def test_null_says_no_more_than_a_missing_field() -> None:
    answer = read('{"choices":[{"index":null,"message":null,"finish_reason":null}]}')
    assert (answer.text, answer.choices[0].index) == ("", 0)
    chunk = read_chunk(b'{"choices":[{"index":null,"delta":null}],"usage":{"total_tokens":null}}')
    assert (chunk.text, chunk.choices[0].index, chunk.usage) == ("", 0, Usage())
    assert read_chunk(b'{"choices":null}').choices == []


@pytest.mark.parametrize("status", [199, 300, 304, 400, 500])
def test_answer_with_a_bad_status_is_an_error_whatever_it_holds(status: int) -> None:
    with pytest.raises(APIError) as caught:
        read('{"id":"as-1","choices":[]}', status)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("body", "code"),
    {
        "the envelope": (ENVELOPE, "rpm_rate_limit_exceeded"),
        "V1": (b'{"error_code":336501,"error_msg":"x"}', "336501"),
        "the older page of limits": (b'{"code":"rpm_rate_limit_exceeded","msg":"x"}',
                                     "rpm_rate_limit_exceeded"),
        "BCE": (b'{"requestId":"r","code":"AccessDenied","message":"x"}', "AccessDenied"),
        "AI Studio": (b'{"errorCode":40401,"errorMsg":"x","logId":"y"}', "40401"),
        "FastDeploy": (b'{"object":"error","message":"x","code":400}', "400"),
        "a word": (b'{"error":"model not found"}', None),
        "a list": (b'{"error":["model not found"]}', None),
        "beside choices of the wrong form": (
            b'{"choices":0,"error":{"code":"internal_error"}}', "internal_error"),
    }.values(),
)  # fmt: skip
def test_error_inside_a_good_answer_is_an_error(body: bytes, code: str | None) -> None:
    with pytest.raises(APIError) as caught:
        read(body)
    assert (caught.value.status, caught.value.code) == (200, code)


def test_error_inside_a_good_answer_has_the_class_of_its_code() -> None:
    with pytest.raises(RateLimitError) as caught:
        read_answer(ChatCompletion, 200, {"Retry-After": "7"}, ENVELOPE, utc_now=0.0)
    assert caught.value.retry_after == 7.0
    assert caught.value.request_id == "as-1"


@pytest.mark.parametrize(
    "fields",
    [
        {"error": None, "data": 1},
        {"error": "", "data": 1},
        {"code": 0, "message": "success", "data": 1},
        {"code": "0", "msg": "success", "data": 1},
        {"error_code": 0, "error_msg": "", "data": 1},
        {"errorCode": 0, "errorMsg": "success", "result": 1},
        {"error_code": None},
        {"code": "print(1)"},
        {"message": "hello"},
    ],
)
def test_answer_that_only_looks_like_an_error_is_read(fields: dict[str, Any]) -> None:
    answer = read_answer(AnyAnswer, 200, {}, json.dumps(fields).encode(), utc_now=0.0)
    assert answer.model_extra == fields


@pytest.mark.parametrize(
    "body",
    ["", " ", "null", "[]", '"x"', "5", "<html>502</html>", '{"id":', '{"choices":{}}', '{"id":1}'],
)
def test_answer_that_cannot_be_read_is_an_error_with_its_start(body: str) -> None:
    with pytest.raises(DecodeError, match="this is not a ChatCompletion") as caught:
        read(body)
    assert caught.value.body == body.encode()


def test_error_says_which_field_is_wrong() -> None:
    with pytest.raises(DecodeError, match=r"choices\.0\.message\.content"):
        read('{"choices":[{"message":{"content":5}}]}')


def test_error_about_a_large_body_is_small() -> None:
    with pytest.raises(DecodeError) as caught:
        read("x" * 1_000_000)
    assert len(str(caught.value)) < 500
    assert len(caught.value.body) == 2000


def test_list_of_models_is_read() -> None:
    body = b'{"object":"list","data":[{"id":"ernie-5.1","context_length":131072}]}'
    models = read_answer(ModelList, 200, {}, body, utc_now=0.0)
    assert models.data[0].id == "ernie-5.1"
    assert models.data[0].context_length == 131072


def test_chunk_keeps_every_field() -> None:
    data = b'{"id":"as-1","choices":[{"index":0,"delta":{"content":"a","x":1},"y":2}],"z":3}'
    assert json.loads(read_chunk(data).model_dump_json(exclude_unset=True)) == json.loads(data)


@pytest.mark.parametrize("data", [b"{}", b' {"choices":[]} ', b'{"choices":[{}]}'])
def test_chunk_may_lack_every_field(data: bytes) -> None:
    assert read_chunk(data).text == ""


def test_invalid_utf8_in_a_chunk_becomes_replacement_characters() -> None:
    assert read_chunk(b'{"choices":[{"delta":{"content":"a\xffb"}}]}').text == "a\ufffdb"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (ENVELOPE, RateLimitError),
        (b'{"error":{"code":"internal_error","message":"x"},"choices":[]}', ServerError),
        (b'{"error":{"message":"x","type":"internal_error","code":null}}', ServerError),
        (b'{"object":"error","message":"x","code":400}', BadRequestError),
        (b'{"error_code":336100,"error_msg":"x"}', ServerError),
        (b'{"error":"out of memory"}', ServerError),
        (b'{"choices":5,"error":{"code":"internal_error"}}', ServerError),
    ],
)
def test_error_in_a_stream_has_the_class_of_its_code(data: bytes, kind: type[APIError]) -> None:
    with pytest.raises(APIError) as caught:
        read_chunk(data)
    assert type(caught.value) is kind
    assert caught.value.status == 200


@pytest.mark.parametrize("data", [b"", b"x", b"[1]", b"null", b'{"choices":5}', b'{"id":"a'])
def test_event_that_is_no_chunk_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="this is not a ChatChunk") as caught:
        read_chunk(data)
    assert caught.value.body == data


def test_refused_stream_is_the_refusal() -> None:
    error = refuse_non_stream(429, {"Content-Type": "application/json"}, ENVELOPE, utc_now=0.0)
    assert isinstance(error, RateLimitError)
    assert error.status == 429


def test_error_as_json_instead_of_a_stream_is_the_refusal_it_means() -> None:
    error = refuse_non_stream(200, {"Content-Type": "application/json"}, ENVELOPE, utc_now=0.0)
    assert isinstance(error, RateLimitError)
    assert error.status == 200


def test_refused_stream_reads_retry_after() -> None:
    error = refuse_non_stream(429, {"retry-after": "3"}, ENVELOPE, utc_now=0.0)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3.0


@pytest.mark.parametrize(
    ("headers", "content_type"),
    [({"content-type": "text/html"}, "text/html"), ({"Content-TYPE": "x/y"}, "x/y"), ({}, "none")],
)
def test_whatever_else_is_no_stream_is_named(headers: dict[str, str], content_type: str) -> None:
    error = refuse_non_stream(200, headers, b"<html>", utc_now=0.0)
    assert isinstance(error, DecodeError)
    assert f"content type {content_type}" in str(error)
    assert error.body == b"<html>"


def test_redirect_instead_of_a_stream_is_a_refusal() -> None:
    error = refuse_non_stream(302, {}, b"", utc_now=0.0)
    assert isinstance(error, APIError)
    assert error.status == 302


@pytest.mark.parametrize(
    ("choice", "flag", "shows_text"),
    [
        ({"flag": 3, "ban_round": 2}, 3, False),
        ({"flag": 4}, 4, False),
        ({"finish_reason": "content_filter"}, None, True),
    ],
)
def test_an_answer_that_must_not_be_shown_is_an_error(
    choice: dict[str, Any], flag: int | None, shows_text: bool
) -> None:
    body = {"id": "as-1", "choices": [{"message": {"content": "a"}, **choice}]}
    with pytest.raises(BlockedError) as caught:
        read(json.dumps(body))
    error = caught.value
    assert (error.flag, error.request_id) == (flag, "as-1")
    # Where the text itself is bad, it is in no traceback either.
    assert (error.partial is not None) is shows_text
    assert error.partial is None or error.partial.text == "a"


@pytest.mark.parametrize(
    ("content_type", "is_stream"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("text/plain", True),
        (None, True),
        ("application/json", False),
        ("Application/JSON; charset=utf-8", False),
        ("text/html", False),
    ],
)
def test_a_body_is_read_as_events_unless_it_is_plainly_something_else(
    content_type: str | None, is_stream: bool
) -> None:
    for name in ("Content-Type", "content-type"):
        headers = {"X-Other": "json"} | ({} if content_type is None else {name: content_type})
        assert is_event_stream(headers) is is_stream


@pytest.mark.parametrize(
    "read_text",
    [
        lambda body: read(body).text,
        lambda body: read(body.replace(b'"index":0', b'"index":null')).text,
        lambda body: read_chunk(body.replace(b"message", b"delta")).text,
        lambda body: read_json(body)["choices"][0]["message"]["content"],
    ],
    ids=["answer", "answer with nulls", "chunk", "no model"],
)
def test_no_text_is_remembered(read_text: Callable[[bytes], str]) -> None:
    # What is remembered comes as the same object again; thousands of them break memory up.
    body = b'{"choices":[{"index":0,"message":{"content":"once and never again"}}]}'
    first, second = read_text(body), read_text(body)
    assert first == second == "once and never again"
    assert first is not second
