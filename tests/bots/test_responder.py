"""One call for each message: from the user's words to the model, and back into the chat."""

import asyncio
import json
import logging
import pickle
from dataclasses import replace
from typing import Any

import anyio
import pytest
from bot_fakes import TELEGRAM, FakeChat, caps

from ernie_async import AsyncClient, ChatOptions, ContentFilter
from ernie_async.bots import (
    ENGLISH,
    BusyError,
    ChatClosedError,
    ChatResponder,
    FloodError,
    Memory,
    MemoryStore,
    MessageTooLongError,
    PlatformError,
    StoppedError,
    UndeliveredError,
    UserLimiter,
)
from ernie_async.errors import ConfigError
from ernie_async.testing import MockErnie, cut, error_event, raw, refuse, reply, stall
from ernie_async.toolbox import Toolbox
from tests.waiting import until

pytestmark = pytest.mark.anyio

QUICK = replace(TELEGRAM, interval=0.03)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000100000001008020000009091683600000016"
    "49444154789c63601805a360140c2d0000000000ffff0300020c000186a4d7880000000049454e44ae426082"
)


def chat_of(**changes: Any) -> FakeChat:
    chat_caps = caps(
        platform=changes.pop("platform", QUICK), is_private=changes.pop("is_private", True)
    )
    return FakeChat(chat_caps, least=0.02, penalty=0.1, latency=0.002, **changes)


def shown(chat: FakeChat) -> str:
    return "".join(str(message) for message in chat.messages)


async def test_an_answer_is_streamed_and_remembered(client: AsyncClient, server: MockErnie) -> None:
    server.script(reply("光合作用" * 20, chunk_ms=8), reply("好"))
    responder = ChatResponder(client, memory=MemoryStore(ttl="30m"), system="你是老师。")
    chat = chat_of()
    answer = await responder.reply(chat, user=7, chat=1, text=" 讲讲光合作用 ")
    assert answer == shown(chat) == "光合作用" * 20
    assert len(chat.calls) > 3
    assert chat.n_violations == 0
    assert await responder.reply(chat_of(), user=7, chat=1, text="谢谢") == "好"
    assert [(m["role"], m["content"]) for m in server.requests[-1].json["messages"]] == [
        ("system", "你是老师。"),
        ("user", "讲讲光合作用"),
        ("assistant", "光合作用" * 20),
        ("user", "谢谢"),
    ]


async def test_stop_ends_the_answer_at_once(client: AsyncClient, server: MockErnie) -> None:
    server.script(reply("很长的回答" * 200, chunk_ms=10))
    responder = ChatResponder(client, memory=MemoryStore(), limiter=UserLimiter(tokens="10/1d"))
    chat = chat_of(is_private=False)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(responder.reply(chat, user=7, chat=1, text="讲"))
        await until(lambda: chat.messages)
        with anyio.fail_after(1):
            assert await responder.reply(chat, user=7, chat=1, text="/stop@my_bot") is None
            assert await task is None
            await server.wait_idle()
    assert shown(chat).endswith("\n\n（已停止。）")
    assert shown(chat).startswith("很长的回答")
    assert await responder.memory.export(("fake", 1, 7)) == []
    # What it had cost is charged all the same.
    await responder.reply(chat, user=7, chat=1, text="再讲")
    assert "请在 86400 秒后再试" in shown(chat)
    assert await responder.reply(chat, user=8, chat=1, text="停止") is None
    assert shown(chat).endswith("现在没有正在进行的回答。")


async def test_the_key_of_a_conversation_is_made_by_a_function(
    client: AsyncClient, server: MockErnie
) -> None:
    def key_of(platform: str, chat: str | int, user: str | int) -> tuple[str, str | int]:
        return platform, chat  # one conversation for all users of a group

    responder = ChatResponder(client, memory=MemoryStore(), key=key_of)
    for user in (7, 8):
        await responder.reply(chat_of(), user=user, text="好")
    await responder.reply(chat_of(), user=9, chat="thread", text="好")
    assert [len(seen.json["messages"]) for seen in server.requests] == [1, 3, 1]
    assert len(await responder.memory.export(("fake", 1))) == 4


@pytest.mark.parametrize("on_busy", ["queue", "replace", "reject"])
async def test_two_messages_at_once(client: AsyncClient, server: MockErnie, on_busy: Any) -> None:
    """Acceptance 6."""
    server.script(reply("第一" * 20, chunk_ms=10), reply("第二" * 20, chunk_ms=2))
    responder = ChatResponder(
        client, memory=Memory(MemoryStore(), on_busy=on_busy), wording=ENGLISH
    )
    first, second = chat_of(), chat_of()
    async with asyncio.TaskGroup() as group:
        one = group.create_task(responder.reply(first, user=7, text="一"))
        await until(lambda: server.requests_made)
        two = group.create_task(responder.reply(second, user=7, text="二"))
    history = [m.content for m in await responder.memory.export(("fake", 1, 7))]
    if on_busy == "queue":
        assert history == ["一", "第一" * 20, "二", "第二" * 20]
        assert max(at for at, *_ in first.calls) < min(at for at, *_ in second.calls)
    elif on_busy == "replace":
        assert history == ["二", "第二" * 20]
        assert (one.result(), two.result()) == (None, "第二" * 20)
        assert not first.messages or shown(first).endswith("(Stopped.)")
    else:
        assert history == ["一", "第一" * 20]
        assert shown(second) == "I am still answering your last message. One moment, please."


@pytest.mark.parametrize(
    ("step", "ending"),
    [
        (refuse(400, "invalid_argument"), "request id"),
        (cut(after_chunks=4), "Request id: "),
        (error_event(after_chunks=4), "Request id: "),
        (stall(after_chunks=4), "Request id: "),
        (reply("不可以说的话", finish_reason="content_filter"), "Safety rules"),
        (reply(""), "Request id"),
    ],
)
async def test_an_error_of_the_model_is_told_and_forgotten(
    client: AsyncClient, server: MockErnie, step: Any, ending: str
) -> None:
    server.script(step)
    responder = ChatResponder(client, memory=MemoryStore(), wording=ENGLISH)
    chat = chat_of()
    assert await responder.reply(chat, user=7, text="讲") is None
    assert ending.lower() in shown(chat).lower()
    assert "http" not in shown(chat)
    assert await responder.memory.export(("fake", 1, 7)) == []


async def test_what_must_be_taken_back_is_taken_back(
    client: AsyncClient, server: MockErnie
) -> None:
    server.script(reply("不可以说的话" * 10, chunk_ms=10, flag=4))
    chat = chat_of()
    await ChatResponder(client, wording=ENGLISH).reply(chat, user=7, text="讲")
    assert len(chat.calls) > 2
    assert shown(chat) == "(Safety rules do not allow me to show this answer.)"


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize(
    "fault", [ChatClosedError("blocked"), PlatformError("reset"), KeyError("bug")]
)
async def test_memory_is_unchanged_or_whole_whatever_the_platform_does(
    client: AsyncClient, server: MockErnie, step: int, fault: Exception
) -> None:
    """Acceptance 4."""
    server.script(reply("回答" * 30, chunk_ms=3))
    responder = ChatResponder(client, memory=MemoryStore())
    chat = chat_of(faults=[None] * step + [fault])
    try:
        answer = await responder.reply(chat, user=7, text="问")
    except UndeliveredError:
        answer = None
    history = [m.content for m in await responder.memory.export(("fake", 1, 7))]
    assert history == ([] if answer is None else ["问", "回答" * 30])
    await server.wait_idle()


@pytest.mark.parametrize("moment", [0, 0.01, 0.05, 0.1, 0.2])
async def test_a_cancelled_handler_leaves_nothing(
    client: AsyncClient, server: MockErnie, moment: float
) -> None:
    """Acceptance 4."""
    server.script(reply("回答" * 30, chunk_ms=10))
    responder = ChatResponder(client, memory=MemoryStore())
    task = asyncio.create_task(responder.reply(chat_of(), user=7, text="问"))
    await asyncio.sleep(moment)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await responder.memory.export(("fake", 1, 7)) == []
    await server.wait_idle()


async def test_limits_are_told_politely(client: AsyncClient, server: MockErnie) -> None:
    responder = ChatResponder(client, limiter=UserLimiter(messages="1/10m", group="1/10m"))
    assert await responder.reply(chat_of(), user=7, text="一") is not None
    chat = chat_of()
    assert await responder.reply(chat, user=7, text="二") is None
    assert shown(chat) == "发送得太频繁了，请在 600 秒后再试。"
    assert len(server.requests) == 1


async def test_estimates_learn_of_the_model_that_answered(
    client: AsyncClient, server: MockErnie
) -> None:
    """Under the name that was asked for; or, if another one stepped in, of that one."""

    def told(model: str, prompt_tokens: int) -> Any:
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
        choice = {"index": 0, "delta": {"content": "好"}, "finish_reason": "stop"}
        chunk = {"id": "as-1", "model": model, "choices": [choice], "usage": usage}
        return raw(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())

    memory = Memory()
    options = ChatOptions(model="ernie-5.1", fallback=["ernie-speed"])
    responder = ChatResponder(client, memory=memory, options=options)
    server.script(told("ernie-5.1-of-today", 150))
    assert await responder.reply(chat_of(), user=7, text="字" * 160) == "好"  # some 100 tokens
    assert server.requests[-1].json["stream_options"] == {"include_usage": True}
    server.script(refuse(404, "invalid_model"), told("ernie-speed", 80))
    assert await responder.reply(chat_of(), user=7, text="字" * 160) == "好"
    ratios = [memory._correction.ratio(name) for name in ("ernie-5.1", "ernie-speed")]
    assert ratios == [1.5, 0.8]
    # Without options, it is the client's.
    server.script(told("x", 100))
    responder = ChatResponder(client.with_options(model="ernie-lite"), memory=memory)
    assert await responder.reply(chat_of(), user=7, text="字" * 80) == "好"
    assert memory._correction.ratio("ernie-lite") == 2


async def test_too_long_a_prompt_is_shortened_once(client: AsyncClient, server: MockErnie) -> None:
    responder = ChatResponder(client, memory=MemoryStore(), wording=ENGLISH)
    for n in range(4):
        await responder.reply(chat_of(), user=7, text=str(n))
    server.script(refuse(400, "tokens_too_long"), reply("好"))
    chat = chat_of()
    assert await responder.reply(chat, user=7, text="新") == "好"
    assert shown(chat) == "好\n\n(Older messages were left out.)"
    sent = [len(seen.json["messages"]) for seen in server.requests[-2:]]
    assert sent == [9, 7]
    chat = chat_of()
    assert await responder.reply(chat, user=7, text="长" * 50_000) is None
    assert shown(chat) == "This message is too long for me. Please send a shorter one."


async def test_tools_are_called_and_remembered(client: AsyncClient, server: MockErnie) -> None:
    box = Toolbox()

    @box.tool
    async def weather(city: str) -> str:
        return f"{city}晴"

    call = {"function": {"name": "weather", "arguments": {"city": "北京"}}}
    server.script(reply(tool_calls=[call]), reply("北京是晴天。"))
    responder = ChatResponder(
        client, memory=MemoryStore(), tools=box, options=ChatOptions(model="m")
    )
    chat = chat_of()
    assert await responder.reply(chat, user=7, text="天气？") == "北京是晴天。"
    roles = [m.role for m in await responder.memory.export(("fake", 1, 7))]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert {seen.json["model"] for seen in server.requests} == {"m"}


async def test_pictures_are_shown_to_the_model(client: AsyncClient, server: MockErnie) -> None:
    class WithPicture(FakeChat):
        async def images(self) -> list[bytes]:
            return [PNG]

    chat = WithPicture(caps(platform=QUICK), least=0.02, latency=0.002)
    responder = ChatResponder(client, memory=MemoryStore())
    assert await responder.reply(chat, user=7, text="") is not None
    picture, text = server.requests[0].json["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"] == "请描述这张图片。"
    other = chat_of()
    assert await responder.reply(other, user=7, text="?", images=[b"no picture"]) is None
    assert shown(other).startswith("这张图片无法识别")

    class Lost(FakeChat):
        async def images(self) -> list[bytes]:
            raise PlatformError("file is gone")

    other = Lost(chat.caps, least=0.02, latency=0.002)
    assert await responder.reply(other, user=7, text="?") is None
    assert shown(other).startswith("这张图片无法识别")


@pytest.mark.parametrize("text", ["", " \n"])
async def test_a_message_with_nothing_to_read_is_not_answered(
    client: AsyncClient, server: MockErnie, text: str
) -> None:
    chat = chat_of()
    responder = ChatResponder(client, memory=MemoryStore())
    assert await responder.reply(chat, user=7, text=text) is None
    assert (shown(chat), server.requests) == ("", [])
    assert await responder.memory.export(("fake", 1, 7)) == []


async def test_a_missing_key_is_one_warning_and_a_friendly_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("QIANFAN_API_KEY", "QIANFAN_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    async with ChatResponder(AsyncClient) as responder:
        for _ in range(2):
            chat = chat_of()
            assert await responder.reply(chat, user=7, text="你好") is None
            assert shown(chat) == "机器人还没有配置好，请联系管理员。"
    assert [r.levelno for r in caplog.records if "cannot answer" in r.message] == [logging.WARNING]


async def test_shutting_down_delivers_the_last_state(server: MockErnie) -> None:
    server.script(reply("很长的回答" * 200, chunk_ms=10))
    chat = chat_of()
    async with ChatResponder(lambda: AsyncClient("k", base_url=server.base_url)) as responder:
        task = asyncio.create_task(responder.reply(chat, user=7, text="讲"))
        await until(lambda: chat.messages)
    assert task.done()
    assert task.result() is None
    assert shown(chat).endswith("（已停止。）")
    await server.wait_idle()


async def test_the_filter_of_the_client_is_at_work(server: MockErnie) -> None:
    words = ContentFilter.from_terms(["坏话"], action="mask", replacement="*")
    server.script(reply("不说坏话，" * 20, chunk_ms=2))
    async with AsyncClient("k", base_url=server.base_url, content_filter=words) as client:
        chat = chat_of()
        answer = await ChatResponder(client, memory=MemoryStore()).reply(chat, user=7, text="讲")
    assert answer == shown(chat)
    assert "坏" not in str(chat.calls)
    assert "不说*" in shown(chat)


async def test_a_reset_forgets(client: AsyncClient) -> None:
    responder = ChatResponder(client, memory=MemoryStore())
    await responder.reply(chat_of(), user=7, text="你好")
    chat = chat_of()
    await responder.reply(chat, user=7, text="/reset")
    assert shown(chat) == "好的，我们重新开始。"
    assert await responder.memory.export(("fake", 1, 7)) == []


def test_instructions_have_one_place() -> None:
    with pytest.raises(ConfigError, match="system: this Memory has its own"):
        ChatResponder(AsyncClient, memory=Memory(system="a"), system="b")


@pytest.mark.parametrize(
    "error",
    [
        FloodError("x", retry_after=3.0),
        UndeliveredError("x", rest="y"),
        StoppedError("x"),
        BusyError("x"),
        MessageTooLongError("x"),
    ],
)
def test_errors_can_be_pickled(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
