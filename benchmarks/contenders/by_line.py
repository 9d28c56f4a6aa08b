"""aiohttp as a blog shows it: each line of the body, without its prefix, through `json.loads`."""

import json
from collections.abc import Callable
from typing import Self

import aiohttp

from benchmarks.contenders import KEY, MODEL, PROMPT


class Client:
    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/chat/completions"
        self._headers = {"Authorization": f"Bearer {KEY}"}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=self._headers
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def stream(self, started: Callable[[], None]) -> int:
        request = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
        }
        chunks = 0
        async with self._session.post(self._url, json=request) as response:
            response.raise_for_status()
            async for line in response.content:
                data = line.decode().strip().removeprefix("data: ")
                if not data or data == "[DONE]":
                    continue
                _ = json.loads(data)["choices"][0]["delta"]["content"]
                if not chunks:
                    started()
                chunks += 1
        return chunks

    async def answer(self) -> str:
        request = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        async with self._session.post(self._url, json=request) as response:
            response.raise_for_status()
            completion = await response.json()
        text: str = completion["choices"][0]["message"]["content"]
        return text
