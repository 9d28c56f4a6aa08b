"""Embeddings, reranking, search and the model list, computed from what was asked.

Nothing is random: the same text has the same vector in every run, and texts that share characters
have similar ones.
"""

import re
import zlib
from collections.abc import Mapping
from itertools import pairwise
from math import sqrt
from typing import Any

from ernie_async.testing.script import Refuse
from ernie_async.testing.seen import Asked

__all__ = ["embeddings", "list_models", "rerank", "web_search"]

MODELS = ("ernie-5.1", "ernie-4.5-turbo-128k", "ernie-x1.1-preview", "deepseek-v3.2")
OTHER_MODELS = {
    "embedding-v1": "embeddings",
    "bce-reranker-base": "rerank",
    "qwen-image": "text2image",
}

# As embedding-v1 has them.
DIMENSIONS = 384


def list_models(_: Asked) -> dict[str, Any]:
    """The models, the first as the pages of 2026 describe one and the others as those of 2025."""
    cards: list[dict[str, Any]] = [
        {"id": id_, "object": "model", "owned_by": "", "created": 0} for id_ in MODELS
    ]
    cards[0] |= {
        "type": "chat",
        "context_length": 131072,
        "max_completions_tokens": 65536,
        "max_tokens": 32768,
        "pricing": {"prompt": "0.004", "completion": "0.012"},
    }
    cards += [
        {"id": id_, "object": "model", "owned_by": "", "created": 0, "type": kind}
        for id_, kind in OTHER_MODELS.items()
    ]
    return {"object": "list", "data": cards}


def embeddings(asked: Asked) -> dict[str, Any] | Refuse:
    """A vector of length 1 for each text."""
    if (refusal := check_model(asked.json)) is not None:
        return refusal
    given = asked.json.get("input")
    items = [given] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        return Refuse(400, message="input cannot be empty")
    if any(not item for item in items):
        return Refuse(400, message="input cannot hold an empty string")
    texts = [_text_of(item) for item in items]
    data = [
        {"object": "embedding", "embedding": vector(text), "index": place}
        for place, text in enumerate(texts)
    ]
    n_tokens = sum(map(len, texts))
    return {
        "id": asked.body_id,
        "object": "embedding_list",
        "created": asked.created,
        "model": asked.json["model"],
        "data": data,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def _text_of(item: Any) -> str:
    if isinstance(item, Mapping):
        return "\n".join(str(value) for value in item.values())
    return str(item)


def vector(text: str) -> list[float]:
    """A vector of length 1 out of the characters of a text and their pairs."""
    sums = [0.0] * DIMENSIONS
    for piece in [*text, *map("".join, pairwise(text))]:
        number = zlib.crc32(piece.encode())
        sums[number % DIMENSIONS] += 1.0 if number & 0x80000000 else -1.0
    length = sqrt(sum(value * value for value in sums)) or 1.0
    return [round(value / length, 6) for value in sums]


def rerank(asked: Asked) -> dict[str, Any] | Refuse:
    """Documents by the share of the query's words, or Chinese characters, that they hold."""
    if (refusal := check_model(asked.json)) is not None:
        return refusal
    query, documents = asked.json.get("query"), asked.json.get("documents")
    if not query or not isinstance(documents, list) or not all(documents):
        return Refuse(400, message="query and documents cannot be empty")
    wanted = words(query)
    scores = [
        round(len(wanted & words(document)) / (len(wanted) or 1), 6) for document in documents
    ]
    order = sorted(range(len(documents)), key=lambda place: -scores[place])
    n_tokens = len(query) + sum(map(len, documents))
    return {
        "id": asked.body_id,
        "object": "reranker_list",
        "created": asked.created,
        "model": asked.json["model"],
        "results": [
            {"document": documents[place], "relevance_score": scores[place], "index": place}
            for place in order[: asked.json.get("top_n")]
        ],
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def words(text: str) -> set[str]:
    """Words of Latin letters, and single Chinese characters."""
    return set(re.findall(r"[a-z0-9]+|[\u4e00-\u9fff]", text.lower()))


def web_search(asked: Asked) -> dict[str, Any] | Refuse:
    """One page that says that it is canned, and repeats the question."""
    request = asked.json if isinstance(asked.json, Mapping) else {}
    messages = request.get("messages")
    if not messages:
        return Refuse(400, message="messages cannot be empty")
    query = str(messages[-1].get("content", ""))
    reference = {
        "id": 1,
        "title": query,
        "url": "https://example.com/",
        "web_anchor": query,
        "icon": "",
        "content": f"MockErnie: {query}",
        "date": "2026-01-01 00:00:00",
        "type": "web",
        "image": None,
        "video": None,
    }
    return {"request_id": asked.body_id, "references": [reference]}


def check_model(request: Any) -> Refuse | None:
    """Refuse what is no JSON object, or names no model."""
    if not isinstance(request, Mapping):
        return Refuse(400, "malformed_json")
    if not request.get("model"):
        return Refuse(400, message="you must provide a model parameter")
    return None
