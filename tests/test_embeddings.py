"""Vectors and rankings: split, joined, ordered, and through the same machinery as all calls."""

import json
import sys
from pathlib import Path

import pytest

from ernie_async import (
    AsyncClient,
    BadRequestError,
    ConfigError,
    DecodeError,
    Limits,
    QuotaError,
)
from ernie_async.testing import MockErnie, raw, refuse
from ernie_async.testing.endpoints import vector
from ernie_async.types.embeddings import Embeddings
from ernie_async.types.rerank import Reranking

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parent / "fixtures" / "endpoints_v2"


@pytest.mark.parametrize(
    ("kind", "name"), [(Embeddings, "embeddings_response"), (Reranking, "rerank_response")]
)
def test_a_recorded_answer_keeps_every_field(
    kind: type[Embeddings] | type[Reranking], name: str
) -> None:
    body = (FIXTURES / f"{name}.json").read_bytes()
    answer = kind.model_validate_json(body)
    assert json.loads(answer.model_dump_json(exclude_unset=True)) == json.loads(body)


@pytest.mark.parametrize(
    ("model", "batch_size", "sizes"),
    [
        ("embedding-v1", None, [16, 16, 8]),
        ("tao-8k", None, [1] * 40),
        ("embedding-v1", 30, [30, 10]),
        ("my-own", 100, [40]),
    ],
)
async def test_texts_are_split_as_the_model_needs_and_keep_their_order(
    server: MockErnie, client: AsyncClient, model: str, batch_size: int | None, sizes: list[int]
) -> None:
    texts = [f"文{number}" for number in range(40)]
    answer = await client.embed(texts, model=model, batch_size=batch_size)
    assert answer.vectors == [vector(text) for text in texts]
    assert [item.index for item in answer.data] == list(range(40))
    assert sorted((len(seen.json["input"]) for seen in server.requests), reverse=True) == sizes
    assert answer.usage.total_tokens == sum(map(len, texts))


async def test_one_text_is_one_vector(client: AsyncClient) -> None:
    assert (await client.embed("你好")).vectors == [vector("你好")]


async def test_only_what_was_set_is_sent(server: MockErnie, client: AsyncClient) -> None:
    await client.embed(["推荐一些美食", "给我讲个故事"], extra_body={"user": "u-1"})
    assert server.requests[0].json == json.loads(
        (FIXTURES / "embeddings_request.json").read_bytes()
    )
    multimodal = json.loads((FIXTURES / "embeddings_multimodal_request.json").read_bytes())
    await client.embed(multimodal["input"], model=multimodal["model"])
    assert server.requests[1].json == multimodal


async def test_every_part_passes_the_limiter(server: MockErnie) -> None:
    limits = Limits(concurrency=2, tokens_per_minute=1_000_000)
    async with AsyncClient("k", base_url=server.base_url, limits=limits) as client:
        await client.embed(["字"] * 200)
        assert client.limiter is not None
        assert client.limiter.in_flight == 0
    assert len(server.requests) == 13


async def test_one_failure_ends_all(server: MockErnie, client: AsyncClient) -> None:
    server.script(refuse(403, "account_overdue"))
    with pytest.raises(QuotaError):
        await client.embed(["字"] * 100)
    await server.wait_idle()


async def test_a_failure_that_may_pass_is_retried(server: MockErnie, client: AsyncClient) -> None:
    server.script(refuse(503), refuse(429, retry_after=0.01))
    assert len((await client.embed(["a"] * 20)).vectors) == 20


@pytest.mark.parametrize(
    "body", [b'{"data":[]}', b'{"data":[{"index":1,"embedding":[1]}]}', b'{"data":[{},{}]}']
)
async def test_a_vector_too_few_is_an_error(
    server: MockErnie, client: AsyncClient, body: bytes
) -> None:
    server.script(raw(body, content_type="application/json"))
    with pytest.raises(DecodeError, match="1 texts"):
        await client.embed("a")


@pytest.mark.parametrize(
    ("texts", "named"),
    [([], "at least one"), ("", "texts.0"), (["a", " "], "texts.1"), (["a", 3], "texts.1")],
)
async def test_what_cannot_be_embedded_is_refused(
    server: MockErnie, client: AsyncClient, texts: list[str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        await client.embed(texts)
    with pytest.raises(ConfigError, match="batch_size"):
        await client.embed("a", batch_size=0)
    assert server.requests == []


async def test_vectors_become_an_array(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy = pytest.importorskip("numpy")
    answer = await client.embed(["a", "b", "c"])
    array = answer.to_numpy()
    assert (array.shape, array.dtype) == ((3, 8), numpy.float32)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match="pip install numpy"):
        answer.to_numpy()


async def test_documents_come_best_first_with_their_place(
    server: MockErnie, client: AsyncClient
) -> None:
    documents = ["上海气候", "北京美食", "北京"]
    answer = await client.rerank("北京有什么美食", documents, top_n=2)
    assert [result.document for result in answer.results] == ["北京美食", "北京"]
    assert [result.index for result in answer.results] == [1, 2]
    assert server.requests[0].json == {
        "model": "bce-reranker-base",
        "query": "北京有什么美食",
        "documents": documents,
        "top_n": 2,
    }


async def test_an_answer_in_any_order_and_without_texts_is_completed(
    server: MockErnie, client: AsyncClient
) -> None:
    body = b'{"results":[{"index":0,"relevance_score":0.1},{"index":1,"relevance_score":0.9}]}'
    server.script(raw(body, content_type="application/json"))
    answer = await client.rerank("q", ["a", "b"])
    assert [(result.index, result.document) for result in answer.results] == [(1, "b"), (0, "a")]
    server.script(raw(body, content_type="application/json"))
    with pytest.raises(DecodeError, match="none of the 1"):
        await client.rerank("q", ["a"])


async def test_the_path_can_be_another(server: MockErnie, client: AsyncClient) -> None:
    await client.rerank("q", ["a"], path="/other/rerank")
    assert server.requests[0].path == "/v2/other/rerank"


@pytest.mark.parametrize(
    ("query", "documents", "top_n", "named"),
    [
        ("", ["a"], None, "query"),
        ("q" * 1601, ["a"], None, "query"),
        ("q", [], None, "documents"),
        ("q", "text", None, "documents"),
        ("q", ["a"] * 65, None, "documents"),
        ("q", ["a", ""], None, "documents.1"),
        ("q", ["a" * 4097], None, "documents.0"),
        ("q", ["a"], 0, "top_n"),
    ],
)
async def test_what_cannot_be_ranked_is_refused(
    server: MockErnie, client: AsyncClient, query: str, documents: list[str], top_n: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        await client.rerank(query, documents, top_n=top_n)
    assert server.requests == []


async def test_the_mock_refuses_what_the_service_would(client: AsyncClient) -> None:
    for path in ("/embeddings", "/rerank"):
        with pytest.raises(BadRequestError):
            await client.request("POST", path, json={"model": "x"})
