"""Other models when one cannot answer: before an answer, and in the middle of one."""

import pickle

import pytest
from pydantic import BaseModel

from ernie_async import (
    AsyncClient,
    AuthError,
    CallEnded,
    Client,
    ConfigError,
    FellBack,
    Hedging,
    InterruptedStreamError,
    Limits,
    NotFoundError,
    Price,
    Prices,
    QuotaError,
    Record,
    RetryPolicy,
    ServerError,
    StreamResumed,
    Timeouts,
)
from ernie_async.testing import MockErnie, Step, cut, error_event, refuse, reply, stall

ONCE = RetryPolicy(attempts=1)
TABLE = Prices({"a": Price(1, 2), "b": Price(10, 20)})
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}


def client_of(server: MockErnie, **settings) -> AsyncClient:
    given = {"model": "a", "retry": ONCE, "fallback": ["b", "c"], "prices": TABLE, **settings}
    given.setdefault("timeouts", Timeouts(connect=2, first_event=0.3, idle=0.5))
    return AsyncClient("k", base_url=server.base_url, **given)


def models(server: MockErnie) -> list[str]:
    return [seen.json["model"] for seen in server.requests]


FAILS: dict[str, Step] = {
    "overload": refuse(429, "cluster_rate_limit_exceeded"),
    "server error": refuse(500),
    "quota of a minute": refuse(429, "rpm_rate_limit_exceeded"),
    "in arrears": refuse(403, "account_overdue"),
    "retired": refuse(403, "model_offline"),
    "unknown": refuse(401, "invalid_model"),
    "an error in a good answer": error_event("internal_error"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("step", FAILS.values(), ids=FAILS.keys())
async def test_the_next_model_answers(server: MockErnie, step: Step) -> None:
    records: list[Record] = []
    server.script(step, reply("好"), step, reply("好"))
    async with client_of(server, hooks=[records.append]) as client:
        answer = await client.chat("hi", temperature=0.5)
        stream = client.stream("hi", temperature=0.5)
        streamed = await stream.final()
    assert (answer.text, streamed.text) == ("好", "好")
    assert answer.fell_back_from == stream.fell_back_from == streamed.fell_back_from == ("a",)
    assert models(server) == ["a", "b", "a", "b"]
    assert {seen.json["temperature"] for seen in server.requests} == {0.5}
    told = [record for record in records if isinstance(record, FellBack)]
    assert [(record.from_model, record.to_model) for record in told] == [("a", "b")] * 2
    # One call each: what observers count is what the program asked for.
    ended = [record for record in records if isinstance(record, CallEnded)]
    assert [(record.outcome, record.timing.attempts) for record in ended] == [("ok", 2)] * 2


@pytest.mark.anyio
@pytest.mark.parametrize("step", [refuse(400), refuse(401), refuse(404, body="404 page not found")])
async def test_what_no_other_model_would_mend_is_raised(server: MockErnie, step: Step) -> None:
    server.script(step, step)
    async with client_of(server) as client:
        with pytest.raises((AuthError, NotFoundError, ConfigError, Exception)) as caught:
            await client.chat("hi")
        with pytest.raises(type(caught.value)):
            await client.stream("hi").text()
    assert models(server) == ["a", "a"]


@pytest.mark.anyio
async def test_silence_before_the_first_event_counts(server: MockErnie) -> None:
    server.script(stall(), reply("好"))
    async with client_of(server) as client:
        assert await client.stream("hi").text() == "好"
        assert client.totals.calls == 1
    assert models(server) == ["a", "b"]


@pytest.mark.anyio
async def test_each_model_is_asked_as_often_as_the_policy_says(server: MockErnie) -> None:
    server.default(refuse(500))
    async with client_of(server, retry=RetryPolicy(attempts=2, base_delay=0.001)) as client:
        for ask in (client.chat("hi"), client.stream("hi").text()):
            with pytest.raises(ServerError) as caught:
                await ask
            told = [attempt.model for attempt in caught.value.attempts]
            assert told == ["a", "a", "b", "b", "c", "c"]
            assert "a: ServerError: 500" in str(caught.value)
            assert "c: ServerError: 500" in str(caught.value)
            assert pickle.loads(pickle.dumps(caught.value)).attempts == caught.value.attempts


@pytest.mark.anyio
async def test_another_client_answers_with_its_own_key_and_limits(server: MockErnie) -> None:
    async with (
        MockErnie(api_key="other-key") as other_server,
        AsyncClient(
            "other-key",
            base_url=other_server.base_url,
            server="vllm",
            model="x",
            limits=Limits(concurrency=1),
            prices=Prices({"big": Price(1, 1)}),
        ) as other,
        client_of(server, fallback=[(other, "big")]) as client,
    ):
        server.default(refuse(500))
        answer = await client.chat("hi", enable_thinking=True, extra_body={"model": "zzz"})
        assert answer.fell_back_from == ("a",)
        assert await client.stream("hi").text()
        seen = other_server.requests[0].json
        assert (seen["model"], seen["chat_template_kwargs"]) == ("big", {"enable_thinking": True})
        assert (client.totals.calls, other.totals.calls) == (0, 2)
        assert other.totals.unpriced_calls == 0
        assert other.limiter is not None
        assert other.limiter.in_flight == 0


@pytest.mark.anyio
async def test_a_host_that_is_not_there(server: MockErnie) -> None:
    async with client_of(server) as other:
        async with AsyncClient("k", base_url="http://127.0.0.1:1", model="a", retry=ONCE) as client:
            answer = await client.chat("hi", fallback=["b", (other, "c")])
            assert answer.fell_back_from == ("a", "b")
            assert await client.stream("hi", fallback=[(other, "c")]).text()


@pytest.mark.anyio
async def test_a_call_may_name_its_own(server: MockErnie) -> None:
    server.script(refuse(500), reply("好"), refuse(500), refuse(500), reply("好"))
    async with client_of(server, fallback=()) as client:
        assert (await client.chat("hi", fallback=["z"])).text == "好"
        with pytest.raises(ServerError):
            await client.chat("hi")
        assert (await client.with_options(fallback=["y"]).stream("hi").text()) == "好"
    assert models(server) == ["a", "z", "a", "a", "y"]


@pytest.mark.anyio
async def test_parse_falls_back_too(server: MockErnie) -> None:
    class Point(BaseModel):
        x: int

    server.script(refuse(500), reply('{"x": 1}'), refuse(500), reply('{"x": 2}'))
    async with client_of(server) as client:
        assert (await client.parse("hi", into=Point)).x == 1
        assert (await client.stream_parse("hi", into=Point).final()).x == 2
    assert models(server) == ["a", "b", "a", "b"]


@pytest.mark.anyio
async def test_nothing_is_asked_again_once_text_was_delivered(server: MockErnie) -> None:
    server.script(cut(after_chunks=3))
    async with client_of(server, resume="server") as client:
        with pytest.raises(InterruptedStreamError) as caught:
            await client.stream("hi").text()
    assert models(server) == ["a"]
    assert caught.value.partial is not None


@pytest.mark.anyio
async def test_another_model_goes_on_if_the_policy_allows(server: MockErnie) -> None:
    records: list[Record] = []
    server.script(
        cut(after_chunks=4, of=reply("床前明月光，疑是地上霜。")),
        refuse(500),
        reply("疑是地上霜。", usage=USAGE),
    )
    async with client_of(server, resume="continue", hooks=[records.append]) as client:
        stream = client.stream("背诗", stream_options={"include_usage": True})
        answer = await stream.final()
        totals = client.totals
    assert answer.text.startswith("床前明月光")
    assert answer.text.endswith("疑是地上霜。")
    assert stream.fell_back_from == ("a",)
    assert [resume.how for resume in stream.resumes] == ["emulated"]
    assert models(server) == ["a", "a", "b"]
    assert server.requests[2].json["messages"][1]["role"] == "assistant"
    kinds = [type(record) for record in records if isinstance(record, FellBack | StreamResumed)]
    assert kinds == [FellBack, StreamResumed]
    # Each model is billed what it used: the first one by our estimate, the second one as told.
    assert (totals.calls, totals.estimated_calls) == (2, 1)
    assert totals.cost == pytest.approx(
        ((totals.prompt_tokens - 100) * 1 + (totals.completion_tokens - 50) * 2 + 2000) / 1e6
    )
    assert answer.usage.total_tokens == totals.total_tokens


@pytest.mark.anyio
async def test_if_no_model_can_go_on_the_first_error_stands(server: MockErnie) -> None:
    server.script(cut(after_chunks=4))
    server.default(refuse(500))
    async with client_of(server, resume="continue") as client:
        with pytest.raises(InterruptedStreamError) as caught:
            await client.stream("hi").text()
        assert [attempt.model for attempt in caught.value.attempts] == ["a", "a", "b", "c"]
        assert caught.value.partial is not None
        assert client.totals.calls == 1
        assert caught.value.partial.usage.total_tokens == client.totals.total_tokens


@pytest.mark.anyio
async def test_the_whole_call_has_one_clock(server: MockErnie) -> None:
    server.default(stall())
    timeouts = Timeouts(first_event=0.2, total=0.5)
    async with client_of(server, timeouts=timeouts, fallback=["b", "c", "d", "e"]) as client:
        with pytest.raises(TimeoutError, match=r"0\.5 s"):
            await client.stream("hi").text()
    assert 2 <= len(models(server)) <= 3


@pytest.mark.parametrize("wrong", [["a", 1], [("k", "m")], "abc", [""], [("a", "b", "c")]])
def test_wrong_names_are_clear_errors(wrong) -> None:
    with pytest.raises(ConfigError, match="fallback: expected a list of models"):
        AsyncClient("k", fallback=wrong)
    with pytest.raises(ConfigError, match="fallback: expected a list of models"):
        AsyncClient("k").stream("hi", fallback=wrong)


def test_the_plain_client_falls_back_to_others(mock_ernie: MockErnie) -> None:
    mock_ernie.script(refuse(403, "model_offline"), reply("好"), refuse(500), reply("好"))
    url = mock_ernie.base_url
    with (
        Client("k2", base_url=url) as other,
        Client("k", base_url=url, fallback=[(other, "b")]) as c,
    ):
        assert c.chat("hi").fell_back_from == ("ernie-5.1",)
        with c.with_options(retry=ONCE).stream("hi") as stream:
            assert stream.text() == "好"
            assert stream.fell_back_from == ("ernie-5.1",)
    assert mock_ernie.requests[1].headers["Authorization"] == "Bearer k2"


@pytest.mark.anyio
async def test_quota_of_one_client_is_not_that_of_another(server: MockErnie) -> None:
    server.default(refuse(403, "account_overdue"))
    async with client_of(server, fallback=["b"]) as client:
        with pytest.raises(QuotaError) as caught:
            await client.chat("hi")
    assert len(caught.value.attempts) == 2


@pytest.mark.anyio
async def test_a_model_that_cannot_be_asked_is_named(server: MockErnie) -> None:
    server.script(refuse(500))
    async with client_of(server, fallback=["without a price"]) as client:
        with pytest.raises(ServerError, match="without a price") as caught:
            async with client.budget(cost=1.0):
                await client.chat("hi")
    assert [attempt.model for attempt in caught.value.attempts] == ["a", None]
    assert "ConfigError" in caught.value.attempts[1].error


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["chat", "stream"])
async def test_each_client_hedges_for_itself(server: MockErnie, kind: str) -> None:
    server.script(refuse(500), reply("好", first_ms=200))
    patient, policy = AsyncClient("k", base_url=server.base_url), Hedging(after=0.05, share=1.0)
    async with patient, client_of(server, hedge=policy, fallback=[(patient, "b")]) as client:
        if kind == "chat":
            await client.chat("hi")
        else:
            await client.stream("hi").text()
    assert models(server) == ["a", "b"]
