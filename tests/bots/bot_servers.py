"""The HTTP APIs of Telegram, Discord and Slack on loopback, as far as a bot's answer needs them.

Each complains about calls to a chat that come too soon, and keeps what its users would see.
"""

import asyncio
import json
import time
from collections import defaultdict
from typing import Any, Self

from aiohttp import WSMsgType, web


class FakeServer:
    """One platform.

    Args:
        least: Seconds between two calls for one chat.
    """

    def __init__(self, least: float = 0.05) -> None:
        self.least = least
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.shown: dict[str, str] = {}  # by message
        self.states: dict[str, list[str]] = defaultdict(list)  # all that a message ever was
        self.n_violations = 0
        self.faults: list[web.Response | None] = []
        self._last: dict[str, float] = {}
        self._n_messages = 100

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    def judge(self, chat: str) -> bool:
        """Whether a call comes too soon."""
        now = time.monotonic()
        is_early = now - self._last.get(chat, -9) < self.least
        self._last[chat] = now
        self.n_violations += is_early
        return is_early

    def show(self, text: str, message: str | None = None, *, more: bool = False) -> str:
        if message is None:
            self._n_messages += 1
            message = str(self._n_messages)
        self.shown[message] = self.shown.get(message, "") + text if more else text
        self.states[message].append(self.shown[message])
        return message


async def arguments(request: web.Request) -> dict[str, Any]:
    if request.content_type == "application/json":
        return dict(await request.json())
    return dict(await request.post())


class FakeTelegram(FakeServer):
    drafts: list[str]
    is_private = True

    async def handle(self, request: web.Request) -> web.Response:
        method = request.path.rpartition("/")[2]
        if request.path.startswith("/file/"):
            return web.Response(body=self.picture)
        told = await arguments(request)
        self.calls.append((method, told))
        if method == "getMe":
            return self.ok({"id": 1, "is_bot": True, "first_name": "bot", "username": "a_bot"})
        if method == "getFile":
            return self.ok({"file_id": "f", "file_unique_id": "u", "file_path": "a.png"})
        if method == "sendChatAction":
            return self.ok(True)
        if self.judge(str(told["chat_id"])):
            return self.refuse(429, "Too Many Requests: retry after 1", retry_after=1)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return fault
        if method == "sendMessageDraft":
            self.drafts = [*getattr(self, "drafts", []), told["text"]]
            return self.ok(True)
        if method == "editMessageText":
            number = str(told["message_id"])
            if self.shown[number] == told["text"]:
                return self.refuse(400, "Bad Request: message is not modified: same content")
            return self.message(told, self.show(told["text"], number))
        assert method == "sendMessage", method
        return self.message(told, self.show(told["text"]))

    picture = b""

    def message(self, told: dict[str, Any], number: str) -> web.Response:
        chat = {
            "id": int(told["chat_id"]),
            "type": "private" if self.is_private else "group",
            "title": "x",
        }
        return self.ok({"message_id": int(number), "date": 1, "chat": chat, "text": told["text"]})

    @staticmethod
    def ok(result: Any) -> web.Response:
        return web.json_response({"ok": True, "result": result})

    @staticmethod
    def refuse(status: int, description: str, **parameters: Any) -> web.Response:
        body = {"ok": False, "error_code": status, "description": description}
        if parameters:
            body["parameters"] = parameters
        return web.json_response(body, status=status)


class FakeSlack(FakeServer):
    """With a file, for whoever has the token."""

    picture = b""

    async def handle(self, request: web.Request) -> web.Response:
        method = request.path.rpartition("/")[2]
        if request.path.startswith("/files/"):
            if request.headers.get("Authorization") != "Bearer xoxb-1":
                return web.Response(status=302, headers={"Location": "/login"})
            return web.Response(body=self.picture)
        told = await arguments(request)
        self.calls.append((method, told))
        if method == "auth.test":
            return web.json_response({"ok": True, "bot_id": "B1", "user_id": "U0", "team_id": "T1"})
        if self.judge(told["channel"]):
            headers = {"Retry-After": "1"}
            return web.json_response(
                {"ok": False, "error": "ratelimited"}, status=429, headers=headers
            )
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return fault
        text = told.get("markdown_text", "")
        if method in {"chat.startStream", "chat.postMessage"}:
            return web.json_response({"ok": True, "ts": self.show(text)})
        if method == "chat.appendStream":
            self.show(text, told["ts"], more=True)
        elif method == "chat.update":
            self.show(text, told["ts"])
        else:
            assert method == "chat.stopStream", method
        return web.json_response({"ok": True, "ts": told["ts"]})


def plain_json(body: Any, *, status: int = 200, headers: Any = None) -> web.Response:
    """JSON as discord.py takes it: without a charset."""
    text = json.dumps(body).encode()
    return web.Response(body=text, status=status, headers=headers, content_type="application/json")


class FakeDiscord(FakeServer):
    """With a gateway, on which `say` lets a user write to the bot."""

    socket: web.WebSocketResponse | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/gateway-socket":
            return await self.gateway(request)
        if path == "/users/@me":
            return plain_json(self.person(1, bot=True))
        if path == "/oauth2/applications/@me":
            about = {"id": "1", "name": "bot", "icon": None, "description": "", "flags": 0}
            about |= {"bot_public": True, "bot_require_code_grant": False, "verify_key": "k"}
            return plain_json({**about, "owner": self.person(9), "team": None})
        self.calls.append((f"{request.method} {path}", {}))
        if path.endswith("/typing"):
            return web.Response(status=204)
        channel = path.split("/")[2]
        told = await request.json()
        if self.judge(channel):
            body = {"message": "You are being rate limited.", "retry_after": 0.3, "global": False}
            return plain_json(body, status=429, headers={"Via": "1.1 google"})
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return fault
        number = path.split("/")[4] if request.method == "PATCH" else None
        assert told["allowed_mentions"] == {"parse": []}
        return plain_json(
            self.message(channel, told["content"], self.show(told["content"], number))
        )

    async def gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 40_000}})
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            if json.loads(message.data)["op"] == 2:
                ready = {
                    "v": 10,
                    "user": self.person(1, bot=True),
                    "guilds": [],
                    "session_id": "s",
                    "resume_gateway_url": self.url.replace("http", "ws"),
                    "application": {"id": "1", "flags": 0},
                }
                await socket.send_json({"op": 0, "s": 1, "t": "READY", "d": ready})
                self.socket = socket
        return socket

    async def say(self, text: str, channel: str = "77") -> None:
        async with asyncio.timeout(10):
            while self.socket is None:
                await asyncio.sleep(0.01)
        told = self.message(channel, text, "50", author=self.person(9))
        await self.socket.send_json({"op": 0, "s": 2, "t": "MESSAGE_CREATE", "d": told})

    @staticmethod
    def person(number: int, *, bot: bool = False) -> dict[str, Any]:
        return {
            "id": str(number),
            "username": f"u{number}",
            "discriminator": "0",
            "avatar": None,
            "bot": bot,
        }

    def message(
        self, channel: str, text: str, number: str, *, author: Any = None
    ) -> dict[str, Any]:
        told: dict[str, Any] = {
            "id": number,
            "channel_id": channel,
            "content": text,
            "type": 0,
            "tts": False,
        }
        lists = ("mentions", "mention_roles", "attachments", "embeds", "components")
        told |= {name: [] for name in lists} | {
            "pinned": False,
            "mention_everyone": False,
            "tts": False,
        }
        told |= {"timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None}
        return {**told, "author": author or self.person(1, bot=True)}
