"""Answers that outlive the connections of those who read them.

A `StreamHub` asks the model, keeps what it says, and lets anybody come, leave and come back. Knows
neither a framework nor who may ask what.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from time import time
from typing import Any

from ernie_async.errors import ConfigError
from ernie_async.gateway.errors import GatewayError
from ernie_async.gateway.live import LiveStream, StreamLimits
from ernie_async.gateway.production import SHUTTING_DOWN, OnEnd, OnSettled, Production
from ernie_async.gateway.shelf import Shelf
from ernie_async.gateway.stores import Claim, MemoryStore, Mirror, Store, StreamRecord
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.on_disconnect import OnDisconnect
from ernie_async.sansio.relay import Fault
from ernie_async.sansio.replay import Cursor

__all__ = ["StreamHub"]

logger: logging.Logger = logging.getLogger("ernie_async")

# Where nobody watches another process's stream, it is followed for so many seconds more.
MIRROR_SECONDS = 5.0

# What another process has sent its viewers is here in a moment.
REACH_SECONDS = 1.0

# Who starts a stream needs a moment to come and see it.
FIRST_VIEWER_SECONDS = 10.0


class StreamHub:
    """Starts answers, and shows them to whoever comes. Serves one event loop.

    Args:
        store: Where answers are kept for other processes; `None` for this process alone.
        heartbeat: Seconds of silence after which a comment is sent, 30 at most.
        limits: What is kept, and for how long.
        on_end: Told what each answer came to.

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
        limits: StreamLimits = StreamLimits(),  # noqa: B008 - frozen
        on_end: Sequence[OnEnd] = (),
    ) -> None:
        if not 0 < heartbeat <= 30:
            raise ConfigError(f"heartbeat: expected seconds above 0, up to 30, got {heartbeat!r}")
        self.heartbeat = heartbeat
        self.limits = limits
        self.is_draining: bool = False
        self._store: Store = MemoryStore() if store is None else store
        self._on_end = tuple(on_end)
        self._shelf = Shelf(retention=limits.retention, max_bytes=limits.kept_bytes)
        self._running: dict[asyncio.Task[None], Production] = {}
        self._mirrors: dict[str, Mirror] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._n_starting = 0
        self._lock = asyncio.Lock()  # one at a time opens the store, or a mirror
        self._is_open = False

    @property
    def n_running(self) -> int:
        """Answers under way that this process asked for."""
        return len(self._running)

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
        on_disconnect: str | OnDisconnect = "linger:60",
        key: str | None = None,
        fingerprint: str = "",
        on_settled: OnSettled | None = None,
    ) -> LiveStream:
        """Ask the model, and return at once.

        Args:
            open_stream: Returns the model's stream, which nobody has begun to read.
            tenant: Whose it is.
            model: For the records.
            on_disconnect: What to do when nobody reads it: `cancel`, `linger:SECONDS`, `finish`.
            key: Two starts of a tenant with the same key are one.
            fingerprint: Of the request: a key may not be used for another one.
            on_settled: Told once: what it came to, or `None` if nothing was started.

        Returns:
            The stream; that of the first start, if the key was used before.

        Raises:
            GatewayError: The key was used for another request, or there is no room.
            ErnieError: `open_stream` failed.
        """
        policy = on_disconnect
        stream: LiveStream | None = None
        is_begun = False
        try:
            if isinstance(policy, str):
                policy = OnDisconnect.read(policy)
            if self.is_draining:
                raise GatewayError(SHUTTING_DOWN)
            if self.n_running + self._n_starting >= self.limits.streams:
                raise GatewayError.overloaded("the gateway has all the streams that it may have")
            self._n_starting += 1
            try:
                upstream = open_stream()
                stream = LiveStream(
                    self._record(tenant, model, fingerprint),
                    self.limits,
                    heartbeat=self.heartbeat,
                    linger=policy.seconds,
                )
                # Before its key is taken: whoever finds it by that finds it here.
                self._shelf.add(stream)
                held = await self._register(stream.record, key)
            finally:
                self._n_starting -= 1
            if held is not None:
                return held
            # Nothing is awaited from here on: who is cancelled leaves a whole stream, or none.
            is_begun = True
        finally:
            if not is_begun:
                if stream is not None:
                    self._withdraw(stream)
                if on_settled is not None:
                    on_settled(None)
        assert stream is not None
        told = self._on_end if on_settled is None else (*self._on_end, on_settled)
        self._produce(Production(stream, upstream, self._store, told))
        return stream

    def _withdraw(self, stream: LiveStream) -> None:
        """It is not begun after all."""
        self._shelf.forget(stream.stream_id)
        stream.close_viewers()
        if self._store.is_shared:
            self._do(self._store.finish(stream.stream_id))

    @staticmethod
    def _record(tenant: str, model: str, fingerprint: str) -> StreamRecord:
        return StreamRecord(
            stream_id=f"st_{secrets.token_urlsafe(16)}",
            epoch=secrets.token_hex(4),
            tenant=tenant,
            model=model,
            created=int(time()),
            fingerprint=fingerprint,
        )

    async def _register(self, record: StreamRecord, key: str | None) -> LiveStream | None:
        """Make a stream known; return the one that was started with the same key before."""
        await self._open_store()
        keep = self.limits.life + self.limits.retention
        await self._store.begin(record, keep=keep)
        if key is None:
            return None
        mine = Claim(record.stream_id, record.fingerprint)
        held = await self._store.claim(f"{record.tenant}\0{key}", mine, keep=keep)
        return None if held == mine else await self._started_before(held, record)

    async def _started_before(self, held: Claim, record: StreamRecord) -> LiveStream:
        if held.fingerprint != record.fingerprint:
            message = "Idempotency-Key: it was used for another request"
            raise GatewayError(Fault(409, "conflict", message))
        return await self.open(held.stream_id, tenant=record.tenant)

    def _produce(self, production: Production) -> None:
        stream = production.stream
        task = asyncio.get_running_loop().create_task(production.run())
        self._running[task] = production
        # Not in the coroutine's own `finally`: cancelled before its first step, it has none.
        task.add_done_callback(self._settle)
        stream.on_abandoned = lambda _: self._give_up(production)
        stream.expect_viewers(at_least=FIRST_VIEWER_SECONDS)

    def _settle(self, task: asyncio.Task[None]) -> None:
        production = self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a stream of the gateway failed", exc_info=task.exception())
        production.stream.on_abandoned = None
        production.stream.stop_waiting()
        production.settle()
        self._shelf.end(production.stream)

    def _give_up(self, production: Production) -> None:
        """Nobody came back in time."""
        if self._store.is_shared:
            self._do(self._give_up_unless_watched(production))
        else:
            production.stop("disconnected")

    async def _give_up_unless_watched(self, production: Production) -> None:
        stream = production.stream
        if await self._store.is_watched(stream.stream_id):
            stream.expect_viewers()
        elif not stream.viewers:
            production.stop("disconnected")

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
        stream = self._shelf.get(stream_id)
        if stream is None and self._store.is_shared:
            await self._open_store()
            stream = await self._follow(stream_id)
        if stream is None or tenant not in {None, stream.record.tenant}:
            raise GatewayError.unknown_stream()
        if cursor is not None and stream_id in self._mirrors:
            await self._reach(stream, cursor)
        return stream

    @staticmethod
    async def _reach(stream: LiveStream, cursor: Cursor) -> None:
        log = stream.log
        with suppress(TimeoutError):
            async with asyncio.timeout(REACH_SECONDS):
                with stream.view(Cursor(log.epoch, log.last_seq)) as viewer:
                    while cursor.seq > log.last_seq and cursor.epoch == log.epoch:
                        if viewer.is_over:
                            return
                        await viewer.wait()

    async def open_cursor(self, cursor: Cursor, *, tenant: str, fingerprint: str) -> LiveStream:
        """The stream that an event id is of, for who sends the same request again.

        Raises:
            GatewayError: There is none, or it is somebody else's or of another request.
        """
        await self._open_store()
        epoch = cursor.epoch
        stream_id = self._shelf.find_epoch(epoch) or await self._store.find_epoch(epoch)
        stream = await self.open(stream_id or "", tenant=tenant, cursor=cursor)
        if stream.record.fingerprint != fingerprint:
            raise GatewayError.unknown_stream()
        return stream

    async def _follow(self, stream_id: str) -> LiveStream | None:
        async with self._lock:
            known = self._shelf.get(stream_id)
            record = None if known is not None else await self._store.find(stream_id)
            if record is None:
                return known
            stream = LiveStream(
                record, self.limits, heartbeat=self.heartbeat, linger=MIRROR_SECONDS
            )
            self._mirrors[stream_id] = await self._store.follow(record, stream.log, stream.wake)
        self._shelf.add(stream)
        stream.on_abandoned = self._drop_mirror
        stream.expect_viewers()
        return stream

    def _drop_mirror(self, stream: LiveStream) -> None:
        if self._shelf.get(stream.stream_id) is stream:
            self._shelf.forget(stream.stream_id)
        self._do(self._mirrors.pop(stream.stream_id).aclose())

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
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)
        for production in self._running.values():
            production.stop("shutting_down")
        if self._running:
            await asyncio.wait(self._running, timeout=1.0)
        # Who watches another process's stream comes back to another process.
        for stream in self._shelf:
            stream.close_viewers()

    async def aclose(self) -> None:
        """Stop everything, and leave nothing behind."""
        await self.drain(0.0)
        for task in self._running:
            task.cancel()
        while tasks := [*self._running, *self._chores]:
            await asyncio.wait(tasks)
        for stream in self._shelf:
            stream.on_abandoned = None
            stream.stop_waiting()
        while self._mirrors:
            _, mirror = self._mirrors.popitem()
            await mirror.aclose()
        self._shelf.clear()
        if self._is_open:
            await self._store.aclose()

    async def ready(self) -> None:
        """Do at once what the first start would do.

        Raises:
            GatewayError: The store cannot be reached.
        """
        await self._open_store()

    async def _open_store(self) -> None:
        if not self._is_open:
            async with self._lock:
                if not self._is_open:
                    await self._store.open(self._stop_here)
                    self._is_open = True

    def _do(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
