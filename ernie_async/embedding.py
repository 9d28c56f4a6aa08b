"""Embed any number of texts: requests of the size that the model takes, several at a time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Any

from ernie_async.calling import post, split_options
from ernie_async.errors import ConfigError
from ernie_async.net.answer import get_answer
from ernie_async.net.desk import Desk
from ernie_async.options import EmbedOptions
from ernie_async.sansio.embedding import (
    EmbeddingInput,
    embedding_tokens,
    join_batches,
    limit_of,
    read_batch,
    read_inputs,
    split,
)
from ernie_async.settings import CallOptions
from ernie_async.types.embeddings import Embeddings

__all__ = ["embed"]

PATH = "/embeddings"

# The one that the service's own page begins with.
DEFAULT_MODEL = "embedding-v1"

# Requests under way at a time: enough to hide the way to the service and back.
CONCURRENCY = 4


async def embed(
    desk: Desk,
    texts: EmbeddingInput | Sequence[EmbeddingInput],
    options: EmbedOptions,
) -> Embeddings:
    """See `AsyncClient.embed`."""
    _, call = split_options(options, EmbedOptions)
    model = options.get("model", DEFAULT_MODEL)
    batch_size = options.get("batch_size", "auto")
    max_characters = options.get("max_characters", "auto")
    concurrency = options.get("concurrency", CONCURRENCY)
    limit = limit_of(model)
    longest = limit.characters if max_characters == "auto" else max_characters
    inputs = read_inputs(texts, max_characters=longest)
    batches = list(split(inputs, limit.texts if batch_size == "auto" else batch_size))
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency: expected a whole number, at least 1, got {concurrency}")
    answers: list[Embeddings | None] = [None] * len(batches)
    places = count()
    is_counted = desk.limiter is not None and desk.limiter.counts_tokens

    async def work() -> None:
        while (place := next(places)) < len(batches):
            batch = batches[place]
            fields = {"model": model, "input": batch}
            if "user" in options:
                fields["user"] = options["user"]
            asked, request = post(
                desk,
                PATH,
                fields,
                _numbered(call, place, len(batches)),
                prompt_tokens=embedding_tokens(batch) if is_counted else 0,
            )
            answers[place] = await get_answer(
                asked, request, Embeddings, check=partial(read_batch, n_texts=len(batch))
            )

    if len(batches) == 1:
        await work()
    else:
        await _together([work] * min(concurrency, len(batches)))
    return join_batches(batches, [answer for answer in answers if answer is not None])


def _numbered(options: CallOptions, place: int, n_requests: int) -> CallOptions:
    """The options of one request of several: each needs an id of its own."""
    request_id = options.get("request_id")
    if request_id is None or n_requests == 1:
        return options
    return {**options, "request_id": f"{request_id}-{place + 1}"}


async def _together(workers: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Run workers until all are done; the first error ends them all, and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in workers:
                group.create_task(work())
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
    else:
        return
    raise first
