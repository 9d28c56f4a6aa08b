"""What strangers are told of an answer, and of what went wrong with it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    BlockedError,
    ConfigError,
    ConnectError,
    DeadlineError,
    ErnieError,
    InterruptedStreamError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from ernie_async.sansio.relay import ChunkRelay, Fault, GatewayError, fault_of, usage_payload
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.usage import Usage

SECRET = "bce-v3/ALTAK-planted/x of account 7"


def chunk(*choices: dict[str, Any], **fields: Any) -> ChatChunk:
    return ChatChunk.model_validate({"choices": choices, **fields})


def says(text: str, **fields: Any) -> dict[str, Any]:
    return {"delta": {"content": text}, **fields}


@pytest.mark.parametrize(
    ("error", "status", "code", "retryable"),
    [
        (RateLimitError(SECRET, status=429), 429, "rate_limited", True),
        (AuthError(SECRET, status=401), 502, "upstream_error", False),
        (QuotaError(SECRET, status=403), 502, "upstream_error", False),
        (ServerError(SECRET, status=500), 502, "upstream_error", True),
        (APIError(SECRET, status=418), 502, "upstream_error", False),
        (RefusedError(SECRET, status=400), 400, "content_filter", False),
        (BlockedError(SECRET), 400, "content_filter", False),
        (DeadlineError(SECRET, clock="idle"), 504, "upstream_timeout", True),
        (DeadlineError(SECRET, clock="total"), 504, "upstream_timeout", False),
        (ConnectError(SECRET), 502, "upstream_error", True),
        (InterruptedStreamError(SECRET), 502, "upstream_error", True),
        (ErnieError(SECRET), 502, "upstream_error", False),
    ],
)
def test_what_is_wrong_with_the_service_is_told_in_words_of_the_gateway(
    error: ErnieError, status: int, code: str, retryable: bool
) -> None:
    fault = fault_of(error)
    assert (fault.status, fault.code, fault.retryable) == (status, code, retryable)
    assert "planted" not in fault.message
    assert fault.payload == {"code": code, "message": fault.message, "retryable": retryable}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("temperature: too hot"), 400, "invalid_request"),
        (BadRequestError("temperature: too hot", status=400), 400, "invalid_request"),
        (NotFoundError("temperature: too hot", status=404), 404, "not_found"),
    ],
)
def test_what_is_wrong_with_the_request_is_told_as_it_is(
    error: ErnieError, status: int, code: str
) -> None:
    assert fault_of(error) == Fault(status, code, "temperature: too hot")


def test_how_long_to_wait_is_passed_on() -> None:
    assert fault_of(RateLimitError("x", retry_after=7.0)).retry_after == 7.0
    assert fault_of(RateLimitError("x")).retry_after is None
    assert fault_of(DeadlineError("x", clock="idle")).message.endswith("(idle)")


def test_the_gateway_speaks_for_itself() -> None:
    unknown, full = GatewayError.unknown_stream(), GatewayError.overloaded("full", 3.0)
    assert fault_of(unknown) is unknown.fault
    assert (unknown.fault.status, unknown.fault.retryable) == (404, False)
    assert fault_of(full) == Fault(503, "overloaded", "full", retryable=True, retry_after=3.0)
    assert str(full) == "full"
    assert GatewayError.overloaded("full").fault.retry_after == 1.0


def test_usage_is_told_and_whether_it_was_estimated() -> None:
    assert usage_payload(Usage(prompt_tokens=1, total_tokens=1)) == {
        "prompt_tokens": 1,
        "total_tokens": 1,
    }
    guess = usage_payload(Usage.estimated(prompt_tokens=1, completion_tokens=2))
    assert (guess["prompt_tokens"], guess["total_tokens"], guess["estimated"]) == (1, 3, True)
    nothing = usage_payload(None)
    assert (nothing["total_tokens"], nothing["estimated"]) == (0, True)


def test_each_part_of_a_chunk_is_an_event() -> None:
    relay = ChunkRelay(max_chars=100)
    calls = [
        {"id": "c1", "index": 1, "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "c2"},
    ]
    delta = {"reasoning_content": "hm", "content": "hi", "tool_calls": calls}
    other = says("of another answer", index=1, finish_reason="length", flag=2)
    told = relay.feed(chunk(other, {"delta": delta, "finish_reason": "tool_calls"}))
    assert told == [
        ("delta", {"reasoning": "hm", "index": 0}),
        ("delta", {"text": "hi", "index": 0}),
        ("tool_call", {"index": 1, "arguments_delta": "{", "id": "c1", "name": "f"}),
        ("tool_call", {"index": 0, "arguments_delta": "}"}),
        ("tool_call", {"index": 0, "arguments_delta": "", "id": "c2"}),
    ]
    assert relay.feed(chunk({"delta": {"reasoning": "hm"}})) == [
        ("delta", {"reasoning": "hm", "index": 0})
    ]
    assert relay.feed(chunk({"delta": {}})) == []
    done = relay.done(Usage(total_tokens=9))
    assert done == {
        "finish_reason": "tool_calls",
        "usage": {"total_tokens": 9},
        "chars": 8,
        "cancelled": False,
    }


def test_the_last_event_tells_what_belongs_to_the_whole_answer() -> None:
    relay = ChunkRelay(max_chars=100)
    found = {"index": 1, "url": "https://a.cn", "new_field": 7}
    relay.feed(chunk(says("a", flag=2), search_results=[found]))
    relay.feed(chunk(says("b", finish_reason="stop", flag=0)))
    done = relay.done(None, cancelled=True)
    assert (done["conversation_closed"], done["search_results"]) == (True, [found])
    assert (done["cancelled"], done["finish_reason"]) == (True, "stop")
    for flag in (None, 0, 1, 3):
        relay = ChunkRelay(max_chars=100)
        relay.feed(chunk(says("a", flag=flag)))
        assert "conversation_closed" not in relay.done(None)


def test_what_is_beyond_the_limit_is_left_out_and_so_is_its_finish_reason() -> None:
    relay = ChunkRelay(max_chars=5)
    assert relay.feed(chunk(says("abc"))) == [("delta", {"text": "abc", "index": 0})]
    assert not relay.is_full
    [(_, last)] = relay.feed(chunk(says("def", finish_reason="stop")))
    assert last["text"] == "de"
    assert (relay.is_full, relay.chars, relay.finish_reason) == (True, 5, "length")
    assert relay.feed(chunk(says("g", finish_reason="stop"))) == []
    assert relay.done(None)["finish_reason"] == "length"


@given(
    st.lists(
        st.tuples(st.sampled_from(["content", "reasoning", "call"]), st.text(max_size=6)),
        max_size=8,
    ),
    st.integers(1, 20),
)
def test_an_answer_ends_where_it_becomes_too_long(pieces: list[tuple[str, str]], most: int) -> None:
    relay = ChunkRelay(max_chars=most)
    shown = ""
    for name, text in pieces:
        delta = {name: text}
        if name == "call":
            delta = {"tool_calls": [{"function": {"arguments": text}}]}  # type: ignore[dict-item]
        for _, payload in relay.feed(chunk({"delta": delta, "finish_reason": "stop"})):
            names = payload.keys() & {"text", "reasoning", "arguments_delta"}
            shown += "".join(payload[name] for name in names)
    whole = "".join(text for _, text in pieces)
    assert shown == whole[:most]
    assert relay.chars == len(shown)
    assert relay.is_full is (len(whole) > most)
    if pieces:
        assert relay.finish_reason == ("length" if relay.is_full else "stop")
