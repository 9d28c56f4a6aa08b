"""The adapter of Discord against the real discord.py, with a REST API and a gateway on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import yarl
from aiohttp import web
from bot_servers import FakeDiscord, plain_json

from ernie_async import AsyncClient
from ernie_async.bots import ChatClosedError, ChatResponder, UndeliveredError, platform
from ernie_async.testing import MockErnie, reply

pytest.importorskip("discord", reason="discord.py is not installed")
import discord.gateway
import discord.http

from ernie_async.bots.discord import DiscordTransport
from tests.waiting import until

pytestmark = pytest.mark.anyio

QUICK = replace(platform("discord"), interval=0.06, limit=400)
ANSWER = "**量子**纠缠。\n\n```py\nprint('@everyone')\n```\n" * 12


@asynccontextmanager
async def bot(
    fake: FakeDiscord, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Any]]:
    """A real bot that is connected; what its replies returned."""
    monkeypatch.setattr(discord.http.Route, "BASE", fake.url)
    socket = yarl.URL(fake.url.replace("http", "ws") + "/gateway-socket")
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", socket)
    results: list[Any] = []
    responder = ChatResponder(client)
    intents = discord.Intents.none()
    intents.dm_messages = True
    connected = discord.Client(intents=intents, guild_ready_timeout=0.01)

    @connected.event
    async def on_message(message: Any) -> None:
        transport = DiscordTransport(message, limits=QUICK)
        try:
            results.append(
                await responder.reply(
                    transport, user=message.author.id, chat=message.channel.id, text=message.content
                )
            )
        except UndeliveredError as error:
            results.append(error)

    task = asyncio.create_task(connected.start("token"))
    try:
        yield results
    finally:
        await connected.close()
        await asyncio.wait({task}, timeout=2)


async def wait_for(results: list[Any]) -> Any:
    await until(lambda: results)
    return results.pop()


async def test_an_answer_is_streamed_into_edits(
    client: AsyncClient, server: MockErnie, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(reply(ANSWER, chunk_ms=4))
    async with FakeDiscord() as fake, bot(fake, client, monkeypatch) as results:
        await fake.say("讲讲")
        assert await wait_for(results) == ANSWER
        assert fake.n_violations == 0
        assert len(fake.shown) == 2
        assert sum(map(len, fake.states.values())) > 5
        for states in fake.states.values():
            assert all(state.count("```") % 2 == 0 for state in states)
            assert all(len(state) <= 400 for state in states)
        # The channel sees the whole answer, and that the bot was typing.
        whole = "".join(fake.shown.values())
        assert whole.replace("```", "").count("量子") == 12
        assert any(call.endswith("/typing") for call, _ in fake.calls)


async def test_refusals_are_understood(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(status: int, code: int) -> web.Response:
        return plain_json({"message": "no", "code": code}, status=status)

    async with FakeDiscord() as fake, bot(fake, client, monkeypatch) as results:
        fake.faults = [refusal(403, 50007)]
        await fake.say("一")
        error = await wait_for(results)
        assert isinstance(error.__cause__, ChatClosedError)
        await asyncio.sleep(0.1)
        fake.faults = [None, refusal(404, 10008)]  # somebody deletes the message
        await fake.say("二" * 300)
        assert await wait_for(results)
        assert fake.n_violations == 0
