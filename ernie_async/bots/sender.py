"""Show a text in a chat while it is being written: one worker, one call at a time.

Knows transports and nothing of models: text is pushed, and never waits for the platform. What to
call is decided in `plan`, when to call in `pacing`.
"""

import asyncio
import random
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from ernie_async.bots.plan import AppendPlan, Call, MessagePlan, Plan
from ernie_async.bots.traffic import Lane, Traffic
from ernie_async.bots.transport import (
    ChatClosedError,
    MarkupError,
    MessageGoneError,
    Mode,
    PlatformError,
    Transport,
    UndeliveredError,
)

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
        reply_to: Handle of the message that the first one answers, if the transport wants it.
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
        reply_to: Any = None,
        final_wait: float = FINAL_WAIT,
        notice: str = NOTICE,
    ) -> None:
        caps = transport.caps
        self.mode: Mode = caps.mode(mode)
        self._transport = transport
        self._traffic = traffic or Traffic()
        self._plan: Plan
        if self.mode == "append":
            self._plan = AppendPlan(caps)
        else:
            self._plan = MessagePlan(caps, self.mode, cursor, draft_id=random.randrange(1, 2**31))
        self._reply_to = reply_to
        self._final_wait = final_wait
        self._notice = notice
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._typist: asyncio.Task[None] | None = None

    @property
    def text(self) -> str:
        """The wanted text so far."""
        return self._plan.text

    def push(self, delta: str) -> None:
        """Add text. Never waits.

        Raises:
            UndeliveredError: Nothing more can be delivered, so the model need not go on.
        """
        self._check()
        if delta:
            self._plan.feed(delta, self._now())
            self._wake.set()

    def set(self, text: str) -> None:
        """Say what the whole text is so far, instead of what is new. Never waits.

        Raises:
            UndeliveredError: As for `push`.
        """
        so_far = self._plan.text
        if text.startswith(so_far):
            self.push(text[len(so_far) :])
            return
        self._check()
        self._plan.replace(text, self._now())
        self._wake.set()

    def add(self, sentence: str) -> None:
        """Add a paragraph of its own. Never waits.

        Raises:
            UndeliveredError: As for `push`.
        """
        self.push(f"\n\n{sentence}" if self._plan.text.strip() else sentence)

    async def finish(self) -> str:
        """Deliver the final state and return the text.

        Raises:
            UndeliveredError: That was not possible within `final_wait`; it has the `rest`.
        """
        assert self._worker is not None, "a sender is used in `async with`"
        self._plan.close()
        self._wake.set()
        await asyncio.wait({self._worker}, timeout=self._final_wait)
        self._check()
        if not self._worker.done():
            raise UndeliveredError(
                f"not delivered within {self._final_wait:g} s", rest=self._plan.rest
            )
        return self._plan.text

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
                if isinstance(error, Exception) and not self._plan.is_closed:
                    self.add(self._notice)
                self._plan.close()
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
            raise UndeliveredError(f"not delivered: {error}", rest=self._plan.rest) from error

    async def _work(self) -> None:
        async with self._traffic.lane(self._transport.caps) as lane:
            self._typist = asyncio.create_task(self._type(lane))
            try:
                while True:
                    await self._until_due()
                    if not await self._step(lane) and self._plan.is_closed:
                        return
            finally:
                await self._stop_typing()

    async def _until_due(self) -> None:
        while (wait := self._plan.wait(self._now())) is None or wait > 0:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _step(self, lane: Lane) -> bool:
        """Make one call; say whether there was one to make."""
        if self._plan.is_closed and self._plan.next(self._now()) is None:
            return False  # not even a place in line is needed
        call = None
        try:
            async with lane.turn():
                call = self._plan.next(self._now())  # now, since the text has grown meanwhile
                if call is None:
                    return False
                result = await lane.call(self._make(call))
        except ChatClosedError:
            raise
        except PlatformError as error:
            assert call is not None
            is_plain = call.format is None
            if isinstance(error, MarkupError if is_plain else ()) or (
                isinstance(error, MessageGoneError) and call.kind in {"send", "begin"}
            ):
                raise  # it makes no sense, and would again
            self._plan.failed(call, error)
        else:
            self._plan.done(call, result, self._now())
            if self._plan.is_visible:
                await self._stop_typing()
        return True

    async def _make(self, call: Call) -> Any:
        to = self._transport
        if call.kind in {"send", "begin"}:
            reply_to = None if self._plan.is_visible else self._reply_to
            if call.kind == "begin":
                return await to.begin(call.text, reply_to=reply_to)
            return await to.send(call.text, reply_to=reply_to, format=call.format)
        if call.kind == "edit":
            return await to.edit(call.handle, call.text, format=call.format, sequence=call.number)
        if call.kind == "append":
            return await to.append(call.handle, call.text)
        if call.kind == "draft":
            return await to.draft(call.number, call.text)
        if call.kind == "finish":
            return await to.finish(call.handle, call.text)
        return await to.delete(call.handle)

    async def _type(self, lane: Lane) -> None:
        every = self._transport.caps.platform.typing_seconds
        if every is None or self.mode not in TYPING_MODES:
            return
        while True:
            wait = lane.pace.wait(self._now())
            if wait == 0:
                with suppress(Exception):  # it is a courtesy
                    await self._transport.typing()
            await asyncio.sleep(wait or every)

    async def _stop_typing(self) -> None:
        typist, self._typist = self._typist, None
        if typist is not None:
            await _end(typist)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; what it raised is not of interest any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
