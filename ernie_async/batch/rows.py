"""Rows of a program as lines of a batch, and the models of those that name none."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from ernie_async.batch.flow import Item
from ernie_async.batch.ids import Ids
from ernie_async.batch.lines import (
    CHAT_PATH,
    EMBEDDINGS_PATH,
    IMAGES_PATH,
    Fault,
    Line,
    LineReader,
    duplicate,
)
from ernie_async.client import AsyncClient
from ernie_async.embedding import DEFAULT_MODEL as EMBEDDING_MODEL
from ernie_async.images import DEFAULT_MODEL as IMAGE_MODEL

__all__ = ["items_of", "known_models"]

R = TypeVar("R")


def known_models(client: AsyncClient) -> dict[str, str]:
    """The model of lines that name none, by path."""
    models = {
        CHAT_PATH: client.model,
        EMBEDDINGS_PATH: EMBEDDING_MODEL,
        IMAGES_PATH: IMAGE_MODEL,
    }
    return {path: model for path, model in models.items() if model is not None}


async def _each(rows: Iterable[R] | AsyncIterable[R]) -> AsyncGenerator[R, None]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def items_of(
    rows: Iterable[R] | AsyncIterable[R],
    reader: LineReader,
    id_of: Callable[[R], object] | None,
    request: Callable[[R], Mapping[str, Any]] | None,
) -> AsyncGenerator[Item, None]:
    """The lines that rows mean; see `BatchRunner.map`."""
    ids = Ids()
    number = 0
    try:
        async with aclosing(_each(rows)) as each:
            async for row in each:
                number += 1
                line = _read(number, row, reader, id_of, request)
                if isinstance(line, Line) and ids.take(line.custom_id) is not None:
                    line = duplicate(line)
                yield Item(line, row)
    finally:
        ids.close()


def _read(
    number: int,
    row: Any,
    reader: LineReader,
    id_of: Callable[[Any], object] | None,
    request: Callable[[Any], Mapping[str, Any]] | None,
) -> Line | Fault:
    try:
        fields: Mapping[str, Any] = row if isinstance(row, Mapping) else {"prompt": row}
        if request is not None:
            fields = {"url": reader.url, "body": request(row), "custom_id": f"row-{number}"}
        if id_of is not None:
            fields = {**fields, "custom_id": str(id_of(row))}
        return reader.take(number, fields)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return Fault(number, "invalid_request", f"{type(error).__name__}: {error}", "")
