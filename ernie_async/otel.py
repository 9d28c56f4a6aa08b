"""Traces and metrics for OpenTelemetry, by its semantic conventions for generative AI.

    client = AsyncClient(hooks=[OTelHooks()])

A hook like any other: `net` knows nothing of it. The names are copied from the conventions of
November 2026, whose own module is private. Needs the extra `otel`, and an SDK that exports what is
collected here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ernie_async.net.hooks import (
    CallEnded,
    CallStarted,
    CircuitChanged,
    FellBack,
    Hedged,
    LimiterPaused,
    Queued,
    Record,
    RetryScheduled,
    RetryWithheld,
    StreamResumed,
)
from ernie_async.sansio.trace_content import input_messages, output_messages
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message
from ernie_async.types.usage import Usage
from ernie_async.version import __version__

try:
    from opentelemetry.metrics import MeterProvider, get_meter
    from opentelemetry.propagate import inject
    from opentelemetry.trace import (
        Span,
        SpanKind,
        StatusCode,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
except ImportError as _error:
    raise ImportError(
        "ernie_async.otel needs OpenTelemetry: pip install 'ernie-async[otel]'"
    ) from _error

__all__ = ["OTelHooks"]

NAME = "ernie_async"

# What a path below the base URL asks for. The conventions have no word for the third one.
OPERATIONS = {
    "chat": "chat",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "rerankers": "rerank",
    "images": "generate_content",
    "video": "generate_content",
}
PROVIDERS = {"qianfan": "baidu.qianfan", "aistudio": "baidu.aistudio"}
DEFAULT_PORTS = {"https": 443, "http": 80}

# Records that become events of the call's span, with their fields as attributes.
EVENTS: dict[type[Any], str] = {
    Queued: "queued",
    LimiterPaused: "limiter_paused",
    RetryScheduled: "retry",
    RetryWithheld: "retry_withheld",
    CircuitChanged: "circuit_changed",
    StreamResumed: "resume",
    FellBack: "fallback",
    Hedged: "hedge",
}
# Not told in an event: the span has them.
OF_THE_CALL = ("call", "model", "usage")

# The buckets that the conventions ask for: seconds, tokens.
SECONDS = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(4**n for n in range(14))

Attributes = dict[str, str | int | float | bool | Sequence[str]]


ContentListener = Callable[[int, Sequence[Message], ChatCompletion | None], None]
HeaderMaker = Callable[[int], dict[str, str]]


class _Running(NamedTuple):
    span: Span
    operation: str | None
    attributes: Attributes


class OTelHooks:
    """A span for each call, and histograms of all calls. One may serve several clients.

    The span that is current when a call begins is the parent. It ends when the call does; that of
    a stream, when the stream was read to its end, left, or broke.

    Args:
        tracer_provider: Instead of the global one.
        meter_provider: Instead of the global one.
        content: Whether spans hold what was asked and answered, as the service sent it. Your users
            may not want that.
        propagate: Whether requests carry the span's `traceparent`, for a server that traces too.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        content: bool = False,
        propagate: bool = False,
    ) -> None:
        self._given: dict[str, Any] = {
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "content": content,
            "propagate": propagate,
        }
        self._calls: dict[int, _Running] = {}
        self._tracer = get_tracer(NAME, __version__, tracer_provider)
        meter = get_meter(NAME, __version__, meter_provider)
        seconds = partial(
            meter.create_histogram, unit="s", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._duration = seconds(
            "gen_ai.client.operation.duration", description="How long calls took, retries included."
        )
        self._first_chunk = seconds(
            "gen_ai.client.operation.time_to_first_chunk",
            description="From the start of a call to the first chunk of its stream.",
        )
        self._queued = seconds(
            "ernie_async.client.queue.duration", description="How long calls stood in line."
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="How many tokens calls used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        # What is not asked for is no method, and costs the client nothing.
        self.content: ContentListener | None = self._note_content if content else None
        self.headers: HeaderMaker | None = self._trace_headers if propagate else None

    def __reduce__(self) -> tuple[Any, ...]:
        # A client that is pickled takes it along; what runs stays here.
        return partial(OTelHooks, **self._given), ()

    def __call__(self, record: Record) -> None:
        """Take a record."""
        if isinstance(record, CallStarted):
            self._begin(record)
        elif isinstance(record, CallEnded):
            self._end(record)
        elif (name := EVENTS.get(type(record))) is not None:
            running = self._calls.get(record.call)  # type: ignore[union-attr]
            if running is not None and running.span.is_recording():
                told = {k: v for k, v in record._asdict().items() if k not in OF_THE_CALL}
                running.span.add_event(
                    f"ernie_async.{name}",
                    {f"ernie_async.{k}": v for k, v in told.items() if v is not None},
                )

    def _begin(self, record: CallStarted) -> None:
        parts = urlsplit(record.base_url if record.path.startswith("/") else record.path)
        place = record.path.split("/")[1].partition("?")[0] if record.path.startswith("/") else ""
        operation = OPERATIONS.get(place)
        attributes: Attributes = {
            "gen_ai.provider.name": PROVIDERS.get(record.server, record.server)
        }
        if operation is not None:
            attributes["gen_ai.operation.name"] = operation
        if record.model is not None:
            attributes["gen_ai.request.model"] = record.model
        if parts.hostname is not None:
            attributes["server.address"] = parts.hostname
            attributes["server.port"] = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
        more: Attributes = {"gen_ai.request.stream": True} if record.is_stream else {}
        if operation is None:
            more["http.request.method"] = record.method
            name = f"{record.method} /{place}" if place else record.method
        else:
            name = f"{operation} {record.model}" if record.model else operation
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes={**attributes, **more}
        )
        self._calls[record.call] = _Running(span, operation, attributes)

    def _end(self, record: CallEnded) -> None:
        running = self._calls.pop(record.call, None)
        if running is None:  # begun before this hook was there
            return
        span, attributes = running.span, running.attributes
        if record.model is not None:
            attributes["gen_ai.response.model"] = record.model
        if record.outcome == "error":
            attributes["error.type"] = (record.error or "_OTHER").partition(":")[0]
        if span.is_recording():
            span.set_attributes({**attributes, **_of_the_end(record)})
            if record.outcome == "error":
                span.set_status(StatusCode.ERROR, record.error)
        self._measure(record, running)
        span.end()

    def _measure(self, record: CallEnded, running: _Running) -> None:
        """Add a call to the histograms; its span is still open, so that they may point to it."""
        if running.operation is None:
            return
        attributes, timing = running.attributes, record.timing
        context = set_span_in_context(running.span)
        self._duration.record(timing.total, attributes, context)
        self._queued.record(timing.queued, attributes, context)
        if timing.first_token is not None:
            self._first_chunk.record(timing.first_token, attributes, context)
        if record.usage is not None:
            usage = record.usage
            counted: Attributes = {**attributes, "ernie_async.usage.is_estimate": usage.is_estimate}
            for kind, n in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
                self._tokens.record(n, {**counted, "gen_ai.token.type": kind}, context)

    def _note_content(
        self, call: int, messages: Sequence[Message], answer: ChatCompletion | None
    ) -> None:
        running = self._calls.get(call)
        if running is not None and running.span.is_recording():
            running.span.set_attribute("gen_ai.input.messages", input_messages(messages))
            if answer is not None:
                running.span.set_attribute("gen_ai.output.messages", output_messages(answer))

    def _trace_headers(self, call: int) -> dict[str, str]:
        headers: dict[str, str] = {}
        if (running := self._calls.get(call)) is not None:
            inject(headers, set_span_in_context(running.span))
        return headers


def _of_the_end(record: CallEnded) -> Attributes:
    """What only the span is told of a call that is over."""
    timing, usage = record.timing, record.usage
    told: Attributes = {
        "ernie_async.outcome": record.outcome,
        "ernie_async.attempts": timing.attempts,
        "ernie_async.queued": timing.queued,
    }
    if record.request_id is not None:
        told["ernie_async.request_id"] = record.request_id
    if record.response_id is not None:
        told["gen_ai.response.id"] = record.response_id
    if record.finish_reasons:
        told["gen_ai.response.finish_reasons"] = record.finish_reasons
    if timing.first_token is not None:
        told["gen_ai.response.time_to_first_chunk"] = timing.first_token
    if usage is not None:
        told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = usage.completion_tokens
        told["ernie_async.usage.is_estimate"] = usage.is_estimate
        told |= _of_the_details(usage)
    return told


def _of_the_details(usage: Usage) -> Attributes:
    told: Attributes = {}
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    if prompt is not None and prompt.cached_tokens is not None:
        told["gen_ai.usage.cache_read.input_tokens"] = prompt.cached_tokens
    if completion is not None and completion.reasoning_tokens is not None:
        told["gen_ai.usage.reasoning.output_tokens"] = completion.reasoning_tokens
    return told
