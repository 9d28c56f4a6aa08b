"""Memory does not grow with the lines. `BATCH_LINES=200000` is the whole thing, some minutes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LINES = int(os.environ.get("BATCH_LINES", "3000"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat() -> None:
    command = [sys.executable, "-m", "benchmarks.batch_memory", "--lines", str(LINES)]
    command += ["--concurrency", "64"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60 + LINES / 200,
        check=True,
    )
    rows = re.findall(r"\| ([\d,]+) \| ([\d.]+) \|", done.stdout)
    sizes = {int(lines.replace(",", "")): float(mib) for lines, mib in rows}
    assert sizes[LINES] - sizes[LINES // 2] <= 2 + LINES / 2 / 2**20  # a byte per line, and noise
