"""Hours that pass in a moment: a clock, and event loops that move it instead of waiting.

    with VirtualClock() as clock:
        clock.run(scenario())

Knows nothing of clients and servers. Sockets work as ever, if both of their ends are in the same
loop; what another thread does takes real time, and is not waited for.
"""

import asyncio
import importlib
import math
import pkgutil
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Self, TypeVar

import ernie_async.net

__all__ = ["VirtualClock"]

T = TypeVar("T")

PACKAGE = "ernie_async"

# Seconds in which something may still arrive from a socket or a thread before the clock is moved.
# Loopback takes microseconds, on a machine where somebody listens.
GRACE = 0.02

# Seconds after which nothing will come any more, where nothing is scheduled.
PATIENCE = 5.0

# Read the clock, and are imported by the first call that needs them.
LATE = ("ernie_async.toolbox", "ernie_async.videos")


class VirtualClock:
    """A monotonic clock that stands still while something happens, and jumps where all would wait.

    Inside `with`, `ernie_async` reads this clock. It is a function, too: `clock()` are seconds, for
    whatever takes a `clock=`, such as the limits and the memory of bots.

    Args:
        start: Seconds to begin with; `None` for those of the real clock, which those need that
            looked at it before, rounded up: from a whole second on, a day is exactly a day.
    """

    def __init__(self, start: float | None = None) -> None:
        self._now = self._started = float(math.ceil(time.monotonic()) if start is None else start)

    def __call__(self) -> float:
        """Seconds, as of `time.monotonic`."""
        return self._now

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return self._now - self._started

    def advance(self, seconds: float) -> None:
        """Let time pass. What is due then happens when the loop has its next turn.

        Raises:
            ValueError: It would run backwards.
        """
        if seconds < 0:
            raise ValueError(f"seconds: expected 0 or more, got {seconds:g}")
        self._now += seconds

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A `loop_factory` for `asyncio.Runner`, and for anyio's and pytest-asyncio's options."""
        return _Loop(self)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """As `asyncio.run`, on this clock."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main)

    def __enter__(self) -> Self:
        for module in pkgutil.iter_modules(ernie_async.net.__path__, "ernie_async.net."):
            importlib.import_module(module.name)
        for name in LATE:
            importlib.import_module(name)
        self._replace(time.monotonic, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._replace(self, time.monotonic)

    @staticmethod
    def _replace(old: Callable[[], float], new: Callable[[], float]) -> None:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == PACKAGE and vars(module).get("monotonic") is old:
                module.monotonic = new  # type: ignore[attr-defined]


class _Selector(selectors.DefaultSelector):
    """Looks whether something has come; if nothing has, moves the clock instead of waiting."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.n_elsewhere = 0  # jobs of the loop in other threads, which take real time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        most = PATIENCE if timeout is None else timeout
        # The loop's own socket pair is always registered.
        has_company = self.n_elsewhere or len(self.get_map()) > 1
        if timeout is not None and not self.n_elsewhere:
            most = min(timeout, GRACE) if has_company else 0
        ready = super().select(most)
        if not ready and timeout is None:
            raise RuntimeError("every task waits, nothing is scheduled, and nothing has come")
        if not ready and timeout is not None and timeout > 0:
            self._clock.advance(timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._look = _Selector(clock)
        super().__init__(self._look)

    def time(self) -> float:
        return self._clock()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._look.n_elsewhere += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self._look.n_elsewhere -= 1

    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        # It waits for a thread that joins the others; from Python 3.12 on, for a time.
        self._look.n_elsewhere += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._look.n_elsewhere -= 1
