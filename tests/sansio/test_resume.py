"""Whether a broken stream may go on, in which form, and with which request."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ernie_async.errors import (
    AuthError,
    BadRequestError,
    BlockedError,
    ConfigError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.rest import Request
from ernie_async.sansio.resume import (
    ResumePolicy,
    least_overlap,
    read_resume,
    resume_forms,
    resume_request,
)
from ernie_async.types.chunk import ChatChunk

CUT = InterruptedStreamError("cut")


def request(model: str = "ernie-5.1", *, n: int = 1, **fields: Any) -> Request:
    body = {"model": model, "messages": [{"role": "user", "content": "背诗"}], **fields}
    return Request("POST", "/chat/completions", json.dumps(body).encode(), {}, "ea-1", model, n=n)


def answer(text: str = "床前明月", **delta: Any) -> Accumulator:
    accumulator = Accumulator()
    choice = {"delta": {"content": text, **delta}}
    accumulator.feed(ChatChunk.model_validate({"choices": [choice]}))
    return accumulator


def forms(mode: Any, error: ErnieError = CUT, **given: Any) -> tuple[str, ...]:
    return resume_forms(
        ResumePolicy(mode=mode, continuation=given.get("continuation", "auto")),
        given.get("request", request()),
        given.get("answer", answer()),
        error,
        last_event_id=given.get("last_event_id", ""),
        n_resumes=given.get("n_resumes", 0),
    )


@pytest.mark.parametrize(
    ("mode", "last_event_id", "expected"),
    [
        ("never", "7", ()),
        ("never", "", ()),
        ("server", "7", ("server",)),
        ("server", "", ()),
        ("continue", "7", ("server", "emulated")),
        ("continue", "", ("emulated",)),
    ],
)
def test_the_mode_and_the_ids_decide(mode: str, last_event_id: str, expected: object) -> None:
    assert forms(mode, last_event_id=last_event_id) == expected


@pytest.mark.parametrize(
    ("error", "by_server", "by_model"),
    [
        (InterruptedStreamError("x"), True, True),
        (DeadlineError("x", clock="idle"), True, True),
        (DeadlineError("x", clock="total"), False, False),
        (ServerError("x"), False, True),
        (RateLimitError("x"), False, True),
        (AuthError("x"), False, False),
        (BadRequestError("x"), False, False),
        (BlockedError("x"), False, False),
        (DecodeError("x"), False, False),
    ],
)
def test_the_error_decides(error: ErnieError, by_server: bool, by_model: bool) -> None:
    assert bool(forms("server", error, last_event_id="7")) == by_server
    assert bool(forms("continue", error)) == by_model


@pytest.mark.parametrize(
    ("model", "continuation", "expected"),
    [
        ("ernie-5.1", "auto", ("emulated",)),
        ("unheard-of", "auto", ("emulated",)),
        ("deepseek-v3.2", "auto", ("prefix", "emulated")),
        ("deepseek-v3.2", "emulated", ("emulated",)),
        ("ernie-5.1", "prefix", ("prefix", "emulated")),
        ("ernie-5.1", "final_message", ("final_message", "emulated")),
    ],
)
def test_the_model_decides_unless_the_caller_does(
    model: str, continuation: str, expected: object
) -> None:
    assert forms("continue", request=request(model), continuation=continuation) == expected


CALL = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"answer": answer("", **CALL)}, ()),
        ({"answer": answer("let me look", **CALL)}, ()),
        ({"answer": answer("", reasoning_content="hm")}, ()),
        ({"answer": answer("so", reasoning_content="hm")}, ("emulated",)),
        ({"answer": answer("")}, ("restart",)),
        ({"answer": answer(" \n")}, ()),
        ({"request": request(n=2)}, ()),
        ({"request": request(response_format={"type": "json_object"})}, ()),
        ({"request": request(response_format={"type": "text"})}, ("emulated",)),
        ({"n_resumes": 3}, ()),
        ({"n_resumes": 2}, ("emulated",)),
    ],
)
def test_a_model_is_not_asked_where_a_seam_would_show(
    given: dict[str, Any], expected: object
) -> None:
    assert forms("continue", **given) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"answer": answer("", **CALL)},
        {"answer": answer("", reasoning_content="hm")},
        {"request": request(n=2)},
        {"request": request(response_format={"type": "json_object"})},
    ],
)
def test_the_server_sends_the_very_events_that_are_missing_wherever_it_was(
    given: dict[str, Any],
) -> None:
    assert forms("server", last_event_id="7", **given) == ("server",)


def body_of(form: Any, text: str = "床前明月", **fields: Any) -> Any:
    made = resume_request(request(**fields), form, text)
    assert made.body is not None
    return json.loads(made.body)


def test_the_server_is_asked_for_what_comes_after_an_id() -> None:
    asked = replace(request(), headers={"X-Mine": "1"})
    made = resume_request(asked, "server", "床前", last_event_id="7")
    assert made == replace(asked, headers={"X-Mine": "1", "Last-Event-ID": "7"})


def test_a_restart_is_the_same_request() -> None:
    assert resume_request(request(), "restart", "") == request()


def test_the_partial_answer_becomes_a_turn() -> None:
    user = {"role": "user", "content": "背诗"}
    turn = {"role": "assistant", "content": "床前明月"}
    assert body_of("prefix")["messages"] == [user, {**turn, "prefix": True}]
    final = body_of("final_message", x_mine=[1])
    assert final["messages"] == [user, turn]
    assert (final["continue_final_message"], final["add_generation_prompt"]) == (True, False)
    assert final["x_mine"] == [1]
    emulated = body_of("emulated")["messages"]
    assert emulated[:2] == [user, turn]
    assert emulated[2]["role"] == "user"
    assert "接着写" in emulated[2]["content"]
    assert "Go on" in body_of("emulated", "The quick")["messages"][2]["content"]


def test_the_callers_own_beginning_is_part_of_the_turn() -> None:
    messages = [
        {"role": "user", "content": "背诗"},
        {"role": "assistant", "content": "床前", "prefix": True},
    ]
    assert body_of("prefix", "明月", messages=messages)["messages"] == [
        messages[0],
        {"role": "assistant", "content": "床前明月", "prefix": True},
    ]


@pytest.mark.parametrize(("limit", "left"), [(100, 98), (3, 1), (2, 1), (1, 1)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_what_was_said_counts_against_the_limit(name: str, limit: int, left: int) -> None:
    assert body_of("emulated", **{name: limit})[name] == left


def test_the_limiter_is_told_of_the_longer_prompt() -> None:
    counted = replace(request(), prompt_tokens=10, answer_tokens=100)
    made = resume_request(counted, "emulated", "床前明月")
    assert (made.prompt_tokens, made.answer_tokens) == (12, 98)
    assert resume_request(request(), "emulated", "床前明月").prompt_tokens == 0


def test_only_an_emulation_may_repeat_a_single_character() -> None:
    assert least_overlap("emulated") == 1
    assert least_overlap("prefix") == least_overlap("final_message") > 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"mode": "always"}, "resume"),
        ({"most": 0}, "most"),
        ({"most": 1.5}, "most"),
        ({"continuation": "magic"}, "continuation"),
    ],
)
def test_impossible_policies_are_refused_with_their_name(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        ResumePolicy(**settings)


def test_a_mode_stands_for_its_policy() -> None:
    assert read_resume("continue") == ResumePolicy(mode="continue")
    policy = ResumePolicy(most=5)
    assert read_resume(policy) is policy
    with pytest.raises(ConfigError, match="expected"):
        read_resume("sometimes")  # type: ignore[arg-type]
