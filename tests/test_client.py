"""The client's verbs and settings: what is sent, what is read, what travels."""

import asyncio
import copy
import multiprocessing
import pickle
import subprocess
import sys

import anyio
import pytest

from ernie_async import (
    AsyncClient,
    BadRequestError,
    CallEnded,
    CallStarted,
    ChatRequest,
    Client,
    ConfigError,
    Limiter,
    Limits,
    NotFoundError,
    Record,
    RetryPolicy,
    RetryScheduled,
    Timeouts,
    system,
    user,
)
from ernie_async.testing import MockErnie, error_event, refuse, reply, stall

KEY_NAMES = ["QIANFAN_API_KEY", "QIANFAN_BEARER_TOKEN", "QIANFAN_BASE_URL", "QIANFAN_MODEL"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY_NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.anyio
async def test_the_type_of_the_body_is_ours_to_say(server: MockErnie, client: AsyncClient) -> None:
    for name in ("Content-Type", "content-type"):
        await client.chat("hi", extra_headers={name: "text/plain", "X-Trace": "t"})
        told = {key.lower(): value for key, value in server.requests[-1].headers.items()}
        assert (told["content-type"], told["x-trace"]) == ("application/json", "t")


@pytest.mark.anyio
async def test_only_what_the_caller_set_is_sent(server: MockErnie, client: AsyncClient) -> None:
    await client.chat("你好", temperature=0.3, top_p=None)
    assert server.requests[0].json == {
        "messages": [{"role": "user", "content": "你好"}],
        "temperature": 0.3,
        "model": "ernie-5.1",
    }
    await client.stream([system("简短"), user("你好")], model="m").text()
    assert server.requests[1].json == {
        "messages": [
            {"role": "system", "content": "简短"},
            {"role": "user", "content": "你好"},
        ],
        "model": "m",
        "stream": True,
    }


@pytest.mark.anyio
async def test_options_win_over_a_request_and_extra_body_over_all(
    server: MockErnie, client: AsyncClient
) -> None:
    request = ChatRequest(messages=[user("hi")], model="a", temperature=1.0, top_p=0.5)
    await client.chat(request, temperature=0.1, extra_body={"top_p": 9, "x_new": [1]})
    assert server.requests[0].json == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "a",
        "temperature": 0.1,
        "top_p": 9,
        "x_new": [1],
    }


@pytest.mark.anyio
async def test_an_answer_can_be_replayed(server: MockErnie, client: AsyncClient) -> None:
    server.script(reply("晴", reasoning="想想"))
    history = [user("天气?")]
    answer = await client.chat(history)
    assert answer.reasoning == "想想"
    await client.chat([*history, answer.message, user("明天?")])
    assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": "晴"}


@pytest.mark.anyio
async def test_request_id_headers_and_app_id_are_sent(server: MockErnie) -> None:
    async with AsyncClient("k", base_url=server.base_url, app_id="app-1") as client:
        answer = await client.chat("hi", request_id="mine", extra_headers={"X-Trace": "t"})
        await client.chat("hi")
    first, second = (seen.headers for seen in server.requests)
    assert (first["X-Request-Id"], first["X-Trace"], first["appid"]) == ("mine", "t", "app-1")
    assert first["Authorization"] == "Bearer k"
    assert first["Content-Type"] == "application/json"
    assert second["X-Request-Id"].startswith("ea-")
    assert answer.request_id == answer.id


@pytest.mark.anyio
async def test_request_reaches_any_endpoint(server: MockErnie, client: AsyncClient) -> None:
    listed = await client.request("GET", "/models")
    assert listed["object"] == "list"
    answered = await client.request(
        "POST",
        "/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "x"}]},
    )
    assert answered["choices"]
    server.script(error_event("rpm_rate_limit_exceeded"), reply())
    assert await client.request(
        "POST",
        "/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "x"}]},
    )
    assert (await client.list_models())[0].id == "ernie-5.1"


@pytest.mark.anyio
async def test_base_url_may_have_more_segments(server: MockErnie) -> None:
    async with AsyncClient("k", base_url=f"{server.base_url}/coding/") as client:
        await client.chat("hi")
    assert server.requests[0].path == "/v2/coding/chat/completions"


@pytest.mark.anyio
async def test_the_environment_is_read_when_the_client_is_made(
    server: MockErnie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QIANFAN_API_KEY", "from-env")
    monkeypatch.setenv("QIANFAN_BASE_URL", server.base_url)
    monkeypatch.setenv("QIANFAN_MODEL", "env-model")
    async with AsyncClient() as client:
        monkeypatch.delenv("QIANFAN_API_KEY")
        await client.chat("hi")
    assert server.requests[0].headers["Authorization"] == "Bearer from-env"
    assert server.requests[0].json["model"] == "env-model"


@pytest.mark.anyio
async def test_a_foreign_server_needs_no_key(server: MockErnie) -> None:
    async with AsyncClient(base_url=server.base_url) as client:
        await client.chat("hi")
    assert "Authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "no API key"),
        ({"base_url": "https://aip.baidubce.com/rpc/2.0"}, "shut down on 2026-08-31"),
        ({"api_key": "24." + "a" * 32 + ".2592000.1700000000.282335-1234"}, "access_token"),
        ({"api_key": "ALTAK" + "a" * 21}, "access key id"),
        ({"api_key": "k\n"}, None),
        ({"api_key": "k k"}, "without blanks"),
        ({"base_url": "qianfan.baidubce.com/v2"}, "expected something like"),
        ({"base_url": "http://h/v2/chat/completions"}, "leave out /chat/completions"),
        ({"api_key": "k", "proxy": "socks5://h:1"}, "socks5 proxies are not built in"),
    ],
)
def test_a_wrong_setting_is_a_clear_error_when_the_client_is_made(
    arguments: dict[str, str], said: str | None
) -> None:
    if said is None:
        AsyncClient(**arguments)
        return
    with pytest.raises(ConfigError, match=said):
        AsyncClient(**arguments)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"timeouts": 30}, "timeouts: expected Timeouts, got 30"),
        ({"timeouts": None}, "timeouts: expected Timeouts, got None"),
        ({"retry": 3}, "retry: expected RetryPolicy, got 3"),
        ({"base_url": b"x"}, "base_url: expected str, got b'x'"),
        ({"model": 3}, "model: expected str, got 3"),
        ({"hooks": print}, "hooks: expected a list of functions, got <built-in"),
        ({"hooks": ["a"]}, "hooks: expected a list of functions, got "),
        ({"limits": {"concurrency": 1}}, "limits: expected Limits or Limiter"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_a_clear_error(settings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AsyncClient("k", **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"timeout": 30}, r"timeout: no such setting; pass timeouts=Timeouts\(...\)"),
        ({"max_retries": 2}, r"max_retries: .* pass retry=RetryPolicy\(attempts=...\)"),
        ({"ak": "a", "sk": "b"}, r"ak: no such setting; pass api_key=IamKeys\(...\)$"),
        ({"temperature": 0.3}, "temperature: no such setting; give it to each call"),
        ({"proxi": "x"}, "proxi: no such setting; did you mean proxy?"),
        ({"colour": "red"}, "colour: no such setting$"),
    ],
)
@pytest.mark.parametrize("face", [AsyncClient, Client])
def test_a_setting_that_does_not_exist_says_which_one_is_meant(face, settings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        face("k", **settings)


def test_with_options_takes_no_other_names() -> None:
    with pytest.raises(ConfigError, match="with_options: retries: expected some of model"):
        AsyncClient("k").with_options(retries=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 3}, r"temperature: expected a number from 0 to 2, got 3"),
        ({"temprature": 1}, r"temprature: no such field; did you mean temperature\?"),
        ({"stream": True}, r"call client\.stream"),
        ({"timeout": 3}, r"pass timeouts=Timeouts"),
        ({"extra_headers": {"Authorization": "x"}}, "give the credential as api_key"),
        ({"extra_headers": {"X": "a\nb"}}, "printable ASCII"),
        ({"extra_body": {"x": float("nan")}}, "x is nan"),
        ({"user": "\ud800"}, "half a character"),
        ({"request_id": "a\nb"}, "request_id: .*printable ASCII"),
        ({"request_id": 7}, "request_id: .*printable ASCII"),
        ({"extra_headers": {"X": 1}}, "extra_headers: 'X': expected printable ASCII, got 1"),
    ],
)
def test_a_wrong_option_is_a_clear_error_before_anything_is_sent(options, said: str) -> None:
    client = AsyncClient("k")
    with pytest.raises(ConfigError, match=said):
        client.stream("hi", **options)


@pytest.mark.anyio
async def test_stream_options_belong_to_streams(client: AsyncClient) -> None:
    with pytest.raises(ConfigError, match=r"only for client\.stream"):
        await client.chat("hi", stream_options={"include_usage": True})


@pytest.mark.anyio
async def test_with_options_shares_connections_and_limiter(server: MockErnie) -> None:
    async with AsyncClient(
        "k", base_url=server.base_url, limits=Limits(concurrency=1), model="a"
    ) as client:
        other = client.with_options(model="b", retry=RetryPolicy(attempts=1))
        await client.chat("hi")
        await other.chat("hi")
        assert other.limiter is client.limiter
    assert [seen.json["model"] for seen in server.requests] == ["a", "b"]
    assert server.connections_made == 1


@pytest.mark.anyio
async def test_pickle_and_deepcopy_carry_the_configuration(server: MockErnie) -> None:
    client = AsyncClient(
        "k",
        base_url=server.base_url,
        model="m",
        timeouts=Timeouts(idle=5),
        limits=Limits(concurrency=2),
    ).with_options(model="n")
    for twin in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client), copy.copy(client)):
        async with twin:
            await twin.chat("hi")
        assert repr(twin) == repr(client)
        assert server.requests[-1].json["model"] == "n"
    shared = Limiter(Limits(concurrency=2))
    assert copy.deepcopy(AsyncClient("k", limits=shared)).limiter is shared


def test_a_key_from_the_environment_is_not_in_the_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIANFAN_API_KEY", "planted")
    pickled = pickle.dumps(AsyncClient())
    assert b"planted" not in pickled
    monkeypatch.delenv("QIANFAN_API_KEY")
    with pytest.raises(ConfigError, match="no API key"):
        pickle.loads(pickled)


def ask_in_another_process(client: AsyncClient) -> str:
    import asyncio

    async def ask() -> str:
        async with client:
            return (await client.chat("hi")).text

    return asyncio.run(ask())


def test_a_client_works_in_a_spawned_process(mock_ernie: MockErnie) -> None:
    mock_ernie.script(reply("远方"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        client = AsyncClient("k", base_url=mock_ernie.base_url)
        assert pool.apply(ask_in_another_process, (client,)) == "远方"


@pytest.mark.anyio
async def test_hooks_are_told_everything(server: MockErnie) -> None:
    records: list[Record] = []
    server.script(refuse(503), reply("好", usage={"total_tokens": 7}))
    async with AsyncClient(
        "k",
        base_url=server.base_url,
        hooks=[records.append],
        retry=RetryPolicy(base_delay=0.001, attempts=2),
    ) as client:
        await client.chat("hi")
        server.script(refuse(400))
        with pytest.raises(BadRequestError):
            await client.stream("hi").text()
        server.script(stall(1))
        async for _ in client.stream("hi"):
            break
    kinds = [type(record) for record in records]
    assert kinds == [CallStarted, RetryScheduled, CallEnded] + [CallStarted, CallEnded] * 2
    ended = [record for record in records if isinstance(record, CallEnded)]
    assert [record.outcome for record in ended] == ["ok", "error", "cancelled"]
    assert ended[0].usage is not None
    assert ended[0].usage.total_tokens == 7
    assert ended[0].timing.attempts == 2
    assert ended[2].timing.first_token is not None
    assert len({record.call for record in records}) == 3


@pytest.mark.anyio
async def test_a_hook_that_fails_is_logged_and_costs_nothing(
    server: MockErnie, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(record: Record) -> None:
        raise ValueError(record)

    async with AsyncClient("k", base_url=server.base_url, hooks=[broken]) as client:
        assert (await client.chat("hi")).text
    assert caplog.text.count("a hook failed") == 2


@pytest.mark.anyio
async def test_headers_of_a_hook_that_cannot_be_sent_are_left_out(
    server: MockErnie, caplog: pytest.LogCaptureFixture
) -> None:
    class Hook:
        def __call__(self, record: Record) -> None:
            pass

        def headers(self, call: int) -> dict[str, str]:
            return {"X-Odd": "a\nb"}

    async with AsyncClient("k", base_url=server.base_url, hooks=[Hook()]) as client:
        assert (await client.chat("hi")).text
    assert "X-Odd" not in server.requests[0].headers
    assert "a hook failed on headers" in caplog.text


def run_program(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_making_a_client_opens_no_file_and_no_socket() -> None:
    run_program("""
import sys
from ernie_async import AsyncClient, Client
touched = []
sys.addaudithook(lambda event, args: touched.append((event, args))
                 if event.startswith(("open", "socket", "subprocess")) else None)
AsyncClient("k", ca_file="/nowhere.pem")
Client("k")
assert not touched, touched
""")


def test_importing_the_package_loads_no_wing_and_no_extra() -> None:
    run_program("""
import sys
import ernie_async
for name in ("ernie_async.testing", "ernie_async.local", "ernie_async.cli", "tenacity",
             "anyio.from_thread", "rich", "cyclopts", "xllamacpp", "pytest", "httpx"):
    assert name not in sys.modules, name
""")


def test_a_client_works_in_successive_loops_of_uvloop(mock_ernie: MockErnie) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop does not run here")
    client = AsyncClient("k", base_url=mock_ernie.base_url, limits=Limits(concurrency=5))

    async def use() -> None:
        texts = await asyncio.gather(*(client.stream("hi").text() for _ in range(20)))
        assert len(set(texts)) == 1
        async for _ in client.stream("hi"):
            break

    for _ in range(3):
        uvloop.run(use())
    anyio.run(lambda: mock_ernie.wait_idle(connections=True))
    assert mock_ernie.connections_made <= 3 * 6


@pytest.mark.anyio
async def test_a_bare_404_names_the_url(server: MockErnie) -> None:
    async with AsyncClient("k", base_url=f"{server.base_url}/wrong") as client:
        with pytest.raises(NotFoundError, match="/v2/wrong/nothing"):
            await client.request("GET", "/nothing")
