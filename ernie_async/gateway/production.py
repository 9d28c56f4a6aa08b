"""One answer that this process asks for: from the first chunk to the record of what it came to.

Knows the model's stream and the log it goes into; knows nobody who reads it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from ernie_async.errors import BlockedError, ErnieError
from ernie_async.gateway.live import LiveStream
from ernie_async.gateway.stores import Store
from ernie_async.net.filtered import ChunkScreen
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.filter_values import Channel, TextMatch
from ernie_async.sansio.relay import OUR_MISTAKE, ChunkRelay, Fault, fault_of, usage_payload
from ernie_async.sansio.taken_back import ShownText
from ernie_async.types.chunk import ChatChunk
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

    @classmethod
    def of(cls, usage: Usage | None, *, model: str, started: float, **fields: Any) -> "StreamEnded":
        """What an answer came to that ends now.

        Args:
            usage: As far as it is known.
            model: As was asked for.
            started: By the monotonic clock.
            **fields: The other ones.
        """
        if usage is None:
            usage = Usage.estimated(prompt_tokens=0, completion_tokens=0)
        cost = standard_prices().cost(model, usage)
        duration = monotonic() - started
        return cls(model=model, usage=usage, cost=cost, duration=duration, **fields)

    def tell(self, hooks: "Sequence[OnEnd]") -> None:
        """Tell all who want to know."""
        for hook in hooks:
            try:
                hook(self)
            except Exception:  # whatever it is, the others have to be told
                logger.exception("on_end failed")


OnEnd = Callable[[StreamEnded], None]
OnSettled = Callable[[StreamEnded | None], None]


class Production:
    """The model's stream, and what becomes of it. Serves one stream.

    Args:
        stream: Where it goes.
        upstream: Where it comes from; nobody has begun to read it.
        store: Told of every event.
        screen: Filters it; `None` if nothing does.
        on_end: Told what it came to.
    """

    def __init__(
        self,
        stream: LiveStream,
        upstream: ChatStream,
        store: Store,
        *,
        screen: ChunkScreen | None,
        on_end: Sequence[OnEnd],
    ) -> None:
        self.stream = stream
        self._upstream = upstream
        self._store = store
        self._screen = screen
        self._on_end = on_end
        self._relay = ChunkRelay(max_chars=stream.limits.chars)
        self._shown: defaultdict[Channel, ShownText] = defaultdict(ShownText)
        self._ending: Ending = "error"
        self._is_stopped = False
        self._started = monotonic()
        self._first_token: float | None = None

    async def run(self) -> None:
        """Read the model's stream to its end, whatever that is, and tell of it."""
        stream, upstream, record = self.stream, self._upstream, self.stream.record
        told = {"stream_id": record.stream_id, "model": record.model, "created": record.created}
        self._say("start", told)
        try:
            async with asyncio.timeout(stream.limits.life), upstream:
                await self._read()
            if not self._is_stopped:
                self._ending = "done"
            self._say("usage", usage_payload(upstream.usage))
            self._say("done", self._relay.done(upstream.usage))
        except ErnieError as error:
            self._fail(error)
        except TimeoutError:
            took = f"the answer took longer than {stream.limits.life:g} s"
            self._say("error", Fault(504, "upstream_timeout", took).payload)
        except Exception:  # our own mistake: it is in the log, and its viewers get an end
            logger.exception("a stream of the gateway failed")
            self._say("error", OUR_MISTAKE.payload)
        await self._store.finish(stream.stream_id)

    async def _read(self) -> None:
        screen = self._screen
        async for chunk in self._upstream:
            if self.stream.log.is_over:
                continue  # only the usage at its end is wanted
            if screen is None:
                self._show(chunk)
            else:
                await self._filter(screen, (chunk,))
            if self._relay.is_full:
                return
        if screen is not None:
            await self._filter(screen, ())

    async def _filter(self, screen: ChunkScreen, chunks: Sequence[ChatChunk]) -> None:
        for chunk in await screen.feed(chunks):
            self._show(chunk)
        await screen.settle()
        for key, match in screen.shown_matches:
            await asyncio.sleep(0)  # who watches has it by then; who is behind gets all anew
            if not key.choice:
                self._take_back(key.channel, match)
        screen.shown_matches.clear()
        if screen.failure is not None:
            raise screen.failure

    def _show(self, chunk: ChatChunk) -> None:
        for kind, payload in self._relay.feed(chunk):
            if self._first_token is None:
                self._first_token = monotonic() - self._started
            self._say(kind, payload)

    def _take_back(self, channel: Channel, match: TextMatch) -> None:
        log, new = self.stream.log, match.replacement or ""
        place = self._shown[channel].take_back(match.start, match.end, len(new))
        if place is None or channel == "tool_arguments":
            return
        begin, end = place
        if match.action == "block":
            end = len(log.text if channel == "content" else log.reasoning)
            if end <= begin:
                return
        told = {"from_char": begin, "to_char": end, "replacement": new}
        told["reason"] = match.category or "content_filter"
        self._say("retract", told if channel == "content" else {**told, "channel": channel})

    def _fail(self, error: ErnieError) -> None:
        fault = fault_of(error)
        if fault.code == "content_filter" and not self._is_stopped:
            self._ending = "filtered"
        is_own = self._screen is not None and error is self._screen.failure
        if isinstance(error, BlockedError) and error.is_retracted and not is_own:
            self._say("retract", {"from_char": 0, "replacement": "", "reason": fault.code})
        self._say("error", fault.payload)

    def stop(self, reason: StopReason) -> None:
        """Want no more of it. Does nothing after the end."""
        if self.stream.log.is_over:
            return
        self._is_stopped = True
        patience = self.stream.limits.drain_for_usage
        if reason == "shutting_down":
            self._upstream.cancel(reason)
            self._say("error", SHUTTING_DOWN.payload)
            return
        self._ending = reason
        if patience:
            asyncio.get_running_loop().call_later(patience, self._upstream.cancel, reason)
        else:
            self._upstream.cancel(reason)  # which is when its usage is known, or estimated
        self._say("done", self._relay.done(self._upstream.usage, cancelled=True))

    def _say(self, kind: str, payload: dict[str, Any]) -> None:
        if not self.stream.log.is_over:
            event = self.stream.append(kind, payload)
            self._store.append(self.stream.stream_id, event)

    def settle(self) -> None:
        """It is over, however it came to that: let go of the model, and tell what it came to."""
        self._upstream.cancel("over")
        self._say("error", SHUTTING_DOWN.payload)  # unless it has its end
        record = self.stream.record
        ended = StreamEnded.of(
            self._upstream.usage,
            started=self._started,
            stream_id=record.stream_id,
            tenant=record.tenant,
            model=record.model,
            ending=self._ending,
            first_token=self._first_token,
        )
        ended.tell(self._on_end)
