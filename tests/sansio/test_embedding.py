"""Splitting texts and joining vectors, without a request."""

import pytest

from ernie_async.errors import ConfigError, DecodeError
from ernie_async.sansio.embedding import (
    LIMITS,
    embedding_tokens,
    join_batches,
    limit_of,
    read_batch,
    read_inputs,
    split,
)
from ernie_async.types import Embeddings


def answer(*vectors: tuple[int | None, list[float]], tokens: int | None = None) -> Embeddings:
    told = {"data": [{"index": index, "embedding": vector} for index, vector in vectors]}
    if tokens is not None:
        told["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Embeddings.model_validate(told)


def test_limits_are_found_in_any_case_and_others_take_sixteen() -> None:
    assert limit_of("TAO-8K").texts == 1
    assert limit_of("gme-Qwen2-VL-2B-Instruct").texts == 1
    assert limit_of("qwen3-embedding-8b") == (16, None)
    assert all(name == name.lower() for name in LIMITS)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "texts: expected at least one"),
        ("", "texts.0: expected text, got an empty one"),
        (["a", ""], "texts.1: expected text, got an empty one"),
        (["a", 5], "texts.1: expected text, got 5"),
        (["a", "b" * 11], "texts.1: expected at most 10 characters, got 11"),
        ([{"text": "a"}, {"text": ""}], "texts.1: expected text, or an object"),
        ([{"txt": "a"}], "texts.0: expected text, or an object"),
        ({}, "texts.0: expected text, or an object"),
        (5, "texts: expected a text or a list of texts, got 5"),
        (b"a", "texts: expected a text or a list of texts, got b'a'"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_place(texts, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_inputs(texts, max_characters=10)


def test_inputs_may_be_one_or_many_texts_or_pictures() -> None:
    assert read_inputs("a", max_characters=None) == ["a"]
    assert read_inputs(("a", "b"), max_characters=1) == ["a", "b"]
    picture = {"text": "一只猫", "image": "https://example.com/cat.jpg"}
    assert read_inputs(picture, max_characters=1) == [picture]
    assert embedding_tokens([picture]) == 1


def test_batches_hold_everything_in_order() -> None:
    assert list(split(list("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    for size in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="batch_size"):
            split(["a"], size)


def test_vectors_are_ordered_by_index_and_numbered_through() -> None:
    joined = join_batches(
        [["a", "b"], ["c"]],
        [
            read_batch(answer((1, [2.0]), (0, [1.0]), tokens=3), 2),
            read_batch(answer((None, [3.0]), tokens=4), 1),
        ],
    )
    assert joined.vectors == [[1.0], [2.0], [3.0]]
    assert [item.index for item in joined.data] == [0, 1, 2]
    assert joined.usage.total_tokens == 7
    assert not joined.usage.is_estimate


def test_usage_that_was_not_told_is_estimated() -> None:
    joined = join_batches([["hello world"]], [answer((0, [1.0]))])
    assert (joined.usage.prompt_tokens, joined.usage.is_estimate) == (2, True)


@pytest.mark.parametrize(
    "vectors",
    [
        [(0, [1.0])],
        [(0, [1.0]), (0, [1.0])],
        [(0, [1.0]), (2, [1.0])],
        [(0, [1.0]), (1, [1.0, 2.0])],
    ],
)
def test_vectors_that_are_not_one_for_each_text_are_refused(vectors) -> None:
    with pytest.raises(DecodeError, match="expected"):
        join_batches([["a", "b"]], [read_batch(answer(*vectors), 2)])
