"""Events in the format that programs written for OpenAI read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.openai_frames import ChunkFrames
from ernie_async.sansio.replay import StreamEvent
from ernie_async.sansio.rest import read_chunk
from ernie_async.sansio.sse import EventDecoder, ServerSentEvent

HEAD = {"id": "st_1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
DONE = {"finish_reason": "stop", "usage": {"total_tokens": 3}, "chars": 1, "cancelled": False}


def frames(*, has_usage: bool = False) -> ChunkFrames:
    return ChunkFrames("st_1", "a-b_C9zz", model="m", created=7, has_usage=has_usage)


def written(told: list[tuple[str, dict[str, Any]]], **settings: bool) -> list[ServerSentEvent]:
    events = [StreamEvent(n, kind, payload) for n, (kind, payload) in enumerate(told, 1)]
    return EventDecoder().feed(frames(**settings).encode(events))


def choices(told: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    bodies = [json.loads(event.data) for event in written(told) if event.data != b"[DONE]"]
    for body in bodies:
        assert {name: body[name] for name in HEAD} == HEAD
    return [body["choices"][0] for body in bodies]


@given(st.text())
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    [event] = written([("delta", {"text": text, "index": 0})])
    assert (event.event, event.id) == ("", "a-b_C9zz-1")
    chunk = read_chunk(event.data)
    assert (chunk.id, chunk.model, chunk.created, chunk.text) == ("st_1", "m", 7, text)
    assert chunk.finish_reason is None


def test_text_is_written_as_it_is() -> None:
    for text in ("你好", '"\\', "a\nb\0", ""):
        [choice] = choices([("delta", {"text": text, "index": 0})])
        assert choice == {"index": 0, "delta": {"content": text}, "finish_reason": None}


@pytest.mark.parametrize("model", ["\0", "a\0", '"\0"', ""])
def test_any_model_is_named_as_it_is(model: str) -> None:
    chunks = ChunkFrames("st_1", "a-b_C9zz", model=model, created=7, has_usage=False)
    [event] = EventDecoder().feed(chunks.encode([StreamEvent(1, "delta", {"text": "好"})]))
    chunk = read_chunk(event.data)
    assert (chunk.model, chunk.text) == (model, "好")


def test_each_kind_of_event_has_its_chunk() -> None:
    call = {"index": 1, "arguments_delta": "{", "id": "c1", "name": "f"}
    told = [
        ("start", {"stream_id": "st_1"}),
        ("delta", {"reasoning": "hm", "index": 0}),
        ("tool_call", call),
        ("tool_call", {"index": 1, "arguments_delta": "}"}),
    ]
    assert [choice["delta"] for choice in choices(told)] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"tool_calls": [
            {"index": 1, "type": "function", "id": "c1",
             "function": {"name": "f", "arguments": "{"}}
        ]},
        {"tool_calls": [{"index": 1, "type": "function", "function": {"arguments": "}"}}]},
    ]  # fmt: skip
    assert [event.id for event in written(told)] == [f"a-b_C9zz-{n}" for n in range(1, 5)]


def test_the_end_has_its_reason_and_its_mark() -> None:
    [last, mark] = written([("done", DONE)])
    assert json.loads(last.data)["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert mark.data == b"[DONE]"
    [choice] = choices([("done", {**DONE, "finish_reason": None})])
    assert choice["finish_reason"] == "stop", "every answer needs one"
    [choice] = choices([("done", {**DONE, "conversation_closed": True})])
    assert choice["flag"] == 2


def test_usage_comes_last_and_only_for_who_asked() -> None:
    found = [{"index": 1}]
    last, usage, mark = written([("done", {**DONE, "search_results": found})], has_usage=True)
    assert json.loads(last.data)["search_results"] == found
    assert json.loads(usage.data) == {**HEAD, "choices": [], "usage": {"total_tokens": 3}}
    assert mark.data == b"[DONE]"


@pytest.mark.parametrize(("is_retracted", "flag"), [(False, 3), (True, 4)])
def test_what_must_not_be_shown_ends_as_the_service_itself_would_end_it(
    is_retracted: bool, flag: int
) -> None:
    told: list[tuple[str, dict[str, Any]]] = [
        ("error", {"code": "content_filter", "message": "x", "retryable": False})
    ]
    if is_retracted:
        told.insert(0, ("retract", {"from_char": 0, "replacement": ""}))
    [choice] = choices(told)
    assert (choice["finish_reason"], choice["flag"], choice["delta"]) == (
        "content_filter",
        flag,
        {},
    )
    assert written(told)[-1].data == b"[DONE]"


def test_other_ends_are_errors_as_such_programs_read_them() -> None:
    fault = {"code": "upstream_error", "message": "broken", "retryable": True}
    error, mark = written([("error", fault)])
    assert (json.loads(error.data), mark.data) == ({"error": fault}, b"[DONE]")
    error, mark = written([("done", {**DONE, "cancelled": True})])
    assert json.loads(error.data)["error"]["code"] == "cancelled"
    assert mark.data == b"[DONE]"


@pytest.mark.parametrize("kind", ["retract", "reset", "usage"])
def test_what_the_format_cannot_say_is_left_out(kind: str) -> None:
    assert written([(kind, {"from_char": 0, "replacement": "", "text": ""})]) == []
