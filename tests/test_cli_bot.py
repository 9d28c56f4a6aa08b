"""The command `bot terminal`: what a bot's users would see, and the calls that were made for it."""

import io
import os
import re
import sys
from itertools import pairwise

import pytest

pytest.importorskip("cyclopts")

from ernie_async.cli import main
from ernie_async.testing import MockErnie, reply


@pytest.fixture
def ask(monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("QIANFAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def ask(*arguments: str) -> tuple[int, str, str]:
        with MockErnie() as server:
            server.script(reply("光合作用。" * 60, chunk_ms=4))
            code = main(["bot", "terminal", "讲讲", *arguments, "--base-url", server.base_url])
            return (code, *capsys.readouterr())

    return ask


def calls(out: str) -> list[tuple[float, str, int, bool]]:
    found = re.findall(r"^ *([\d.]+) s  (\w+) +(\d+) characters(  refused)?", out, re.MULTILINE)
    return [(float(at), kind, int(size), bool(refused)) for at, kind, size, refused in found]


@pytest.mark.parametrize("mode", ["edit", "append", "draft", "sentence"])
def test_the_chat_and_its_calls_are_shown(ask, mode) -> None:
    code, out, err = ask("--platform", "feishu", "--mode", mode)
    assert code == 0, err
    assert out.replace("\n", "").replace("│", "").replace(" ", "").count("光合作用") == 60
    made = calls(out)
    assert made
    assert all(b[0] - a[0] >= 0.19 for a, b in pairwise(made))
    assert err.endswith(f"{len(made)} calls, 0 too early\n")


def test_a_penalty_can_be_tried(ask) -> None:
    code, out, err = ask(
        "--platform", "feishu", "--mode", "edit", "--flood", "0.5", "--limit", "200"
    )
    assert code == 0, err
    made = calls(out)
    assert [refused for *_, refused in made[:4]] == [False, False, True, False]
    assert made[3][0] - made[2][0] >= 0.5
    assert {kind for _, kind, *_ in made} == {"send", "edit"}


def test_an_unknown_platform_is_refused(ask) -> None:
    code, _, err = ask("--platform", "icq")
    assert code == 2
    assert "expected one of telegram, discord" in err


@pytest.mark.parametrize("prompt", ["", "   "])
def test_a_message_without_words_is_refused(monkeypatch, capsys, prompt: str) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert main(["bot", "terminal", prompt, "--offline"]) == 2
    assert 'no prompt: give one, as in ernie-async bot terminal "你好"\n' in capsys.readouterr().err
