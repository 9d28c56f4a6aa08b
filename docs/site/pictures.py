"""Makes the pictures of the command: `python docs/site/pictures.py` writes four of docs/images.

The commands run in a terminal of their own, against a `MockErnie` that writes what stands below.
What the terminal shows is drawn as it is. Needs the extras `cli` and `docs`.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from html import unescape
from io import StringIO
from pathlib import Path

import pyte
from pyte.screens import Char
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from ernie_async.testing import MockErnie, reply

IMAGES = Path(__file__).parents[1] / "images"
WIDTH, HEIGHT = 126, 40
BOT_WIDTH = 72
COLUMN = 12.2
"""What rich takes for the width of a column."""

THOUGHT = "用户想知道量子纠缠是什么，三句话够了，再给一个比喻。"
ANSWER = """**量子纠缠**是两个粒子的状态绑在一起，不能分开描述：

- 测量其中一个，另一个的结果立刻确定，*无论相距多远*；
- 但单看任何一边都是随机的，所以不能用来传递消息；
- 实验用贝尔不等式检验过：`|S| ≤ 2` 被违反。

> 像一双手套分装在两个盒子里，打开一个就知道另一个是左是右，只是打开之前，谁也没有定下左右。
"""
LESSON = """**光合作用**把光能变成化学能：

1. 叶绿素吸收光；
2. 水被分解，放出氧气；
3. 二氧化碳变成糖。

```python
energy = absorb(light)
sugar = build(energy, water, co2)
```

没有它，就没有我们呼吸的氧气。
"""


def run(words: list[str], folder: Path, until: Callable[[str], bool], width: int = WIDTH) -> Text:
    """The screen of a command at its end, or as soon as it shows what is waited for."""
    screen = pyte.Screen(width, HEIGHT)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = subprocess.Popen(
        [sys.executable, "-m", "ernie_async", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**environment, "LANG": "zh_CN.UTF-8"},
    )
    os.close(theirs)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.05)[0]:
            if command.poll() is not None:
                break
            continue
        try:
            stream.feed(os.read(ours, 65536))
        except OSError:  # the other side was closed
            break
        if until("\n".join(screen.display)):
            break
    command.terminate()
    command.wait()
    os.close(ours)
    return text_of(screen)


def text_of(screen: pyte.Screen) -> Text:
    lines = []
    for y in range(HEIGHT):
        line = Text()
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            line.append(cell.data, style_of(cell))
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def style_of(cell: Char) -> Style:
    def color(name: str) -> str | None:
        if name == "default":
            return None
        is_hex = len(name) == 6 and all(digit in "0123456789abcdef" for digit in name)
        return (
            f"#{name}"
            if is_hex
            else {"brown": "yellow"}.get(name, name.replace("bright", "bright_"))
        )

    return Style(
        color=color(cell.fg),
        bgcolor=color(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def as_wide_as_it_is(match: re.Match[str]) -> str:
    """An element of text in its true width: rich forgets that Chinese takes two columns."""
    return f'textLength="{COLUMN * cell_len(unescape(match[2])):.1f}"{match[1]}>{match[2]}</text>'


def draw(name: str, words: list[str], screen: Text, width: int = WIDTH) -> None:
    console = Console(record=True, width=width, file=StringIO())
    line = " ".join(f'"{word}"' if " " in word or not word.isascii() else word for word in words)
    console.print(Text.assemble(("$ ", "bold"), f"ernie-async {line}"))
    console.print(screen)
    # The font that rich names lies on another host; the reader's own will do.
    svg = console.export_svg(title="ernie-async", unique_id=name)
    svg = re.sub(r'textLength="[\d.]+"([^>]*)>([^<]*)</text>', as_wide_as_it_is, svg)
    while "@font-face" in svg:
        start = svg.index("@font-face")
        svg = svg[:start].rstrip() + "\n\n    " + svg[svg.index("}", start) + 1 :].lstrip()
    path = IMAGES / f"{name}.svg"
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
    print(path)


def main() -> None:
    with MockErnie() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(
            QIANFAN_API_KEY="bce-v3/ALTAK-example/0123", QIANFAN_BASE_URL=server.base_url
        )

        server.script(reply(ANSWER, reasoning=THOUGHT, chunk_ms=15))
        chat = ["chat", "用三句话介绍量子纠缠", "--think", "--verbose"]
        draw("chat", chat, run(chat, folder, lambda _: False))

        server.script(reply(LESSON, chunk_ms=80))
        bot = ["bot", "terminal", "讲讲光合作用", "--mode", "edit", "--flood", "3"]
        draw("bot-terminal", bot, run(bot, folder, lambda _: False, BOT_WIDTH), BOT_WIDTH)

        rows = [{"custom_id": f"q{n}", "prompt": f"{n} 的平方是多少？"} for n in range(1500)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        lines[100] = lines[200] = "这一行不是 JSON"
        (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        server.default(reply("等于它自己乘以它自己。", first_ms=300))
        batch = [
            "batch",
            "run",
            "prompts.jsonl",
            "-o",
            "out.jsonl",
            "--max-cost",
            "5",
        ]
        draw(
            "batch-running",
            batch,
            run(batch, folder, lambda shown: re.search(r"/1,500 [56]\d%", shown) is not None),
        )
        (folder / "out.errors.jsonl").unlink(missing_ok=True)
        (folder / "out.jsonl").unlink(missing_ok=True)
        draw("batch-done", batch, run(batch, folder, lambda _: False))


if __name__ == "__main__":
    main()
