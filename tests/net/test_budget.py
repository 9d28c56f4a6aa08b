"""Budgets around calls: who counts, what is cut, what is left behind."""

import asyncio
import threading

import pytest

from ernie_async import (
    AsyncClient,
    Budget,
    BudgetError,
    Client,
    ConfigError,
    Limits,
    Price,
    Prices,
    RetryPolicy,
)
from ernie_async.testing import MockErnie, raw, refuse, reply, stall
from tests.waiting import until

TABLE = Prices({"m": Price(1, 2), "text": Price(1, 0)})
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
WITH_USAGE = {"stream_options": {"include_usage": True}}


def client_of(server: MockErnie, **settings) -> AsyncClient:
    given = {"model": "m", "prices": TABLE, "retry": RetryPolicy(attempts=1), **settings}
    return AsyncClient("k", base_url=server.base_url, **given)


@pytest.mark.anyio
async def test_what_is_used_counts_and_then_no_call_begins(server: MockErnie) -> None:
    server.default(reply("好", usage=USAGE))
    async with client_of(server) as client:
        async with client.budget(tokens=300, cost=1.0) as budget:
            await client.chat("hi")
            assert (budget.tokens, budget.cost) == (150, pytest.approx(200e-6))
            await client.stream("hi", **WITH_USAGE).text()
            assert budget.is_spent
            for ask in (
                client.chat("hi"),
                client.stream("hi").text(),
                client.embed("hi", model="m"),
            ):
                with pytest.raises(BudgetError, match="300 of 300 tokens") as caught:
                    await ask
                assert (caught.value.tokens, caught.value.partial) == (300, None)
        assert server.requests_made == 2
        assert (await client.chat("hi")).text == "好"
        assert budget.tokens == 300


@pytest.mark.anyio
async def test_a_stream_is_cut_when_it_is_spent(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply("字" * 400, chunk_ms=5))
    read = []
    async with client.budget(tokens=20) as budget:
        with pytest.raises(BudgetError) as caught:
            async for chunk in client.stream("hi"):
                read.append(chunk.text)
    await server.wait_idle(connections=True)
    assert server.requests[0].ended == "client_gone"
    assert 20 <= budget.tokens <= 30
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(read)
    assert caught.value.partial.usage.is_estimate
    assert caught.value.request_id


@pytest.mark.anyio
async def test_a_whole_answer_is_not_cut_for_its_last_token(server: MockErnie) -> None:
    last = b'{"choices":[{"delta":{"content":"word word word"},"finish_reason":"stop"}]}'
    told = b'{"choices":[],"usage":{"total_tokens":150}}'
    server.script(raw([b"data: " + event + b"\n\n" for event in (last, told, b"[DONE]")]))
    async with client_of(server) as client, client.budget(tokens=3) as budget:
        assert await client.stream("hi").text() == "word word word"
        assert budget.tokens == 150


@pytest.mark.anyio
async def test_budgets_nest_and_tasks_begun_inside_count(server: MockErnie) -> None:
    server.default(reply("好", usage=USAGE))
    async with client_of(server) as client, client.budget(tokens=10_000) as outer:
        await client.chat("hi")
        async with client.budget(cost=1.0) as inner:
            await asyncio.gather(*(client.chat(f"hi {n}") for n in range(3)))
            background = asyncio.create_task(client.chat("hi"))
        await background
        await client.chat("hi")
        assert (inner.tokens, outer.tokens) == (4 * 150, 6 * 150)
        async with client.budget(tokens=1), client.budget(tokens=9999):
            await client.chat("hi")
            with pytest.raises(BudgetError, match="of 1 tokens"):
                await client.chat("hi")


@pytest.mark.anyio
async def test_one_budget_may_be_entered_by_many(server: MockErnie) -> None:
    server.default(reply("好", usage=USAGE))
    async with client_of(server) as client:
        budget = client.budget(tokens=10_000)

        async def work() -> None:
            async with budget, budget:
                await client.chat("hi")

        await asyncio.gather(*(work() for _ in range(5)))
        await client.chat("hi")
        assert budget.tokens == 5 * 150


@pytest.mark.anyio
async def test_other_clients_do_not_count_but_changed_ones_do(server: MockErnie) -> None:
    server.default(reply("好", usage=USAGE))
    async with client_of(server) as client, client_of(server) as other:
        async with client.budget(tokens=1000) as budget:
            await other.chat("hi")
            assert budget.tokens == 0
            await client.with_options(model="text").chat("hi")
            assert budget.tokens == 150


@pytest.mark.anyio
async def test_failures_and_retries_cost_nothing(server: MockErnie) -> None:
    server.script(refuse(500), refuse(500), reply("好", usage=USAGE))
    retry = RetryPolicy(attempts=3, base_delay=0.001)
    async with client_of(server, retry=retry, hooks=[lambda record: None]) as client:
        async with client.budget(tokens=1000) as budget:
            await client.chat("hi there")
            assert budget.tokens == 150
            server.script(refuse(400), refuse(400))
            with pytest.raises(Exception, match="400"):
                await client.chat("hi there")
            with pytest.raises(Exception, match="400"):
                await client.stream("hi there").text()
            assert budget.tokens == 150


@pytest.mark.anyio
async def test_prompts_under_way_are_set_aside(server: MockErnie) -> None:
    server.default(stall(before_headers=True))
    async with client_of(server) as client, client.budget(tokens=250) as budget:
        tasks = [asyncio.create_task(client.chat("word " * 100)) for _ in range(5)]
        await until(lambda: server.requests_made == 3)
        await asyncio.sleep(0.05)
        assert (server.requests_made, budget.tokens) == (3, 300)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(error, BudgetError) for error in ended) == 2
        assert budget.tokens == 0


@pytest.mark.anyio
async def test_a_call_in_line_is_refused_and_leaves_its_place(server: MockErnie) -> None:
    server.script(reply("好", usage=USAGE, first_ms=100))
    async with client_of(server, limits=Limits(concurrency=1)) as client:
        async with client.budget(tokens=150):
            first, second = await asyncio.gather(
                client.chat("hi"), client.chat("hi"), return_exceptions=True
            )
        assert not isinstance(first, BaseException)
        assert isinstance(second, BudgetError)
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
        assert server.requests_made == 1


@pytest.mark.anyio
async def test_another_model_is_billed_at_its_own_price(server: MockErnie) -> None:
    server.script(refuse(500), reply("好", usage=USAGE))
    async with client_of(server) as client, client.budget(cost=1.0) as budget:
        await client.chat("hi", fallback=["unpriced", "text"])
        assert budget.cost == pytest.approx(100e-6)
    assert [seen.json["model"] for seen in server.requests] == ["m", "text"]


@pytest.mark.anyio
async def test_money_needs_a_price(server: MockErnie) -> None:
    async with client_of(server) as client, client.budget(cost=1.0):
        with pytest.raises(ConfigError, match="unpriced has no price"):
            await client.chat("hi", model="unpriced")
        await client.list_models()
    assert server.requests_made == 1


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(ConfigError, match="tokens=, cost= or both"):
        AsyncClient("k").budget()


def test_plain_client_counts_the_calls_of_its_thread(mock_ernie: MockErnie) -> None:
    mock_ernie.default(reply("字" * 40, usage=USAGE, chunk_ms=2))
    with Client("k", base_url=mock_ernie.base_url, model="m", prices=TABLE) as client:
        with client.budget(tokens=200) as budget:
            assert isinstance(budget, Budget)
            client.chat("hi")
            thread = threading.Thread(target=client.chat, args=("hi",))
            thread.start()
            thread.join()
            assert budget.tokens == 150
            with pytest.raises(BudgetError), client.stream("hi" * 40) as stream:
                for _ in range(2):
                    for _ in stream:
                        pass
                    client.chat("hi")
        client.chat("hi")


@pytest.mark.anyio
async def test_a_stream_that_may_not_be_resumed_any_more_says_so(server: MockErnie) -> None:
    broken = 'retry: 500\n\ndata: {"choices": [{"delta": {"content": "床前"}}]}\n\n'
    server.script(raw(broken.encode()), reply("好", usage=USAGE))
    async with client_of(server, resume="continue", retry=RetryPolicy()) as client:
        with pytest.raises(BudgetError) as caught:
            async with client.budget(tokens=60):
                stream = client.stream("hi")
                await anext(stream)
                reading = asyncio.create_task(stream.text())
                await asyncio.sleep(0.05)
                await client.chat("spends all")
                await reading
    assert caught.value.partial is not None
    assert caught.value.partial.text == "床前"
