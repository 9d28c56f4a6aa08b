"""Steps as bytes, compared with what the service was recorded to send."""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_async.testing import cut, error_event, heartbeats, refuse, reply, stall
from ernie_async.testing.render import (
    canned_reply,
    completion,
    error_body,
    events,
    refusal_body,
    split_body,
    split_events,
)
from ernie_async.testing.seen import check_chat

FIXTURES = Path(__file__).parents[1] / "fixtures" / "chat_v2"
REQUEST = {"model": "ernie-5.1", "messages": [{"role": "user", "content": "你好吗"}]}
WITH_USAGE = REQUEST | {"stream": True, "stream_options": {"include_usage": True}}


def recorded(name: str) -> list[Any]:
    """The parsed events of a fixture, `[DONE]` as None."""
    return parsed((FIXTURES / name).read_bytes().split(b"\n\n"))


def parsed(sent: list[bytes]) -> list[Any]:
    payloads = [event.removeprefix(b"data: ").strip() for event in sent]
    return [None if p == b"[DONE]" else json.loads(p) for p in payloads if p]


def told(step: reply, fixture: list[Any]) -> list[Any]:
    """The step's events, dated and named like the fixture's."""
    head = fixture[0]
    request = WITH_USAGE | {"model": head["model"]}
    return parsed(events(step, request, body_id=head["id"], created=head["created"]))


def sent(step: reply, request: dict[str, Any] = REQUEST) -> list[bytes]:
    return events(step, request, body_id="as-0", created=0)


def answer(step: reply) -> dict[str, Any]:
    return completion(step, REQUEST, body_id="as-0", created=0)


def test_stream_of_text_has_the_recorded_shape() -> None:
    fixture = recorded("stream_text_qwen3_32b.sse")
    step = reply("你好", usage=fixture[-2]["usage"])
    assert told(step, fixture) == fixture


def test_stream_of_tool_calls_has_the_documented_shape() -> None:
    fixture = recorded("stream_tool_calls_synthetic.sse")
    function = {"name": "get_current_weather", "arguments": {"location": "上海"}}
    step = reply(tool_calls=[{"function": function}], usage=fixture[-2]["usage"], chunk_chars=12)
    assert told(step, fixture) == fixture


def test_stream_with_search_results_has_the_documented_shape() -> None:
    fixture = recorded("stream_search_results_synthetic.sse")
    step = reply(
        "上海多云^[1]^。",
        search_results=fixture[0]["search_results"],
        usage=fixture[-2]["usage"],
        chunk_chars=8,
    )
    fixture[0]["choices"][0]["delta"]["content"] = "上海多云^[1]"
    fixture[1]["choices"][0]["delta"]["content"] = "^。"
    assert told(step, fixture) == fixture


def test_thinking_comes_first_with_null_content() -> None:
    deltas = [e["choices"][0]["delta"] for e in parsed(sent(reply("好", reasoning="想")))[:-1]]
    assert deltas == [
        {"content": None, "reasoning_content": "想", "role": "assistant"},
        {"content": "好"},
        {"content": ""},
    ]


def test_json_with_thinking_has_the_recorded_shape() -> None:
    fixture = json.loads((FIXTURES / "chat_reasoning_ernie_5_0_thinking_preview.json").read_bytes())
    message = fixture["choices"][0]["message"]
    step = reply(message["content"], reasoning=message["reasoning_content"], usage=fixture["usage"])
    request = REQUEST | {"model": fixture["model"]}
    assert completion(step, request, body_id=fixture["id"], created=fixture["created"]) == fixture


def test_json_with_a_flag_has_the_documented_shape() -> None:
    fixture = json.loads((FIXTURES / "chat_flag_blocked_synthetic.json").read_bytes())
    step = reply("", finish_reason="content_filter", flag=3, usage=fixture["usage"])
    request = REQUEST | {"model": fixture["model"]}
    assert completion(step, request, body_id=fixture["id"], created=fixture["created"]) == fixture


def test_json_with_tool_calls_has_the_documented_shape() -> None:
    fixture = json.loads((FIXTURES / "chat_tool_calls_synthetic.json").read_bytes())
    choice = fixture["choices"][0]
    step = reply(tool_calls=choice["message"]["tool_calls"])
    assert answer(step)["choices"] == [choice]


def test_a_stream_without_include_usage_has_none() -> None:
    assert all("usage" not in event for event in parsed(sent(reply("你好")))[:-1])


def test_usage_counts_a_token_per_character() -> None:
    assert answer(reply("好的", reasoning="想想"))["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_an_empty_text_is_one_chunk() -> None:
    (chunk, done) = parsed(sent(reply("")))
    assert chunk["choices"][0]["delta"] == {"content": "", "role": "assistant"}
    assert done is None


def test_no_finish_reason_and_no_done_leave_both_out() -> None:
    assert "finish_reason" not in parsed(sent(reply("好", finish_reason=None, done=False)))[-1]


def test_ids_count_from_one_and_spare_done() -> None:
    assert [event.split(b"\n")[0] for event in sent(reply("你好吗", ids=True, done=False))] == [
        b"id: 1",
        b"id: 2",
        b"id: 3",
    ]
    assert sent(reply("好", ids=True))[-1] == b"data: [DONE]\n\n"


def test_chunks_need_a_character() -> None:
    with pytest.raises(ValueError, match="chunk_chars"):
        reply("好", chunk_chars=0)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (reply(), [b"ab", b"cd", b"ef"], []),
        (cut(), [b"ab"], [b"cd", b"ef"]),
        (cut(after_chunks=0), [], [b"ab", b"cd", b"ef"]),
        (cut(after_bytes=3), [b"ab", b"c"], []),
        (cut(after_bytes=4), [b"ab", b"cd"], []),
        (stall(2), [b"ab", b"cd"], [b"ef"]),
        (heartbeats(1, after_chunks=9), [b"ab", b"cd", b"ef"], []),
        (error_event(), [], [b"ab", b"cd", b"ef"]),
    ],
)
def test_a_step_says_what_is_sent_before_it(
    step: Any, before: list[bytes], after: list[bytes]
) -> None:
    assert split_events(step, [b"ab", b"cd", b"ef"]) == (before, after)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (cut(), [b"ab"], []),
        (cut(after_chunks=7), [b"ab"], []),
        (cut(after_chunks=0), [b""], []),
        (cut(after_bytes=3), [b"abc"], []),
        (stall(), [b""], []),
        (heartbeats(1), [], [b"abcd"]),
    ],
)
def test_a_json_answer_breaks_in_its_middle(
    step: Any, before: list[bytes], after: list[bytes]
) -> None:
    assert split_body(step, b"abcd") == (before, after)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("error_401_invalid_iam_token", 401, None),
        ("error_403_account_overdue", 403, "account_overdue"),
        ("error_403_system_unsafe", 403, "system_unsafe"),
        ("error_405_method_not_supported", 405, None),
        ("error_429_rpm_rate_limit_exceeded", 429, None),
        ("error_429_cluster_rate_limit_exceeded", 429, "cluster_rate_limit_exceeded"),
        ("error_500_internal_error", 500, None),
        ("error_500_internal_error", 503, None),
    ],
)
def test_errors_are_the_recorded_ones(name: str, status: int, code: str | None) -> None:
    fixture = json.loads((FIXTURES / f"{name}.json").read_bytes())
    body = error_body(status, code, None, body_id=fixture["id"])
    assert json.loads(body) == fixture


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("malformed_json", None),
        ("messages_empty", {"model": "m", "messages": []}),
        ("missing_model", {"messages": [{"role": "user", "content": "x"}]}),
        ("bad_role", {"model": "m", "messages": [{"role": "robot", "content": "x"}]}),
    ],
)
def test_bad_requests_get_the_recorded_refusals(name: str, request_: Any) -> None:
    fixture = json.loads((FIXTURES / f"error_400_{name}.json").read_bytes())
    refusal = check_chat(request_)
    assert refusal is not None
    assert json.loads(refusal_body(refusal, body_id=fixture["id"])) == fixture


def test_a_body_of_ones_own_replaces_the_envelope() -> None:
    assert refusal_body(refuse(502, body="<html>坏</html>"), body_id="as-0").startswith(b"<html>")


def test_the_canned_reply_says_so_and_repeats_the_last_words_of_the_user() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "看图"}]
    messages = [
        {"role": "user", "content": "第一"},
        {"role": "assistant", "content": "答"},
        {"role": "user", "content": parts},
    ]
    text = canned_reply({"model": "m", "messages": messages}, chunk_ms=0).text or ""
    assert "固定回答" in text
    assert "canned" in text
    assert text.endswith("看图")
    messages[-1]["content"] = "长" * 201
    text = canned_reply({"model": "m", "messages": messages}, chunk_ms=0).text or ""
    assert text.endswith(f"You said (the first 200 of 201 characters): {'长' * 200}")
