"""What the mock answers besides chat: models, vectors, rankings.

The same question has the same answer. Pure: a request's JSON in, an answer's bytes out, or the
refusal that the service would send.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from ernie_async.testing import render
from ernie_async.testing.script import Refuse

MODELS = (
    "ernie-5.1",
    "ernie-4.5-turbo-128k",
    "ernie-x1.1-preview",
    "deepseek-v3.2",
)
VECTOR_SIZE = 8

Answer = bytes | Refuse


def model_list() -> bytes:
    """The answer of `GET /models`."""
    models = [{"id": id_, "object": "model", "owned_by": "", "created": 0} for id_ in MODELS]
    return render.to_json({"object": "list", "data": models})


def vector(text: str) -> list[float]:
    """A vector of length 1 that depends on nothing but the text."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:VECTOR_SIZE]]
    length = math.hypot(*raw)
    return [round(number / length, 6) for number in raw]


def embeddings(request: Mapping[str, Any], body_id: str) -> Answer:
    """The answer of `POST /embeddings`."""
    inputs = request.get("input")
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(inputs, list) or not inputs or not all(inputs):
        return Refuse(400, message="input cannot be empty")
    data = [
        {"object": "embedding", "embedding": vector(str(text)), "index": at}
        for at, text in enumerate(inputs)
    ]
    tokens = sum(len(str(text)) for text in inputs)
    return render.to_json(
        {
            "id": body_id,
            "object": "embedding_list",
            "created": 0,
            "model": request.get("model"),
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def rerank(request: Mapping[str, Any], body_id: str) -> Answer:
    """The answer of `POST /rerank`: by how many of a document's characters the query has."""
    query, documents = request.get("query"), request.get("documents")
    if not query or not isinstance(documents, list) or not all(documents):
        return Refuse(400, message="query and documents cannot be empty")
    results = [
        {
            "document": document,
            "relevance_score": len(set(document) & set(query)) / len(set(document)),
            "index": at,
        }
        for at, document in enumerate(documents)
    ]
    results.sort(key=lambda result: result["relevance_score"], reverse=True)
    tokens = len(query) + sum(map(len, documents))
    return render.to_json(
        {
            "id": body_id,
            "object": "reranker_list",
            "created": 0,
            "model": request.get("model"),
            "results": results[: request.get("top_n") or len(results)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


POSTS: dict[str, Callable[[Mapping[str, Any], str], Answer]] = {
    "/embeddings": embeddings,
    "/rerank": rerank,
}
"""What is posted to, by the end of its path."""
