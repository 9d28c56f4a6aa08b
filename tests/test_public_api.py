"""The public names and their signatures are those of `public_api.txt`, word for word.

A change of the file is a change that users see. Write it anew with
`python -m tests.test_public_api`, and look at what has changed.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FILE = Path(__file__).with_name("public_api.txt")
MODULES = (
    "ernie_async",
    "ernie_async.batch",
    "ernie_async.bots",
    "ernie_async.bots.limits_redis",
    "ernie_async.bots.memory_redis",
    "ernie_async.gateway",
    "ernie_async.local",
    "ernie_async.otel",
    "ernie_async.redis",
    "ernie_async.testing",
    "ernie_async.testing.plugin",
    "ernie_async.toolbox",
)

# Those that need no extra.
PLAIN = ("ernie_async", "ernie_async.batch", "ernie_async.bots", "ernie_async.gateway")

# Methods with two underscores that say how a thing is used.
USED_BY = ("init", "call", "iter", "aiter", "next", "anext", "await", "enter", "aenter", "len")
DUNDERS = {f"__{name}__" for name in USED_BY}

# Of longer ones, such as tables and texts, only the name and the type are written down.
LONGEST_VALUE = 160

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign


@cache
def parsed(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def find(module: str, name: str) -> tuple[str, Definition]:
    """Where a name is defined, through all imports that hand it on."""
    for node in parsed(module).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module is not None:
                    return find(node.module, alias.name)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == name:
                return module, node
        elif isinstance(node, ast.Assign):
            if any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                return module, node
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return module, node
    raise LookupError(f"{module} has no {name}")


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
    return f"{marks}{kind} {node.name}({ast.unparse(node.args)}){returns}"


def value_of(node: ast.Assign | ast.AnnAssign) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= LONGEST_VALUE else text.partition(" = ")[0]


def described(node: Definition, indent: str = "") -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield indent + signature(node)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        yield indent + value_of(node)
    else:
        bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
        marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
        yield f"{indent}{marks}class {node.name}({bases})"
        for member in node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                if not member.name.startswith("_") or member.name in DUNDERS:
                    yield from described(member, indent + "    ")
            elif isinstance(member, ast.Assign | ast.AnnAssign):
                target = member.target if isinstance(member, ast.AnnAssign) else member.targets[0]
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    yield from described(member, indent + "    ")


def public_api() -> str:
    lines = []
    seen = set()
    for name in MODULES:
        lines += ["", f"# {name}"] if lines else [f"# {name}"]
        names = exported(name)
        for public in sorted(names):
            if public == "__version__":
                continue
            home, node = find(name, public)
            if (home, public) in seen:
                lines.append(f"{public}: see above")
                continue
            seen.add((home, public))
            lines += described(node)
    return "\n".join(lines) + "\n"


def exported(module: str) -> list[str]:
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return [
        node.name
        for node in parsed(module).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def test_the_public_api_is_what_the_file_says() -> None:
    came, expected = public_api().splitlines(), FILE.read_text("utf-8").splitlines()
    new = [line for line in came if line not in expected]
    gone = [line for line in expected if line not in came]
    assert came == expected, f"new: {new}\ngone: {gone}\nsee the head of {Path(__file__).name}"


def test_every_public_name_is_there() -> None:
    for name in PLAIN:
        module = importlib.import_module(name)
        assert all(hasattr(module, public) for public in exported(name))


if __name__ == "__main__":
    sys.stdout.write(f"{FILE}\n")
    FILE.write_text(public_api(), "utf-8")
