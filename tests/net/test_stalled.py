"""Consumers that stop reading stop their sockets, and hold little memory while they wait."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory from /proc")
def test_a_thousand_stalled_consumers_hold_bounded_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stalled", "--streams", "1000"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *later = (float(size) for size in re.findall(r"\| (\d+) kB \|", done.stdout))
    assert len(later) == 3, done.stdout
    assert max(first, *later) < 200, "a buffer of aiohttp's own size would hold 850 kB"
    assert max(later) < first * 1.1 + 5, "it does not grow"
