"""From V1 to V2: names, keywords, and a warning for whatever is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.address import read_base_url
from ernie_async.sansio.auth import ApiKey
from ernie_async.sansio.chat_request import chat_request
from ernie_async.sansio.legacy import RENAMED, V1Translation, translate_v1

FIXTURES = Path(__file__).parents[1] / "fixtures" / "legacy_v1"
HI = [{"role": "user", "content": "hi"}]


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text("utf-8"))


def translate(**fields: Any) -> V1Translation:
    return translate_v1({"messages": HI, **fields})


ERNIE = {
    name: endpoint
    for name, endpoint in fixture("model_to_endpoint").items()
    if name.startswith(("ERNIE", "Qianfan-Dynamic"))
}


@pytest.mark.parametrize("name", ERNIE)
def test_name_and_endpoint_of_a_model_lead_to_the_same_id(name: str) -> None:
    expected = name.lower().replace(" ", "-")
    expected = RENAMED.get(expected, expected)
    url = f"https://aip.baidubce.com/rpc/2.0/ai_custom/v1/wenxinworkshop{ERNIE[name]}"
    found = {
        translate(**fields).options["model"]
        for fields in (
            {"model": name},
            {"endpoint": ERNIE[name].rpartition("/")[2]},
            {"endpoint": url},
            {"model": f"{url}?access_token=24.x"},
        )
    }
    assert found == {expected}


def test_model_that_has_the_name_of_an_endpoint_keeps_it() -> None:
    assert translate(model="ernie-lite-8k").options["model"] == "ernie-lite-8k"


@pytest.mark.parametrize(("model", "n_warnings"), [("ERNIE-Speed-8K", 0), ("ERNIE-4.0-8K", 1)])
def test_models_that_may_be_gone_are_named(model: str, n_warnings: int) -> None:
    assert len(translate(model=model).warnings) == n_warnings


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({"temperature": 0.5, "top_p": 0.1}, {"temperature": 0.5, "top_p": 0.1}),
        ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        ({"user_id": "u"}, {"user": "u"}),
        ({"disable_search": True}, {"web_search": {"enable": False}}),
        (
            {"disable_search": False, "enable_citation": True, "enable_trace": True},
            {"web_search": {"enable": True, "enable_citation": True, "enable_trace": True}},
        ),
        ({"tools": [{"type": "baidu_search"}]}, {"web_search": {"enable": True}}),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
        ({"penalty_score": None}, {}),
        ({"penalty_score": 1.1, "stop": ["。"]}, {"penalty_score": 1.1, "stop": ["。"]}),
    ],
)
def test_fields_go_over_without_a_loss(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert translate(**old) == (HI, new, ())


@pytest.mark.parametrize(
    ("old", "word"),
    [
        ({"min_output_tokens": 1}, "min_output_tokens: V2 has nothing like it"),
        ({"system_memory_id": "x"}, "system turn"),
        ({"stream": True}, "client.stream"),
        ({"ak": "x"}, "API key"),
        ({"tools": [{"type": "plugin"}]}, "plugin"),
    ],
)
def test_what_is_lost_is_said(old: dict[str, Any], word: str) -> None:
    translated = translate(**old)
    assert translated.options == {}
    (warning,) = translated.warnings
    assert word in warning


def test_unknown_field_is_kept_with_a_warning() -> None:
    translated = translate(odd=1)
    assert translated.options == {"extra_body": {"odd": 1}}
    assert "odd" in translated.warnings[0]


def test_system_comes_first() -> None:
    assert translate(system="be kind").messages == [{"role": "system", "content": "be kind"}, *HI]


@pytest.mark.parametrize(
    "name", ["chat_request", "function_call_request", "function_result_request"]
)
def test_recorded_request_becomes_one_that_can_be_sent(name: str) -> None:
    messages, options, warnings = translate_v1(fixture(name))
    request = chat_request(messages, options)
    assert len(request.tools or ()) == ("function" in name)
    assert bool(warnings) == ("function" in name)
    if name == "function_result_request":
        _, asking, result = request.messages
        assert asking.tool_calls is not None
        assert asking.tool_calls[0].function.name == "echo"
        assert result.tool_call_id == asking.tool_calls[0].id
        assert any("thoughts" in warning for warning in warnings)


@pytest.mark.parametrize("messages", [None, [], "hi", ["hi"], [{}]])
def test_what_is_no_conversation_is_refused(messages: Any) -> None:
    with pytest.raises(ConfigError, match="messages"):
        translate_v1({"messages": messages})


values = st.none() | st.booleans() | st.integers() | st.text()


@given(st.dictionaries(st.sampled_from(["temperature", "odd", "stop", "stream", "ak"]), values))
def test_no_field_disappears_in_silence(fields: dict[str, Any]) -> None:
    translated = translate(**fields)
    told = {**translated.options, **translated.options.get("extra_body", {})}
    for name, value in fields.items():
        assert value is None or name in told or any(name in w for w in translated.warnings)


def test_v1_token_and_host_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="2026-08-31"):
        ApiKey("24.0123456789abcdef0123456789abcdef.2592000.1700000000.282335-12345678")
    with pytest.raises(ConfigError, match="2026-08-31"):
        read_base_url("https://aip.baidubce.com/rpc/2.0/ai_custom/v1/wenxinworkshop")
    with pytest.raises(ConfigError, match="V2 API key"):
        chat_request("hi", {"access_token": "24.x"})


def test_a_call_keeps_its_words_and_loses_its_thoughts() -> None:
    called = {"name": "f", "thoughts": "hm"}
    said = {"role": "assistant", "content": "words", "function_call": called}
    result = {"role": "function", "name": "f", "content": ""}
    translated = translate_v1({"messages": [*HI, said, result]})
    asking, answer = translated.messages[1:]
    assert asking["content"] == "words"
    [call] = asking["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": "{}"}
    assert answer == {"role": "tool", "tool_call_id": call["id"], "content": "{}"}
    assert translated.warnings == ("messages: thoughts of a function call are not sent to V2",)
    said = {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "[]"}}
    translated = translate_v1({"messages": [*HI, said]})
    assert "content" not in translated.messages[1]
    assert translated.messages[1]["tool_calls"][0]["function"]["arguments"] == "[]"
    assert translated.warnings == ()


def test_a_result_without_its_call_is_kept_with_a_warning() -> None:
    result = {"role": "function", "name": "f", "content": "1"}
    translated = translate_v1({"messages": [*HI, result]})
    assert translated.messages[1] == {"role": "tool", "tool_call_id": "call_1", "content": "1"}
    assert translated.warnings == ("messages: 1: the result of a call that is not there",)
