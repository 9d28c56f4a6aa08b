"""Say whether the wheel and the sdist in a folder hold what they must, and nothing else.

python .ci/check_packages.py dist
"""

import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = {"aiohttp", "anyio", "pydantic", "tenacity"}
DATA = {
    "ernie_async/py.typed",
    "ernie_async/redis.lua",
    "ernie_async/bots/platforms.json",
    "ernie_async/gateway/openapi.json",
    "ernie_async/gateway/page.html",
    "ernie_async/types/prices.json",
}
IN_SDIST = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "tests/conftest.py"}


def main(folder: Path) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ernie_async").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours >= DATA

    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
        about = {name for name in names if ".dist-info/" in name}
        assert names - about == ours, sorted((names - about) ^ ours)
        (metadata,) = (name for name in about if name.endswith("/METADATA"))
        fields = message_from_bytes(held.read(metadata))
        (entries,) = (name for name in about if name.endswith("/entry_points.txt"))
        entry_points = held.read(entries).decode()
    needed = {
        requirement.split(">=")[0]
        for requirement in fields.get_all("Requires-Dist", [])
        if "extra ==" not in requirement
    }
    assert needed == CORE, needed
    assert fields["Requires-Python"] == ">=3.11"
    assert fields["License-Expression"] == "Apache-2.0"
    assert "[console_scripts]" in entry_points
    assert "[pytest11]" in entry_points

    with tarfile.open(sdist) as held_too:
        packed = {name.partition("/")[2] for name in held_too.getnames()}
    missing = (ours | IN_SDIST) - packed
    assert not missing, sorted(missing)
    assert not [name for name in packed if name.endswith(".pyc") or ".venv" in name]
    print(f"{wheel.name}: {len(names)} files; {sdist.name}: {len(packed)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
