"""litellm, pointed at a server that speaks as OpenAI does."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Self

from benchmarks.contenders import KEY, MODEL, PROMPT

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the network
litellm: Any = import_module("litellm")


class Client:
    def __init__(self, base_url: str) -> None:
        self._options = {
            "model": f"openai/{MODEL}",
            "messages": [{"role": "user", "content": PROMPT}],
            "api_base": base_url,
            "api_key": KEY,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Its connections are global."""

    async def stream(self, started: Callable[[], None]) -> int:
        chunks = 0
        async for chunk in await litellm.acompletion(**self._options, stream=True):
            _ = chunk.choices[0].delta.content
            if not chunks:
                started()
            chunks += 1
        return chunks

    async def answer(self) -> str:
        completion = await litellm.acompletion(**self._options)
        text: str = completion.choices[0].message.content
        return text
