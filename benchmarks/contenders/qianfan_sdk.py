"""qianfan, Baidu's own SDK, in its second version. It opens a session for each request.

It writes each request to a log nobody reads here, as it does by default.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Self

from benchmarks.contenders import KEY, MODEL, PROMPT

qianfan: Any = import_module("qianfan")


class Client:
    def __init__(self, base_url: str) -> None:
        # What it calls the console's address is where its V2 chat goes.
        qianfan.get_config().CONSOLE_API_BASE_URL = base_url.removesuffix("/v2")
        qianfan.get_config().BEARER_TOKEN = KEY
        self._chat = qianfan.ChatCompletion(version="2", model=MODEL)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """It has nothing to close."""

    async def stream(self, started: Callable[[], None]) -> int:
        chunks = 0
        messages = [{"role": "user", "content": PROMPT}]
        async for response in await self._chat.ado(messages=messages, stream=True):
            _ = response.body["choices"][0]["delta"]["content"]
            if not chunks:
                started()
            chunks += 1
        return chunks

    async def answer(self) -> str:
        response = await self._chat.ado(messages=[{"role": "user", "content": PROMPT}])
        text: str = response.body["choices"][0]["message"]["content"]
        return text
