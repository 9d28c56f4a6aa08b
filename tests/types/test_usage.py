"""Tokens: what was told, what was estimated, and their sum."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.types.usage import CompletionTokensDetails, Usage, tokens_used

COUNTS = st.integers(0, 10**9)


def test_an_estimate_says_so_and_survives_copies() -> None:
    usage = Usage.estimated(prompt_tokens=3, completion_tokens=4)
    assert (usage.total_tokens, usage.is_estimate) == (7, True)
    for again in (
        pickle.loads(pickle.dumps(usage)),
        usage.model_copy(),
        usage.model_copy(deep=True),
    ):
        assert again == usage
        assert again.is_estimate
    assert not Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7).is_estimate


def test_that_it_is_an_estimate_is_no_field_of_the_service() -> None:
    dumped = Usage.estimated(prompt_tokens=1, completion_tokens=1).model_dump(exclude_unset=True)
    assert dumped == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_sums_add_up(a: int, b: int, c: int, d: int) -> None:
    told = Usage(prompt_tokens=a, completion_tokens=b, total_tokens=a + b)
    counted = Usage.estimated(prompt_tokens=c, completion_tokens=d)
    total = told.plus(counted)
    assert (total.prompt_tokens, total.completion_tokens) == (a + c, b + d)
    assert total.total_tokens == a + b + c + d
    assert total.is_estimate
    assert not told.plus(told).is_estimate


def test_what_has_no_sum_is_added_as_what_it_says() -> None:
    whole = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    without = Usage(prompt_tokens=10, completion_tokens=20)
    assert whole.plus(without).total_tokens == without.plus(whole).total_tokens == 37
    assert tokens_used(without) == 30


def test_details_add_up_and_count_as_they_are_if_only_one_has_them() -> None:
    details = CompletionTokensDetails.model_validate({"reasoning_tokens": 5, "image_tokens": 2})
    one = Usage(completion_tokens_details=details)
    assert one.plus(Usage()).completion_tokens_details == details
    assert Usage().plus(one).completion_tokens_details == details
    both = one.plus(one).completion_tokens_details
    assert both is not None
    assert both.reasoning_tokens == 10
    assert both.model_extra == {"image_tokens": 4}
