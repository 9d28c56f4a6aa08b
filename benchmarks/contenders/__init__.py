"""Those who are compared: bare sockets, bare aiohttp, careful hand-work, other libraries, and us.

All do the same two things: read one stream to its end and throw the text away, and fetch one whole
answer. Each reads the text of every chunk, except the floor and the raw socket, which look at
nothing. Each runs with its own defaults; those on bare aiohttp and httpx only lift the limit of 100
connections. A few can also keep what they read (`Keeper`).

Each has a module of its own, so that a process holds only the libraries it measures, and the
libraries of others have an environment of their own (`ENVIRONMENTS`).
"""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, Self, cast

from benchmarks.load_server import TEXT

MODULES = {
    "socket": "raw_socket",
    "floor": "floor",
    "by-line": "by_line",
    "hand-made": "hand_made",
    "typed": "typed",
    "httpx": "httpx_by_line",
    "openai": "openai_python",
    "openai-aiohttp": "openai_aiohttp",
    "qianfan": "qianfan_sdk",
    "litellm": "litellm_sdk",
    "ours": "ours",
}
FLOOR = "floor"

SLOW = ("httpx", "openai", "openai-aiohttp", "qianfan", "litellm")
"""Those who would take most of the time and are far from any line drawn here.

`--quick` asks them only if they are named.
"""

UVLOOP = "uvloop==0.23.0"
ENVIRONMENTS = {
    "httpx": ("httpx==0.28.1", UVLOOP),
    "openai": ("openai==3.57.0", UVLOOP),
    "openai-aiohttp": ("openai[aiohttp]==3.57.0", UVLOOP),
    "qianfan": ("qianfan==0.4.12", UVLOOP),
    "litellm": ("litellm==1.110.2", UVLOOP),
}
"""What is installed for a contender by `python -m benchmarks --install`, into `.bench/NAME`."""

LIBRARIES = {
    "floor": ("aiohttp", "pydantic"),
    "httpx": ("httpx",),
    "openai": ("openai", "httpx2"),
    "openai-aiohttp": ("openai", "httpx2", "aiohttp"),
    "qianfan": ("qianfan", "aiohttp"),
    "litellm": ("litellm", "openai", "aiohttp"),
    "ours": ("ernie-async",),
}
"""The libraries whose versions belong to a contender's numbers."""

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


class Keeper(Contender, Protocol):
    """A contender that can also keep what it reads."""

    async def read_text(self, *, keeps_chunks: bool) -> str:
        """Read one stream to its end and return its text.

        Args:
            keeps_chunks: Hold every chunk as the library gives it until the end.
        """
        ...


def load(name: str) -> Callable[[str], Contender]:
    """Import a contender; what comes back makes a client from a base URL."""
    module = import_module(f"{__name__}.{MODULES[name]}")
    return cast("Callable[[str], Contender]", module.Client)
