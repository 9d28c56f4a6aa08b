"""ernie_async as its README shows it."""

from collections.abc import Callable
from typing import Self

from benchmarks.contenders import KEY, MODEL, PROMPT
from ernie_async import AsyncClient


class Client:
    def __init__(self, base_url: str) -> None:
        self._client = AsyncClient(KEY, base_url=base_url, model=MODEL)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def stream(self, started: Callable[[], None]) -> int:
        chunks = 0
        async for chunk in self._client.stream(PROMPT):
            _ = chunk.text
            if not chunks:
                started()
            chunks += 1
        return chunks

    async def answer(self) -> str:
        completion = await self._client.chat(PROMPT)
        return completion.text

    async def read_text(self, *, keeps_chunks: bool) -> str:
        kept = []
        stream = self._client.stream(PROMPT)
        async for chunk in stream:
            if keeps_chunks:
                kept.append(chunk)
        return (await stream.final()).text
