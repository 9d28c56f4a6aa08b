"""Which handler answers which path of the mock, besides chat.

A handler is a plain function: it takes what was asked and returns what to answer, as JSON or as a
step of the script. It sends nothing, waits for nothing, and knows no key and no quota; `server`
does. A new endpoint is a file beside this one and a line in `ROUTES`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ernie_async.testing.endpoints_batches import (
    cancel_batch,
    create_batch,
    list_batches,
    show_batch,
)
from ernie_async.testing.endpoints_files import (
    delete_file,
    file_content,
    list_files,
    upload_file,
)
from ernie_async.testing.endpoints_media import (
    ask_for_video,
    edit_image,
    generate_image,
    make_video,
    show_image,
)
from ernie_async.testing.endpoints_text import embeddings, list_models, rerank, web_search
from ernie_async.testing.script import Raw, Refuse
from ernie_async.testing.seen import Asked

__all__ = ["Route", "find_route", "takes_method"]

Handler = Callable[[Asked], Mapping[str, Any] | Raw | Refuse]


class Route(NamedTuple):
    """One line of the table.

    Attributes:
        method: The HTTP method.
        path: What the whole path ends with; a group in it is handed to the handler as `name`.
        handler: Answers.
        is_counted: Whether the quotas of the mock hold for it, as they do for chat.
        needs_key: Whether the key is checked.
    """

    method: str
    path: re.Pattern[str]
    handler: Handler
    is_counted: bool = False
    needs_key: bool = True


def _route(method: str, path: str, handler: Handler, **more: bool) -> Route:
    return Route(method, re.compile(f"{path}$"), handler, **more)


ROUTES = (
    _route("GET", "/models", list_models),
    _route("POST", "/embeddings", embeddings, is_counted=True),
    _route("POST", "/rerank(?:ers)?", rerank, is_counted=True),
    _route("POST", "/images/generations", generate_image, is_counted=True),
    _route("POST", "/images/edits", edit_image, is_counted=True),
    _route("GET", "/pictures/(?P<name>[0-9a-f]+)[.]png", show_image, needs_key=False),
    _route("POST", "/files", upload_file),
    _route("GET", "/files", list_files),
    _route("GET", "/files/(?P<name>[^/]+)/content", file_content),
    _route("DELETE", "/files/(?P<name>[^/]+)", delete_file),
    _route("POST", "/batches", create_batch),
    _route("GET", "/batches", list_batches),
    _route("GET", "/batches/(?P<name>[^/]+)", show_batch),
    _route("POST", "/batches/(?P<name>[^/]+)/cancel", cancel_batch),
    _route("POST", "/ai_search/web_search", web_search, is_counted=True),
    _route("POST", "/video/generations", make_video, is_counted=True),
    _route("GET", "/video/generations", ask_for_video),
)


def find_route(method: str, path: str) -> tuple[Route, str] | None:
    """The route of a request and the name in its path; `None` if there is none."""
    for route in ROUTES:
        found = route.path.search(path)
        if found is not None and route.method == method:
            return route, found.groupdict().get("name") or ""
    return None


def takes_method(path: str) -> bool:
    """Whether there is something at this path, for some other method."""
    return any(route.path.search(path) for route in ROUTES)
