"""Answers that outlive the connections of those who read them.

A `StreamHub` asks the model, keeps what it says, and lets anybody come, leave and come back. Knows
neither a framework nor who may ask what.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from time import time
from typing import Any, TypeVar

from ernie_async.errors import ConfigError
from ernie_async.gateway.live import LiveStream, StreamLimits
from ernie_async.gateway.production import SHUTTING_DOWN, OnEnd, OnSettled, Production
from ernie_async.gateway.shelf import Shelf
from ernie_async.gateway.stores import MemoryStore, Store, StreamRecord
from ernie_async.gateway.whole import WholeAnswers
from ernie_async.net.filtered import ChunkScreen
from ernie_async.net.hooks import Hook
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.on_disconnect import read_policy
from ernie_async.sansio.relay import Fault, GatewayError
from ernie_async.sansio.replay import Cursor

__all__ = ["StreamHub"]

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("ernie_async")

# Where nobody watches another process's stream, it is followed for so many seconds more. With the
# next, less than a second: so long may a stream with the policy `cancel` be asked for unwatched.
MIRROR_SECONDS = 0.3

# How often to look whether others still watch a stream that nobody watches here.
LOOK_SECONDS = 0.5

# What another process has sent its viewers is here in a moment.
REACH_SECONDS = 1.0

# Who starts a stream needs a moment to come and see it.
FIRST_VIEWER_SECONDS = 10.0

# What is stopped needs a moment to let go of the model.
STOP_SECONDS = 1.0


class StreamHub:
    """Starts answers, and shows them to whoever comes. Serves one event loop.

    Args:
        store: Where answers are kept for other processes; `None` for this process alone.
        heartbeat: Seconds of silence after which a comment is sent, 30 at most.
        limits: What is kept, and for how long.
        on_end: Told what each answer came to.
        hooks: Told what content filters find.

    Attributes:
        is_draining: No more answers are started.

    Raises:
        ConfigError: A setting cannot be right.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        heartbeat: float = 15.0,
        limits: StreamLimits = StreamLimits(),
        on_end: Sequence[OnEnd] = (),
        hooks: Sequence[Hook] = (),
    ) -> None:
        if not 0 < heartbeat <= 30:
            raise ConfigError(f"heartbeat: expected seconds above 0, up to 30, got {heartbeat!r}")
        self.heartbeat = heartbeat
        self.limits = limits
        self.is_draining: bool = False
        self._store: Store = MemoryStore() if store is None else store
        self._on_end = tuple(on_end)
        self._hooks = tuple(hooks)
        self._shelf = Shelf(retention=limits.retention, max_bytes=limits.kept_bytes)
        self._running: dict[asyncio.Task[None], Production] = {}
        self._whole = WholeAnswers()
        self._chores: set[asyncio.Task[Any]] = set()
        self._n_starting = 0
        self._lock = asyncio.Lock()  # one at a time opens the store, or follows a stream
        self._is_open = False

    @property
    def n_running(self) -> int:
        """Answers under way that this process asked for."""
        return len(self._running) + len(self._whole)

    @property
    def n_viewers(self) -> int:
        """Those who watch an answer in this process."""
        return sum(len(stream.viewers) for stream in self._shelf)

    @property
    def n_lagged(self) -> int:
        """Viewers that fell behind, of the answers that are kept."""
        return sum(stream.n_lagged for stream in self._shelf)

    @property
    def n_kept(self) -> int:
        """Answers that this process can show at once, those under way among them."""
        return len(self._shelf)

    async def start(
        self,
        open_stream: Callable[[], ChatStream],
        *,
        tenant: str = "",
        model: str = "",
        content_filter: ContentFilter | None = None,
        on_disconnect: str = "linger:60",
        key: str | None = None,
        fingerprint: str = "",
        on_settled: OnSettled | None = None,
    ) -> LiveStream:
        """Ask the model, and return at once.

        Args:
            open_stream: Returns the model's stream, which nobody has begun to read.
            tenant: Whose it is.
            model: For the records.
            content_filter: What must not be shown of it. In mode `live`, text is shown at once, and
                what is found is taken back.
            on_disconnect: What to do when nobody reads it: `cancel`, `linger:SECONDS`, `finish`.
            key: Two starts of a tenant with the same key are one, as long as that is kept.
            fingerprint: Of the request: a key may not be used for another one.
            on_settled: Told once: what it came to, or `None` if nothing was started.

        Returns:
            The stream; that of the first start, if the key was used before.

        Raises:
            ConfigError: The policy or the filter cannot be right.
            GatewayError: The key was used for another request, or there is no room.
            ErnieError: `open_stream` failed.
        """
        try:
            self._check_room()
            linger = read_policy(on_disconnect)
            if content_filter is not None:
                _check_filter(content_filter)
            upstream = open_stream()
        except BaseException:
            if on_settled is not None:
                on_settled(None)
            raise
        record = StreamRecord(
            stream_id=f"st_{secrets.token_urlsafe(16)}",
            epoch=secrets.token_hex(4),
            tenant=tenant,
            model=model,
            created=int(time()),
            fingerprint=fingerprint,
        )
        production = Production(
            self._stream(record, linger=linger),
            upstream,
            self._store,
            screen=None if content_filter is None else ChunkScreen(content_filter, self._hooks),
            on_end=self._on_end if on_settled is None else (*self._on_end, on_settled),
        )
        self._n_starting += 1
        beginning = self._begin(production, key, on_settled)
        if key is None:
            return await beginning
        # Whoever asks with the same key waits for this stream, so it begins even if who asked
        # first has left.
        return await asyncio.shield(self._do(beginning))

    async def _begin(
        self, production: Production, key: str | None, on_settled: OnSettled | None
    ) -> LiveStream:
        """Begin a stream; return the one that was started with the same key before, if any."""
        stream = production.stream
        is_begun = False
        self._shelf.add(stream)  # before its key is taken: who finds it by that finds it here
        try:
            held = await self._register(stream, key)
            # Nothing is awaited from here on: who is cancelled leaves a whole stream, or none.
            if held is stream:
                if self.is_draining:
                    raise GatewayError(SHUTTING_DOWN)
                self._produce(production)
                is_begun = True
            return held
        finally:
            self._n_starting -= 1
            if not is_begun:
                self._shelf.forget(stream.stream_id)
                stream.close_viewers()
                self._do(self._withdraw(stream.record, key))
                if on_settled is not None:
                    on_settled(None)

    def _check_room(self) -> None:
        if self.is_draining:
            raise GatewayError(SHUTTING_DOWN)
        if self.n_running + self._n_starting >= self.limits.streams:
            raise GatewayError.overloaded("the gateway has all the answers that it may have")

    def _stream(self, record: StreamRecord, *, linger: float | None) -> LiveStream:
        return LiveStream(record, self.limits, heartbeat=self.heartbeat, linger=linger)

    async def _withdraw(self, record: StreamRecord, key: str | None) -> None:
        """It is not begun after all: whoever asks with its key may begin."""
        try:
            await self._store.finish(record.stream_id)
            if key is not None:
                await self._store.unclaim(_claim_name(record, key), record.stream_id)
        except Exception:  # who asked for the stream has left, or was told why it did not begin
            logger.exception("the gateway could not withdraw a stream")

    async def _register(self, stream: LiveStream, key: str | None) -> LiveStream:
        """Make a stream known; return the one that has its key, if any."""
        await self.ready()
        record, keep = stream.record, self.limits.life + self.limits.retention
        await self._store.begin(record, keep=keep)
        if key is None:
            return stream
        name = _claim_name(record, key)
        while True:
            holder = await self._store.claim(name, record.stream_id, keep=keep)
            if holder == record.stream_id:
                return stream
            if (held := await self._find(holder)) is not None:
                break
            await self._store.unclaim(name, holder)  # which is kept no longer
        if held.record.fingerprint != record.fingerprint:
            message = "Idempotency-Key: it was used for another request"
            raise GatewayError(Fault(409, "conflict", message))
        return held

    def _produce(self, production: Production) -> None:
        stream = production.stream
        task = asyncio.get_running_loop().create_task(production.run())
        self._running[task] = production
        # Not in the coroutine's own `finally`: cancelled before its first step, it has none.
        task.add_done_callback(self._settle)
        stream.on_abandoned = lambda _: self._do(self._give_up(production))
        stream.expect_viewers(at_least=FIRST_VIEWER_SECONDS)

    def _settle(self, task: asyncio.Task[None]) -> None:
        production = self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a stream of the gateway failed", exc_info=task.exception())
        production.stream.on_abandoned = None
        production.stream.stop_waiting()
        production.settle()
        self._shelf.end(production.stream)

    async def _give_up(self, production: Production) -> None:
        """Nobody came back in time."""
        stream = production.stream
        if await self._store.is_watched(stream.stream_id):
            stream.expect_viewers(at_least=LOOK_SECONDS)
        elif not stream.viewers:
            production.stop("disconnected")

    @asynccontextmanager
    async def answer_whole(self) -> AsyncIterator[None]:
        """An answer that comes in one piece is under way as long as this is not left.

        It is counted with the streams, and `drain` waits for it.

        Raises:
            GatewayError: There is no room, or it was stopped.
        """
        self._check_room()
        async with self._whole.under_way():
            yield

    async def open(
        self, stream_id: str, *, tenant: str | None = None, cursor: Cursor | None = None
    ) -> LiveStream:
        """The stream with this id, wherever it is produced.

        Args:
            stream_id: As `start` gave it.
            tenant: Whose it has to be; `None` for anybody's.
            cursor: What will be read after. Another process may be a little ahead of this one.

        Raises:
            GatewayError: There is none, or it is somebody else's.
        """
        await self.ready()
        stream = await self._find(stream_id)
        if stream is None or tenant not in {None, stream.record.tenant}:
            raise GatewayError.unknown_stream()
        if cursor is not None:
            await self._reach(stream, cursor)
        return stream

    async def _find(self, stream_id: str) -> LiveStream | None:
        return self._shelf.get(stream_id) or await self._follow(stream_id)

    @staticmethod
    async def _reach(stream: LiveStream, cursor: Cursor) -> None:
        log = stream.log
        with suppress(TimeoutError):
            async with asyncio.timeout(REACH_SECONDS):
                with stream.view(Cursor(log.epoch, log.last_seq)) as viewer:
                    while cursor.epoch == log.epoch and cursor.seq > log.last_seq:
                        if viewer.is_over:
                            return
                        await viewer.wait()

    async def open_cursor(self, cursor: Cursor, *, tenant: str, fingerprint: str) -> LiveStream:
        """The stream that an event id is of, for who sends the same request again.

        Raises:
            GatewayError: There is none, or it is somebody else's or of another request.
        """
        await self.ready()
        epoch = cursor.epoch
        stream_id = self._shelf.find_epoch(epoch) or await self._store.find_epoch(epoch)
        stream = await self.open(stream_id or "", tenant=tenant, cursor=cursor)
        if stream.record.fingerprint != fingerprint:
            raise GatewayError.unknown_stream()
        return stream

    async def _follow(self, stream_id: str) -> LiveStream | None:
        async with self._lock:
            if (known := self._shelf.get(stream_id)) is not None:
                return known
            record = await self._store.find(stream_id)
            if record is None:
                return None
            stream = self._stream(record, linger=MIRROR_SECONDS)
            await self._store.follow(record, stream.log, stream.wake)
        self._shelf.add(stream)
        stream.on_abandoned = lambda stream: self._do(self._unfollow(stream))
        stream.expect_viewers()
        return stream

    async def _unfollow(self, stream: LiveStream) -> None:
        async with self._lock:
            if not stream.viewers and self._shelf.get(stream.stream_id) is stream:
                self._shelf.forget(stream.stream_id)
                stream.close_viewers()  # whoever is too late with it
                await self._store.unfollow(stream.stream_id)

    async def cancel(self, stream_id: str, *, tenant: str | None = None) -> LiveStream:
        """Stop a stream, wherever it is produced. Does nothing after its end.

        Raises:
            GatewayError: As for `open`.
        """
        stream = await self.open(stream_id, tenant=tenant)
        if not self._stop_here(stream_id) and not stream.log.is_over:
            await self._store.cancel(stream_id)
        return stream

    def _stop_here(self, stream_id: str) -> bool:
        """Stop a stream if this process produces it."""
        for production in self._running.values():
            if production.stream.stream_id == stream_id:
                production.stop("cancelled")
                return True
        return False

    async def drain(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - for the running ones
        """Start nothing more, and wait for what runs; what is left then is stopped.

        Args:
            timeout: Seconds.
        """
        self.is_draining = True
        await self._wait_for_running(timeout)
        for production in self._running.values():
            production.stop("shutting_down")
        self._whole.stop()
        await self._wait_for_running(STOP_SECONDS)
        # Who watches another process's stream comes back to another process.
        for stream in self._shelf:
            stream.close_viewers()

    async def _wait_for_running(self, seconds: float) -> None:
        if running := [*self._running, *self._whole]:
            await asyncio.wait(running, timeout=seconds)

    async def aclose(self) -> None:
        """Stop everything, and leave nothing behind."""
        await self.drain(0.0)
        for task in self._running:
            task.cancel()
        while tasks := [*self._running, *self._whole, *self._chores]:
            await asyncio.wait(tasks)
        self._shelf.clear()
        if self._is_open:
            await self._store.aclose()

    async def ready(self) -> None:
        """Open the store, if it is not.

        Raises:
            RedisError: It cannot be reached.
        """
        if not self._is_open:
            async with self._lock:
                if not self._is_open:
                    await self._store.open(self._stop_here)
                    self._is_open = True

    def _do(self, chore: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task


def _claim_name(record: StreamRecord, key: str) -> str:
    return f"{record.tenant}\0{key}"


def _check_filter(content_filter: ContentFilter) -> None:
    if "prompt" in content_filter.channels:
        raise ConfigError("content_filter: a hub sees no prompt; filter that with the client")
    content_filter.check_live(takes_back=True)
