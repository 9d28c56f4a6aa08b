"""Rows of tables of Arrow, asked for in an actor of an engine that spreads them.

Uses the methods of a table, and imports nothing for it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from ernie_async.batch.records import write_record
from ernie_async.batch.runner import BatchRunner
from ernie_async.batch.stopping import BatchError
from ernie_async.client import AsyncClient
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.sansio.retry import RetryPolicy

__all__ = ["RowAsker"]


class RowAsker:
    """Adds columns with the answers; see `batch.ray.map`."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        concurrency: Adaptive,
        retry: RetryPolicy,
        id: Callable[[dict[str, Any]], object] | None,  # noqa: A002 - the field's name
        request: Callable[[dict[str, Any]], Mapping[str, Any]] | None,
        url: str,
    ) -> None:
        self._runner = BatchRunner(client, concurrency=concurrency, retry=retry)
        self._options: dict[str, Any] = {"id": id, "request": request, "url": url}

    async def __call__(self, table: Any) -> Any:
        """The same table with four columns more.

        Raises:
            BatchError: The service refuses all.
        """
        rows = table.to_pylist()
        found: list[Any] = [None] * len(rows)
        async with aclosing(self._runner.map(rows, **self._options)) as results:
            async for result in results:
                found[result.number - 1] = result
        if results.reason is not None:
            codes = Counter(result.code for result in found if result.code is not None)
            raise BatchError(f"the run stopped: {dict(codes)}", results.reason)
        columns = {
            "ernie_ok": [result.ok for result in found],
            "ernie_text": [result.text for result in found],
            "ernie_code": [result.code or "" for result in found],
            "ernie_record": [write_record(result).decode().rstrip() for result in found],
        }
        for name, values in columns.items():
            table = table.append_column(name, [values])
        return table
