"""Find what answers a query: in documents at hand (`rerank`), or on the web."""

from collections.abc import Sequence

from ernie_async.calling import post, split_options
from ernie_async.net.answer import get_answer
from ernie_async.net.desk import Desk
from ernie_async.options import RerankOptions, SearchOptions
from ernie_async.sansio.rerank import order_ranking, rerank_fields
from ernie_async.sansio.search import SEARCH_PATH, search_fields
from ernie_async.types.rerank import Ranking
from ernie_async.types.search import SearchAnswer

__all__ = ["rerank", "web_search"]

DEFAULT_MODEL = "bce-reranker-base"


async def rerank(
    desk: Desk, query: str, documents: Sequence[str], options: RerankOptions
) -> Ranking:
    """See `AsyncClient.rerank`."""
    given, call = split_options(options, RerankOptions)
    path = given.pop("path", "/rerank")
    fields = rerank_fields(query, documents, given, DEFAULT_MODEL)
    asked, request = post(desk, path, fields, call)

    def ordered(answer: Ranking) -> Ranking:
        return order_ranking(answer, documents)

    return await get_answer(asked, request, Ranking, check=ordered)


async def web_search(desk: Desk, query: str, options: SearchOptions) -> SearchAnswer:
    """See `AsyncClient.web_search`."""
    given, call = split_options(options, SearchOptions)
    asked, request = post(desk, SEARCH_PATH, search_fields(query, given), call)
    return await get_answer(asked, request, SearchAnswer)
