"""Answers kept in Redis, so that any of several processes can show them.

A stream is one Redis stream, whose entries are batches of events. An entry's id is the number of
its last event, so Redis itself refuses a second entry for the same events: of two processes that
declare a producer lost, one does. Batches are also published, and who missed one reads the stream.

Requires the extra `redis`. It is the only file of the gateway that knows the library.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pydantic_core import from_json, to_json

from ernie_async.gateway.stores import Claim, StreamRecord
from ernie_async.sansio.relay import Fault
from ernie_async.sansio.replay import AnswerLog, StreamEvent

try:
    import redis.asyncio as redis
    from redis.exceptions import RedisError, ResponseError
except ImportError as _error:
    raise ImportError("RedisStore needs redis: pip install 'ernie-async[redis]'") from _error

__all__ = ["RedisStore"]

logger: logging.Logger = logging.getLogger("ernie_async")

LEASE_SECONDS = 15.0
BATCH_SECONDS = 0.04
COMMAND_SECONDS = 5.0
RECONNECT_SECONDS = 0.5

PRODUCER_LOST = Fault(502, "producer_lost", "the process that wrote it is gone", retryable=True)


class RedisStore:
    """Keeps answers for several processes. Serves one hub.

    Args:
        url: Such as `redis://:password@host:6379/0`.
        prefix: Of all keys.
        lease: Seconds after which a producer that gives no sign is taken for lost.
        batch: Seconds for which events are collected before they are sent.
    """

    is_shared = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "ernie-gateway",
        lease: float = LEASE_SECONDS,
        batch: float = BATCH_SECONDS,
    ) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=COMMAND_SECONDS, socket_connect_timeout=COMMAND_SECONDS
        )
        # Its own, since it waits for messages as long as there are none.
        self._pubsub: Any = redis.Redis.from_url(
            url, socket_connect_timeout=COMMAND_SECONDS
        ).pubsub(ignore_subscribe_messages=True)
        self._prefix = prefix
        self._lease = lease
        self._batch = batch
        self._writers: dict[str, _Writer] = {}
        self._mirrors: dict[str, set[_Mirror]] = {}
        self._on_cancel: Callable[[str], object] | None = None
        self._listener: asyncio.Task[None] | None = None

    def _key(self, stream_id: str, part: str) -> str:
        # One hash tag: in a cluster, all keys of a stream are in one place.
        return f"{self._prefix}:{{{stream_id}}}:{part}"

    async def open(self, on_cancel: Callable[[str], object]) -> None:
        """Listen for cancels, and for the events of streams that are followed here."""
        self._on_cancel = on_cancel
        await self._pubsub.subscribe(f"{self._prefix}:cancel")
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        cancel = f"{self._prefix}:cancel"
        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
            except RedisError as error:  # the library subscribes again when it reconnects
                logger.warning("the gateway lost Redis: %s", type(error).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            if message is None:
                continue
            channel = message["channel"].decode()
            if channel == cancel:
                assert self._on_cancel is not None
                self._on_cancel(message["data"].decode())
            else:
                for mirror in self._mirrors.get(channel, ()):
                    mirror.take(message["data"])

    async def claim(self, key: str, claim: Claim, *, keep: float) -> Claim:
        """Take a key for a start, or say who has it."""
        name = f"{self._prefix}:claim:{key}"
        told = to_json(claim)
        # With GET and NX in one command, the value that was there before comes back.
        held = await self._redis.set(name, told, nx=True, get=True, px=_ms(keep))
        return claim if held is None else Claim(*from_json(held))

    async def begin(self, record: StreamRecord, *, keep: float) -> None:
        """A stream of this process begins."""
        stream_id = record.stream_id
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._key(stream_id, "record"), to_json(record), px=_ms(keep))
            pipe.set(f"{self._prefix}:epoch:{record.epoch}", stream_id, px=_ms(keep))
            pipe.set(self._key(stream_id, "lease"), 1, px=_ms(self._lease))
            await pipe.execute()
        self._writers[stream_id] = _Writer(self, stream_id, keep)

    def append(self, stream_id: str, events: Sequence[StreamEvent]) -> None:
        """It says more."""
        writer = self._writers.get(stream_id)
        if writer is not None:
            writer.add(events)

    async def finish(self, stream_id: str) -> None:
        """It has said all."""
        writer = self._writers.pop(stream_id, None)
        if writer is not None:
            await writer.aclose()

    async def write(
        self, stream_id: str, events: Sequence[StreamEvent], *, keep: float | None = None
    ) -> None:
        """Keep events and publish them. For writers and mirrors.

        Args:
            stream_id: Of the stream.
            events: Some.
            keep: Seconds that the first ones are kept; later ones by `keep_lease`.

        Raises:
            ResponseError: Others were kept under these numbers.
        """
        told = to_json(events)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(self._key(stream_id, "events"), {"e": told}, id=f"{events[-1].seq}-0")
            pipe.publish(self._key(stream_id, "events"), told)
            if keep is not None:
                pipe.pexpire(self._key(stream_id, "events"), _ms(keep))
            await pipe.execute()

    async def keep_lease(self, stream_id: str, keep: float) -> None:
        """Say that the producer is alive. For writers."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._key(stream_id, "lease"), 1, px=_ms(self._lease))
            pipe.pexpire(self._key(stream_id, "events"), _ms(keep))
            await pipe.execute()

    async def find(self, stream_id: str) -> StreamRecord | None:
        """What is known of a stream."""
        told = await self._redis.get(self._key(stream_id, "record"))
        return None if told is None else StreamRecord(*from_json(told))

    async def find_epoch(self, epoch: str) -> str | None:
        """The id of the stream with this epoch."""
        told = await self._redis.get(f"{self._prefix}:epoch:{epoch}")
        return None if told is None else told.decode()

    async def follow(
        self, record: StreamRecord, log: AnswerLog, wake: Callable[[], None]
    ) -> "_Mirror":
        """Have the events of another process's stream put into `log`."""
        mirror = _Mirror(self, record, log, wake)
        channel = self._key(record.stream_id, "events")
        self._mirrors.setdefault(channel, set()).add(mirror)
        try:
            await self._pubsub.subscribe(channel)
            await mirror.catch_up()
        except BaseException:
            await self.unfollow(mirror)
            raise
        mirror.start()
        return mirror

    async def unfollow(self, mirror: "_Mirror") -> None:
        """Follow it no longer. For mirrors."""
        channel = self._key(mirror.record.stream_id, "events")
        followers = self._mirrors.get(channel, set())
        followers.discard(mirror)
        if not followers:
            self._mirrors.pop(channel, None)
            with suppress(RedisError):
                await self._pubsub.unsubscribe(channel)

    async def read(self, stream_id: str, after: int) -> list[StreamEvent]:
        """The events after a number. For mirrors."""
        entries = await self._redis.xrange(self._key(stream_id, "events"), min=f"({after}-0")
        return [event for _, fields in entries for event in _events(fields[b"e"])]

    async def note_watched(self, stream_id: str) -> bool:
        """Say that somebody watches it; say whether its producer is alive. For mirrors."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._key(stream_id, "watched"), 1, px=_ms(self._lease))
            pipe.exists(self._key(stream_id, "lease"))
            _, is_alive = await pipe.execute()
        return bool(is_alive)

    @property
    def look_seconds(self) -> float:
        """How often leases are renewed and looked at: a few may be missed."""
        return self._lease / 4

    @property
    def batch_seconds(self) -> float:
        """For how long events are collected."""
        return self._batch

    async def is_watched(self, stream_id: str) -> bool:
        """Whether somebody follows it in another process."""
        return bool(await self._redis.exists(self._key(stream_id, "watched")))

    async def cancel(self, stream_id: str) -> None:
        """Have the process that produces it cancel it."""
        await self._redis.publish(f"{self._prefix}:cancel", stream_id)

    async def aclose(self) -> None:
        """Leave nothing behind."""
        for stream_id in list(self._writers):
            await self.finish(stream_id)
        if self._listener is not None:
            await _stop(self._listener)
        client = self._pubsub.connection_pool
        await self._pubsub.aclose()
        await client.aclose()
        await self._redis.aclose()


class _Writer:
    """Sends the events of one stream in batches, and renews its lease."""

    def __init__(self, store: RedisStore, stream_id: str, keep: float) -> None:
        self._store = store
        self._stream_id = stream_id
        self._keep = keep
        self._held: list[StreamEvent] = []
        self._is_over = asyncio.Event()
        self._filled = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._write()), loop.create_task(self._renew()))

    def add(self, events: Sequence[StreamEvent]) -> None:
        """It says more."""
        self._held += events
        self._filled.set()

    async def _write(self) -> None:
        while not (self._is_over.is_set() and not self._held):
            await self._filled.wait()
            if not self._is_over.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._store.batch_seconds):
                        await self._is_over.wait()
            self._filled.clear()
            events, self._held = self._held, []
            if events:
                await self._send(events)

    async def _send(self, events: list[StreamEvent]) -> None:
        try:
            keep = self._keep if events[0].seq == 1 else None
            await self._store.write(self._stream_id, events, keep=keep)
        except ResponseError:
            logger.warning("a stream of the gateway was declared lost by another process")
        except RedisError as error:
            # Who watches here has it all; who watches elsewhere will be told that it is lost.
            logger.warning("the gateway could not write to Redis: %s", type(error).__name__)

    async def _renew(self) -> None:
        while True:
            try:
                await self._store.keep_lease(self._stream_id, self._keep)
            except RedisError as error:
                logger.warning("the gateway could not write to Redis: %s", type(error).__name__)
            await asyncio.sleep(self._store.look_seconds)

    async def aclose(self) -> None:
        """Send what is left."""
        self._is_over.set()
        self._filled.set()
        try:
            async with asyncio.timeout(2 * COMMAND_SECONDS):
                await self._tasks[0]
        except TimeoutError:
            logger.warning("the gateway could not write the end of a stream to Redis")
        finally:
            for task in self._tasks:
                await _stop(task)


class _Mirror:
    """A stream of another process, as it is known here."""

    def __init__(
        self, store: RedisStore, record: StreamRecord, log: AnswerLog, wake: Callable[[], None]
    ) -> None:
        self.record = record
        self._store = store
        self._log = log
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._gap = asyncio.Event()

    def start(self) -> None:
        """Look after it."""
        self._task = asyncio.get_running_loop().create_task(self._look())

    def take(self, told: bytes) -> None:
        """A batch was published."""
        events = _events(told)
        for event in events:
            self._log.add(event)
        if events and self._log.last_seq < events[-1].seq and not self._log.is_over:
            self._gap.set()  # one before it was missed
        self._wake()

    async def catch_up(self) -> None:
        """Read what was missed."""
        for event in await self._store.read(self.record.stream_id, self._log.last_seq):
            self._log.add(event)
        self._wake()

    async def _look(self) -> None:
        while not self._log.is_over:
            try:
                async with asyncio.timeout(self._store.look_seconds):
                    await self._gap.wait()
            except TimeoutError:
                pass
            self._gap.clear()
            try:
                is_alive = await self._store.note_watched(self.record.stream_id)
                await self.catch_up()
                if not is_alive and not self._log.is_over:
                    await self._declare_lost()
            except RedisError as error:
                logger.warning("the gateway could not read from Redis: %s", type(error).__name__)

    async def _declare_lost(self) -> None:
        last = StreamEvent(self._log.last_seq + 1, "error", PRODUCER_LOST.payload)
        try:
            await self._store.write(self.record.stream_id, [last])
        except ResponseError:
            await self.catch_up()  # somebody else did, or it is not lost
        else:
            self._log.add(last)
            self._wake()

    async def aclose(self) -> None:
        """Follow it no longer."""
        if self._task is not None:
            await _stop(self._task)
        await self._store.unfollow(self)


def _events(told: bytes) -> list[StreamEvent]:
    return [StreamEvent(*event) for event in from_json(told)]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


async def _stop(task: "asyncio.Task[None]") -> None:
    # More than once: the library may swallow a cancellation while it connects.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)
