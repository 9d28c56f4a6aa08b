"""A question and documents to a rerank request, and its answer in order.

Source: cloud.baidu.com/doc/qianfan-api/s/2m7u4zt74.
"""

from collections.abc import Sequence
from typing import Any

from ernie_async.errors import ConfigError, DecodeError, shorten
from ernie_async.types.rerank import Reranking

__all__ = ["order_results", "rerank_body"]

MAX_DOCUMENTS = 64
MAX_QUERY_CHARS = 1600
MAX_DOCUMENT_CHARS = 4096


def rerank_body(
    query: str, documents: Sequence[str], *, model: str, top_n: int | None
) -> dict[str, Any]:
    """The fields of the request.

    Raises:
        ConfigError: A text is empty or too long, or there are too many.
    """
    if not isinstance(query, str) or not 0 < len(query) <= MAX_QUERY_CHARS:
        raise ConfigError(
            f"query: expected text of 1 to {MAX_QUERY_CHARS:,} characters, got {shorten(query)}"
        )
    if isinstance(documents, str) or not 0 < len(documents) <= MAX_DOCUMENTS:
        raise ConfigError(
            f"documents: expected a list of 1 to {MAX_DOCUMENTS} texts, got {shorten(documents)}"
        )
    for at, document in enumerate(documents):
        if not isinstance(document, str) or not 0 < len(document) <= MAX_DOCUMENT_CHARS:
            raise ConfigError(
                f"documents.{at}: expected text of 1 to {MAX_DOCUMENT_CHARS:,} characters, "
                f"got {shorten(document)}"
            )
    if top_n is not None and (not isinstance(top_n, int) or top_n < 1):
        raise ConfigError(f"top_n: expected a whole number, at least 1, got {top_n!r}")
    fields = {"model": model, "query": query, "documents": list(documents)}
    return fields if top_n is None else {**fields, "top_n": top_n}


def order_results(answer: Reranking, documents: Sequence[str]) -> Reranking:
    """The best one first, and each with its text, which some models leave out.

    Raises:
        DecodeError: A result is about no document that was sent.
    """
    if any(not 0 <= result.index < len(documents) for result in answer.results):
        raise DecodeError(f"a result is about none of the {len(documents)} documents")
    results = [
        result
        if "document" in result.model_fields_set
        else result.model_copy(update={"document": documents[result.index]})
        for result in answer.results
    ]
    results.sort(key=lambda result: result.relevance_score, reverse=True)
    return answer.model_copy(update={"results": results})
