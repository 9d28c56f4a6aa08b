"""A server that may be entered with `with`, too: it then runs in a thread with its own loop."""

from contextlib import AbstractAsyncContextManager, ExitStack
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import start_blocking_portal

__all__ = ["InThread"]


class InThread(AbstractAsyncContextManager[Any]):
    """What can be entered with `async with` can be entered with `with`, too."""

    _thread: ExitStack

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(self))
            self._thread = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.__exit__(exc_type, exc, traceback)
