"""A thread with an event loop of its own, for programs that have none."""

import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TypeVar

from ernie_async.errors import ConfigError

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """A thread with an event loop, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        """Whether it was needed so far, and is not closed."""
        return self._portal is not None

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine there, wait for it, and cancel it if the wait is broken off."""
        future = self._started().start_task_soon(function)
        try:
            return future.result()
        finally:
            future.cancel()

    def _started(self) -> "BlockingPortal":
        with self._lock:
            if self._is_closed:
                raise ConfigError("this client is closed; make a new one")
            if self._portal is None:
                # Imported here, since it takes 10 ms that the asynchronous client does not need.
                from anyio.from_thread import start_blocking_portal

                self._portal = self._stack.enter_context(start_blocking_portal())
                # A client that nobody closed must not keep its thread, nor the interpreter.
                weakref.finalize(self, _end, self._portal, self._stack)
            return self._portal

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Run `last`, cancel whatever else still waits there, and end the thread."""
        with self._lock:
            self._is_closed = True
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.call(last)
            _end(portal, self._stack)


def _end(portal: "BlockingPortal", stack: ExitStack) -> None:
    with suppress(RuntimeError):  # it has ended already
        portal.call(portal.stop, True)
    stack.close()
