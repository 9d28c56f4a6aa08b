"""Texts to embedding requests of a size the model takes, and their answers to one.

Source of the limits: cloud.baidu.com/doc/qianfan-api/s/Fm7u3ropn. They age, so the caller may say
otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ernie_async.errors import ConfigError, DecodeError, shorten
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.embeddings import Embedding, Embeddings

__all__ = ["EmbeddingInput", "embedding_batches", "embedding_tokens", "join_embeddings"]

# A text, or for a multimodal model `{"text": ..., "image": URL or data URI}`.
EmbeddingInput = str | Mapping[str, str]

TEXTS_PER_CALL = {"tao-8k": 1, "gme-qwen2-vl-2b-instruct": 1}
TEXTS_PER_CALL_OF_OTHERS = 16


def embedding_batches(
    texts: str | Sequence[EmbeddingInput], model: str, batch_size: int | None
) -> list[list[Any]]:
    """The inputs of each request.

    Args:
        texts: One text or several.
        model: Decides how many go into one request.
        batch_size: Decides instead; `None` for the model's own limit.

    Raises:
        ConfigError: Nothing to embed, an empty text, or something that is no text.
    """
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ConfigError(f"batch_size: expected a whole number, at least 1, got {batch_size!r}")
    inputs = [texts] if isinstance(texts, str | Mapping) else list(texts)
    if not inputs:
        raise ConfigError("texts: expected at least one text, got none")
    for at, text in enumerate(inputs):
        if not isinstance(text, str | Mapping):
            raise ConfigError(f"texts.{at}: expected text, got {shorten(text)}")
        if not text or (isinstance(text, str) and text.isspace()):
            raise ConfigError(f"texts.{at}: expected text that is not empty, got {shorten(text)}")
    size = batch_size or TEXTS_PER_CALL.get(model.lower(), TEXTS_PER_CALL_OF_OTHERS)
    return [inputs[at : at + size] for at in range(0, len(inputs), size)]


def embedding_tokens(inputs: Sequence[EmbeddingInput]) -> int:
    """Tokens of one request, roughly; pictures count nothing."""
    texts = (text if isinstance(text, str) else text.get("text", "") for text in inputs)
    return sum(map(estimate_tokens, texts))


def join_embeddings(parts: Sequence[Embeddings], sizes: Sequence[int]) -> Embeddings:
    """One answer from those of all requests, in the order of the texts.

    Args:
        parts: The answers, in the order of the requests.
        sizes: How many texts each request had.

    Raises:
        DecodeError: An answer has not one vector for each text.
    """
    data: list[Embedding] = []
    usage = parts[0].usage
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        ordered = sorted(part.data, key=lambda item: item.index)
        if [item.index for item in ordered] != list(range(size)):
            raise DecodeError(f"{len(part.data)} vectors came for {size} texts")
        first = len(data)
        data += [item.model_copy(update={"index": first + item.index}) for item in ordered]
        if number:
            usage = usage.plus(part.usage)
    return parts[0].model_copy(update={"data": data, "usage": usage})
