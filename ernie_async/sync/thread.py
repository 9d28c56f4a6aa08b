"""A thread with an event loop of its own, for programs that have none."""

import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ernie_async.errors import ConfigError, DrainError

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """A thread with an event loop, started when it is first needed, and again in a fork."""

    def __init__(self) -> None:
        self._is_closed = False
        self._lock = threading.Lock()
        self._portal: Future[BlockingPortal] | None = None
        self._ending: weakref.finalize[..., LoopThread] | None = None
        _all.add(self)

    @property
    def is_running(self) -> bool:
        """Whether it was needed so far, and is not closed."""
        return self._portal is not None

    def run(self, function: Callable[[], Awaitable[T]], *, has_begun: bool = False) -> T:
        """Run a coroutine there, wait for it, and cancel it if the wait is broken off.

        Args:
            function: Makes it.
            has_begun: It goes on with what ran there before, and can say how that ended when the
                client is closed. Then it runs in a thread of its own.

        Raises:
            ConfigError: The client is closed.
            DrainError: It was closed meanwhile.
        """
        portal = self._started()
        if portal is None:
            if has_begun:
                return _run_alone(function)
            raise ConfigError("this client is closed; make a new one")
        future = portal.start_task_soon(function)
        try:
            return future.result()
        except CancelledError:
            if not self._is_closed:
                raise
        finally:
            future.cancel()
        raise DrainError("the client was closed before this call was over")

    def _started(self) -> "BlockingPortal | None":
        """The way into the thread; `None` if the client is closed."""
        with self._lock:
            if self._is_closed:
                return None
            if self._portal is None:
                self._portal = Future()
                thread = threading.Thread(
                    target=_serve, args=(self._portal,), name="ernie-async", daemon=True
                )
                thread.start()
                # A client that nobody closed must not keep its thread, nor the interpreter.
                self._ending = weakref.finalize(self, _end, self._portal, thread)
            portal = self._portal
        return portal.result()

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Run `last`, cancel whatever else still waits there, and end the thread."""
        with self._lock:
            self._is_closed = True
            portal, self._portal = self._portal, None
        if portal is not None and self._ending is not None:
            portal.result().call(last)
            self._ending()

    def begin_anew(self) -> None:
        """Forget the thread, which a forked process has not, and who held the lock there."""
        self._lock = threading.Lock()
        if self._ending is not None:
            self._ending.detach()
        self._portal, self._ending = None, None


_all: "weakref.WeakSet[LoopThread]" = weakref.WeakSet()


def _serve(started: "Future[BlockingPortal]") -> None:
    # Imported here, since it takes 10 ms that the asynchronous client does not need.
    import anyio
    from anyio.from_thread import BlockingPortal

    async def serve() -> None:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


def _run_alone(function: Callable[[], Awaitable[T]]) -> T:
    from anyio.from_thread import start_blocking_portal  # as above

    with start_blocking_portal() as portal:
        return portal.call(function)


def _end(portal: "Future[BlockingPortal]", thread: threading.Thread) -> None:
    if threading.current_thread() is thread:
        # The last who knew of the client was a call in this thread, which cannot wait for itself.
        threading.Thread(target=_end, args=(portal, thread), daemon=True).start()
        return
    with suppress(RuntimeError):  # it has ended already
        portal.result().call(portal.result().stop, True)
    thread.join()


def _begin_anew() -> None:
    for thread in _all:
        thread.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
