"""The shape of a conversation: findings, and what mending it makes of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.chat_request import chat_request
from ernie_async.sansio.conversation import fix_messages, lint_messages
from ernie_async.types.messages import AnswerMessage, assistant, system, tool_result, user

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKING = {"role": "assistant", "tool_calls": [CALL]}
STRICT = "ernie-4.5-turbo-vl-32k"


def codes(messages: list[Any], model: str | None = None) -> list[tuple[int | None, str]]:
    return [(finding.index, finding.code) for finding in lint_messages(messages, model)]


GOOD: list[list[Any]] = [
    [user("a")],
    [system("s"), user("a"), assistant("b"), user("c")],
    [user("a"), ASKING, tool_result("c1", "1")],
    [user("a"), ASKING, tool_result("c1", "1"), assistant("b"), user("c")],
    [
        user("a"),
        AnswerMessage(content="b", reasoning_content="hm"),
        {"role": "user", "content": "c"},
    ],
    [user("a"), assistant("b", prefix=True)],
]


@pytest.mark.parametrize("messages", GOOD)
def test_good_conversation_has_no_finding_and_stays_as_it_is(messages: list[Any]) -> None:
    assert lint_messages(messages) == []
    assert fix_messages(messages) == chat_request(messages, {}).messages


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([], [(None, "empty")]),
        ([{"role": "bot", "content": "x"}, user("a")], [(0, "unknown_role")]),
        ([{"role": "user", "content": ""}], [(0, "empty")]),
        ([{"role": "user", "content": " "}], [(0, "blank_last")]),
        ([user("a"), user("b")], [(1, "not_alternating")]),
        ([assistant("a"), user("b")], [(0, "starts_without_user")]),
        ([user("a"), system("s")], [(1, "system_not_first")]),
        ([system("s"), system("t"), user("a")], [(1, "several_systems")]),
        ([user("a"), assistant("b")], [(1, "last_not_user")]),
        ([user("a"), tool_result("c9", "1")], [(1, "tool_without_call")]),
        ([user("a"), ASKING, user("b")], [(1, "call_without_result")]),
        ([user("a"), {"role": "tool", "content": "1"}], [(1, "tool_without_id")]),
        (
            [user("a"), {"role": "assistant", "content": "b", "prefix": True}, user("c")],
            [(1, "prefix_not_last")],
        ),
    ],
)
def test_each_fault_is_found_where_it_is(
    messages: list[Any], found: list[tuple[int | None, str]]
) -> None:
    assert codes(messages) == found


def test_strict_models_want_turns_and_the_users_last_word() -> None:
    messages = [user("a"), ASKING, tool_result("c1", "1")]
    assert codes(messages, "ernie-5.1") == []
    assert codes(messages, STRICT) == [(2, "last_not_user")]
    assert codes([*messages, user("b")], STRICT) == [(3, "not_alternating")]
    even = [user("a"), assistant("b")]
    assert codes(even, "ERNIE-X1-Turbo-32k") == [(1, "last_not_user"), (None, "even_count")]


@pytest.mark.parametrize(
    ("broken", "fixed"),
    [
        ([user("a"), user("b")], [user("a\n\nb")]),
        ([user("a"), system("s"), system("t")], [system("s\n\nt"), user("a")]),
        ([assistant("lost"), user("a")], [user("a")]),
        ([user("a"), {"role": "assistant", "content": " "}, user("b")], [user("a\n\nb")]),
        ([user("a"), tool_result("c9", "1"), assistant("b")], [user("a"), assistant("b")]),
        ([user("a"), ASKING, user("b")], [user("a\n\nb")]),
        (
            [user("a"), {**ASKING, "content": "text"}, user("b")],
            [user("a"), assistant("text"), user("b")],
        ),
        (
            [user("a"), {"role": "assistant", "content": "x"}, assistant("y", prefix=True)],
            [user("a"), assistant("x\n\ny", prefix=True)],
        ),
        ([user("a", name="x"), user("b", name="x")], [user("a\n\nb", name="x")]),
        ([user("a", name="x"), user("b", name="y")], [user("a\n\nb")]),
        ([{"role": "bot", "content": "x"}], []),
    ],
)
def test_each_fault_is_mended(broken: list[Any], fixed: list[Any]) -> None:
    assert fix_messages(broken) == fixed


def test_result_is_put_behind_its_call() -> None:
    late = [user("a"), ASKING, user("b"), tool_result("c1", "1")]
    roles = [message.role for message in fix_messages(late)]
    assert roles == ["user", "assistant", "tool", "user"]


def test_pictures_and_text_are_joined_as_parts() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    fixed = fix_messages([{"role": "user", "content": [picture]}, user("what is it?")])
    assert len(fixed) == 1
    assert isinstance(fixed[0].content, list)
    assert [part.type for part in fixed[0].content] == ["image_url", "text"]


@pytest.mark.parametrize("function", [lint_messages, fix_messages])
@pytest.mark.parametrize("message", ["hi", None, {"content": "x"}])
def test_what_is_no_message_is_refused(function: Any, message: Any) -> None:
    with pytest.raises(ConfigError, match=r"messages\.0"):
        function([message])


def test_field_that_no_message_has_is_refused_by_the_fixer() -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        fix_messages([{"role": "user", "content": "a", "odd": 1}])


def call(name: str) -> dict[str, Any]:
    return {**CALL, "id": name}


ids = st.sampled_from(["c1", "c2"])
turns = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant", "bot"]),
        st.sampled_from(["", " ", "a", "b"]),
    ),
    st.builds(lambda name: {"role": "assistant", "tool_calls": [call(name)]}, ids),
    st.builds(lambda name: {"role": "tool", "tool_call_id": name, "content": "1"}, ids),
    st.just({"role": "assistant", "content": "p", "prefix": True}),
)


@given(st.lists(turns, max_size=9))
def test_mended_conversation_is_sendable_and_has_nothing_left_to_mend(
    messages: list[dict[str, Any]],
) -> None:
    fixed = fix_messages(messages)
    assert fix_messages(fixed) == fixed
    left = {finding.code for finding in lint_messages(fixed)}
    assert left <= {"last_not_user"} if fixed else left == {"empty"}
    if fixed and any(message.role not in {"system", "developer"} for message in fixed):
        assert chat_request(fixed, {}).messages == fixed


@given(st.lists(turns, max_size=6))
def test_only_what_is_called_refused_is_refused(messages: list[dict[str, Any]]) -> None:
    is_refused = any(finding.is_refused for finding in lint_messages(messages))
    try:
        chat_request(messages, {})
    except ConfigError:
        assert is_refused
    else:
        assert not is_refused


def test_calls_of_turns_that_are_joined_stay() -> None:
    turns = [user("a"), assistant("let me see"), ASKING, tool_result("c1", "1")]
    asking, result = fix_messages(turns)[1:]
    assert asking.content == "let me see"
    assert asking.tool_calls is not None
    assert [call.id for call in asking.tool_calls] == [result.tool_call_id] == ["c1"]
    twice = [user("a"), ASKING, {**ASKING, "tool_calls": [call("c2")]}, tool_result("c2", "1")]
    asking, result = fix_messages(twice)[1:]
    assert (asking.content, result.tool_call_id) == (None, "c2")
