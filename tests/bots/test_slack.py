"""The adapter of Slack against the real slack-bolt and a Web API on loopback."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from bot_servers import FakeSlack

from ernie_async import AsyncClient
from ernie_async.bots import (
    ChatClosedError,
    ChatResponder,
    PlatformError,
    UndeliveredError,
    platform,
)
from ernie_async.testing import MockErnie, reply

pytest.importorskip("slack_bolt", reason="slack-bolt is not installed")
from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient

from ernie_async.bots.slack import SlackTransport
from ernie_async.bots.slack_files import download
from tests.waiting import until

pytestmark = pytest.mark.anyio

QUICK = replace(platform("slack"), interval=0.06)
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000010000000100802000000")
ANSWER = "**量子**纠缠。" * 100


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as server:
        yield server


async def ask(
    slack: FakeSlack, client: AsyncClient, mode: Any = None, files: Any = (), token: str = "xoxb-1"
) -> Any:
    """A user writes to a real app, with a real signature."""
    results: list[Any] = []
    web_client = AsyncWebClient(token=token, base_url=f"{slack.url}/api/")
    app = AsyncApp(client=web_client, signing_secret="secret", process_before_response=True)
    responder = ChatResponder(client, mode=mode)

    @app.event("message")
    async def on_message(event: Any, client: Any) -> None:
        transport = SlackTransport(client, event, limits=QUICK)
        try:
            results.append(
                await responder.reply(
                    transport, user=event["user"], chat=event["channel"], text=event["text"]
                )
            )
        except UndeliveredError as error:
            results.append(error)

    event = {
        "type": "message",
        "channel": "C1",
        "user": "U9",
        "text": "讲讲",
        "ts": "1.0",
        "team": "T1",
        "files": files,
    }
    body = json.dumps({"type": "event_callback", "team_id": "T1", "event": event})
    stamp = str(int(time.time()))
    signature = SignatureVerifier("secret").generate_signature(timestamp=stamp, body=body)
    headers = {
        "content-type": ["application/json"],
        "x-slack-signature": [signature or ""],
        "x-slack-request-timestamp": [stamp],
    }
    answer = await app.async_dispatch(AsyncBoltRequest(body=body, headers=headers))
    assert answer.status == 200
    await until(lambda: results)
    return results[0]


async def test_an_answer_grows_in_a_stream(
    slack: FakeSlack, client: AsyncClient, server: MockErnie
) -> None:
    server.script(reply(ANSWER, chunk_ms=3, chunk_chars=4))
    assert await ask(slack, client) == ANSWER
    assert slack.n_violations == 0
    assert list(slack.shown.values()) == [ANSWER]
    methods = [method for method, _ in slack.calls if method != "auth.test"]
    assert (methods[0], methods[1], methods[-1]) == (
        "chat.startStream",
        "chat.appendStream",
        "chat.stopStream",
    )
    start = slack.calls[-len(methods)][1]
    assert (start["recipient_team_id"], start["recipient_user_id"], start["thread_ts"]) == (
        "T1",
        "U9",
        "1.0",
    )


async def test_an_answer_is_streamed_into_edits(
    slack: FakeSlack, client: AsyncClient, server: MockErnie
) -> None:
    server.script(reply(ANSWER, chunk_ms=3, chunk_chars=4))
    assert await ask(slack, client, "edit") == ANSWER
    assert slack.n_violations == 0
    (states,) = slack.states.values()
    assert len(states) > 5
    assert states[-1] == ANSWER


async def test_pictures_are_shown_to_the_model(
    slack: FakeSlack, client: AsyncClient, server: MockErnie
) -> None:
    slack.picture = PNG
    text = {"mimetype": "text/plain", "url_private": f"{slack.url}/files/a.txt"}
    picture = {"mimetype": "image/png", "url_private": f"{slack.url}/files/a.png"}
    assert await ask(slack, client, files=[text, picture])
    parts = server.requests[0].json["messages"][-1]["content"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert len(parts) == 2
    # A file that the bot may not have is told, and nothing follows where Slack redirects to.
    assert await ask(slack, client, files=[picture], token="xoxb-2") is None
    assert "无法识别" in list(slack.shown.values())[-1]
    assert "login" not in {method for method, _ in slack.calls}


@pytest.mark.parametrize(
    "address",
    [
        "https://slack.com.evil.example/a.png",
        "https://evilslack.com/a.png",
        "https://files.slack.com@evil.example/a.png",
        "http://files.slack.com/a.png",
    ],
)
async def test_nobody_but_slack_is_told_the_token(address: str) -> None:
    with pytest.raises(PlatformError, match=r"not a file of slack\.com"):
        await download(AsyncWebClient(token="xoxb-1"), address)


async def test_refusals_are_understood(slack: FakeSlack, client: AsyncClient) -> None:
    def refusal(word: str, status: int = 200, **headers: str) -> web.Response:
        return web.json_response({"ok": False, "error": word}, status=status, headers=headers)

    slack.faults = [
        refusal("ratelimited", 429, **{"Retry-After": "0.3"}),
        refusal("internal_error", 500),
        None,
        refusal("message_not_in_streaming_state"),
    ]
    assert await ask(slack, client)
    assert slack.n_violations == 0
    slack.faults = [refusal("channel_not_found")]
    error = await ask(slack, client)
    assert isinstance(error.__cause__, ChatClosedError)
