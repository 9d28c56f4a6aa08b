"""Processes: the load server, and one child per measurement. Knows no numbers but theirs."""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import ENVIRONMENTS, SLOW
from benchmarks.machine import pick_cores
from benchmarks.questions import QUESTIONS

ENVIRONMENTS_FOLDER = Path(__file__).parents[1] / ".bench"

FEW_ROUNDS = 3
"""Rounds with `--quick`, and at most for memory, which hardly varies."""

SLOW_ROUNDS = 1
"""Rounds for slow contenders: what they take is a multiple of any spread."""

LONGEST_RUN = 180
"""Seconds after which a measurement is given up."""

STEADY_HEAP = {
    "MALLOC_TOP_PAD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "16777216",
}
"""Keeps glibc from returning memory to the kernel while CPU and waits are measured.

asyncio asks for 256 KiB before each read and gives most of it back. Whether glibc then shrinks the
heap and grows it again, at some 40 µs per read, depends on what happens to lie at its end: luck,
larger than the differences in question here, and not to anyone's credit.
"""


TRY_IMPORT = """
import asyncio, importlib, json, sys
from benchmarks.contenders import LIBRARIES, load
from benchmarks.machine import library_version
_, contender, loop = sys.argv
async def make(): load(contender)("http://[::1]/v2")
asyncio.run(make())
importlib.import_module(loop)
print(json.dumps({name: library_version(name) for name in LIBRARIES.get(contender, ())}))
"""


class RunError(Exception):
    """A child ended without a number; the message is the last thing it said."""


def rounds_of(contender: str, question: str, rounds: int) -> int:
    """How many of the rounds ask a contender a question."""
    if contender in SLOW and QUESTIONS[question].measure is not None:  # an import is quick
        return min(rounds, SLOW_ROUNDS)
    return min(rounds, FEW_ROUNDS) if QUESTIONS[question].is_memory else rounds


def python_of(contender: str) -> str:
    """The Python of a contender's own environment if it is there, else this one."""
    own = ENVIRONMENTS_FOLDER / contender / ("Scripts" if os.name == "nt" else "bin") / "python"
    return str(own) if own.exists() else sys.executable


def install(contenders: Sequence[str]) -> None:
    """Make the environments of those who have one, anew."""
    for contender in contenders:
        if contender in ENVIRONMENTS:
            venv.create(ENVIRONMENTS_FOLDER / contender, clear=True, with_pip=True)
            command = [python_of(contender), "-m", "pip", "install", "--quiet"]
            subprocess.run([*command, *ENVIRONMENTS[contender]], check=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """A running load server and what its clients' processes need to know."""

    port: int
    core: int | None
    environment: dict[str, str]
    is_quick: bool
    loop: str

    def run(self, contender: str, question: str) -> float:
        """Measure one thing once.

        Raises:
            RunError: The contender cannot be imported, failed, or took too long.
        """
        core = [] if self.core is None else [str(self.core)]
        if QUESTIONS[question].measure is None:
            return self._value(contender, "benchmarks.import_time", contender, *core)
        options = ["--port", str(self.port), "--loop", self.loop, *["--core"] * len(core), *core]
        if self.is_quick:
            options.append("--quick")
        is_steady = not QUESTIONS[question].is_memory
        arguments = ("benchmarks.worker", contender, question, *options)
        return self._value(contender, *arguments, is_steady=is_steady)

    def try_import(self, contender: str) -> dict[str, str]:
        """Import a contender and make a client in a child, so that all of it is compiled.

        Returns:
            The versions of its libraries.

        Raises:
            RunError: It cannot be imported.
        """
        versions: dict[str, str] = json.loads(
            self._output(contender, "-c", TRY_IMPORT, contender, self.loop).splitlines()[-1]
        )
        return versions

    def importable(self, contenders: Sequence[str]) -> dict[str, dict[str, str]]:
        """Those who can be imported, with the versions of their libraries; tells who cannot."""
        found = {}
        for contender in contenders:
            try:
                found[contender] = self.try_import(contender)
            except RunError as error:
                hint = "; --install makes its environment" if contender in ENVIRONMENTS else ""
                print(f"{contender}: skipped, {error}{hint}")
        return found

    def _value(
        self, contender: str, module: str, *arguments: str, is_steady: bool = False
    ) -> float:
        output = self._output(contender, "-m", module, *arguments, is_steady=is_steady)
        value: float = json.loads(output.splitlines()[-1])["value"]
        return value

    def _output(self, contender: str, *arguments: str, is_steady: bool = False) -> str:
        command = [python_of(contender), *arguments]
        try:
            child = subprocess.run(
                command,
                env=self.environment | (STEADY_HEAP if is_steady else {}),
                capture_output=True,
                text=True,
                timeout=LONGEST_RUN,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"no result after {LONGEST_RUN} s") from None
        if child.returncode:
            said = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
            raise RunError(said[-1])
        return child.stdout


@contextmanager
def start(*, is_quick: bool, loop: str = "asyncio") -> Iterator[Bench]:
    """A load server on one core, a bench for another.

    Children keep their compiled modules in a folder of their own: what is compiled at install
    time and what is not must not decide who imports faster.
    """
    core, server_core = pick_cores()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "benchmarks.load_server"]
        if server_core is not None:
            command += ["--core", str(server_core)]
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            yield Bench(int(server.stdout.readline()), core, environment, is_quick, loop)
