"""Show a text in a chat while it is being written: one worker, one call at a time.

Knows transports and nothing of models: text is pushed, and never waits for the platform. What to
call is decided in `delivery`, when to call in `pace`.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from ernie_async.bots.delivery import GrowingMessage, Messages
from ernie_async.bots.pace import ChatPace, Traffic
from ernie_async.bots.transport import Mode, Transport, UndeliveredError

__all__ = ["StreamSender"]

# For the final text, penalties of the platform included.
FINAL_WAIT = 300.0

# For the last state of an answer that is left by an error or a cancellation.
CLOSING_SECONDS = 10.0

NOTICE = "（回答到此中断。）"

# In the others, text is soon to be seen without it.
TYPING_MODES = {"edit", "sentence", "final"}


class StreamSender:
    """An answer on its way into one chat. Use it in `async with`.

    ```python
    async with StreamSender(transport) as sender:
        async for chunk in client.stream("讲讲光合作用"):
            sender.push(chunk.text)
        text = await sender.finish()
    ```

    Leaving the block by an error delivers what is there, with the notice behind it; leaving it by a
    cancellation delivers what is there, for up to 10 s.

    Args:
        transport: Where to.
        traffic: Shared by all senders of a bot, so that they keep its pace together; `None` for
            one of its own.
        mode: Instead of the best that the transport can do.
        cursor: Shown behind unfinished text, such as `" ▌"`.
        final_wait: Seconds after the end of the text during which its final state is delivered.
        notice: A paragraph, added when the block is left by an error.

    Raises:
        ConfigError: The transport cannot do this mode.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        traffic: Traffic | None = None,
        mode: Mode | None = None,
        cursor: str = "",
        final_wait: float = FINAL_WAIT,
        notice: str = NOTICE,
    ) -> None:
        self.mode: Mode = transport.caps.mode(mode)
        self._transport = transport
        self._traffic = traffic or Traffic()
        self._delivery: Messages | GrowingMessage
        if self.mode == "append":
            self._delivery = GrowingMessage(transport)
        else:
            self._delivery = Messages(transport, self.mode, cursor)
        self._final_wait = final_wait
        self._notice = notice
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def push(self, delta: str) -> None:
        """Add text. Never waits.

        Raises:
            UndeliveredError: Nothing more can be delivered, so the model need not go on.
        """
        self._check()
        if delta:
            self._delivery.feed(delta, self._now())
            self._wake.set()

    def set(self, text: str) -> None:
        """Say what the whole text is so far, instead of what is new. Never waits.

        Raises:
            UndeliveredError: As for `push`.
        """
        so_far = self._delivery.text
        if text.startswith(so_far):
            self.push(text[len(so_far) :])
            return
        self._check()
        self._delivery.replace(text, self._now())
        self._wake.set()

    def add(self, sentence: str) -> None:
        """Add a paragraph of its own. Never waits.

        Raises:
            UndeliveredError: As for `push`.
        """
        self.push(f"\n\n{sentence}" if self._delivery.text.strip() else sentence)

    async def finish(self) -> str:
        """Deliver the final state and return the text.

        Raises:
            UndeliveredError: That was not possible within `final_wait`; it has the `rest`.
        """
        assert self._worker is not None, "a sender is used in `async with`"
        self._delivery.close()
        self._wake.set()
        await asyncio.wait({self._worker}, timeout=self._final_wait)
        self._check()
        if not self._worker.done():
            raise UndeliveredError(
                f"not delivered within {self._final_wait:g} s", rest=self._delivery.rest
            )
        return self._delivery.text

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._worker is not None
        try:
            if error is None:
                await self.finish()
            elif not self._worker.done():
                if isinstance(error, Exception) and not self._delivery.is_closed:
                    self.add(self._notice)
                self._delivery.close()
                self._wake.set()
                await asyncio.wait({self._worker}, timeout=CLOSING_SECONDS)
        finally:
            await _end(self._worker)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _check(self) -> None:
        """Raise what ended the worker, if an error did."""
        worker = self._worker
        if worker is None or not worker.done() or worker.cancelled():
            return
        error = worker.exception()
        if isinstance(error, UndeliveredError):
            raise error
        if error is not None:
            raise UndeliveredError(f"not delivered: {error}", rest=self._delivery.rest) from error

    async def _work(self) -> None:
        async with self._traffic.lane(self._transport.caps) as lane:
            typist = asyncio.create_task(self._type(lane.pace))
            try:
                while await self._is_due():
                    await lane.call(self._delivery.step)
                    if self._delivery.is_visible:
                        typist.cancel()
            finally:
                await _end(typist)

    async def _is_due(self) -> bool:
        """Wait until there may be a call to make; say whether any will ever be."""
        while not self._delivery.is_over:
            wait = self._delivery.wait(self._now())
            if wait is not None and wait <= 0:
                return True
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
        return False

    async def _type(self, pace: ChatPace) -> None:
        every = self._transport.caps.platform.typing_seconds
        while every is not None and self.mode in TYPING_MODES:
            wait = pace.wait(self._now())
            if wait == 0:
                with suppress(Exception):  # it is a courtesy
                    await self._transport.typing()
            await asyncio.sleep(wait or every)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; what it raised is not of interest any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
