"""aiohttp alone: send rendered bytes, drain what comes back without looking at it."""

from collections.abc import Callable
from typing import Self

import aiohttp
from pydantic_core import to_json

from benchmarks.contenders import KEY, MODEL, PROMPT


class Client:
    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/chat/completions"
        self._headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        self._request = to_json(request)
        self._stream_request = to_json({**request, "stream": True})

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=self._headers
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def stream(self, started: Callable[[], None]) -> None:
        async with self._session.post(self._url, data=self._stream_request) as response:
            response.raise_for_status()
            await response.content.readany()
            started()
            while await response.content.readany():
                pass

    async def answer(self) -> None:
        async with self._session.post(self._url, data=self._request) as response:
            response.raise_for_status()
            while await response.content.readany():
                pass
