"""Answers under way that come in one piece: counted, waited for, and stopped with the gateway.

Whoever asks for one reads it in the same task. Knows neither the model nor a framework.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from ernie_async.gateway.production import SHUTTING_DOWN
from ernie_async.sansio.relay import GatewayError

__all__ = ["WholeAnswers"]


class WholeAnswers:
    """Those of one hub. Serves one event loop."""

    def __init__(self) -> None:
        self._scopes: dict[asyncio.Future[None], asyncio.Timeout] = {}

    def __len__(self) -> int:
        return len(self._scopes)

    def __iter__(self) -> Iterator[asyncio.Future[None]]:
        """For each of them, what is done when it is over."""
        return iter(list(self._scopes))

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """One is under way as long as this is not left.

        Raises:
            GatewayError: It was stopped.
        """
        over = asyncio.get_running_loop().create_future()
        scope = asyncio.timeout(None)  # which `stop` ends; a task may be cancelled by others, too
        try:
            async with scope:
                self._scopes[over] = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise GatewayError(SHUTTING_DOWN) from None
        finally:
            self._scopes.pop(over, None)
            over.set_result(None)

    def stop(self) -> None:
        """Want none of them any more."""
        now = asyncio.get_running_loop().time()
        for scope in self._scopes.values():
            if not scope.expired():
                scope.reschedule(now)
