"""Those who are compared: the least aiohttp can do, careful hand-work, openai-python, and us.

All do the same two things: read one stream to its end and throw the text away, and fetch one whole
answer. Each reads the text of every chunk, except the floor, which looks at nothing. Each runs
with its own defaults; the two on bare aiohttp only lift the limit of 100 connections.

Each has a module of its own, so that a process holds only the libraries it measures.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, Self, cast

from benchmarks.load_server import TEXT

MODULES = {
    "floor": "floor",
    "hand-made": "hand_made",
    "openai": "openai_python",
    "ours": "ours",
}
FLOOR = "floor"

KEY = "bce-v3/ALTAK-bench/0123456789abcdef"
MODEL = "ernie-5.1"
PROMPT = "hi"
ANSWER = TEXT * 50


class Contender(Protocol):
    """A client for one base URL, opened and closed by `async with`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def stream(self, started: Callable[[], None]) -> int | None:
        """Read one stream to its end, calling `started` at the first chunk.

        Returns:
            How many chunks came, or `None` from one who does not look.
        """

    async def answer(self) -> str | None:
        """Fetch one whole answer and return its text, or `None` from one who does not look."""


def load(name: str) -> Callable[[str], Contender]:
    """Import a contender; what comes back makes a client from a base URL."""
    module = import_module(f"{__name__}.{MODULES[name]}")
    return cast("Callable[[str], Contender]", module.Client)
