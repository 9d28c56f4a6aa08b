"""The house of floors: a file imports from below, from its own folder without a loop, no more.

Reads the imports with `ast`, those in functions and under `TYPE_CHECKING` too: knowing is knowing.
"""

import ast
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ernie_async

HOUSE = Path(ernie_async.__file__).parent
MODULES = {path.relative_to(HOUSE).as_posix(): path for path in sorted(HOUSE.rglob("*.py"))}

# From the ground up. A new file has to fit a pattern, and where two fit, the first one counts.
FLOORS: list[tuple[str, list[str]]] = [
    ("words", ["version.py", "types/*", "errors.py"]),
    ("thought", ["sansio/*"]),
    ("wire", ["net/*"]),
    (
        "desk",
        [
            "settings.py",
            "options.py",
            "calling.py",
            "embedding.py",
            "searching.py",
            "images.py",
            "files.py",
            "videos.py",
            "parsing.py",
            "media.py",
            "client.py",
            "redis.py",
            "redis_server.py",
        ],
    ),
    (
        "wings",
        ["sync/*", "local.py", "otel.py", "toolbox/*", "batch/*", "testing/*", "gateway/*"],
    ),
    ("bots", ["bots/*"]),
    ("doors", ["__init__.py", "__main__.py", "cli*.py"]),
]

# Who may import what is not ours; everything else stays what it was declared for.
ONLY = {
    "aiohttp": [
        "net/transport.py",
        "net/reply.py",
        "net/http_errors.py",
        "settings.py",
        "client.py",
        "testing/cassette.py",
        "testing/play.py",
        "testing/server.py",
        "gateway/*",
        "bots/discord.py",  # their frameworks raise its errors
        "bots/slack.py",
        "bots/slack_files.py",
    ],
    "starlette": ["gateway/starlette.py"],
    "tenacity": ["net/retrying.py"],
    "xllamacpp": ["local.py"],
    "ray": ["batch/ray.py"],
    "redis": ["bots/memory_redis.py", "gateway/redis.py", "redis_server.py"],
    "opentelemetry": ["otel.py"],
    "cyclopts": ["cli*.py"],
    "rich": ["cli*.py"],
    "pytest": ["testing/plugin.py"],
    "pyarrow": ["batch/parquet.py"],
    "pydantic": ["types/*", "sansio/*", "net/answer.py", "toolbox/function.py"],
    "nonebot": ["bots/nonebot.py"],
    "aiogram": ["bots/aiogram.py"],
    "telegram": ["bots/telegram.py"],
    "discord": ["bots/discord.py"],
    "slack_bolt": ["bots/slack.py"],
    "slack_sdk": ["bots/slack.py"],
}  # fmt: skip
NO_THOUGHT = {
    "asyncio",
    "anyio",
    "aiohttp",
    "time",
    "random",
    "os",
    "logging",
    "threading",
    "socket",
}
ASYNC = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported(module: str) -> set[str]:
    """Dotted names of all that a module imports, `a.b` for `from a import b` too."""
    names = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def known(module: str) -> set[str]:
    """The files of ours that a module imports."""
    found = set()
    for name in imported(module):
        if name.split(".")[0] == "ernie_async":
            steps = name.split(".")[1:]
            paths = ["/".join(steps[:n]) for n in range(len(steps), -1, -1)]
            files = [
                file for path in paths for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/"))
            ]
            found.add(next(file for file in files if file in MODULES))
    return found


def matches(module: str, patterns: list[str]) -> bool:
    return any(fnmatch(module, pattern) for pattern in patterns)


def floor(module: str) -> int:
    return next(n for n, (_, patterns) in enumerate(FLOORS) if matches(module, patterns))


each = pytest.mark.parametrize("module", MODULES)


@each
def test_module_has_a_floor_and_a_docstring(module: str) -> None:
    assert any(matches(module, patterns) for _, patterns in FLOORS), "no floor for this file"
    assert ast.get_docstring(parsed(module))


@each
def test_module_knows_nothing_above_it(module: str) -> None:
    above = {other for other in known(module) if floor(other) > floor(module)}
    assert not above


def test_types_stand_on_nothing_and_errors_on_types() -> None:
    for module in MODULES:
        if module.startswith("types/"):
            assert all(other.startswith("types/") for other in known(module)), module
    assert all(other.startswith("types/") for other in known("errors.py"))


def test_wings_do_not_know_each_other() -> None:
    wings = [m for m in MODULES if FLOORS[floor(m)][0] == "wings"]
    for module in wings:
        room = module.split("/")[0]
        assert all(o.split("/")[0] == room for o in known(module) if o in wings), module


def test_bots_know_one_wing_and_the_verbs_of_the_client() -> None:
    below = {"words", "thought"}
    for module in (m for m in MODULES if m.startswith("bots/")):
        others = {o for o in known(module) if FLOORS[floor(o)][0] not in {*below, "bots"}}
        allowed = {"client.py", "media.py", "settings.py", "toolbox/__init__.py"}
        if module.endswith("_redis.py"):
            allowed.add("redis_server.py")
        assert others <= allowed, module


def test_nothing_is_imported_in_a_loop() -> None:
    # A re-exporting `__init__` knows its folder, so nobody in the folder may know it.
    TopologicalSorter({module: known(module) for module in MODULES}).prepare()


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("sansio/")])
def test_thought_never_waits(module: str) -> None:
    assert not {name.split(".")[0] for name in imported(module)} & NO_THOUGHT
    assert not [node for node in ast.walk(parsed(module)) if isinstance(node, ASYNC)]


@pytest.mark.parametrize("library", ONLY)
def test_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {m for m in MODULES if library in {name.split(".")[0] for name in imported(m)}}
    assert {m for m in users if not matches(m, ONLY[library])} == set()


def test_wings_use_aiohttp_only_as_a_server() -> None:
    for module in MODULES.keys() - {"testing/cassette.py"}:  # which hands on what it records
        if module.startswith(("testing/", "gateway/")):
            names = {name for name in imported(module) if name.split(".")[0] == "aiohttp"}
            assert names <= {"aiohttp.web"}, module


def test_folders_say_their_rule_and_export_nothing() -> None:
    for folder in ("sansio", "net"):
        assert not imported(f"{folder}/__init__.py")
