"""Budgets as arithmetic: estimates while a call runs, what it really used at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import BudgetError, ConfigError
from ernie_async.sansio.budget import COUNT_ANEW, Charge, Tally
from ernie_async.types.prices import Price, Prices
from ernie_async.types.usage import Usage

TABLE = Prices({"m": Price(1, 2), "dear": Price(10, 20)})


def used(prompt: int, completion: int) -> Usage:
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def charge(*tallies: Tally, model: str | None = "m", prompt: int = 0) -> Charge:
    return Charge(tallies, TABLE, model, prompt)


def test_an_estimate_gives_way_to_what_was_used() -> None:
    tally = Tally(tokens=1000, cost=1.0)
    call = charge(tally, prompt=100)
    assert tally.tokens == 0
    call.send()
    call.send()
    assert (tally.tokens, tally.cost) == (100, pytest.approx(100e-6))
    for _ in range(16):
        call.feed("字")
    assert tally.tokens == 110
    assert tally.cost == pytest.approx(100e-6 + 20e-6)
    call.settle(used(90, 30))
    call.close()
    assert (tally.tokens, tally.cost) == (120, pytest.approx(150e-6))


def test_a_call_that_failed_costs_nothing() -> None:
    tally = Tally(tokens=100, cost=None)
    call = charge(tally, prompt=60)
    call.send()
    call.close()
    assert tally.tokens == 0


def test_spent_ends_calls_and_lets_none_begin() -> None:
    tally = Tally(tokens=10, cost=None)
    call = charge(tally)
    call.feed("word " * 9)
    call.check()
    call.feed("word ")
    for refused in (call.check, lambda: charge(tally)):
        with pytest.raises(BudgetError, match="10 of 10 tokens") as caught:
            refused()
        assert caught.value.tokens == 10
    call.close()
    charge(tally)


@pytest.mark.parametrize("prompt", range(1, 100))
def test_what_is_just_used_up_is_spent(prompt: int) -> None:
    tally = Tally(tokens=None, cost=prompt / 1_000_000)
    call = charge(tally)
    call.send()
    call.settle(used(prompt, 0))
    assert tally.is_spent


def test_others_may_spend_what_was_left() -> None:
    tally = Tally(tokens=100, cost=None)
    first, second, third = (charge(tally, prompt=60) for _ in range(3))
    first.send()
    second.send()  # its own prompt does not refuse it
    with pytest.raises(BudgetError, match="120 of 100"):
        third.send()


def test_each_model_costs_what_it_costs() -> None:
    tally = Tally(tokens=None, cost=1.0)
    call = charge(tally)
    call.settle(used(10, 0))
    call.turn_to(TABLE, "dear")
    call.settle(used(10, 0))
    assert tally.cost == pytest.approx(10e-6 + 100e-6)


def test_money_needs_prices() -> None:
    with pytest.raises(ConfigError, match="budget: unknown has no price"):
        charge(Tally(tokens=None, cost=1.0), model="unknown")
    charge(Tally(tokens=None, cost=1.0), model=None)
    charge(Tally(tokens=9, cost=None), model="unknown").settle(used(1, 0))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"tokens": None, "cost": None}, "budget: expected tokens=, cost= or both"),
        ({"tokens": -1, "cost": None}, "tokens: expected a number, at least 0, got -1"),
        ({"tokens": None, "cost": float("nan")}, "cost: expected a number"),
        ({"tokens": "9", "cost": None}, "tokens: expected a number"),
    ],
)
def test_wrong_limits_are_clear_errors(limits, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Tally(**limits)


AMOUNT = st.integers(0, 500)
STEP = st.one_of(
    st.tuples(st.just("feed"), st.text(max_size=60)),
    st.tuples(st.just("add"), AMOUNT),
    st.tuples(st.just("settle"), AMOUNT),
)


@given(st.lists(st.tuples(AMOUNT, st.lists(STEP, max_size=6)), max_size=5))
def test_the_end_is_the_sum_of_what_was_used(calls) -> None:
    """Whatever was estimated meanwhile, nested budgets agree, and nothing is left of estimates."""
    outer, inner = Tally(tokens=10**9, cost=None), Tally(tokens=None, cost=10**9)
    total = 0
    for prompt, steps in calls:
        call = charge(outer, inner, prompt=prompt)
        call.send()
        for kind, value in steps:
            if kind == "feed":
                call.feed(value)
            else:
                total += value
                getattr(call, kind)(used(0, value))
            assert outer.tokens == inner.tokens >= total
        call.close()
    assert outer.tokens == inner.tokens == total
    assert outer.cost == pytest.approx(total * 2e-6, abs=1e-12)


@given(st.lists(st.text("字a ，", max_size=9), max_size=80))
def test_pieces_are_estimated_as_their_whole_is(pieces: list[str]) -> None:
    from ernie_async.sansio.tokens import estimate_tokens

    tally = Tally(tokens=10**9, cost=None)
    call = charge(tally)
    for piece in pieces:
        call.feed(piece)
    whole = estimate_tokens("".join(pieces))
    assert abs(tally.tokens - whole) <= 1 + len("".join(pieces)) // 200 * 2


@pytest.mark.parametrize(
    ("tokens", "cost", "told"),
    [
        (10, None, "the budget is spent: 10 of 10 tokens"),
        (None, 9e-6, "the budget is spent: 1e-05 of 9e-06 CNY"),
        (10, 1.0, "the budget is spent: 10 of 10 tokens and 1e-05 of 1 CNY"),
        (99, 9e-6, "the budget is spent: 10 of 99 tokens and 1e-05 of 9e-06 CNY"),
    ],
)
def test_what_is_spent_is_told_of_each_limit(
    tokens: int | None, cost: float | None, told: str
) -> None:
    tally = Tally(tokens=tokens, cost=cost)
    tally.check()
    charge(tally).settle(used(10, 0))
    with pytest.raises(BudgetError) as caught:
        tally.check()
    assert str(caught.value) == told
    assert (caught.value.tokens, caught.value.cost) == (10, pytest.approx(1e-5))


def test_a_long_answer_is_not_counted_anew_with_every_piece() -> None:
    tally = Tally(tokens=10**6, cost=None)
    call = charge(tally)
    for n in range(1, 1001):
        call.feed("word ")
        assert tally.tokens == n
    call.feed("")
    assert tally.tokens == 1000
    assert len(call._pieces) * len("word ") < COUNT_ANEW
