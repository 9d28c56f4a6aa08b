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
from typing import Any, NamedTuple

from pydantic_core import to_json

from ernie_async.gateway.stores import Store, StreamRecord
from ernie_async.sansio.relay import Fault
from ernie_async.sansio.replay import AnswerLog, StreamEvent
from ernie_async.types.wire import read_json

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

# Looking and deleting are one step, as somebody else may take the key in between.
UNCLAIM = """
if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("DEL", KEYS[1]) end
"""

PRODUCER_LOST = Fault(502, "producer_lost", "the process that wrote it is gone", retryable=True)


class _Mirror(NamedTuple):
    """A stream of another process, as it is known here."""

    log: AnswerLog
    wake: Callable[[], None]

    def take(self, events: Sequence[StreamEvent]) -> bool:
        """Add what came; say whether something before it was missed."""
        before = self.log.last_seq
        for event in events:
            self.log.add(event)
        if self.log.last_seq > before:
            self.wake()
        return bool(events) and self.log.last_seq < events[-1].seq and not self.log.is_over


class RedisStore(Store):
    """Keeps answers for several processes. Serves one hub.

    Args:
        url: Such as `redis://:password@host:6379/0`.
        prefix: Of all keys.
        lease: Seconds after which a producer that gives no sign is taken for lost.
    """

    def __init__(
        self, url: str, *, prefix: str = "ernie-gateway", lease: float = LEASE_SECONDS
    ) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=COMMAND_SECONDS, socket_connect_timeout=COMMAND_SECONDS
        )
        # Its own, since it waits for messages as long as there are none.
        self._listening: Any = redis.Redis.from_url(url, socket_connect_timeout=COMMAND_SECONDS)
        self._pubsub: Any = self._listening.pubsub(ignore_subscribe_messages=True)
        self._prefix = prefix
        self._lease = lease
        self._keep = 0.0
        self._held: dict[str, list[StreamEvent]] = {}  # of streams produced here, not written yet
        self._mirrors: dict[str, _Mirror] = {}
        self._is_filled, self._is_missing = asyncio.Event(), asyncio.Event()
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def _key(self, stream_id: str, part: str) -> str:
        # One hash tag: in a cluster, all keys of a stream are in one place.
        return f"{self._prefix}:{{{stream_id}}}:{part}"

    async def open(self, on_cancel: Callable[[str], object]) -> None:
        """Listen for cancels, and for the events of streams that are followed here."""
        await self._pubsub.subscribe(f"{self._prefix}:cancel")
        loop = asyncio.get_running_loop()
        works = (self._listen(on_cancel), self._write(), self._look_after())
        self._tasks = [loop.create_task(work) for work in works]

    async def _listen(self, on_cancel: Callable[[str], object]) -> None:
        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
            except RedisError as error:  # the library subscribes again when it reconnects
                _warn(error)
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            if message is None:
                continue
            channel = message["channel"].decode()
            if channel == f"{self._prefix}:cancel":
                on_cancel(message["data"].decode())
                continue
            stream_id = channel.removeprefix(f"{self._prefix}:{{").removesuffix("}:events")
            mirror = self._mirrors.get(stream_id)
            if mirror is not None and mirror.take(_events(message["data"])):
                self._is_missing.set()

    async def claim(self, key: str, stream_id: str, *, keep: float) -> str:
        """Take a key for a start, or say who has it."""
        name = f"{self._prefix}:claim:{key}"
        # With GET and NX in one command, the value that was there before comes back.
        held = await self._redis.set(name, stream_id, nx=True, get=True, px=_ms(keep))
        return stream_id if held is None else held.decode()

    async def unclaim(self, key: str, stream_id: str) -> None:
        """Give a key back, if this stream has it."""
        await self._redis.eval(UNCLAIM, 1, f"{self._prefix}:claim:{key}", stream_id)

    async def begin(self, record: StreamRecord, *, keep: float) -> None:
        """A stream of this process begins."""
        self._keep = keep
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._key(record.stream_id, "record"), to_json(record), px=_ms(keep))
            pipe.set(f"{self._prefix}:epoch:{record.epoch}", record.stream_id, px=_ms(keep))
            pipe.set(self._key(record.stream_id, "lease"), 1, px=_ms(self._lease))
            await pipe.execute()
        self._held[record.stream_id] = []

    def append(self, stream_id: str, event: StreamEvent) -> None:
        """It says more."""
        held = self._held.get(stream_id)
        if held is not None:
            held.append(event)
            self._is_filled.set()

    async def finish(self, stream_id: str) -> None:
        """It has said all."""
        if self._held.get(stream_id):
            await self._flush()
        if self._held.pop(stream_id, None):
            logger.warning("the gateway could not write the end of a stream to Redis")

    async def _write(self) -> None:
        while True:
            await self._is_filled.wait()
            await asyncio.sleep(BATCH_SECONDS)
            self._is_filled.clear()
            await self._flush()

    async def _flush(self) -> None:
        """Write what is held, with two commands for each stream."""
        async with self._writing, self._redis.pipeline(transaction=False) as pipe:
            batches = {stream_id: events for stream_id, events in self._held.items() if events}
            for stream_id, events in batches.items():
                self._held[stream_id] = []
                name, told = self._key(stream_id, "events"), to_json(events)
                pipe.xadd(name, {"e": told}, id=f"{events[-1].seq}-0")
                pipe.publish(name, told)
                if events[0].seq == 1:
                    pipe.pexpire(name, _ms(self._keep))
            try:
                answers = await pipe.execute(raise_on_error=False)
            except RedisError as error:
                _warn(error)
                for stream_id, events in batches.items():
                    if stream_id in self._held:
                        self._held[stream_id][:0] = events
                return
        if any(isinstance(answer, ResponseError) for answer in answers):
            logger.warning("a stream of the gateway was declared lost by another process")

    async def find(self, stream_id: str) -> StreamRecord | None:
        """What is known of a stream."""
        told = await self._redis.get(self._key(stream_id, "record"))
        return None if told is None else StreamRecord(*read_json(told))

    async def find_epoch(self, epoch: str) -> str | None:
        """The id of the stream with this epoch."""
        told = await self._redis.get(f"{self._prefix}:epoch:{epoch}")
        return None if told is None else told.decode()

    async def follow(self, record: StreamRecord, log: AnswerLog, wake: Callable[[], None]) -> None:
        """Have the events of another process's stream put into `log`."""
        stream_id = record.stream_id
        mirror = self._mirrors[stream_id] = _Mirror(log, wake)
        try:
            await self._pubsub.subscribe(self._key(stream_id, "events"))
            await self._look({stream_id: mirror})
        except BaseException:
            await self.unfollow(stream_id)
            raise

    async def unfollow(self, stream_id: str) -> None:
        """Follow it no longer."""
        del self._mirrors[stream_id]
        with suppress(RedisError):
            await self._pubsub.unsubscribe(self._key(stream_id, "events"))

    async def _look_after(self) -> None:
        """Renew the leases, and see to what is followed: a few times in each lease."""
        while True:
            self._is_missing.clear()
            try:
                await self._renew()
                await self._look(self._mirrors.copy())
            except RedisError as error:
                _warn(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease / 4):
                    await self._is_missing.wait()

    async def _renew(self) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for stream_id in self._held:
                pipe.set(self._key(stream_id, "lease"), 1, px=_ms(self._lease))
            await pipe.execute()

    async def _look(self, mirrors: dict[str, _Mirror]) -> None:
        """Read what was missed, and see whether the producers are alive."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for stream_id, mirror in mirrors.items():
                pipe.exists(self._key(stream_id, "lease"))
                pipe.xrange(self._key(stream_id, "events"), min=f"({mirror.log.last_seq}-0")
            answers = iter(await pipe.execute())
        for stream_id, mirror in mirrors.items():
            is_alive, entries = next(answers), next(answers)
            mirror.take([event for _, fields in entries for event in _events(fields[b"e"])])
            if not is_alive and not mirror.log.is_over:
                await self._declare_lost(stream_id, mirror)

    async def _declare_lost(self, stream_id: str, mirror: _Mirror) -> None:
        name = self._key(stream_id, "events")
        last = StreamEvent(mirror.log.last_seq + 1, "error", PRODUCER_LOST.payload)
        told = to_json([last])
        try:
            await self._redis.xadd(name, {"e": told}, id=f"{last.seq}-0")
        except ResponseError:  # somebody else did, or there is a hole that nobody will ever fill
            for _, fields in await self._redis.xrange(name, min=f"({mirror.log.last_seq}-0"):
                mirror.take(_events(fields[b"e"]))
        else:
            await self._redis.publish(name, told)
        mirror.take([last])

    async def is_watched(self, stream_id: str) -> bool:
        """Whether somebody follows it in another process."""
        try:
            ((_, n),) = await self._redis.pubsub_numsub(self._key(stream_id, "events"))
        except RedisError as error:
            _warn(error)
            return True  # until it can be asked
        return bool(n)

    async def cancel(self, stream_id: str) -> None:
        """Have the process that produces it cancel it."""
        await self._redis.publish(f"{self._prefix}:cancel", stream_id)

    async def aclose(self) -> None:
        """Leave nothing behind."""
        await self._flush()
        # More than once: the library may swallow a cancellation while it connects.
        while left := [task for task in self._tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.2)
        await self._pubsub.aclose()
        await self._listening.aclose()
        await self._redis.aclose()


def _events(told: bytes) -> list[StreamEvent]:
    return [StreamEvent(*event) for event in read_json(told)]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _warn(error: RedisError) -> None:
    # Who watches here has everything; who watches elsewhere is told, if it takes too long.
    logger.warning("the gateway cannot reach Redis: %s", type(error).__name__)
