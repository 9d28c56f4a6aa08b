"""Frames that nobody would send: the WebSocket answers them or closes, and is none the worse."""

import json
from collections import Counter

import aiohttp
import pytest
from aiohttp import WSMsgType
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_async.gateway import GatewaySettings, Tenant
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie, reply

from .conftest import Running, Serve

pytestmark = pytest.mark.anyio

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MIB = 1 << 20
Frame = tuple[int, bytes]

# What the gateway, and aiohttp for it, may close with; 1011 or 1006 would be a mistake of ours.
CODES = {None, 1007, 1009, 4400, 4401}
KINDS = {
    "ready", "pong", "chat.started", "chat.delta", "chat.tool_call", "chat.retract", "chat.reset",
    "chat.usage", "chat.done", "chat.error",
}  # fmt: skip


def text(told: object) -> Frame:
    return WSMsgType.TEXT, json.dumps(told).encode()


kinds = st.sampled_from(
    ["chat.create", "ping", "chat.resume", "chat.cancel", "chat.create", "chat.", "auth"]
)
fields = st.sampled_from(
    ["request", "on_disconnect", "stream_id", "after", "t", "token", "model", "messages", "role",
     "content", "stream", "n"]
)  # fmt: skip
words = st.sampled_from(
    ["user", "cancel", "linger:1", "finish", "abcdefgh-1", "x" * 101, "\0", "敏", "t", ""]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3),
    max_leaves=6,
)
requests = st.just(REQUEST) | st.dictionaries(fields, values, max_size=2).map(REQUEST.__or__)
# What looks like a frame is answered, so that the next one is read, too.
named = st.sampled_from([*"abcdefghijkl", "", None, 5, [], {}, "x" * 101, "\0"])
likely = st.builds(
    lambda told, more: more | told,
    st.fixed_dictionaries({"type": kinds, "id": named, "request": requests})
    | st.fixed_dictionaries({"type": kinds}, optional={"id": named, "request": values}),
    st.just({}) | st.dictionaries(fields, values, max_size=2),
)
# The first of these is the last that is read.
unlikely = st.one_of(
    values.map(text),
    st.tuples(st.sampled_from([WSMsgType.TEXT, WSMsgType.BINARY]), st.binary(max_size=20)),
    st.tuples(st.sampled_from([WSMsgType.PING, WSMsgType.PONG]), st.binary(max_size=125)),
)
talks = st.builds(
    list.__add__, st.lists(likely.map(text), max_size=12), st.lists(unlikely, max_size=1)
)


def drawn() -> list[tuple[list[Frame], bool]]:
    """Talks, and whether a header brings the token.

    They are drawn before the first is held: a server that draws lots would confuse hypothesis.
    """
    held: list[tuple[list[Frame], bool]] = []

    @given(sent=talks, header=st.sampled_from([True, True, True, False]))
    @example(sent=[(WSMsgType.TEXT, b'"' + b"x" * MIB + b'"')], header=True)
    @example(sent=[(WSMsgType.TEXT, b"[" * 100_000)], header=True)
    @example(sent=[(WSMsgType.TEXT, b'{"type":"ping","t":"\\ud800"}')], header=True)
    @example(sent=[(WSMsgType.TEXT, b"\xff")], header=True)
    @example(sent=[(WSMsgType.BINARY, b"{}")], header=True)
    @example(sent=[], header=False)
    @settings(max_examples=200, derandomize=True, deadline=None, database=None)
    def draw(sent: list[Frame], header: bool) -> None:
        held.append((sent, header))

    draw()
    return held


async def talk(gateway: Running, sent: list[Frame], *, header: bool) -> int | None:
    """Send frames, and then a question; the code that it was closed with, `None` if it answers."""
    headers = {"Authorization": "Bearer t"} if header else {}
    url = gateway.url + "/v1/ws"
    async with gateway.session.ws_connect(url, headers=headers, autoping=False) as socket:
        last = {"type": "ping", "t": "the last question"}
        for kind, data in [*sent, text(last)]:
            if socket.closed:
                break
            try:
                await socket.send_frame(data, WSMsgType(kind))
            except aiohttp.ClientConnectionResetError:
                break
        begun, is_answered = 0, False
        while True:
            message = await socket.receive(timeout=5)
            if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED}:
                return socket.close_code
            if message.type is WSMsgType.TEXT:
                told = json.loads(message.data)
                assert told["type"] in KINDS
                begun += (told["type"] == "chat.started") - (told["type"] == "chat.done")
                is_answered = is_answered or told == {**last, "type": "pong"}
                if is_answered and not begun:
                    return None


async def test_no_frame_breaks_the_socket(
    serve: Serve, upstream: MockErnie, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.default(reply("你好"))
    tenant = Tenant(name="a", token_sha256=token_hash("t"), streams=1000)
    # What is left of a task or a stream when the sockets are gone, `serve` finds.
    async with serve(GatewaySettings(tenants=(tenant,))) as gateway:
        codes = Counter([await talk(gateway, sent, header=header) for sent, header in drawn()])
    assert codes.keys() <= CODES, codes
    assert codes[None] > 25  # many talks are held to their end
    assert "ERROR" not in caplog.text
