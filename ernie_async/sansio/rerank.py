"""Ask for the best documents, and read in which order they came.

Source: cloud.baidu.com/doc/qianfan-api/s/2m7u4zt74 (2025-11-28).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ernie_async.errors import ConfigError, DecodeError, shorten
from ernie_async.types.rerank import Ranking

__all__ = ["LIMITS", "order_ranking", "rerank_fields"]


class RerankLimit(NamedTuple):
    """What a model takes: characters of the query, documents, characters of each."""

    query: int
    documents: int
    characters: int


# Only for models of which the service says so; longer texts would be cut there, unnoticed.
LIMITS: Mapping[str, RerankLimit] = {"bce-reranker-base": RerankLimit(1600, 64, 4096)}


def rerank_fields(
    query: str, documents: Sequence[str], given: Mapping[str, Any], default: str
) -> dict[str, Any]:
    """The body of the request.

    Args:
        query: What the documents should answer.
        documents: Their texts.
        given: `model`, `top_n` and `user`, if set.
        default: The model, if none is set.

    Raises:
        ConfigError: Something is empty, or more than the model takes.
    """
    if not isinstance(query, str) or not query:
        raise ConfigError(f"query: expected text, got {shorten(query)}")
    if isinstance(documents, str) or not isinstance(documents, Sequence) or not documents:
        raise ConfigError(f"documents: expected a list of texts, got {shorten(documents)}")
    for place, document in enumerate(documents):
        if not isinstance(document, str) or not document:
            raise ConfigError(f"documents.{place}: expected text, got {shorten(document)}")
    top_n = given.get("top_n", 1)
    if isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1:
        raise ConfigError(f"top_n: expected a whole number, at least 1, got {top_n}")
    fields = {"model": default, "query": query, "documents": list(documents), **given}
    limit = LIMITS.get(fields["model"].lower())
    if limit is not None:
        _check_limit(query, documents, limit)
    return fields


def _check_limit(query: str, documents: Sequence[str], limit: RerankLimit) -> None:
    if len(query) > limit.query:
        raise ConfigError(f"query: expected at most {limit.query:,} characters, got {len(query):,}")
    if len(documents) > limit.documents:
        raise ConfigError(f"documents: expected at most {limit.documents}, got {len(documents):,}")
    for place, document in enumerate(documents):
        if len(document) > limit.characters:
            raise ConfigError(
                f"documents.{place}: expected at most {limit.characters:,} characters, "
                f"got {len(document):,}"
            )


def order_ranking(answer: Ranking, documents: Sequence[str]) -> Ranking:
    """The same with the best first, and with the text of each document.

    Raises:
        DecodeError: A result is of a document that was not given.
    """
    for result in answer.results:
        if not 0 <= result.index < len(documents):
            raise DecodeError(
                f"a result has index {result.index}, but there are {len(documents)} documents"
            )
    filled = [
        result
        if result.document is not None
        else result.model_copy(update={"document": documents[result.index]})
        for result in answer.results
    ]
    filled.sort(key=lambda result: -result.relevance_score)
    return answer.model_copy(update={"results": filled})
