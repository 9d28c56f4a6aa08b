"""Whole lines at the end of a file, or all of it at once."""

import asyncio
import sys
from pathlib import Path

import pytest

from ernie_async.batch.writing import INTERVAL_LINES, AppendFile, replacing

pytestmark = pytest.mark.anyio


async def test_lines_are_appended(tmp_path) -> None:
    path = tmp_path / "out"
    for fsync in ("interval", "always", "never"):
        file = AppendFile(path, fsync)
        await file.append(b"a\n")
        await file.append(b"b\n")
        assert path.read_bytes().endswith(b"a\nb\n")
        await file.aclose()
    assert path.read_bytes() == b"a\nb\n" * 3


@pytest.mark.skipif(sys.platform != "linux", reason="a device that cannot be synced")
async def test_what_the_disk_says_later_is_told_later() -> None:
    file = AppendFile(Path("/dev/null"))
    for _ in range(INTERVAL_LINES):
        await file.append(b"x\n")
    with pytest.raises(OSError, match="Invalid argument"):
        async with asyncio.timeout(5):
            while True:
                await file.append(b"x\n")
                await asyncio.sleep(0.01)
    with pytest.raises(OSError, match="Invalid argument"):
        await file.aclose()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "summary"
    with replacing(path) as file:
        file.write(b"one")
    path.chmod(0o600)
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"tw")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one"
    with replacing(path) as file:
        file.write(b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]
