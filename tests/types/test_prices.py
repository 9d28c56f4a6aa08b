"""What calls cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.types.completion import ChatCompletion
from ernie_async.types.prices import Price, Prices, standard_prices
from ernie_async.types.usage import PromptTokensDetails, Usage


def used(prompt: int, completion: int, cached: int | None = None) -> Usage:
    details = None if cached is None else PromptTokensDetails(cached_tokens=cached)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=details)


@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        ("ernie-5.1", used(1000, 1000), 0.022),
        ("ernie-5.1", used(32_768, 0), 32_768 * 4e-6),
        ("ernie-5.1", used(32_769, 1000), 32_769 * 6e-6 + 0.022),
        ("ernie-4.5-turbo-128k", used(1000, 0), 0.0008),
        ("ernie-4.5-turbo-128k", used(1000, 0, cached=400), 600 * 0.8e-6 + 400 * 0.2e-6),
        ("ernie-4.5-turbo-128k", used(1000, 0, cached=9999), 0.0002),
        ("ernie-5.1", used(1000, 0, cached=400), 0.004),
        ("ernie-tiny-8k", used(9999, 9999), 0.0),
        ("no-such-model", used(1, 1), None),
        (None, used(1, 1), None),
    ],
)
def test_cost_of_a_call(model: str | None, usage: Usage, cost: float | None) -> None:
    answer = ChatCompletion(model=model, usage=usage)
    assert answer.cost() == pytest.approx(cost)


def test_table_is_dated_and_whole() -> None:
    table = standard_prices()
    assert table.date == "2026-11-15"
    for model, tiers in table.models.items():
        assert isinstance(tiers, tuple), model
        assert [tier.up_to is None for tier in tiers] == [False] * (len(tiers) - 1) + [True], model


def test_table_can_be_replaced_and_extended() -> None:
    usage = used(1_000_000, 1_000_000)
    own = Prices({"mine": Price(1, 2)})
    assert own.cost("mine", usage) == 3.0
    assert own.cost("ernie-5.1", usage) is None
    more = standard_prices().with_models({"mine": [Price(1, 2, up_to=10), Price(5, 5)]})
    assert more.cost("mine", usage) == 10.0
    assert more.cost("mine", used(10, 0)) == 1e-5
    assert "mine" not in standard_prices().models


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_cache_never_makes_it_dearer(prompt: int, completion: int, cached: int) -> None:
    table = standard_prices()
    for model in table.models:
        plain = table.cost(model, used(prompt, completion))
        with_cache = table.cost(model, used(prompt, completion, cached))
        assert plain is not None
        assert with_cache is not None
        assert 0 <= with_cache <= plain * (1 + 1e-12)
