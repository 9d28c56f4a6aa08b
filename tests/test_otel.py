"""Spans and metrics of real calls, read from OpenTelemetry's exporters in memory."""

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from ernie_async import (
    AsyncClient,
    AuthError,
    CallEnded,
    Client,
    ErnieError,
    Limits,
    RetryPolicy,
    RetryScheduled,
    Timeouts,
)
from ernie_async.otel import OTelHooks
from ernie_async.testing import MockErnie, cut, error_event, refuse, reply, stall
from ernie_async.types.usage import Timing

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(attempts=3, base_delay=0.001)
SECRET = "bce-v3/ALTAK-planted/0123456789abcdef"


class Telemetry:
    """What an SDK has collected."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(**options)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def hooks(self, **options: Any) -> OTelHooks:
        return OTelHooks(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the only span."""
        (span,) = self.spans
        return span.attributes or {}

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [
            point
            for metric in metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, HistogramDataPoint)
        ]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def client(server: MockErnie, telemetry: Telemetry) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(
        SECRET,
        base_url=server.base_url,
        retry=QUICK,
        timeouts=Timeouts(connect=2, first_event=0.5, idle=0.3),
        hooks=[telemetry.hooks()],
    ) as client:
        yield client
    await server.wait_idle(connections=True)


async def test_a_chat_is_a_span_with_the_names_of_the_conventions(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    server.script(reply("你好", usage=usage))
    answer = await client.chat("问", model="ernie-x")
    (span,) = telemetry.spans
    assert span.name == "chat ernie-x"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    told = dict(telemetry.attributes)
    assert told.pop("ernie_async.queued") == 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "baidu.qianfan",
        "gen_ai.request.model": "ernie-x",
        "gen_ai.response.model": "ernie-x",
        "gen_ai.response.id": answer.id,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": int(server.base_url.split(":")[2].split("/")[0]),
        "ernie_async.attempts": 1,
        "ernie_async.outcome": "ok",
        "ernie_async.request_id": answer.id,
        "ernie_async.usage.is_estimate": False,
    }


async def test_a_stream_is_one_span_from_the_first_step_to_the_end(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(reply("一二三四", chunk_ms=5))
    async with client.stream("数") as stream:
        assert (await anext(stream)).text
        assert not telemetry.spans
        await stream.final()
    told = telemetry.attributes
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.id"] == stream.request_id
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.response.time_to_first_chunk"] == stream.timing.first_token
    assert told["ernie_async.usage.is_estimate"] is True
    (span,) = telemetry.spans
    assert span.end_time is not None
    assert span.start_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(stream.timing.total, abs=0.05)


async def leave(client: AsyncClient) -> None:
    async with client.stream("讲") as stream:
        async for _ in stream:
            break


async def drop(client: AsyncClient) -> None:
    async for _ in client.stream("讲"):
        break


async def cancel(client: AsyncClient) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in client.stream("讲"):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("way", [leave, drop, cancel])
async def test_a_stream_that_is_left_ends_its_span(
    way: Any, server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(stall(after_chunks=2))
    await way(client)
    (span,) = telemetry.spans
    assert telemetry.attributes["ernie_async.outcome"] == "cancelled"
    assert "error.type" not in telemetry.attributes
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (cut(after_chunks=2), "InterruptedStreamError"),
        (stall(after_chunks=2), "DeadlineError"),
        (error_event("internal_error", after_chunks=2), "ServerError"),
    ],
)
async def test_a_stream_that_breaks_ends_its_span_as_an_error(
    step: Any, kind: str, server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(step)
    with pytest.raises(ErnieError):
        await client.stream("讲").final()
    (span,) = telemetry.spans
    assert telemetry.attributes["error.type"] == kind
    assert span.status.status_code is StatusCode.ERROR
    assert (span.status.description or "").startswith(kind)


async def test_a_retry_is_an_event(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(refuse(500), reply("好"))
    await client.chat("问")
    (span,) = telemetry.spans
    (event,) = span.events
    assert event.name == "ernie_async.retry"
    assert event.attributes is not None
    assert event.attributes["ernie_async.attempt"] == 1
    assert str(event.attributes["ernie_async.error"]).startswith("ServerError: 500")
    assert telemetry.attributes["ernie_async.attempts"] == 2


async def test_a_resume_is_an_event(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    whole = reply("一二三四五六七八", ids=True)
    server.script(cut(after_chunks=2, of=whole), whole)
    assert (await client.stream("数").final()).text == "一二三四五六七八"
    (span,) = telemetry.spans
    (resume,) = [event for event in span.events if event.name == "ernie_async.resume"]
    assert resume.attributes is not None
    assert (resume.attributes["ernie_async.how"], resume.attributes["ernie_async.at"]) == (
        "server",
        4,
    )


async def test_a_fallback_is_an_event_and_the_answering_model_is_told(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(refuse(404, "invalid_model"), reply("好"))
    await client.chat("问", model="a", fallback=["b"])
    (span,) = telemetry.spans
    assert [event.name for event in span.events] == ["ernie_async.fallback"]
    assert telemetry.attributes["gen_ai.request.model"] == "a"
    assert telemetry.attributes["gen_ai.response.model"] == "b"


async def test_a_call_that_fails_is_an_error(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(refuse(401, "invalid_iam_token"))
    with pytest.raises(AuthError):
        await client.chat("问")
    assert telemetry.attributes["error.type"] == "AuthError"
    (point,) = telemetry.points("gen_ai.client.operation.duration")
    assert (point.attributes or {})["error.type"] == "AuthError"


async def test_the_current_span_is_the_parent_of_each_of_many_calls(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    tracer = telemetry.tracers.get_tracer("test")

    async def work(n: int) -> None:
        with tracer.start_as_current_span(f"work {n}"):
            if n % 2:
                await client.chat(f"{n}", model=f"m{n}")
            else:
                async for _ in client.stream(f"{n}", model=f"m{n}"):
                    current = trace.get_current_span()
                    assert isinstance(current, ReadableSpan)
                    assert current.name == f"work {n}"

    await asyncio.gather(*(work(n) for n in range(50)))
    parents = {s.context.span_id: s.name for s in telemetry.spans if s.kind is SpanKind.INTERNAL}
    calls = [span for span in telemetry.spans if span.kind is SpanKind.CLIENT]
    assert len(calls) == 50
    for span in calls:
        assert span.parent is not None
        assert parents[span.parent.span_id] == span.name.replace("chat m", "work ")


def test_the_client_without_await_has_the_same_parent(telemetry: Telemetry) -> None:
    with (
        MockErnie() as server,
        Client("k", base_url=server.base_url, hooks=[telemetry.hooks()]) as c,
    ):
        with telemetry.tracers.get_tracer("test").start_as_current_span("work") as work:
            c.chat("问")
            for _ in c.stream("问"):
                pass
    calls = [span for span in telemetry.spans if span.kind is SpanKind.CLIENT]
    assert len(calls) == 2
    for span in calls:
        assert span.parent is not None
        assert span.parent.span_id == work.get_span_context().span_id


async def test_the_metrics(server: MockErnie, client: AsyncClient, telemetry: Telemetry) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    server.script(reply("好", usage=usage), reply("好", usage=usage, first_ms=30))
    await client.chat("问", model="m")
    include = {"include_usage": True}
    stream = client.stream("问", model="m", stream_options=include)
    await stream.final()
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    assert duration.count == 2
    assert duration.max >= 0.03
    assert duration.explicit_bounds[:3] == (0.01, 0.02, 0.04)
    assert dict(duration.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "baidu.qianfan",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "server.address": "127.0.0.1",
        "server.port": int(server.base_url.split(":")[2].split("/")[0]),
    }
    (first,) = telemetry.points("gen_ai.client.operation.time_to_first_chunk")
    assert (first.count, first.sum) == (1, pytest.approx(stream.timing.first_token))
    tokens = telemetry.points("gen_ai.client.token.usage")
    sums = {(p.attributes or {})["gen_ai.token.type"]: p.sum for p in tokens}
    assert sums == {"input": 10, "output": 14}
    assert tokens[0].explicit_bounds[-1] == 67_108_864


async def test_the_time_in_line_is_measured(server: MockErnie, telemetry: Telemetry) -> None:
    limits = Limits(concurrency=1)
    server.default(reply("好", first_ms=50))
    async with AsyncClient(
        "k", base_url=server.base_url, limits=limits, hooks=[telemetry.hooks()]
    ) as client:
        await asyncio.gather(client.chat("一"), client.chat("二"))
    (queued,) = telemetry.points("ernie_async.client.queue.duration")
    assert queued.count == 2
    assert queued.min == 0
    assert queued.max > 0.03
    assert {event.name for span in telemetry.spans for event in span.events} == {
        "ernie_async.queued"
    }


@pytest.mark.parametrize(
    ("ask", "name", "operation"),
    [
        (lambda c: c.embed("文"), "embeddings embedding-v1", "embeddings"),
        (lambda c: c.rerank("问", ["文"]), "rerank bce-reranker-base", "rerank"),
        (lambda c: c.generate_image("猫"), "generate_content qwen-image", "generate_content"),
        (lambda c: c.list_models(), "GET /models", None),
        (lambda c: c.files.list(), "GET /files", None),
    ],
)
async def test_other_verbs_have_spans_too(
    ask: Any, name: str, operation: str | None, client: AsyncClient, telemetry: Telemetry
) -> None:
    await ask(client)
    (span,) = telemetry.spans
    assert span.name == name
    assert telemetry.attributes.get("gen_ai.operation.name") == operation
    assert len(telemetry.points("gen_ai.client.operation.duration")) == (operation is not None)


async def test_a_download_from_elsewhere_names_that_host(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    images = await client.generate_image("猫")
    telemetry.exporter.clear()
    await client.download_image(images.data[0])
    (span,) = telemetry.spans
    assert span.name == "GET"
    assert telemetry.attributes["server.address"] == "127.0.0.1"


async def test_no_span_holds_a_prompt_an_answer_or_a_key(
    server: MockErnie, client: AsyncClient, telemetry: Telemetry
) -> None:
    server.script(reply("答案在此"), refuse(500), cut(after_chunks=2, text="答案在此"))
    await client.chat("问题在此")
    with pytest.raises(ErnieError):
        await client.stream("问题在此").final()
    told = "".join(span.to_json() for span in telemetry.spans)
    told = told.encode().decode("unicode_escape")
    assert "chat" in told
    for planted in (SECRET, "0123456789abcdef", "问题", "答案"):
        assert planted not in told


async def test_content_is_told_if_it_was_asked_for(server: MockErnie, telemetry: Telemetry) -> None:
    server.script(reply("答", reasoning="想"), cut(after_chunks=1, text="答案"), refuse(401))
    hooks = [telemetry.hooks(content=True)]
    async with AsyncClient(SECRET, base_url=server.base_url, retry=QUICK, hooks=hooks) as client:
        await client.chat("问")
        for _ in range(2):
            with pytest.raises(ErnieError):
                await client.stream("问").final()
    whole, broken, refused = (dict(span.attributes or {}) for span in telemetry.spans)
    assert json.loads(whole["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "问"}]}
    ]
    assert json.loads(whole["gen_ai.output.messages"])[0]["parts"] == [
        {"type": "reasoning", "content": "想"},
        {"type": "text", "content": "答"},
    ]
    said = json.loads(broken["gen_ai.output.messages"])[0]
    assert (said["parts"], said["finish_reason"]) == ([{"type": "text", "content": "答案"}], "")
    assert "gen_ai.output.messages" not in refused
    assert SECRET not in "".join(span.to_json() for span in telemetry.spans)


async def test_a_resumed_stream_tells_the_question_that_was_asked(
    server: MockErnie, telemetry: Telemetry
) -> None:
    server.script(cut(after_chunks=2, text="一二三四五六"), reply("五六"))
    hooks = [telemetry.hooks(content=True)]
    async with AsyncClient("k", base_url=server.base_url, resume="continue", hooks=hooks) as client:
        assert (await client.stream("数").final()).text == "一二三四五六"
    messages = json.loads(telemetry.attributes["gen_ai.input.messages"])
    assert [message["parts"][0]["content"] for message in messages] == ["数"]
    (said,) = json.loads(telemetry.attributes["gen_ai.output.messages"])
    assert said["parts"] == [{"type": "text", "content": "一二三四五六"}]


async def test_the_trace_goes_along_if_it_was_asked_for(
    server: MockErnie, telemetry: Telemetry
) -> None:
    hooks = [telemetry.hooks(propagate=True)]
    async with AsyncClient("k", base_url=server.base_url, hooks=hooks) as client:
        await client.chat("问")
    (span,) = telemetry.spans
    assert server.requests[0].headers["traceparent"].split("-")[1:3] == [
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
    ]


async def test_the_trace_does_not_go_to_another_host(telemetry: Telemetry) -> None:
    async with MockErnie() as other, MockErnie() as server:
        hooks = [telemetry.hooks(propagate=True)]
        async with AsyncClient("k", base_url=server.base_url, hooks=hooks) as client:
            with pytest.raises(ErnieError):
                await client.request("GET", f"{other.base_url}/nothing")
    assert "traceparent" not in other.requests[0].headers
    assert "Authorization" not in other.requests[0].headers


async def test_what_is_not_sampled_is_still_counted(server: MockErnie) -> None:
    telemetry = Telemetry(sampler=ALWAYS_OFF)
    hooks = [telemetry.hooks(content=True)]
    async with AsyncClient("k", base_url=server.base_url, retry=QUICK, hooks=hooks) as client:
        server.script(refuse(500), reply("好"))
        await client.chat("问")
    assert not telemetry.spans
    assert telemetry.points("gen_ai.client.operation.duration")[0].count == 1


async def test_a_thousand_calls_leave_nothing_behind(
    server: MockErnie, telemetry: Telemetry
) -> None:
    hooks = telemetry.hooks()
    server.default(reply("好"))
    limits = Limits(concurrency=64)
    async with AsyncClient("k", base_url=server.base_url, limits=limits, hooks=[hooks]) as client:

        async def call(n: int) -> None:
            if n % 3:
                await client.chat("问")
            else:
                await leave(client)

        await asyncio.gather(*(call(n) for n in range(1000)))
    assert len(telemetry.spans) == 1000
    assert not hooks._calls


def test_a_call_that_began_before_is_left_out(telemetry: Telemetry) -> None:
    hooks = telemetry.hooks()
    hooks(RetryScheduled(call=1, attempt=1, delay=1.0, error="late"))
    hooks(CallEnded(1, "ok", None, None, Timing(), None))
    assert not telemetry.spans


def test_a_client_with_it_can_be_pickled() -> None:
    client = AsyncClient("k", hooks=[OTelHooks(content=True)])
    (hook,) = pickle.loads(pickle.dumps(client))._desk.hooks
    assert isinstance(hook, OTelHooks)
    assert hook._given["content"] is True


def test_the_extra_is_named_where_it_is_missing() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; import ernie_async.otel"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 'ernie-async[otel]'" in done.stderr
