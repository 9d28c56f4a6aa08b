"""What `pip install ernie_async` brings: names, versions, licences, and known holes.

Needs the extra `audit`.

python .ci/audit.py             what can be said from here
python .ci/audit.py --release   fails unless pip-audit could judge every package
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Whoever adds a name has looked at it: who makes it, what it does when it is imported, its licence.
LOOKED_AT = {
    "aiohttp", "anyio", "pydantic", "tenacity",
    # aiohttp's own
    "aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "idna", "multidict", "propcache",
    "yarl",
    # pydantic's own
    "annotated-types", "pydantic-core", "typing-extensions", "typing-inspection",
}  # fmt: skip
LICENCES = ("Apache", "BSD", "ISC", "MIT", "PSF", "Python Software")

# Tools, whose opinion would change by itself, and what only runs in CI.
PINNED = {"dev", "docs"}


def packages() -> list[dict]:
    """What pip would install now, as its report says."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
    done = subprocess.run([*command, "--report", "-", str(ROOT)], capture_output=True, check=True)
    told = json.loads(done.stdout)["install"]
    return sorted(told, key=lambda one: one["metadata"]["name"].lower())


def licence_of(name: str) -> str:
    told = metadata(name)
    named = told["License-Expression"] or (told["License"] or "").strip().partition("\n")[0]
    classifiers = [c for c in told.get_all("Classifier", []) if c.startswith("License ::")]
    return named or ", ".join(c.rpartition(" :: ")[2] for c in classifiers)


def check_pins() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras.keys() - PINNED)]
    lines = [line.partition(";")[0] for group in groups for line in group]
    return [f"{line}: an upper pin" for line in lines if "<" in line or "==" in line or "~" in line]


def known_holes(pins: list[str]) -> tuple[list[str], list[str]]:
    """What pip-audit says of these, and which of them it could not judge."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "-r", file.name, "--no-deps", "--disable-pip"]
        options = ["-f", "json", "--progress-spinner", "off", "--timeout", "10"]
        done = subprocess.run([*command, *options], capture_output=True, check=False)
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr.decode(errors="replace").strip()[-300:])
        return [], pins
    holes = [
        f"{one['name']} {one['version']}: {hole['id']}, fixed in {hole['fix_versions']}"
        for one in told
        for hole in one.get("vulns", ())
    ]
    # It calls what it could not look up a success; for us it is not.
    judged = {f"{one['name']}=={one['version']}" for one in told if "skip_reason" not in one}
    return holes, [pin for pin in pins if pin not in judged]


def main(*, is_release: bool) -> int:
    faults, pins = check_pins(), []
    for one in packages():
        name = one["metadata"]["name"].lower().replace("_", "-")
        version = one["metadata"]["version"]
        if name == "ernie-async":
            continue
        licence = licence_of(name)
        print(f"{name:20} {version:12} {licence}")
        pins.append(f"{name}=={version}")
        if name not in LOOKED_AT:
            faults.append(f"{name}: comes along now, and nobody has looked at it")
        if not licence.startswith(LICENCES):
            faults.append(f"{name}: licence {licence!r}")
        if one["is_yanked"]:
            faults.append(f"{name} {version}: was yanked")
    holes, unknown = known_holes(pins)
    if unknown:
        print(f"NOT AUDITED: pip-audit could not judge {len(unknown)} of {len(pins)} packages.")
        print("Before a release: python .ci/audit.py --release, where its service can be reached.")
    else:
        print(f"pip-audit: {len(pins)} packages, {len(holes)} known holes")
    faults += holes
    print("\n".join(faults) or "nothing else to say")
    return 1 if faults or (unknown and is_release) else 0


if __name__ == "__main__":
    sys.exit(main(is_release="--release" in sys.argv[1:]))
