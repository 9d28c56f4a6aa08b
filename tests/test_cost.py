"""What a client counts: calls, tokens and money, streamed or not."""

import pytest

from ernie_async import APIError, AsyncClient, Client, ConfigError, Price, Prices, RetryPolicy
from ernie_async.testing import MockErnie, cut, refuse, reply

TABLE = Prices({"m": Price(1, 2)})
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
MONEY = pytest.approx(1000e-6 + 1000e-6)


def client_of(server: MockErnie, **settings) -> AsyncClient:
    once = RetryPolicy(attempts=1)
    return AsyncClient(
        "k", base_url=server.base_url, model="m", retry=once, prices=TABLE, **settings
    )


@pytest.mark.anyio
async def test_every_way_to_chat_is_counted_once(server: MockErnie) -> None:
    server.default(reply("好", usage=USAGE))
    async with client_of(server) as client:
        answer = await client.chat("hi")
        assert answer.cost(TABLE) == MONEY
        assert client.totals[:4] == (1, 1000, 0, 500)
        async with client.stream("hi", stream_options={"include_usage": True}) as stream:
            await stream.final()
        assert client.totals.cost == pytest.approx(2 * 2000e-6)
        await client.with_options(model="other").chat("hi")
        await client.list_models()
        assert (client.totals.calls, client.totals.unpriced_calls) == (3, 1)
        assert client.totals.estimated_calls == 0


@pytest.mark.anyio
async def test_what_the_service_does_not_tell_is_estimated(server: MockErnie) -> None:
    server.script(reply("你好你好你好你好"))
    async with client_of(server) as client:
        async for _ in client.stream("hi there"):
            pass
        assert client.totals[:5] == (1, 2, 0, 5, 1)


@pytest.mark.anyio
async def test_broken_answer_counts_as_far_as_it_came_and_a_refusal_does_not(
    server: MockErnie,
) -> None:
    server.script(refuse(400), cut(after_chunks=3, of=reply("你好你好你好你好")))
    async with client_of(server, resume="never") as client:
        with pytest.raises(APIError):
            await client.chat("hi")
        assert client.totals.calls == 0
        with pytest.raises(Exception, match="cut"):
            async for _ in client.stream("hi"):
                pass
        assert client.totals.calls == client.totals.estimated_calls == 1
        assert client.totals.completion_tokens > 0


@pytest.mark.anyio
async def test_estimates_learn_from_answers(server: MockErnie) -> None:
    prompt = "word " * 100
    server.default(reply("好", usage={**USAGE, "prompt_tokens": 150}))
    async with client_of(server) as client:
        assert client.estimate_tokens(prompt) == 100
        await client.chat(prompt)
        assert client.estimate_tokens(prompt) == 150
        assert client.estimate_tokens(prompt, model="other") == 100
        # Tools and pictures count for tokens that the estimate does not see.
        tool = {"type": "function", "function": {"name": "f"}}
        server.default(reply("好", usage={**USAGE, "prompt_tokens": 390}))
        await client.chat(prompt, tools=[tool])
        assert client.estimate_tokens(prompt) == 150
        async with client.stream(prompt, stream_options={"include_usage": True}) as stream:
            await stream.final()
        assert client.estimate_tokens(prompt) == 180


def test_sync_client_counts_the_same(mock_ernie: MockErnie) -> None:
    mock_ernie.script(reply("好", usage=USAGE))
    with Client("k", base_url=mock_ernie.base_url, model="m", prices=TABLE) as client:
        client.chat("hi")
        assert (client.totals.cost, client.estimate_tokens("a b")) == (MONEY, 2)


def test_prices_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="prices: expected Prices"):
        AsyncClient("k", prices={"m": 1})  # type: ignore[arg-type]
