"""Totals, and what is learnt of estimates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.ledger import LEAST, MAX_MODELS, MOST, Ledger, PromptCorrection, Totals
from ernie_async.types.prices import Price, Prices
from ernie_async.types.usage import PromptTokensDetails, Usage


def test_totals_add_up() -> None:
    ledger = Ledger(lambda: Prices({"m": Price(1, 2)}))
    assert ledger.totals == Totals()
    details = PromptTokensDetails(cached_tokens=40)
    ledger.note("m", Usage(prompt_tokens=100, completion_tokens=50, prompt_tokens_details=details))
    ledger.note("other", Usage.estimated(prompt_tokens=7, completion_tokens=3))
    totals = ledger.totals
    assert totals.total_tokens == 160
    assert totals == (2, 107, 40, 53, 1, pytest.approx(200e-6), 1)


def test_table_is_not_read_before_the_first_call() -> None:
    read = []

    def prices() -> Prices:
        read.append(1)
        return Prices({})

    ledger = Ledger(prices)
    assert (ledger.totals.calls, read) == (0, [])
    assert ledger.prices.cost(None, Usage()) is None
    read.clear()
    ledger.note(None, Usage())
    assert (ledger.totals.unpriced_calls, read) == (1, [1])


def test_first_call_is_believed_and_later_ones_by_an_eighth() -> None:
    correction = PromptCorrection()
    assert correction.corrected("m", 100) == 100
    correction.note("m", estimated=100, real=200)
    assert correction.corrected("m", 100) == 200
    correction.note("m", estimated=100, real=100)
    assert correction.ratio("m") == 2 - 1 / 8
    assert correction.ratio("other") == correction.ratio(None) == 1.0


@pytest.mark.parametrize(("estimated", "real"), [(100, 1), (100, 401), (15, 15), (0, 9), (100, 0)])
def test_what_says_nothing_is_not_learnt(estimated: int, real: int) -> None:
    correction = PromptCorrection()
    correction.note("m", estimated=estimated, real=real)
    assert correction.ratio("m") == 1.0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000))))
def test_ratio_stays_among_those_that_were_seen(calls: list[tuple[int, int]]) -> None:
    correction = PromptCorrection()
    for estimated, real in calls:
        correction.note("m", estimated=estimated, real=real)
    assert LEAST <= correction.ratio("m") <= MOST


@given(st.floats(0.3, 3.9))
def test_steady_ratio_is_found(ratio: float) -> None:
    correction = PromptCorrection()
    correction.note("m", estimated=1000, real=1000)
    for _ in range(60):
        correction.note("m", estimated=1000, real=round(1000 * ratio))
    assert correction.ratio("m") == pytest.approx(ratio, rel=0.01)


def test_estimates_only_to_learn_become_rare() -> None:
    correction = PromptCorrection()
    wanted = [correction.wants("m") for _ in range(160)]
    assert sum(wanted) == 16 + 9
    assert all(wanted[:16])


@pytest.mark.parametrize("turns", range(2, 9))
def test_prompts_that_take_turns_are_all_looked_at(turns: int) -> None:
    correction = PromptCorrection()
    looked = {at % turns for at in range(16 + 17 * turns) if correction.wants("m") and at >= 16}
    assert looked == set(range(turns))


def test_models_of_strangers_are_forgotten() -> None:
    correction = PromptCorrection()
    for number in range(3 * MAX_MODELS):
        assert correction.wants(f"model {number}")
    assert len(correction._seen) <= MAX_MODELS
