"""What a careful programmer writes for one model and one server: split, one pydantic pass, done.

No retry, no limits, no clocks, no errors inside a stream; a stream that breaks off looks complete.
"""

from collections.abc import Callable
from typing import Any, Self

import aiohttp
from pydantic import BaseModel
from pydantic_core import to_json

from benchmarks.contenders import KEY, MODEL, PROMPT


class Delta(BaseModel):
    content: str = ""


class ChunkChoice(BaseModel):
    delta: Delta
    finish_reason: str | None = None


class Chunk(BaseModel):
    choices: list[ChunkChoice]


class Message(BaseModel):
    content: str


class Choice(BaseModel):
    message: Message
    finish_reason: str | None = None


class Completion(BaseModel):
    choices: list[Choice]


class Client:
    read_chunk: Callable[[bytes], Any] = Chunk.__pydantic_validator__.validate_json
    read_completion: Callable[[bytes], Any] = Completion.__pydantic_validator__.validate_json

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/chat/completions"
        self._headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=self._headers
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    def request(self, *, stream: bool = False) -> bytes:
        request = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        return to_json({**request, "stream": True} if stream else request)

    async def stream(self, started: Callable[[], None]) -> int:
        read_chunk = self.read_chunk
        chunks = 0
        rest = b""
        async with self._session.post(self._url, data=self.request(stream=True)) as response:
            response.raise_for_status()
            while data := await response.content.readany():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        continue
                    chunk = read_chunk(event[6:])
                    _ = chunk.choices[0].delta.content
                    if not chunks:
                        started()
                    chunks += 1
        return chunks

    async def answer(self) -> str:
        async with self._session.post(self._url, data=self.request()) as response:
            response.raise_for_status()
            body = await response.read()
        text: str = self.read_completion(body).choices[0].message.content
        return text

    async def read_text(self, *, keeps_chunks: bool) -> str:
        read_chunk = self.read_chunk
        texts: list[str] = []
        kept: list[Chunk] = []
        rest = b""
        async with self._session.post(self._url, data=self.request(stream=True)) as response:
            response.raise_for_status()
            while data := await response.content.readany():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        continue
                    chunk = read_chunk(event[6:])
                    texts.append(chunk.choices[0].delta.content)
                    if keeps_chunks:
                        kept.append(chunk)
        return "".join(texts)
