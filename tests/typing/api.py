"""Code as users write it, checked by mypy and pyright and never run: what has to be inferred.

A line that must not pass carries an ignore; mypy complains if it passes after all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, assert_type

import aiohttp
import numpy
from numpy.typing import NDArray
from pydantic import BaseModel

from ernie_async import (
    Adaptive,
    AnyLimiter,
    AnyPermit,
    APIError,
    ApiKey,
    AsyncClient,
    Budget,
    BudgetError,
    CallEnded,
    CallStarted,
    ChatChunk,
    ChatCompletion,
    ChatOptions,
    ChatRequest,
    ChatStream,
    CircuitChanged,
    Client,
    ConfigError,
    ConnectError,
    ContentFiltered,
    DeadlineError,
    DecodeError,
    DrainReport,
    Embeddings,
    ErnieError,
    FailedAttempt,
    FellBack,
    FileObject,
    FilePage,
    HeartbeatSeen,
    Hedged,
    Hedging,
    IamKeys,
    ImagePart,
    ImageResult,
    Images,
    ImageURL,
    InterruptedStreamError,
    Limiter,
    LimiterPaused,
    LimiterSnapshot,
    Limits,
    Message,
    MessageFinding,
    ModelCard,
    Permit,
    Price,
    Prices,
    Queued,
    RankedDocument,
    Ranking,
    RateHeaders,
    RateLimitError,
    Record,
    ResponseFormat,
    RetryPolicy,
    RetryScheduled,
    RetryWithheld,
    SearchAnswer,
    Server,
    StreamOptions,
    StreamResumed,
    SyncChatStream,
    SyncFiles,
    TextPart,
    Thinking,
    Timeouts,
    Timing,
    Tool,
    ToolCall,
    ToolLoopError,
    Totals,
    Usage,
    V1Translation,
    VideoTask,
    WebSearch,
    assistant,
    fix_messages,
    from_env,
    lint_messages,
    standard_prices,
    system,
    tool_result,
    translate_v1,
    user,
)
from ernie_async.types import (
    AnswerMessage,
    Choice,
    Delta,
    FunctionSpec,
    SearchResult,
    ToolCallDelta,
)


async def ask(client: AsyncClient) -> None:
    answer = await client.chat("你好")
    assert_type(answer, ChatCompletion)
    assert_type(answer.text, str)
    assert_type(answer.reasoning, str)
    assert_type(answer.tool_calls, list[ToolCall])
    assert_type(answer.tool_calls[0].function.arguments, str)
    assert_type(answer.finish_reason, str | None)
    assert_type(answer.usage, Usage)
    assert_type(answer.usage.is_estimate, bool)
    assert_type(answer.timing, Timing)
    assert_type(answer.request_id, str | None)
    assert_type(answer.message, AnswerMessage)
    assert_type(answer.choices, list[Choice])
    if isinstance(answer.search_results, list):
        assert_type(answer.search_results, list[SearchResult])


async def stream(client: AsyncClient) -> None:
    async for chunk in client.stream("你好"):
        assert_type(chunk, ChatChunk)
        assert_type(chunk.text, str)
        assert_type(chunk.tool_calls, list[ToolCallDelta])
        assert_type(chunk.choices[0].delta, Delta)
    async with client.stream("你好", stream_options={"include_usage": True}) as answer:
        assert_type(answer, ChatStream)
        assert_type(await anext(answer), ChatChunk)
        assert_type(await answer.text(), str)
        assert_type(await answer.final(), ChatCompletion)
        assert_type(answer.usage, Usage | None)
        assert_type(answer.timing, Timing)
        assert_type(answer.request_id, str)
        assert_type(answer.heartbeats, int)


class Invoice(BaseModel):
    total: float


async def structured(client: AsyncClient, plain: Client) -> None:
    assert_type(await client.parse("...", into=Invoice), Invoice)
    assert_type(await client.parse("...", into=list[Invoice], reasks=0), list[Invoice])
    async for invoice in client.stream_parse("...", into=Invoice):
        assert_type(invoice, Invoice)
    async with client.stream_parse("...", into=list[Invoice], method="prompt") as items:
        async for item in items:
            assert_type(item, Invoice)
        assert_type(await items.final(), list[Invoice])
    assert_type(plain.parse("...", into=Invoice), Invoice)
    for invoice in plain.stream_parse("...", into=list[Invoice]):
        assert_type(invoice, Invoice)
    # What comes of a union is no more than `Any` to some checkers, so a name says it.
    perhaps: Invoice | None = await client.parse("...", into=Invoice | None)
    perhaps = plain.parse("...", into=Invoice | None)
    async for perhaps in client.stream_parse("...", into=Invoice | None):
        print(perhaps)
    for perhaps in plain.stream_parse("...", into=Invoice | None):
        print(perhaps)
    plain.parse("...", into="Invoice")  # type: ignore[call-overload]  # pyright: ignore


def without_await() -> None:
    with Client("key") as client:
        assert_type(client, Client)
        assert_type(client.chat("你好"), ChatCompletion)
        assert_type(client.list_models(), list[ModelCard])
        assert_type(client.request("GET", "/models"), dict[str, Any])
        assert_type(client.with_options(model="m"), Client)
        for chunk in client.stream("你好"):
            assert_type(chunk, ChatChunk)
        with client.stream("你好") as answer:
            assert_type(answer, SyncChatStream)
            assert_type(answer.final(), ChatCompletion)
            assert_type(answer.text(), str)


async def every_verb(client: AsyncClient) -> None:
    assert_type(await client.list_models(), list[ModelCard])
    assert_type(await client.request("POST", "/embeddings", json={"input": ["a"]}), dict[str, Any])
    assert_type(client.with_options(timeouts=Timeouts(idle=5)), AsyncClient)
    assert_type(client.base_url, str)
    assert_type(client.limiter, AnyLimiter | None)


async def every_other_capability(client: AsyncClient, path: Path) -> None:
    vectors = await client.embed(["a", {"text": "b", "image": "https://a"}], batch_size=2)
    assert_type(vectors, Embeddings)
    assert_type(vectors.vectors, list[list[float]])
    assert_type(vectors.usage, Usage)
    assert_type(vectors.to_numpy(), NDArray[numpy.float32])
    await client.embed("a", max_characters=None, concurrency=2, timeouts=Timeouts(total=5))
    await client.embed("a", batchsize=2)  # type: ignore[call-arg]
    await client.embed(5)  # type: ignore[arg-type]
    ranking = await client.rerank("q", ("a", "b"), top_n=1, path="/rerankers")
    assert_type(ranking, Ranking)
    assert_type(ranking.results[0], RankedDocument)
    assert_type(ranking.results[0].document, str | None)
    images = await client.generate_image("p", n=2, size="1024x1024", request_id="r")
    assert_type(images, Images)
    assert_type(images.first, ImageResult)
    assert_type(images.first.content, bytes | None)
    assert_type(await client.edit_image(["data:a"], "p", seed=1), Images)
    assert_type(await client.download_image(images.first), bytes)
    assert_type(await client.save_image(images.first, "a.png"), Path)
    await client.generate_image("p", sise="1")  # type: ignore[call-arg]
    found = await client.web_search("q", top_k={"web": 3}, sites=["a.com"])
    assert_type(found, SearchAnswer)
    assert_type(found.references[0].url, str | None)
    video = await client.generate_video("p", model="m", deadline=None)
    assert_type(video, VideoTask)
    assert_type(video.video_url, str | None)
    assert_type(await client.video_task("t"), VideoTask)
    card = (await client.list_models())[0]
    assert_type(card.context_length, int | None)
    assert_type(card.prompt_price, float | None)
    file = await client.files.upload(path, purpose="batch", on_progress=lambda n, total: None)
    assert_type(file, FileObject)
    assert_type(await client.files.upload(b"x", purpose="batch"), FileObject)
    assert_type(await client.files.list(limit=2), FilePage)
    async for held in client.files.all():
        assert_type(held, FileObject)
    assert_type(await client.files.content("f"), bytes)
    assert_type(await client.files.download("f", path), Path)
    assert_type(await client.files.delete("f"), bool)
    await client.files.upload(path)  # type: ignore[call-arg]


def every_other_capability_without_await(client: Client) -> None:
    assert_type(client.embed("a"), Embeddings)
    assert_type(client.rerank("q", ["a"]), Ranking)
    assert_type(client.generate_image("p"), Images)
    assert_type(client.web_search("q"), SearchAnswer)
    assert_type(client.generate_video("p", model="m"), VideoTask)
    assert_type(client.files, SyncFiles)
    assert_type(client.files.content("f"), bytes)
    for held in client.files.all():
        assert_type(held, FileObject)


async def every_way_to_write_a_prompt(client: AsyncClient, earlier: ChatCompletion) -> None:
    await client.chat("text")
    await client.chat([user("x")])
    await client.chat((system("s"), user("x")))
    await client.chat([{"role": "user", "content": "x"}])
    await client.chat([user("x"), earlier.message, {"role": "user", "content": "y"}])
    await client.chat(ChatRequest(messages=[user("x")]), temperature=0.5)
    await client.chat([user([TextPart(text="x"), ImagePart(image_url=ImageURL(url="https://a"))])])
    messages = [system("s")]
    assert_type(messages, list[Message])
    messages.append(user("x"))
    await client.chat(messages)
    dicts = [{"role": "user", "content": "x"}]
    await client.chat(dicts)
    for call in earlier.tool_calls:
        messages.append(tool_result(call.id, "42"))
    messages.append(assistant("and so", prefix=True))
    await client.chat(5)  # type: ignore[arg-type]
    await client.chat([5])  # type: ignore[list-item]


async def every_option(client: AsyncClient, tools: Sequence[Tool], tags: Mapping[str, str]) -> None:
    weather = {"type": "function", "function": {"name": "weather"}}
    await client.chat(
        "x",
        model="ernie-5.1",
        temperature=1,
        max_tokens=None,
        stop=("a", "b"),
        tools=[weather, Tool(function=FunctionSpec(name="f"))],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_object"},
        web_search={"enable": True},
        thinking=Thinking(type="enabled"),
        metadata=tags,
        timeouts=Timeouts(total=5),
        extra_headers={"X-Trace": "1"},
        extra_body={"brand_new": 1},
        request_id="r",
    )
    await client.chat(
        "x",
        tools=tools,
        tool_choice="auto",
        response_format=ResponseFormat(type="text"),
        web_search=WebSearch(enable=True),
        stop="a",
    )
    client.stream("x", stream_options=StreamOptions(include_usage=True))
    options: ChatOptions = {"temperature": 0.5, "enable_thinking": False}
    await client.chat("x", **options)
    await client.chat("x", temprature=0.5)  # type: ignore[call-arg]
    await client.chat("x", temperature="hot")  # type: ignore[arg-type]
    await client.chat("x", tool_choice="sometimes")  # type: ignore[arg-type]
    await client.chat("x", stream=True)  # type: ignore[call-arg]
    await client.chat(messages="x", timeout=5)  # type: ignore[call-arg]


def every_setting(session: aiohttp.ClientSession) -> None:
    def watch(record: Record) -> None:
        if isinstance(record, CallEnded):
            assert_type(record.timing, Timing)
            assert_type(record.usage, Usage | None)
        elif isinstance(record, RetryScheduled):
            assert_type(record.delay, float)
        elif isinstance(record, StreamResumed):
            assert_type(record.at, int)
        elif isinstance(record, RetryWithheld):
            assert_type(record.attempt, int)
        elif isinstance(record, CircuitChanged):
            assert_type(record.state, Literal["closed", "open", "half-open"])
        elif isinstance(record, ContentFiltered):
            assert_type(record.category, str)
        else:
            assert_type(
                record,
                CallStarted | Queued | LimiterPaused | HeartbeatSeen | FellBack | Hedged,
            )

    AsyncClient()
    AsyncClient("key")
    AsyncClient(ApiKey("key"), base_url="http://localhost:8188/v1", model="m")
    AsyncClient(
        from_env({}),
        timeouts=Timeouts(connect=1, first_event=None, idle=2.5, total="auto"),
        retry=RetryPolicy(attempts=3, time_budget=None),
        limits=Limits(requests_per_minute=300, tokens_per_minute=None, concurrency=8),
        hooks=[watch],
        session=session,
        proxy="http://proxy:1",
        ca_file="ca.pem",
    )
    AsyncClient(limits=Limiter(Limits(concurrency=Adaptive(min=2, max=64))))
    AsyncClient(timeouts=5)  # type: ignore[arg-type]
    Timeouts(total="later")  # type: ignore[arg-type]


async def routes(client: AsyncClient, plain: Client) -> None:
    AsyncClient(fallback=["m", (client, "n"), (plain, "o")], hedge=Hedging(after=1), coalesce=True)
    Client(fallback=[(client, "n")], hedge=None)
    answer = await client.chat("x", fallback=("m", (client, "n")), coalesce=True)
    assert_type(answer.fell_back_from, tuple[str, ...])
    assert_type(client.stream("x", fallback=["m"]).fell_back_from, tuple[str, ...])
    await client.parse("x", into=Invoice, fallback=["m"], coalesce=False)
    client.with_options(fallback=["m"], hedge=Hedging(), coalesce=True)
    await client.chat("x", fallback=[5])  # type: ignore[list-item]  # pyright: ignore
    await client.embed("x", fallback=["m"])  # type: ignore[call-arg]  # pyright: ignore
    Hedging(after="p99")  # type: ignore[arg-type]  # pyright: ignore
    async with client.budget(tokens=5) as budget:
        assert_type(budget, Budget)
        assert_type(budget.tokens, int)
        assert_type(budget.cost, float)
        assert_type(budget.is_spent, bool)
    with plain.budget(cost=0.5) as budget:
        assert_type(budget, Budget)
    try:
        report = await client.drain(timeout=10)
    except BudgetError as error:
        assert_type(error.tokens, int)
        assert_type(error.partial, ChatCompletion | None)
    else:
        assert_type(report, DrainReport)
        assert_type(report.cancelled, tuple[str, ...])
    assert_type(plain.drain(), DrainReport)


async def limited(limiter: Limiter) -> None:
    async with limiter.admit(100) as permit:
        assert_type(permit, Permit)
        permit.settle(tokens=80)
    assert_type((await limiter.admit(model="m", priority="batch", max_wait=5)).waited, float)
    assert_type(limiter.snapshot("m").concurrency, int | None)
    limiter.admit(priority="urgent")  # type: ignore[arg-type]


async def limited_by_any(limiter: AnyLimiter) -> None:
    AsyncClient(limits=limiter)
    async with limiter.admit(100, model="m", account="a") as permit:
        assert_type(permit, AnyPermit)
        permit.learn(RateHeaders(limit_requests=60))
        permit.succeeded()
    assert_type(limiter.snapshot(), LimiterSnapshot)


async def every_error(client: AsyncClient) -> None:
    try:
        await client.chat("x")
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.code, str | None)
    except APIError as error:
        assert_type(error.status, int)
        assert_type(error.remedy_zh, str)
        assert_type(error.partial, ChatCompletion | None)
    except InterruptedStreamError as error:
        assert_type(error.partial, ChatCompletion | None)
        assert_type(error.last_event_id, str | None)
    except DeadlineError as error:
        assert_type(error.clock, str)
    except ConnectError as error:
        assert_type(error.was_sent, bool)
    except DecodeError as error:
        assert_type(error.body, bytes)
    except ToolLoopError as error:
        assert_type(error.messages, tuple[Message, ...])
    except ConfigError as error:
        assert_type(error.message, str)
    except ErnieError as error:
        assert_type(error.attempts, tuple[FailedAttempt, ...])
        assert_type(error.request_id, str | None)
    try:
        await client.chat("x")
    except TimeoutError as error:
        assert_type(error, TimeoutError)


def credentials_and_servers() -> None:
    keys = IamKeys("access", "secret", token_seconds=600)
    AsyncClient(keys, server="vllm", model="m")
    Client(keys, server=Server(name="mine", base_url="http://127.0.0.1:1/v1"))
    AsyncClient(server="ollama")  # type: ignore[arg-type]  # pyright: ignore
    assert_type(from_env({}), ApiKey | IamKeys | None)


def counting(client: AsyncClient, answer: ChatCompletion) -> None:
    assert_type(client.totals, Totals)
    assert_type(client.totals.cost, float)
    assert_type(client.estimate_tokens("x", model="m"), int)
    assert_type(client.model, str | None)
    prices = standard_prices().with_models({"m": Price(1, 2), "n": [Price(1, 2, up_to=9)]})
    assert_type(prices, Prices)
    assert_type(answer.cost(prices), float | None)


def conversations() -> None:
    findings = lint_messages([user("a"), {"role": "user", "content": "b"}], model="m")
    assert_type(findings, list[MessageFinding])
    assert_type(findings[0].index, int | None)
    assert_type(fix_messages([user("a")]), list[Message])
    translated = translate_v1({"messages": [{"role": "user", "content": "a"}]})
    assert_type(translated, V1Translation)
    assert_type(translated.warnings, tuple[str, ...])
