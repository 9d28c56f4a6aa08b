"""A chat platform without a network, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ernie_async.bots.platforms import Platform
from ernie_async.bots.transport import Caps, FloodError, Transport
from ernie_async.testing import VirtualClock

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time."""
    return VirtualClock(start=0).run(main)


TELEGRAM = Platform(
    name="fake", limit=4096, unit="utf16", interval=1.1, per_second=None, typing_seconds=4
)


def caps(**changes: Any) -> Caps:
    given: dict[str, Any] = {"platform": TELEGRAM, "chat": 1, "modes": ("edit", "final"), **changes}
    return Caps(**given)


@dataclass
class FakeChat(Transport):
    """One chat. Keeps what it was told, and complains about calls that come too soon.

    `faults` are raised by the next calls, one each; `None` lets one pass.
    """

    caps: Caps = field(default_factory=caps)
    least: float = 1.0  # seconds between two calls
    penalty: float = 30.0
    latency: float = 0.05
    faults: list[Exception | None] = field(default_factory=list)
    calls: list[tuple[float, str, Any]] = field(default_factory=list)
    messages: list[str | None] = field(default_factory=list)
    formats: list[str | None] = field(default_factory=list)
    drafts: list[tuple[float, int, str]] = field(default_factory=list)
    typed: list[float] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    n_violations: int = 0
    on_call: Callable[[], None] = lambda: None
    _blocked_until: float = 0.0
    _last: float = -1e9

    async def _take(self, kind: str, what: Any) -> None:
        now = asyncio.get_running_loop().time()
        self.calls.append((now, kind, what))
        self.on_call()
        if now < self._blocked_until or now - self._last < self.least - 1e-6:
            self.n_violations += 1
            self._blocked_until = max(self._blocked_until, now) + self.penalty
            raise FloodError(retry_after=self._blocked_until - now)
        self._last = now
        await asyncio.sleep(self.latency)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            if isinstance(fault, FloodError):
                self._blocked_until = now + self.latency + fault.retry_after
            raise fault

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> int:
        assert text.strip()
        await self._take("send", text)
        self.messages.append(text)
        self.formats.append(format)
        return len(self.messages) - 1

    async def begin(self, text: str, *, reply_to: Any = None) -> int:
        await self._take("begin", text)
        self.messages.append(text)
        return len(self.messages) - 1

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        await self._take("edit", (sequence, text))
        self.messages[handle] = text
        self.formats[handle] = format

    async def append(self, handle: Any, text: str) -> None:
        await self._take("append", text)
        self.messages[handle] = (self.messages[handle] or "") + text

    async def draft(self, draft_id: int, text: str) -> None:
        await self._take("draft", text)
        self.drafts.append((self.calls[-1][0], draft_id, text))

    async def finish(self, handle: Any, text: str) -> None:
        await self._take("finish", text)
        assert self.messages[handle] == text
        self.closed.append(handle)

    async def delete(self, handle: Any) -> None:
        await self._take("delete", handle)
        self.messages[handle] = None

    async def typing(self) -> None:
        self.typed.append(asyncio.get_running_loop().time())
