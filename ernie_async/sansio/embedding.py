"""Split texts into requests as large as a model takes, and put the answers together again.

Knows the service's limits as data; knows no request that is under way.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ernie_async.errors import ConfigError, DecodeError, shorten
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.embeddings import Embedding, Embeddings
from ernie_async.types.usage import Usage

__all__ = [
    "LIMITS",
    "EmbeddingInput",
    "EmbeddingLimit",
    "embedding_tokens",
    "join_batches",
    "limit_of",
    "read_batch",
    "read_inputs",
    "split",
]

# A text, or for a multimodal model an object with `text`, `image` or both.
EmbeddingInput = str | Mapping[str, str]


class EmbeddingLimit(NamedTuple):
    """What a model takes.

    Attributes:
        texts: Texts in one request.
        characters: Characters of one text; `None` if the service names no limit.
    """

    texts: int = 16
    characters: int | None = None


# Source: cloud.baidu.com/doc/qianfan-api/s/Fm7u3ropn. Ages: `embed` takes other numbers as
# arguments. A model that is not here takes what "others" take.
LIMITS: Mapping[str, EmbeddingLimit] = {
    "embedding-v1": EmbeddingLimit(characters=1000),
    "bge-large-zh": EmbeddingLimit(characters=2000),
    "bge-large-en": EmbeddingLimit(characters=2000),
    "tao-8k": EmbeddingLimit(texts=1, characters=28000),
    "gme-qwen2-vl-2b-instruct": EmbeddingLimit(texts=1),
}


def limit_of(model: str) -> EmbeddingLimit:
    """What the service is known to take for this model."""
    return LIMITS.get(model.lower(), EmbeddingLimit())


def read_inputs(
    texts: EmbeddingInput | Sequence[EmbeddingInput], *, max_characters: int | None
) -> list[EmbeddingInput]:
    """The texts as a list, each of which can be sent.

    Raises:
        ConfigError: There is none, or one is empty, too long, or no text; it names the place.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, bytes):
        raise ConfigError(f"texts: expected a text or a list of texts, got {shorten(texts)}")
    inputs = [texts] if isinstance(texts, str | Mapping) else list(texts)
    if not inputs:
        raise ConfigError("texts: expected at least one, got none")
    for place, item in enumerate(inputs):
        if isinstance(item, Mapping):
            _check_multimodal(place, item)
        elif not isinstance(item, str):
            raise ConfigError(f"texts.{place}: expected text, got {shorten(item)}")
        elif not item:
            raise ConfigError(f"texts.{place}: expected text, got an empty one")
        elif max_characters is not None and len(item) > max_characters:
            raise ConfigError(
                f"texts.{place}: expected at most {max_characters:,} characters, got "
                f"{len(item):,}; max_characters=None sends it anyway"
            )
    return inputs


def _check_multimodal(place: int, item: Mapping[str, str]) -> None:
    if not item or not item.keys() <= {"text", "image"} or not all(item.values()):
        raise ConfigError(
            f"texts.{place}: expected text, or an object with text, image or both, none of them "
            f"empty; got {shorten(dict(item))}"
        )


def split(inputs: Sequence[EmbeddingInput], size: int) -> Iterator[Sequence[EmbeddingInput]]:
    """The inputs in requests of at most `size`, in order.

    Raises:
        ConfigError: `size` is not at least 1.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f"batch_size: expected a whole number, at least 1, got {size}")
    return (inputs[start : start + size] for start in range(0, len(inputs), size))


def embedding_tokens(batch: Sequence[EmbeddingInput]) -> int:
    """Tokens of one request, roughly; pictures count nothing."""
    texts = (item if isinstance(item, str) else item.get("text", "") for item in batch)
    return sum(map(estimate_tokens, texts))


def read_batch(answer: Embeddings, n_texts: int) -> Embeddings:
    """The answer to one request, its vectors in the order of its texts.

    Raises:
        DecodeError: There is not exactly one for each text.
    """
    places = [place if item.index is None else item.index for place, item in enumerate(answer.data)]
    if sorted(places) != list(range(n_texts)):
        raise DecodeError(
            f"expected one vector for each of {n_texts} texts, got {len(answer.data)} "
            f"with the indexes {shorten(places)}"
        )
    ordered: list[Embedding] = [answer.data[0]] * n_texts
    for place, item in zip(places, answer.data, strict=True):
        ordered[place] = item
    return answer.model_copy(update={"data": ordered})


def join_batches(
    batches: Sequence[Sequence[EmbeddingInput]], answers: Sequence[Embeddings]
) -> Embeddings:
    """One answer out of those of all requests, each in order already.

    Raises:
        DecodeError: The lengths of the vectors differ.
    """
    vectors: list[Any] = []
    usage: Usage | None = None
    for batch, answer in zip(batches, answers, strict=True):
        for item in answer.data:
            vectors.append(item.model_copy(update={"index": len(vectors)}))
        told = answer.usage
        if "usage" not in answer.model_fields_set:
            told = Usage.estimated(prompt_tokens=embedding_tokens(batch), completion_tokens=0)
        usage = told if usage is None else usage.plus(told)
    lengths = {len(item.embedding) for item in vectors}
    if len(lengths) > 1:
        raise DecodeError(f"expected vectors of one length, got lengths {sorted(lengths)}")
    return answers[0].model_copy(update={"data": vectors, "usage": usage})
