"""The table of platforms, and what is made of Markdown that is not finished."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.bots.markup import close_emphasis
from ernie_async.bots.platforms import TABLE, platform
from ernie_async.bots.telegram_api import telegram_html
from ernie_async.bots.transport import Caps
from ernie_async.errors import ConfigError


def test_the_table_is_dated_and_can_be_changed() -> None:
    table = json.loads(Path(TABLE).read_text("utf-8"))
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", table["date"])
    for name in table["platforms"]:
        known = platform(name)
        assert known.limit > 0
        assert Caps(platform=known, chat=1, modes=("final",)).mode() == "final"
    telegram, group = (
        platform("telegram"),
        Caps(platform=platform("telegram"), chat=1, modes=("final",), is_private=False),
    )
    assert (telegram.limit, telegram.unit) == (4096, "utf16")
    assert (replace(group, is_private=True).interval, group.interval) == (1.1, 3.1)
    slower = replace(telegram, group_interval=5.0)
    assert replace(group, platform=slower).interval == 5.0
    assert replace(group, platform=platform("discord")).interval == 1.2
    with pytest.raises(ConfigError, match=r"expected one of telegram, .* got 'icq'"):
        platform("icq")


@pytest.mark.parametrize("name", ["aiogram", "discord", "nonebot", "slack", "telegram"])
def test_adapters_are_small(name: str) -> None:
    assert len(Path(TABLE).with_name(f"{name}.py").read_text("utf-8").splitlines()) < 80


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("好", "好"),
        ("**粗", "**粗**"),
        ("**粗**", "**粗**"),
        ("**粗 *斜", "**粗 *斜***"),
        ("~~删", "~~删~~"),
        ("`a * b", "`a * b`"),
        ("一*\n\n**二", "一*\n\n**二**"),
        ("3 * 4", "3 * 4"),
        ("看 **", "看"),
    ],
)
def test_open_emphasis_is_closed_for_a_preview(text: str, closed: str) -> None:
    assert close_emphasis(text).rstrip() == closed


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**粗** *斜* ~~删~~", "<b>粗</b> <i>斜</i> <s>删</s>"),
        ("# 标题 #\n正文", "<b>标题</b>\n正文"),
        ("`<b>` & 'x'", "<code>&lt;b&gt;</code> &amp; &#x27;x&#x27;"),
        ("[a](https://b.c/d_(e)?f=1&g=2)", '<a href="https://b.c/d_(e)?f=1&amp;g=2">a</a>'),
        ("[a](javascript:x)", "[a](javascript:x)"),
        (
            "看\n```py\na < b: **x**\n```\n完",
            '看\n<pre><code class="language-py">a &lt; b: **x**</code></pre>\n完',
        ),
        ("````\n```\n````", "<pre>```</pre>"),
        ("2 * 3 * 4 和 a_b_c", "2 * 3 * 4 和 a_b_c"),
        ("`` a`b ``", "<code> a`b </code>"),
    ],
)  # fmt: skip
def test_markdown_becomes_what_telegram_reads(text: str, html: str) -> None:
    assert telegram_html(text) == html


@given(
    st.lists(
        st.sampled_from(
            ["**", "*", "`", "~~", "中", " ", "\n", "```\n", "<b>", "&", "[a](https://b)"]
        )
    )
)
def test_html_is_balanced_whatever_the_model_writes(pieces: list[str]) -> None:
    html = telegram_html("".join(pieces))
    for tag in ("b", "i", "s", "code", "pre", "a"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>"), html
    close_emphasis("".join(pieces))
