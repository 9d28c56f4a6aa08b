"""The loop that calls the functions a model asks for."""

import asyncio
import gc
import json
import logging
import threading
from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import BeforeValidator

from ernie_async import AsyncClient, ConfigError, InterruptedStreamError, ServerError, ToolLoopError
from ernie_async.testing import MockErnie, cut, raw, refuse, reply
from ernie_async.testing.script import Reply
from ernie_async.toolbox import Toolbox, ToolEnded, ToolStarted
from ernie_async.types.tools import FunctionCall, ToolCall
from tests.waiting import until

pytestmark = pytest.mark.anyio


def asks(*calls: tuple[str, Any]) -> Reply:
    return reply(
        tool_calls=[
            {
                "function": {
                    "name": name,
                    "arguments": given if isinstance(given, str) else json.dumps(given),
                }
            }
            for name, given in calls
        ]
    )


def weather(city: str, days: int = 1) -> dict[str, Any]:
    """The weather in a city.

    Args:
        city: Its name.
        days: How many.
    """
    return {"city": city, "days": days, "thread": threading.current_thread().name}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def results(server: MockErnie) -> list[str]:
    """What the model was told of its calls, in the last request."""
    messages = server.requests[-1].json["messages"]
    return [message["content"] for message in messages if message["role"] == "tool"]


async def test_functions_are_called_until_there_is_an_answer(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(asks(("add", {"a": 1, "b": 2}), ("weather", {"city": "北京"})), reply("三，晴。"))
    box = Toolbox([add, weather])
    run = await box.run(client, "一加二？天气？", temperature=0.5)
    assert run.text == "三，晴。"
    assert run.rounds == 2
    first, second = server.requests
    assert [tool["function"]["name"] for tool in first.json["tools"]] == ["add", "weather"]
    assert second.json["tools"] == first.json["tools"]
    assert second.json["temperature"] == 0.5
    roles = [message["role"] for message in second.json["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]
    calls = second.json["messages"][1]["tool_calls"]
    answers = second.json["messages"][2:]
    assert [answer["tool_call_id"] for answer in answers] == [call["id"] for call in calls]
    assert answers[0]["content"] == "3"
    told = json.loads(answers[1]["content"])
    assert (told["city"], told["days"]) == ("北京", 1)
    assert told["thread"] != threading.main_thread().name
    assert [message.role for message in run.messages] == [*roles, "assistant"]
    assert run.usage.total_tokens > run.answer.usage.total_tokens


async def test_each_request_may_fall_back(server: MockErnie, client: AsyncClient) -> None:
    gone = refuse(404, "invalid_model")
    server.script(gone, asks(("add", {"a": 1, "b": 2})), gone, reply("三"))
    run = await Toolbox([add]).run(client, "一加二？", fallback=["ernie-speed"], coalesce=False)
    assert (run.text, run.rounds) == ("三", 2)
    asked = [seen.json["model"] for seen in server.requests]
    assert asked == [client.model, "ernie-speed"] * 2


async def test_what_goes_wrong_is_told_to_the_model(
    server: MockErnie, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "ernie_async")  # reports of tests hold no half characters
    box, is_over = Toolbox(), threading.Event()

    @box.tool
    def breaks() -> None:
        raise KeyError("no such row")

    @box.tool(name="hangs", timeout=0.02)
    async def hang() -> None:
        await asyncio.sleep(10)

    @box.tool(timeout=0.05)
    def hangs_in_a_thread() -> None:
        is_over.wait(60)

    @box.tool
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    @box.tool
    async def gives_up() -> None:
        raise TimeoutError("of its own")

    @box.tool
    def odd() -> object:
        return object()

    @box.tool
    def half() -> str:
        return "x\ud83dy"

    @box.tool
    def says_half() -> None:
        raise ValueError("bad \ud83d")

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @box.tool
    def is_mute() -> None:
        raise MuteError

    def refuse_all(value: object) -> int:
        raise RuntimeError("no validator")

    @box.tool
    def checks(number: Annotated[int, BeforeValidator(refuse_all)]) -> int:
        return number

    box.add(add)
    wanted = [
        ("breaks", {}, "KeyError: 'no such row'"),
        ("hangs", {}, "no result within 0.02 s"),
        ("hangs_in_a_thread", {}, "no result within 0.05 s"),
        ("cancels_itself", {}, "cancelled"),
        ("gives_up", {}, "TimeoutError: of its own"),
        ("odd", {}, "cannot be written as JSON"),
        ("half", {}, "cannot be written as JSON"),
        ("says_half", {}, "ValueError: bad \\ud83d"),
        ("is_mute", {}, "MuteError: <exception str() failed>"),
        ("checks", {"number": 1}, "RuntimeError: no validator"),
        ("add", {"a": "x"}, "wrong arguments: a: Input should be a valid integer"),
        ("add", {"a": 1, "b": 2, "c": 3}, "wrong arguments: c: Extra inputs"),
        ("add", '{"a": 1, "b', "wrong arguments: all of it: Invalid JSON"),
        ("nothing", {}, "there is no tool 'nothing', only breaks, hangs"),
    ]
    server.script(asks(*((name, given) for name, given, _ in wanted)), reply("好"))
    try:
        assert (await box.run(client, "hi")).text == "好"  # and so nobody waits for a thread
    finally:
        is_over.set()
    for told, (_, _, expected) in zip(results(server), wanted, strict=True):
        assert expected in json.loads(told)["error"]


@pytest.mark.parametrize(
    ("value", "told"),
    [("text", "text"), ("", '""'), (None, "null"), ([1, "二"], '[1,"二"]'), (b"ab", '"ab"')],
)
async def test_results_become_text(
    server: MockErnie, client: AsyncClient, value: object, told: str
) -> None:
    server.script(asks(("give", "")), reply("好"))
    await Toolbox([named("give", lambda: value)]).run(client, "hi")
    assert results(server) == [told]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("sent", [{}, {"id": None}, {"id": ""}])
async def test_a_call_without_an_id_gets_one(
    server: MockErnie, client: AsyncClient, sent: dict[str, Any], streams: bool
) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    named_call = {**call, "id": "theirs"}
    calls = [{"index": n, **each} for n, each in enumerate([{**call, **sent}, named_call])]
    if streams:
        choice: dict[str, Any] = {"index": 0, "delta": {"tool_calls": calls}}
    else:
        choice = {"index": 0, "message": {"role": "assistant", "tool_calls": calls}}
    body = json.dumps({"id": "a", "choices": [{**choice, "finish_reason": "tool_calls"}]})
    if streams:
        asked = raw(f"data: {body}\n\ndata: [DONE]\n\n".encode())
    else:
        asked = raw(body.encode(), content_type="application/json")
    server.script(asked, asked, reply("好"))
    box, begun = Toolbox([add], hooks=[lambda record: begun.append(record.call.id)]), list[str]()
    run = await (box.stream(client, "hi").final() if streams else box.run(client, "hi"))
    assert run.text == "好"
    ids = ["call_1_0", "theirs", "call_2_0", "theirs"]
    messages = server.requests[-1].json["messages"]
    assert [call["id"] for turn in messages for call in turn.get("tool_calls", ())] == ids
    assert [turn["tool_call_id"] for turn in messages if turn["role"] == "tool"] == ids
    assert set(begun) == set(ids)


async def test_what_a_function_may_not_raise_is_raised_alone() -> None:
    class Odd(BaseException):
        pass

    @Toolbox().tool
    async def breaks() -> None:
        raise Odd

    calls = [ToolCall(id=name, function=FunctionCall(name="breaks")) for name in "ab"]
    with pytest.raises(Odd):
        await Toolbox([breaks]).answer(calls)


async def test_a_call_without_an_id_cannot_be_answered() -> None:
    calls = [ToolCall(id="", function=FunctionCall(name="add"))]
    with pytest.raises(ConfigError, match=r"calls\.0: .* id"):
        await Toolbox([add]).answer(calls)


def named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function


async def test_calls_run_together_up_to_a_limit(server: MockErnie, client: AsyncClient) -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 - number / 1000)  # the last is done first
        running -= 1
        return number

    server.script(asks(*(("work", {"number": n}) for n in range(10))), reply("好"))
    await Toolbox([work], concurrency=4).run(client, "hi")
    assert most == 4
    assert results(server) == [str(n) for n in range(10)]


async def test_rounds_end(server: MockErnie, client: AsyncClient) -> None:
    server.default(asks(("add", {"a": 1, "b": 1})))
    with pytest.raises(ToolLoopError, match="3 rounds") as caught:
        await Toolbox([add], max_rounds=3).run(client, "hi")
    assert len(server.requests) == 3
    assert [message.role for message in caught.value.messages] == [
        "user", *["assistant", "tool"] * 3,
    ]  # fmt: skip
    with pytest.raises(ToolLoopError, match="3 rounds"):
        await Toolbox([add], max_rounds=3).stream(client, "hi").final()


async def test_time_ends(server: MockErnie, client: AsyncClient) -> None:
    async def hang() -> None:
        await asyncio.sleep(10)

    server.default(asks(("hang", {})))
    box = Toolbox([hang], deadline=0.1)
    for asked in (box.run(client, "hi"), box.stream(client, "hi").final()):
        with pytest.raises(ToolLoopError, match="deadline") as caught:
            await asked
        assert [message.role for message in caught.value.messages] == ["user", "assistant"]
    await server.wait_idle()


async def test_a_choice_that_forces_a_call_is_for_the_first_round(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(asks(("add", {"a": 1, "b": 1})), reply("二"))
    await Toolbox([add]).run(client, "hi", tool_choice="required", request_id="mine")
    first, second = server.requests
    assert first.json["tool_choice"] == "required"
    assert "tool_choice" not in second.json
    assert [request.headers["X-Request-Id"] for request in (first, second)] == ["mine", "mine-2"]


async def test_the_answer_is_streamed(server: MockErnie, client: AsyncClient) -> None:
    records: list[ToolStarted | ToolEnded] = []
    server.script(asks(("add", {"a": 1, "b": 2})), reply("一共是三。", chunk_chars=2))
    async with Toolbox([add], hooks=[records.append]).stream(client, "hi") as stream:
        text = "".join([chunk.text async for chunk in stream])
        run = await stream.final()
    assert text == run.text == "一共是三。"
    assert run.messages[-1].content == text
    began, ended = records
    assert isinstance(began, ToolStarted)
    assert isinstance(ended, ToolEnded)
    assert (began.call.function.name, began.round, ended.error) == ("add", 1, None)
    assert ended.seconds >= 0
    assert stream.usage == run.usage


async def test_what_was_used_is_known_of_a_stream_that_is_left(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(asks(("add", {"a": 1, "b": 2})), reply("字" * 100, chunk_ms=5))
    async with Toolbox([add]).stream(client, "hi") as stream:
        assert stream.usage is None
        async for chunk in stream:
            if chunk.text:
                break
        first = stream.usage
    assert first is not None
    assert stream.usage is not None
    assert stream.usage.total_tokens > first.total_tokens > 0


async def test_a_step_that_is_cancelled_while_functions_run_can_be_made_again(
    server: MockErnie, client: AsyncClient
) -> None:
    may_end = asyncio.Event()

    async def slow() -> str:
        await may_end.wait()
        return "done"

    used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    server.script(replace(asks(("slow", {})), usage=used), reply("好", usage=used))
    with_usage: Any = {"stream_options": {"include_usage": True}}
    async with Toolbox([slow]).stream(client, "hi", **with_usage) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.final()
        assert stream.usage is not None
        assert stream.usage.total_tokens == 7
        may_end.set()
        run = await stream.final()
    assert [message.role for message in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert run.usage.total_tokens == 14


async def test_failures_of_the_service_are_raised(server: MockErnie, client: AsyncClient) -> None:
    box = Toolbox([add])
    for _ in range(2):
        server.script(asks(("add", {"a": 1, "b": 1})), cut(3))
        with pytest.raises(InterruptedStreamError):
            await box.stream(client, "hi").final()
    server.script(*[refuse(500)] * 3)
    with pytest.raises(ServerError):
        await box.run(client, "hi")


@pytest.mark.parametrize("streams", [False, True])
async def test_cancelling_leaves_nothing(
    server: MockErnie, client: AsyncClient, streams: bool
) -> None:
    begun = cancelled = 0

    async def hang() -> None:
        nonlocal begun, cancelled
        begun += 1
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    await client.chat("hi")  # the server keeps a task for the connection
    before = asyncio.all_tasks()
    server.script(asks(("hang", {}), ("hang", {})))
    box = Toolbox([hang])
    waits = box.stream(client, "hi").final() if streams else box.run(client, "hi")
    task = asyncio.create_task(waits)
    await until(lambda: begun == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert cancelled == 2
    assert asyncio.all_tasks() == before
    await server.wait_idle()


async def test_dropping_a_stream_frees_it(server: MockErnie, client: AsyncClient) -> None:
    server.script(asks(("add", {"a": 1, "b": 1})), reply("字" * 100, chunk_ms=20))
    gc.disable()  # a cycle that only the collector frees would not count
    try:
        async for chunk in Toolbox([add]).stream(client, "hi"):
            if chunk.text:
                break
        await server.wait_idle(connections=True)
    finally:
        gc.enable()


async def test_a_hook_that_fails_is_not_heard(server: MockErnie, client: AsyncClient) -> None:
    def fail(record: object) -> None:
        raise RuntimeError

    server.script(asks(("add", {"a": 1, "b": 1})), reply("二"))
    assert (await Toolbox([add], hooks=[fail]).run(client, "hi")).text == "二"


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"max_rounds": 0}, {"deadline": -1}, {"concurrency": 1.5}]
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Toolbox(**options)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_of_a_function_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        Toolbox().add(add, timeout=seconds)


async def test_what_cannot_be_asked_is_refused(server: MockErnie, client: AsyncClient) -> None:
    with pytest.raises(ConfigError, match="there is a tool of this name"):
        Toolbox([add, add])
    with pytest.raises(ConfigError, match="tools: those of the toolbox"):
        await Toolbox([add]).run(client, "hi", tools=[])
    with pytest.raises(ConfigError, match="n: expected 1"):
        Toolbox([add]).stream(client, "hi", n=2)
    assert not server.requests
    assert (await Toolbox().run(client, "hi")).rounds == 1
    assert "tools" not in server.requests[-1].json


async def test_events_of_a_stream(server: MockErnie, client: AsyncClient) -> None:
    server.script(asks(("add", {"a": 1, "b": 2})))
    *deltas, done = [event async for event in client.stream("hi").tool_events()]
    assert {event.kind for event in deltas} == {"delta"}
    assert done.call is not None
    assert "".join(event.delta for event in deltas) == done.call.function.arguments
