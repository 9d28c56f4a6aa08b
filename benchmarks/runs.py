"""Processes: the load server, and one child per measurement. Knows no numbers but theirs."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.machine import pick_cores
from benchmarks.questions import QUESTIONS

LONGEST_RUN = 120
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


class RunError(Exception):
    """A child ended without a number; the message is the last thing it said."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A running load server and what its clients' processes need to know."""

    port: int
    core: int | None
    environment: dict[str, str]
    is_quick: bool

    def run(self, contender: str, question: str) -> float:
        """Measure one thing once.

        Raises:
            RunError: The contender cannot be imported, failed, or took too long.
        """
        core = [] if self.core is None else [str(self.core)]
        if QUESTIONS[question].measure is None:
            return self._value("benchmarks.import_time", contender, *core)
        options = ["--port", str(self.port), *["--core"] * len(core), *core]
        if self.is_quick:
            options.append("--quick")
        is_steady = not QUESTIONS[question].is_memory
        return self._value("benchmarks.worker", contender, question, *options, is_steady=is_steady)

    def try_import(self, contender: str) -> None:
        """Import a contender and make a client in a child, so that all of it is compiled.

        Raises:
            RunError: It cannot be imported.
        """
        self._output(
            "-c", f"from benchmarks.contenders import load; load({contender!r})('http://[::1]/v2')"
        )

    def _value(self, module: str, *arguments: str, is_steady: bool = False) -> float:
        output = self._output("-m", module, *arguments, is_steady=is_steady)
        value: float = json.loads(output)["value"]
        return value

    def _output(self, *arguments: str, is_steady: bool = False) -> str:
        command = [sys.executable, *arguments]
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
def start(*, is_quick: bool) -> Iterator[Bench]:
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
            yield Bench(int(server.stdout.readline()), core, environment, is_quick)
