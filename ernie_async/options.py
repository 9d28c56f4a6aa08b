"""The keywords of the verbs besides `chat`: those of the capability, and those of every call.

`None`, where it is allowed, means what it means everywhere: no limit. What is not given is not
sent.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from ernie_async.sansio.servers import OutputMethod
from ernie_async.settings import CallOptions, ChatOptions
from ernie_async.types.images import ImageFields

__all__ = [
    "Auto",
    "EmbedOptions",
    "ImageOptions",
    "ParseOptions",
    "RerankOptions",
    "SearchOptions",
    "VideoOptions",
]

# To be chosen by the library, where `None` means that there is no limit.
Auto = Literal["auto"]


class EmbedOptions(CallOptions, total=False):
    """The keywords of `embed`. Those of `CallOptions` hold for each of its requests.

    Attributes:
        model: The embedding model; `embedding-v1` if none is named.
        batch_size: Texts in one request; `"auto"`, as without it, for what the model is known to
            take.
        max_characters: The longest text that is sent; `None` for any, `"auto"` for what the model
            is known to take.
        concurrency: Requests under way at a time, 4 if not given; the client's limits hold besides.
        user: Who asks, for the service's own records.
    """

    model: str
    batch_size: int | Auto
    max_characters: int | Auto | None
    concurrency: int
    user: str


class ParseOptions(ChatOptions, total=False):
    """The keywords of `parse` and `stream_parse`: those of `chat`, and how the form is asked for.

    Attributes:
        method: `"json_schema"`: by `response_format` with the schema. `"json_object"`: by
            `response_format` without it, and the schema in the prompt. `"prompt"`: in the prompt
            alone. `"auto"`, as without it: what the server is known to take, and `"prompt"` after
            a 400.
        reasks: How often a model may mend an answer that does not fit, each time told what is
            wrong; 1 if not given.
    """

    method: OutputMethod | Auto
    reasks: int


class RerankOptions(CallOptions, total=False):
    """The keywords of `rerank`.

    Attributes:
        model: The reranking model; `bce-reranker-base` if none is named.
        top_n: How many documents to return; all if not given.
        user: Who asks, for the service's own records.
        path: `/rerank` if not given; the service's older SDK used `/rerankers`.
    """

    model: str
    top_n: int
    user: str
    path: str


class ImageOptions(ImageFields, CallOptions, total=False):
    """The keywords of `generate_image` and `edit_image`: `ImageFields` and `CallOptions`."""


class SearchOptions(CallOptions, total=False):
    """The keywords of `web_search`.

    Attributes:
        top_k: How many pages, at most 50; or how many of each type, such as
            `{"web": 20, "image": 5, "video": 3}`.
        sites: Only pages of these hosts.
        recency: `week`, `month`, `semiyear` or `year`.
        edition: `standard` or `lite`.
    """

    top_k: int | Mapping[str, int]
    sites: Sequence[str]
    recency: str
    edition: str


class VideoOptions(CallOptions, total=False):
    """The keywords of `generate_video`. Those of `CallOptions` hold for each of its requests.

    Attributes:
        image: A picture to begin with, as a URL or data URI.
        duration: The video's length in seconds.
        watermark: Whether to mark it as made by a machine.
        path: Below the host, since videos are not below `/v2`; `/video/generations` if not given.
            Each family of models has one.
        deadline: Seconds to wait in all, 1,800 if not given; `None` for ever.
        poll_every: Seconds between two questions, 5 if not given.
    """

    image: str
    duration: int
    watermark: bool
    path: str
    deadline: float | None
    poll_every: float
