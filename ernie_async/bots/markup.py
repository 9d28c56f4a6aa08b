"""Markdown that is not finished, and Markdown for Telegram.

Pure functions of text. A model's Markdown is never perfect, so nothing here raises.
"""

import re
from html import escape

from ernie_async.bots.inline import closes_fence, opens_fence

__all__ = ["close_emphasis", "telegram_html"]

CODE = re.compile(r"(?<!`)(`++)(.+?)(?<!`)\1(?!`)", re.DOTALL)
MARKS = re.compile(r"\*\*|~~|`+|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])|__")


def close_emphasis(text: str) -> str:
    """Close the code, bold, italics and strikethrough that the last paragraph leaves open."""
    paragraph = text.rpartition("\n\n")[2]
    open_marks: list[str] = []
    for mark in MARKS.findall(CODE.sub("", paragraph)):
        if mark in open_marks:
            open_marks = open_marks[: open_marks.index(mark)]
        else:
            open_marks.append(mark)
        if mark[0] == "`":
            break  # nothing counts within code
    while open_marks and text.endswith(open_marks[-1]):
        text = text.removesuffix(open_marks.pop())  # opened by the very last character
    return text.rstrip(" ") + "".join(reversed(open_marks)) if open_marks else text


LINK = re.compile(r"!?\[([^\[\]\n]+)\]\((https?://[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)\)")
HTML = [
    (LINK, r'<a href="\2">\1</a>'),
    (re.compile(r"\*\*(?=\S)([^\n]+?)(?<=\S)\*\*"), r"<b>\1</b>"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])"), r"<i>\1</i>"),
    (re.compile(r"~~(?=\S)([^\n]+?)(?<=\S)~~"), r"<s>\1</s>"),
    (re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE), r"<b>\1</b>"),
]  # fmt: skip


def telegram_html(text: str) -> str:
    """Markdown as the HTML that Telegram's Bot API understands (`parse_mode` HTML)."""
    done: list[str] = []
    prose: list[str] = []
    code: list[str] = []
    fence = None
    for line in text.split("\n"):
        opened = opens_fence(line) if fence is None else None
        if fence is not None and closes_fence(line, fence):
            done.append(_block(fence.opening, code))
            fence, code = None, []
        elif fence is not None:
            code.append(line)
        elif opened is not None:
            done += [_prose("\n".join(prose))] if prose else []
            fence, prose = opened, []
        else:
            prose.append(line)
    if fence is not None:
        done.append(_block(fence.opening, code))
    elif prose:
        done.append(_prose("\n".join(prose)))
    return "\n".join(done)


def _block(opening: str, lines: list[str]) -> str:
    language = opening.strip().lstrip("`~")
    code = escape("\n".join(lines), quote=False)
    if not language:
        return f"<pre>{code}</pre>"
    return f'<pre><code class="language-{escape(language)}">{code}</code></pre>'


def _prose(text: str) -> str:
    pieces, end = [], 0
    for found in CODE.finditer(text):
        pieces.append(_emphasis(text[end : found.start()]))
        pieces.append(f"<code>{escape(found[2], quote=False)}</code>")
        end = found.end()
    return "".join([*pieces, _emphasis(text[end:])])


def _emphasis(text: str) -> str:
    text = escape(text)
    for pattern, html in HTML:
        text = pattern.sub(html, text)
    return text
