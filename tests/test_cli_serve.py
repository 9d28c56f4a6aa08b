"""The command `serve`, as a process that is asked and stopped."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ernie_async.cli import main
from ernie_async.sansio.tickets import token_hash

ASK = {"messages": [{"role": "user", "content": "敏感词"}]}


@contextmanager
def serving(*arguments: str, **environ: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QIANFAN_")}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "ernie_async", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "ERNIE_GATEWAY_PORT": "0", **environ},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def ask(url: str, body: object = None, token: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_file_environment_and_flags(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("敏感词\n", encoding="utf-8")
    config = tmp_path / "gateway.toml"
    config.write_text(
        f"""
        host = "127.0.0.1"
        port = 1
        model = "from-file"
        words = "{words}"
        mode = "full"

        [[tenants]]
        name = "web"
        token_sha256 = "{token_hash("from-file")}"

        [rules]
        models = ["from-flag"]

        [limits]
        streams = 5
        """,
        encoding="utf-8",
    )
    secret = tmp_path / "secret"
    secret.write_text("from-env\n", encoding="utf-8")
    with serving(
        "--offline",
        "--config",
        str(config),
        "--model=from-flag",
        ERNIE_GATEWAY_TOKEN_FILE=str(secret),
    ) as (url, process):
        assert ask(url + "/healthz") == (200, b"ok\n")
        assert ask(url + "/v1/chat/completions", ASK)[0] == 401
        for token in ("from-file", "from-env"):
            status, body = ask(url + "/v1/chat/completions", ASK, token)
            assert status == 200
            assert "***" in body.decode()
            assert "敏感词" not in body.decode()
        assert json.loads(ask(url + "/v1/models", token="from-env")[1])["data"] == [
            {"id": "from-flag", "object": "model", "owned_by": "ernie-async"}
        ]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "stopping; 0 answers" in said
        assert "from-env" not in said


def test_stopping_lets_answers_end() -> None:
    with serving("--offline") as (url, process):
        body = {**ASK, "stream": True, "messages": [{"role": "user", "content": "x" * 30}]}
        request = urllib.request.Request(
            url + "/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            answer.readline()
            process.send_signal(signal.SIGTERM)
            assert answer.read().endswith(b"data: [DONE]\n\n")
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0, said
        assert "1 answers are under way" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenants = 5", "tenants"),
        ("[[tenants]]\nname = 'a'\ntoken = 'x'", "token: no such setting"),
        ("[[tenants]]\nname = 'a'", "token_sha256"),
        ("[limits]\nlife = 'x'", "life"),
        ("ticket_secret = 'x'", "ticket_secret: no such setting"),
        ("colour = 'red'", "colour: no such setting"),
        ("port = 'x'", "port: expected int"),
        ("x", "Expected"),
        ("host = '0.0.0.0'", "serves 127.0.0.1 only"),
    ],
)
def test_bad_settings_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(text, encoding="utf-8")
    assert main(["serve", "--offline", "--config", str(config)]) == 2
    assert message in capsys.readouterr().err


def test_bad_flags_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--config", "nowhere.toml"], "No such file"),
        (["--words", "nowhere.txt"], "No such file"),
        (["--action", "mask"], "--action needs --words"),
        (["--mode", "live"], "--mode needs --words"),
        (["--mode", "slow"], "slow"),
        (["--port", "99999"], "port"),
    ):
        assert main(["serve", "--offline", *flags]) == 2
        assert message in capsys.readouterr().err
