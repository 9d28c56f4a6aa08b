"""Asks of tenants made into answers: admitted, started, accounted for.

What the routes and the WebSocket have in common. Knows no framework.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Any

from ernie_async.client import AsyncClient
from ernie_async.errors import ErnieError
from ernie_async.gateway.hub import StreamHub
from ernie_async.gateway.live import LiveStream
from ernie_async.gateway.metrics import Metrics
from ernie_async.gateway.production import Ending, OnEnd, StreamEnded
from ernie_async.gateway.settings import GatewaySettings
from ernie_async.gateway.stores import Store
from ernie_async.gateway.tenants import Tenants
from ernie_async.net.gate import Permit
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.gateway_ask import Ask, read_ask
from ernie_async.sansio.relay import fault_of
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.request import ChatRequest, StreamOptions
from ernie_async.types.usage import Usage

__all__ = ["GatewayDesk"]


class GatewayDesk:
    """Serves the tenants of one gateway with one client.

    Args:
        client: Asks the model. It is not closed here.
        settings: What may be asked.
        store: Where answers are kept for other processes; `None` for this one alone.
        content_filter: What must not be shown; beside the client's own, if it has one.
        on_end: Told what each answer came to.
    """

    def __init__(
        self,
        client: AsyncClient,
        settings: GatewaySettings,
        *,
        store: Store | None,
        content_filter: ContentFilter | None,
        on_end: Sequence[OnEnd],
    ) -> None:
        self.settings = settings
        self.metrics: Metrics = Metrics()
        hooks = (*client._desk.hooks, self.metrics.note_record)
        # What comes in one piece is filtered by the client; streams by the hub, which takes back.
        self.client: AsyncClient = client.with_options(hooks=hooks)
        self._whole = self.client
        self._filter = content_filter
        if content_filter is not None:
            content_filter.check_live(takes_back=True)
            whole = content_filter.with_settings(mode="full")
            self._whole = self.client.with_options(content_filter=whole)
            if "prompt" in content_filter.channels:
                prompts = whole.with_settings(channels=["prompt"])
                self.client = self.client.with_options(content_filter=prompts)
            shown = content_filter.channels - {"prompt"}
            self._filter = content_filter.with_settings(channels=shown)
        self.tenants: Tenants = Tenants(settings.tenants, patience=settings.admission)
        self._on_end = (self.metrics.note_end, *on_end)
        self.hub: StreamHub = StreamHub(
            store,
            heartbeat=settings.heartbeat,
            limits=settings.limits,
            on_end=self._on_end,
            hooks=hooks,
        )

    def read(self, told: bytes | dict[str, Any], *, is_stream: bool = False) -> Ask:
        """Read a request; see `read_ask`.

        Raises:
            ConfigError: It cannot be right.
        """
        return read_ask(told, self.settings.rules, model=self.client.model, is_stream=is_stream)

    async def _admit(self, ask: Ask, tenant: str) -> Permit:
        return await self.tenants.admit(tenant, self.client.estimate_tokens(ask.request))

    async def start(
        self,
        ask: Ask,
        tenant: str,
        *,
        on_disconnect: str,
        takes_back: bool = True,
        key: str | None = None,
        fingerprint: str = "",
    ) -> tuple[LiveStream, bool]:
        """Start an answer.

        Args:
            ask: What is asked for.
            tenant: By whom.
            on_disconnect: The policy, if the ask has none.
            takes_back: Whether its readers can be told to take back some of it.
            key: As for `StreamHub.start`.
            fingerprint: As for `StreamHub.start`.

        Returns:
            The stream, and whether it is a new one.

        Raises:
            ErnieError: It may not be asked, or cannot.
        """
        permit = await self._admit(ask, tenant)
        is_new = True

        def settle(ended: StreamEnded | None) -> None:
            nonlocal is_new
            if ended is None:
                is_new = False
                permit.give_back()
            else:
                permit.settle(tokens=ended.usage.total_tokens)
                permit.release()

        options = ask.request.stream_options or StreamOptions()
        request = ask.request.model_copy(
            update={"stream_options": options.model_copy(update={"include_usage": True})}
        )
        content_filter = self._filter
        if content_filter is not None and content_filter.mode == "live" and not takes_back:
            content_filter = content_filter.with_settings(mode="window")
        stream = await self.hub.start(
            lambda: self.client.stream(request),
            tenant=tenant,
            model=request.model or "",
            content_filter=content_filter,
            on_disconnect=ask.on_disconnect or on_disconnect,
            key=key,
            fingerprint=fingerprint,
            on_settled=settle,
        )
        return stream, is_new

    async def answer(self, ask: Ask, tenant: str) -> ChatCompletion:
        """Make an answer that comes in one piece.

        Raises:
            ErnieError: It may not be asked, or there is none.
        """
        permit = await self._admit(ask, tenant)
        request = ask.request.model_copy(update={"stream_options": None})
        started, usage = monotonic(), self._prompt_usage(request)
        ending: Ending | None = None
        try:
            async with self.hub.answer_whole():
                ending = "disconnected"
                answer = await self._whole.chat(request)
            ending, usage = "done", answer.usage
            return answer
        except ErnieError as error:
            if ending is not None:
                ending = "filtered" if fault_of(error).code == "content_filter" else "error"
            raise
        finally:
            if ending is None:  # there was no room for it
                permit.give_back()
            else:
                permit.settle(tokens=usage.total_tokens)
                permit.release()
                ended = StreamEnded.of(
                    usage,
                    started=started,
                    stream_id="",
                    tenant=tenant,
                    model=request.model or "",
                    ending=ending,
                    first_token=None,
                )
                ended.tell(self._on_end)

    def _prompt_usage(self, request: ChatRequest) -> Usage:
        n_tokens = self.client.estimate_tokens(request)
        return Usage.estimated(prompt_tokens=n_tokens, completion_tokens=0)
