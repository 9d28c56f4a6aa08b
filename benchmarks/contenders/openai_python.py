"""openai-python, the client most people point at Qianfan."""

from collections.abc import Callable
from typing import Self

from openai import AsyncOpenAI

from benchmarks.contenders import KEY, MODEL, PROMPT


class Client:
    def __init__(self, base_url: str) -> None:
        self._client = AsyncOpenAI(api_key=KEY, base_url=base_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def stream(self, started: Callable[[], None]) -> int:
        chunks = 0
        stream = await self._client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        async for chunk in stream:
            _ = chunk.choices[0].delta.content
            if not chunks:
                started()
            chunks += 1
        return chunks

    async def answer(self) -> str | None:
        completion = await self._client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": PROMPT}]
        )
        return completion.choices[0].message.content

    async def read_text(self, *, keeps_chunks: bool) -> str:
        texts: list[str] = []
        kept = []
        stream = await self._client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")
            if keeps_chunks:
                kept.append(chunk)
        return "".join(texts)
