"""Ask Baidu's search.

Source: cloud.baidu.com/doc/qianfan-api/s/Wmbq4z7e5.
"""

from collections.abc import Mapping
from typing import Any

from ernie_async.errors import ConfigError, shorten

__all__ = ["SEARCH_PATH", "search_fields"]

SEARCH_PATH = "/ai_search/web_search"
SOURCE = "baidu_search_v2"


def search_fields(query: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the request.

    Args:
        query: What to search for.
        given: See `SearchOptions`.

    Raises:
        ConfigError: There is nothing to search for, or `sites` is no list.
    """
    if not isinstance(query, str) or not query.strip():
        raise ConfigError(f"query: expected text, got {shorten(query)}")
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": query}],
        "search_source": SOURCE,
    }
    if "top_k" in given:
        top_k = given["top_k"]
        wanted = top_k if isinstance(top_k, Mapping) else {"web": top_k}
        fields["resource_type_filter"] = [
            {"type": kind, "top_k": count} for kind, count in wanted.items()
        ]
    if "sites" in given:
        if isinstance(given["sites"], str):
            raise ConfigError(f"sites: expected a list of hosts, got {shorten(given['sites'])}")
        fields["search_filter"] = {"match": {"site": list(given["sites"])}}
    if "recency" in given:
        fields["search_recency_filter"] = given["recency"]
    if "edition" in given:
        fields["edition"] = given["edition"]
    return fields
