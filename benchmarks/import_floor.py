"""What of the import no module of ours can save: pydantic's first model, our models, empty modules.

`python -m benchmarks.import_floor` imports, in turn, what the floor does; one model of two lines;
our models with every other module that `import ernie_async` loads left empty; and ours. CPU seconds
of new processes, and ratios to the floor of the same round.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.import_time import STATEMENTS
from benchmarks.machine import describe
from benchmarks.options import positive

FLOOR, OURS = STATEMENTS["floor"], STATEMENTS["ours"]

ONE_MODEL = f"""{FLOOR}
class One(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(defer_build=True)
    name: str"""

LIST = f"""{OURS}
import sys
for name, module in sys.modules.items():
    if name.partition('.')[0] == 'ernie_async':
        print(name, module.__file__)"""

CLOCK = """import time
before = time.process_time()
{}
print(time.process_time() - before)"""


def run(program: str, folder: Path | None = None) -> str:
    """What a program prints in a new process that finds modules in `folder` first."""
    unwanted = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    settings = {name: value for name, value in os.environ.items() if name not in unwanted}
    if folder is not None:
        settings["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-P", "-c", program]  # not from where this is run
    return subprocess.run(command, env=settings, check=True, capture_output=True, text=True).stdout


def make_hollow(folder: Path) -> tuple[int, int]:
    """Make a package of our models as they are, all else empty; how many were kept, of how many."""
    modules = [line.split(maxsplit=1) for line in run(LIST).splitlines()]
    root = Path(dict(modules)["ernie_async"]).parent
    kept = 0
    for name, file in modules:
        made = folder / "ernie_async" / Path(file).relative_to(root)
        made.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("ernie_async.types"):
            shutil.copy(file, made)
            kept += 1
        else:
            made.touch()
    imports = [f"import {name}\n" for name, _ in modules]
    (folder / "ernie_async" / "__init__.py").write_text("".join(imports))
    return kept, len(modules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=31)
    rounds = parser.parse_args().rounds
    for what, value in describe().items():
        print(f"{what}: {value}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kept, modules = make_hollow(folder)
        hollow = f"our models, {kept} modules, and {modules - kept} empty ones"
        programs = {
            "floor": (FLOOR, None),
            "one model": (ONE_MODEL, None),
            hollow: (f"{FLOOR}, ernie_async", folder),
            "ours": (OURS, None),
        }
        taken: dict[str, list[float]] = {name: [] for name in programs}
        for number in range(-1, rounds):
            for name, (program, first) in programs.items():
                seconds = float(run(CLOCK.format(program), first))
                if number >= 0:  # the first one compiles
                    taken[name].append(seconds)
    print("\n| import | ms, median | ms, least | ratio, median (least to greatest) |")
    print("| --- | --- | --- | --- |")
    for name, times in taken.items():
        ratios = [a / b for a, b in zip(times, taken["floor"], strict=True)]
        print(
            f"| {name} | {statistics.median(times) * 1e3:.0f} | {min(times) * 1e3:.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
