"""Estimates of tokens."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.tokens import (
    OutputEstimate,
    estimate_prompt,
    estimate_tokens,
    estimate_usage,
    is_countable,
)
from ernie_async.types.messages import Message, assistant, system, user
from ernie_async.types.request import ChatRequest


def estimate_by_the_letter(text: str) -> int:
    """The vendor's rule, as it is written down."""
    han = sum("\u4e00" <= c <= "\u9fff" for c in text)
    blanked = ""
    for c in text:
        is_mark = unicodedata.category(c).startswith("P") or (
            33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126
        )
        is_blank = c in " \n\r\t" or unicodedata.category(c) == "Zs"
        blanked += " " if "\u4e00" <= c <= "\u9fff" or is_mark or is_blank else c
    return int(han * 0.625 + len([word for word in blanked.split(" ") if word]))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello world 1 2 3", 5),
        ("你好呀", 1),
        ("你好hello哈哈world 1 2 3", 7),
        (" 你好 123 哈哈1！  \t 123 Hello world", 7),
    ],
)
def test_numbers_are_those_of_the_vendors_own_tests(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == estimate_by_the_letter(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("好", 0),
        ("好好", 1),
        (" \t\r\n", 0),
        ("...", 0),
        ("a-b_c", 3),
        ("12345", 1),
        ("a\u3000b", 2),
        ("a\u00a0b", 2),
        ("a，b。", 2),
        ("カナ", 1),
        ("한국 말", 2),
        ("😀😀", 1),
        ("naïve café", 2),
        ("a\x0bb", 1),
    ],
)
def test_corners_of_the_rule(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == estimate_by_the_letter(text) == tokens


texts = st.text(
    st.sampled_from("你好a1 \t\n\r\x0b.,-_$+~！，。「\u3000\u00a0\u2028éカ😀") | st.characters()
)


@given(texts)
def test_any_text_is_counted_by_the_vendors_rule(text: str) -> None:
    assert estimate_tokens(text) == estimate_by_the_letter(text)


def test_prompt_is_the_sum_of_its_texts() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    parts = Message.model_validate(
        {"role": "user", "content": [{"type": "text", "text": "one two"}, picture]}
    )
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asking = Message.model_validate({"role": "assistant", "tool_calls": [call]})
    assert estimate_prompt([]) == 0
    assert estimate_prompt([system("one"), user("two three"), assistant("four")]) == 4
    assert estimate_prompt([parts]) == 2
    assert estimate_prompt([asking]) == 0


def request(**fields: int) -> ChatRequest:
    return ChatRequest(messages=[user("x")], **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 512),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "n": 3}, 21),
    ],
)
def test_first_answer_is_as_long_as_the_caller_allows(fields: dict[str, int], tokens: int) -> None:
    assert OutputEstimate().tokens(request(**fields)) == tokens


def test_callers_limit_counts_more_than_history() -> None:
    estimate = OutputEstimate()
    estimate.note(1000)
    assert estimate.tokens(request(max_tokens=7)) == 7
    assert estimate.tokens(request()) == 1000


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200))
def test_later_answers_are_as_long_as_ninety_five_of_a_hundred(history: list[int]) -> None:
    estimate = OutputEstimate()
    for tokens in history:
        estimate.note(tokens)
    answer = estimate.tokens(request())
    n_covered = sum(tokens <= answer for tokens in history)
    n_shorter = sum(tokens < answer for tokens in history)
    assert answer in history
    assert n_covered * 100 >= 95 * len(history) > n_shorter * 100


def test_only_the_last_two_hundred_answers_count() -> None:
    estimate = OutputEstimate()
    for tokens in [9999] * 200 + [1] * 189:
        estimate.note(tokens)
    assert estimate.tokens(request()) == 9999
    estimate.note(1)
    assert estimate.tokens(request()) == 1


def test_usage_is_estimated_of_the_prompt_as_it_was_learnt_and_of_the_answer() -> None:
    usage = estimate_usage([user("字" * 16)], "字" * 32, ratio=1.5)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (15, 20, 35)
    assert usage.is_estimate
    assert estimate_usage([user("字" * 16)], "").prompt_tokens == 10


PICTURE = {"type": "image_url", "image_url": {"url": "https://a.cn/x.png"}}
FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "is_all_text"),
    [
        ({}, True),
        ({"tools": [FUNCTION]}, False),
        ({"web_search": {"enable": True}}, False),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, False),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, False),
    ],
)
def test_a_prompt_can_be_counted_if_it_is_all_text(
    fields: dict[str, object], is_all_text: bool
) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    request = ChatRequest.model_validate({"messages": messages, **fields})
    assert is_countable(request) is is_all_text
