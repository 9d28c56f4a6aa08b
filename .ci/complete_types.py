"""Say whether every public name has a type that all type checkers agree on: pyright's 100 %.

Run with the python of an environment in which `ernie_async` and pyright are installed. Modules
whose framework is not installed there are left out.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

FRAMEWORKS = {
    "aiogram": "aiogram",
    "discord": "discord",
    "nonebot": "nonebot",
    "slack": "slack_sdk",
    "telegram": "telegram",
}
LEFT_OUT = tuple(
    f"ernie_async.bots.{module}."
    for module, library in FRAMEWORKS.items()
    if not find_spec(library)
)


def main() -> int:
    here = Path(sys.executable).parent
    # From elsewhere, and with the first `python` of the path: so pyright finds what is installed.
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [here / "pyright", "--verifytypes", "ernie_async", "--ignoreexternal", "--outputjson"],
            env={**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
    report = json.loads(done.stdout)["typeCompleteness"]
    n_known, n_unsure = report["exportedSymbolCounts"]["withKnownType"], 0
    for symbol in report["symbols"]:
        name = symbol["name"]
        is_ours = name.startswith("ernie_async.") and not name.startswith(LEFT_OUT)
        if is_ours and not symbol["isTypeKnown"]:
            n_unsure += 1
            for problem in symbol["diagnostics"]:
                print(f"{name}: {problem['message']}")
    print(f"{n_known} names have a type; {n_unsure} have none that all checkers agree on")
    return 1 if n_unsure or not n_known else 0


if __name__ == "__main__":
    sys.exit(main())
