"""httpx the same way: `aiter_lines` and `json.loads`."""

import json
from collections.abc import Callable
from typing import Self

import httpx

from benchmarks.contenders import KEY, MODEL, PROMPT


class Client:
    def __init__(self, base_url: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {KEY}"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=60,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def stream(self, started: Callable[[], None]) -> int:
        request = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
        }
        chunks = 0
        async with self._client.stream("POST", "/chat/completions", json=request) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                data = line.removeprefix("data: ")
                if not data or data == "[DONE]":
                    continue
                _ = json.loads(data)["choices"][0]["delta"]["content"]
                if not chunks:
                    started()
                chunks += 1
        return chunks

    async def answer(self) -> str:
        request = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        response = await self._client.post("/chat/completions", json=request)
        response.raise_for_status()
        text: str = response.json()["choices"][0]["message"]["content"]
        return text
