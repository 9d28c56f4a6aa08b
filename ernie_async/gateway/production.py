"""One answer that this process asks for: from the first chunk to the record of what it came to.

Knows the model's stream and the log it goes into; knows nobody who reads it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from ernie_async.errors import BlockedError, ErnieError, InterruptedStreamError
from ernie_async.gateway.live import LiveStream
from ernie_async.gateway.stores import Store
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.relay import ChunkRelay, Fault, fault_of, usage_payload
from ernie_async.types.prices import standard_prices
from ernie_async.types.usage import Usage

__all__ = [
    "SHUTTING_DOWN",
    "Ending",
    "OnEnd",
    "OnSettled",
    "Production",
    "StopReason",
    "StreamEnded",
]

logger: logging.Logger = logging.getLogger("ernie_async")

Ending = Literal["done", "error", "cancelled", "disconnected", "filtered"]
StopReason = Literal["cancelled", "disconnected", "shutting_down"]

SHUTTING_DOWN = Fault(503, "shutting_down", "the gateway is being stopped", retryable=True)


class StreamEnded(NamedTuple):
    """What one answer came to. There is exactly one for each.

    Attributes:
        stream_id: Of the stream; empty for an answer in one piece.
        tenant: Whose it was.
        model: As was asked for.
        usage: Tokens, as told by the service; else estimated, see `Usage.is_estimate`.
        cost: In CNY; `None` if the model's price is not known.
        ending: `done`, `error`, `cancelled`, `disconnected` (nobody wanted it any more) or
            `filtered`.
        first_token: Seconds until the first text; `None` if there was none.
        duration: Seconds in all.
    """

    stream_id: str
    tenant: str
    model: str
    usage: Usage
    cost: float | None
    ending: Ending
    first_token: float | None
    duration: float


OnEnd = Callable[[StreamEnded], None]
OnSettled = Callable[[StreamEnded | None], None]


class Production:
    """The model's stream, and what becomes of it. Serves one stream.

    Args:
        stream: Where it goes.
        upstream: Where it comes from; nobody has begun to read it.
        store: Told of every event.
        on_end: Told what it came to.
    """

    def __init__(
        self, stream: LiveStream, upstream: ChatStream, store: Store, on_end: Sequence[OnEnd]
    ) -> None:
        self.stream = stream
        self._upstream = upstream
        self._store = store
        self._on_end = on_end
        self._relay = ChunkRelay(max_chars=stream.limits.chars)
        self._ending: Ending = "error"
        self._stopped: StopReason | None = None
        self._started = monotonic()
        self._first_token: float | None = None

    async def run(self) -> None:
        """Read the model's stream to its end, whatever that is, and tell of it."""
        stream, relay, upstream, record = (
            self.stream, self._relay, self._upstream, self.stream.record,
        )  # fmt: skip
        told = {"stream_id": record.stream_id, "model": record.model, "created": record.created}
        self._say("start", told)
        try:
            async with asyncio.timeout(stream.limits.life), upstream:
                async for chunk in upstream:
                    if stream.log.is_over:
                        continue  # only the usage at its end is wanted
                    for kind, payload in relay.feed(chunk):
                        if self._first_token is None:
                            self._first_token = monotonic() - self._started
                        self._say(kind, payload)
                    if relay.is_full:
                        break
            if self._stopped is None:
                self._ending = "done"
            self._say("usage", usage_payload(upstream.usage))
            self._say("done", relay.done(upstream.usage))
        except ErnieError as error:
            self._fail(error)
        except TimeoutError:
            took = f"the answer took longer than {stream.limits.life:g} s"
            self._say("error", Fault(504, "upstream_timeout", took).payload)
        except Exception:
            logger.exception("a stream of the gateway failed")
            self._say("error", Fault(502, "upstream_error", "the gateway failed").payload)
        await self._store.finish(stream.stream_id)

    def _fail(self, error: ErnieError) -> None:
        if self._stopped is not None and isinstance(error, InterruptedStreamError):
            self._say_stopped()
            return
        fault = fault_of(error)
        if fault.code == "content_filter" and self._stopped is None:
            self._ending = "filtered"
        if isinstance(error, BlockedError) and error.is_retracted:
            self._say("retract", {"from_char": 0, "replacement": "", "reason": fault.code})
        self._say("error", fault.payload)

    def stop(self, reason: StopReason) -> None:
        """Want no more of it. Does nothing after the end."""
        if self._stopped is not None or self.stream.log.is_over:
            return
        self._stopped = reason
        if reason != "shutting_down":
            self._ending = reason
        patience = self.stream.limits.drain_for_usage
        if patience and reason != "shutting_down":
            self._say_stopped()
            loop = asyncio.get_running_loop()
            loop.call_later(patience, self._upstream.cancel, reason)
        else:
            self._upstream.cancel(reason)

    def _say_stopped(self) -> None:
        if self._stopped == "shutting_down":
            self._say("error", SHUTTING_DOWN.payload)
        else:
            self._say("done", self._relay.done(self._upstream.usage, cancelled=True))

    def _say(self, kind: str, payload: dict[str, Any]) -> None:
        if not self.stream.log.is_over:
            event = self.stream.append(kind, payload)
            self._store.append(self.stream.stream_id, (event,))

    def settle(self) -> None:
        """It is over, however it came to that: let go of the model, and tell what it came to."""
        self._upstream.cancel("over")
        self._say("error", SHUTTING_DOWN.payload)  # unless it has its end
        record, usage = self.stream.record, self._upstream.usage
        if usage is None:
            usage = Usage.estimated(prompt_tokens=0, completion_tokens=0)
        ended = StreamEnded(
            stream_id=record.stream_id,
            tenant=record.tenant,
            model=record.model,
            usage=usage,
            cost=standard_prices().cost(record.model, usage),
            ending=self._ending,
            first_token=self._first_token,
            duration=monotonic() - self._started,
        )
        for tell in self._on_end:
            try:
                tell(ended)
            except Exception:  # whatever it is, the others have to be told
                logger.exception("on_end failed")
