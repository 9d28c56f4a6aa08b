"""The chaos run in small: fifty streams through the fault proxy, and nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="asks for descriptors as Unix does")
def test_chaos_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--quick", "--seed", "7"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("| complete and exact | 50 (100.0%) |") == 2
    assert done.stdout.count("0 tasks, 0 descriptors, 0 permits") == 3
