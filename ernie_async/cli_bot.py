"""`ernie-async bot terminal`: a chat platform in the terminal, with the limits of a real one.

It shows what a bot's users would see, and every call that was made for it.
"""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.panel import Panel
from rich.text import Text

from ernie_async.bots import Caps, ChatResponder, FloodError, MemoryStore, Transport, platform
from ernie_async.bots.platforms import Platform
from ernie_async.bots.transport import Mode
from ernie_async.cli_service import Service, connected
from ernie_async.cli_terminal import note, printable
from ernie_async.errors import ConfigError

__all__ = ["bot"]

bot: App = App(name="bot", help="Try what answers look like in a chat.")

# Of a platform that was called too early.
PENALTY = 30.0


class ScreenTransport(Transport):
    """A chat on the screen. Keeps the pace of a platform, and complains if it is not kept.

    Args:
        limits: Of the platform.
        is_private: Whether it is no group.
        flood: Seconds of a penalty for the third call, made up; 0 for none.
    """

    def __init__(self, limits: Platform, *, is_private: bool, flood: float) -> None:
        modes: tuple[Mode, ...] = ("draft", "card", "append", "edit", "sentence", "final")
        self.caps: Caps = Caps(
            platform=limits, chat="screen", modes=modes, is_private=is_private, markup="always"
        )
        self.messages: list[str] = []
        self.preview: str = ""
        self.calls: list[str] = []
        self.n_violations: int = 0
        self._flood = flood
        self._started: float | None = None
        self._free_at = 0.0
        self.live: Live | None = None  # where every state is shown

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> int:
        self._take("send", text)
        self.preview = ""
        self.messages.append(text)
        self.draw()
        return len(self.messages) - 1

    async def edit(self, handle: int, text: str, *, format: Any = None, sequence: int = 0) -> None:
        self._take("edit", text)
        self.messages[handle] = text
        self.draw()

    async def append(self, handle: int, text: str) -> None:
        self._take("append", text)
        self.messages[handle] += text
        self.draw()

    async def draft(self, draft_id: int, text: str) -> None:
        self._take("draft", text)
        self.preview = text
        self.draw()

    async def finish(self, handle: int, text: str) -> None:
        self._take("finish", "")

    async def delete(self, handle: int) -> None:
        self._take("delete", "")
        self.messages[handle] = ""
        self.draw()

    def _take(self, kind: str, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self._started = now if self._started is None else self._started
        line = f"{now - self._started:6.2f} s  {kind:6}  {len(text):5} characters"
        if now < self._free_at:
            self.n_violations += 1
            self._free_at += PENALTY
        elif self._flood and len(self.calls) == 2:
            self._free_at = now + self._flood
        else:
            self.calls.append(line)
            self._free_at = now + self.caps.interval
            return
        wait = self._free_at - now
        self.calls.append(f"{line}  refused for {wait:.0f} s")
        raise FloodError(retry_after=wait)

    def draw(self) -> None:
        """Show the chat, if it is shown while it grows."""
        if self.live is not None:
            self.live.update(self.picture(), refresh=True)

    def picture(self) -> RenderableType:
        """The chat as it is."""
        bubbles = [Panel(Markdown(printable(text)), expand=False) for text in self.messages if text]
        if self.preview:
            draft = Markdown(printable(self.preview))
            bubbles.append(Panel(draft, title="draft", border_style="dim", expand=False))
        name = self.caps.platform.name
        return Group(Text(f"{name}: {len(self.calls)} calls", style="dim"), *bubbles)


@bot.command
def terminal(
    prompt: str,
    /,
    *,
    platform_name: Annotated[str, Parameter(name="--platform")] = "telegram",
    group: bool = False,
    mode: Mode | None = None,
    limit: Annotated[int | None, Parameter(validator=Number(gte=4))] = None,
    flood: Annotated[float, Parameter(validator=Number(gte=0))] = 0.0,
    service: Service = Service(),
) -> int:
    """Answer one message as a bot would, in a chat with a platform's limits.

    The chat is shown while it grows, and then every call that was made.

    Args:
        prompt: The message.
        platform_name: Whose limits: telegram (if not given), discord, slack, feishu, qq and others.
        group: In a group, where some platforms are stricter.
        mode: draft, card, append, edit, sentence or final; the best one if not given.
        limit: The longest message, instead of the platform's.
        flood: Let the platform refuse the third call for so many seconds.
        service: Whom to ask.
    """
    if not prompt.strip():
        raise ConfigError('no prompt: give one, as in ernie-async bot terminal "你好"')
    limits = platform(platform_name)
    if limit is not None:
        limits = replace(limits, limit=limit)
    chat = ScreenTransport(limits, is_private=not group, flood=flood)
    console = Console()
    with connected(service) as (runner, client), ExitStack() as stack:
        if console.is_terminal:
            live = Live(chat.picture(), console=console, auto_refresh=False, transient=True)
            chat.live = stack.enter_context(live)
        responder = ChatResponder(client, memory=MemoryStore(), mode=mode, cursor=" ▌")
        runner.run(responder.reply(chat, user="you", text=prompt))
    console.print(chat.picture())
    sys.stdout.write("\n".join([*chat.calls, ""]))
    note(f"{len(chat.calls)} calls, {chat.n_violations} too early")
    return 0
