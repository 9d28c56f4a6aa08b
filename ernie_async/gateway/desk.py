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
from ernie_async.gateway.tenants import Admission, Tenants
from ernie_async.sansio.gateway_ask import Ask, read_ask
from ernie_async.sansio.on_disconnect import OnDisconnect
from ernie_async.sansio.relay import fault_of
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.prices import standard_prices
from ernie_async.types.request import ChatRequest, StreamOptions
from ernie_async.types.usage import Usage

__all__ = ["GatewayDesk"]


class GatewayDesk:
    """Serves the tenants of one gateway with one client.

    Args:
        client: Asks the model. It is not closed here.
        settings: What may be asked.
        store: Where answers are kept for other processes; `None` for this one alone.
        on_end: Told what each answer came to.
    """

    def __init__(
        self,
        client: AsyncClient,
        settings: GatewaySettings,
        *,
        store: Store | None,
        on_end: Sequence[OnEnd],
    ) -> None:
        self.settings = settings
        self.metrics: Metrics = Metrics()
        hooks = (*client._desk.hooks, self.metrics.note_record)
        self.client: AsyncClient = client.with_options(hooks=hooks)
        self.tenants: Tenants = Tenants(settings.tenants, patience=settings.admission)
        self._on_end = (self.metrics.note_end, *on_end)
        self.hub: StreamHub = StreamHub(
            store, heartbeat=settings.heartbeat, limits=settings.limits, on_end=self._on_end
        )

    def read(self, told: bytes | dict[str, Any]) -> Ask:
        """Read a request.

        Raises:
            ConfigError: It cannot be right.
        """
        return read_ask(told, self.settings.rules, model=self.client.model)

    async def _admit(self, ask: Ask, tenant: str) -> Admission:
        tokens = self.client.estimate_tokens(ask.request)
        return await self.tenants.admit(tenant, tokens)

    async def start(
        self,
        ask: Ask,
        tenant: str,
        *,
        on_disconnect: str,
        key: str | None = None,
        fingerprint: str = "",
    ) -> tuple[LiveStream, bool]:
        """Start an answer.

        Args:
            ask: What is asked for.
            tenant: By whom.
            on_disconnect: The policy, if the ask has none.
            key: As for `StreamHub.start`.
            fingerprint: As for `StreamHub.start`.

        Returns:
            The stream, and whether it is a new one.

        Raises:
            ErnieError: It may not be asked, or cannot.
        """
        admission = await self._admit(ask, tenant)
        is_new = True

        def settle(ended: StreamEnded | None) -> None:
            nonlocal is_new
            is_new = ended is not None
            admission.release(tokens=None if ended is None else ended.usage.total_tokens)

        options = ask.request.stream_options or StreamOptions()
        request = ask.request.model_copy(
            update={"stream_options": options.model_copy(update={"include_usage": True})}
        )
        stream = await self.hub.start(
            lambda: self.client.stream(request),
            tenant=tenant,
            model=request.model or "",
            on_disconnect=ask.on_disconnect or OnDisconnect.read(on_disconnect),
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
        admission = await self._admit(ask, tenant)
        request = ask.request.model_copy(update={"stream_options": None})
        started, usage = monotonic(), self._prompt_usage(request)
        ending: Ending = "disconnected"
        try:
            answer = await self.client.chat(request)
            ending, usage = "done", answer.usage
            return answer
        except ErnieError as error:
            ending = "filtered" if fault_of(error).code == "content_filter" else "error"
            raise
        finally:
            admission.release(tokens=usage.total_tokens)
            ended = StreamEnded(
                stream_id="",
                tenant=tenant,
                model=request.model or "",
                usage=usage,
                cost=standard_prices().cost(request.model, usage),
                ending=ending,
                first_token=None,
                duration=monotonic() - started,
            )
            for tell in self._on_end:
                tell(ended)

    def _prompt_usage(self, request: ChatRequest) -> Usage:
        n_tokens = self.client.estimate_tokens(request)
        return Usage.estimated(prompt_tokens=n_tokens, completion_tokens=0)
