"""openai-python over aiohttp instead of httpx's own transport, which it offers as an extra."""

from openai import AsyncOpenAI, DefaultAioHttpClient

from benchmarks.contenders import KEY, openai_python


class Client(openai_python.Client):
    def __init__(self, base_url: str) -> None:
        self._client = AsyncOpenAI(
            api_key=KEY, base_url=base_url, http_client=DefaultAioHttpClient()
        )
