"""The commands of `ernie-async batch`: many prompts from file to file.

A thin skin: what a run does is decided in `batch`, how it looks in `cli_progress`.
"""

import asyncio
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from json import loads
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter, Token
from cyclopts.validators import Number

from ernie_async.cli_endpoints import print_json
from ernie_async.cli_progress import (
    ProgressKind,
    View,
    progress_view,
    show_estimate,
    show_report,
)
from ernie_async.cli_service import STDIN, Service, Whole, connected
from ernie_async.cli_terminal import note
from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError, ErnieError

if TYPE_CHECKING:
    from ernie_async.batch import BatchReport, BatchRunner, FileOptions

__all__ = ["Reading", "Source", "batch"]

FAILED, INTERNAL = 1, 70

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

batch: App = App(
    name="batch",
    help="Many prompts from file to file: resumable, within limits and budget.",
    help_epilogue=(
        "Exit codes: 0 every line succeeded; 1 some have failed, see the dead letters; 2 wrong "
        "usage; 65 bad input or output; 66 no input; 69 too many errors, or no connection; 70 a "
        "bug; 73 output locked; 74 disk; 75 budget or deadline; 77 key or model refused; 130, 143 "
        "interrupted. "
        "The same command goes on after 66, 69, 70, 73, 74, 75, 130 and 143."
    ),
)

Positive: Parameter = Parameter(validator=Number(gt=0))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the input is read.

    Attributes:
        kind: What the input holds, if its name does not say: jsonl, csv or parquet.
        template: A prompt with columns of a row in braces, such as "Translate: {text}".
        id_column: The column that names a row; custom_id, or the row's number, if not given.
        endpoint: Where prompts go, /v2/chat/completions if not given.
        model: For lines that name none.
        set: A field of the body for lines that do not have it, such as temperature=0.3; may be
            given several times.
    """

    kind: Literal["jsonl", "csv", "parquet"] | None = None
    template: str | None = None
    id_column: str | None = None
    endpoint: str | None = None
    model: str | None = None
    set: list[str] | None = None

    def file_options(self, **more: Any) -> "FileOptions":
        """The same, and more, for a run."""
        from ernie_async.batch.options import FileOptions  # a wing

        return FileOptions(**self.fields(), **more)

    def fields(self) -> dict[str, Any]:
        """The same as `FileOptions` has it."""
        defaults: dict[str, Any] = {} if self.model is None else {"model": self.model}
        for given in self.set or ():
            name, is_set, text = given.partition("=")
            if not is_set:
                raise ConfigError(f"--set: expected name=value, got {given}")
            try:
                defaults[name] = loads(text)
            except ValueError:
                defaults[name] = text
        options = {"kind": self.kind, "template": self.template, "id_column": self.id_column}
        if self.endpoint is not None:
            options["url"] = self.endpoint
        return {**options, "defaults": defaults}


def read_seconds(text: str | None, name: str) -> float | None:
    """Seconds from `90`, `90s`, `15m` or `2h`."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise ConfigError(f"--{name}: expected a time such as 90s, 15m or 2h, got {text}")
    return seconds


def read_shard(text: str | None) -> tuple[int, int] | None:
    """`(i, n)` from `i/n`."""
    if text is None:
        return None
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal()):
        raise ConfigError(f"--shard: expected i/n such as 0/16, got {text}")
    return int(i), int(n)


def shard_path(output: str, i: int, n: int) -> str:
    """Where machine i of n writes, if all of them shall write to `out.jsonl`."""
    path = Path(output)
    return str(path.with_name(f"{path.stem}-{i:05}-of-{n:05}{path.suffix}"))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where the calls are made.

    Attributes:
        engine: local: by this process; ray: by workers of a Ray cluster.
        workers: How many of them, 2 if not given.
        ray_address: Of the cluster; if not given, one that Ray finds, or one on this machine.
        redis: URL of a Redis where the workers share --rpm, --tpm and --concurrency; without it
            each has an even part.
    """

    engine: Literal["local", "ray"] = "local"
    workers: Annotated[int | None, Whole, Parameter(validator=Number(gte=1))] = None
    ray_address: str | None = None
    redis: str | None = None

    def make_runner(self, client: AsyncClient, settings: dict[str, Any]) -> "BatchRunner":
        """What makes the run.

        Raises:
            ConfigError: An option is of no use, or an extra is missing.
        """
        if self.engine == "local":
            for name in ("workers", "ray_address", "redis"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name.replace('_', '-')} needs --engine ray")
            from ernie_async.batch.runner import BatchRunner  # a wing

            return BatchRunner(client, **settings)
        try:
            from ernie_async.batch.ray import N_WORKERS, RayRunner  # an extra

            return RayRunner(
                client,
                workers=self.workers or N_WORKERS,
                address=self.ray_address,
                redis=self.redis,
                **settings,
            )
        except ImportError as error:
            raise ConfigError(f"--engine ray: {error}") from error


def read_source(_: Any, tokens: Sequence[Token]) -> Path:
    """An input; `-` is standard input."""
    word = tokens[0].value
    return Path("-" if word == STDIN else word)


Source = Annotated[Path, Parameter(converter=read_source)]


@contextmanager
def signals(tell: Callable[[str], object]) -> Iterator[None]:
    """Have Ctrl-C and the polite kill told, instead of obeyed."""
    loop = asyncio.get_running_loop()
    numbers = {signal.SIGINT: "sigint", signal.SIGTERM: "sigterm"}
    with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
        for number, name in numbers.items():
            loop.add_signal_handler(number, tell, name)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


@batch.command
def run(
    source: Source,
    /,
    *,
    output: Annotated[str, Parameter(alias="-o")],
    reading: Reading = Reading(),
    concurrency: str | None = None,
    rpm: Annotated[float | None, Positive] = None,
    tpm: Annotated[float | None, Positive] = None,
    attempts: Annotated[int, Whole, Parameter(validator=Number(gte=1))] = 5,
    max_cost: Annotated[float | None, Positive] = None,
    max_total_tokens: Annotated[int | None, Whole, Positive] = None,
    prices: Path | None = None,
    max_errors: str | None = None,
    deadline: str | None = None,
    grace: str = "30s",
    ordered: bool = False,
    only_failed: bool = False,
    strict: bool = False,
    fresh: bool = False,
    repair: bool = False,
    on_changed: Literal["error", "keep", "rerun"] = "error",
    delivery: Literal["at-least-once", "at-most-once"] = "at-least-once",
    fsync: Literal["interval", "always", "never"] = "interval",
    shard: str | None = None,
    dry_run: bool = False,
    progress: ProgressKind = "auto",
    report: Path | None = None,
    engine: Engine = Engine(),
    service: Service = Service(),
) -> int:
    """Ask for each line of a file, and write each answer as a line of another.

    The same command again goes on where this one ended, however it ended.

    Args:
        source: JSON Lines in the form of OpenAI's batch files, or with prompt or messages; CSV;
            Parquet; - for standard input.
        output: Where results go; - for standard output.
        reading: How the input is read.
        concurrency: Calls at once: a number, or auto, or auto:4..128 to find it out within bounds.
        rpm: Requests per minute.
        tpm: Tokens per minute.
        attempts: How often a line is tried, 5 if not given.
        max_cost: Stop before more than this is spent on this output, all runs together.
        max_total_tokens: The same in tokens.
        prices: A TOML file of prices.
        max_errors: Stop when more lines than this have failed: a number, or 5% (of at least 100).
        deadline: Stop after this time, such as 2h.
        grace: When stopped, time for the calls under way, 30s if not given.
        ordered: Write results in the order of the input.
        only_failed: Do the lines again that failed, and nothing else.
        strict: Look through the whole input first; stop at the first bad line.
        fresh: Refuse to go on with an output.
        repair: Move lines of earlier runs aside that cannot be read, or are there twice.
        on_changed: If a line that is done now asks something else: error, keep or rerun.
        delivery: at-least-once; or at-most-once: what was under way at a crash is not asked again.
        fsync: When lines are safe from a loss of power: interval, always or never.
        shard: Only the lines of machine i of n, such as 0/16, into OUT-00000-of-00016. Limits of
            rate and budget are those of all machines: each has its share.
        dry_run: Ask nothing; tell what it would take.
        progress: auto, plain, json or none.
        report: Write a page with plots.
        engine: Where the calls are made.
        service: Whom to ask.
    """
    from ernie_async.batch.checkpoint import errors_path  # a wing
    from ernie_async.batch.runner import RETRY
    from ernie_async.batch.settings import read_concurrency, read_prices

    options = reading.file_options(
        ordered=ordered,
        delivery=delivery,
        fsync=fsync,
        fresh=fresh,
        repair=repair,
        on_changed=on_changed,
        only_failed=only_failed,
        strict=strict,
        shard=read_shard(shard),
    )
    table = None if prices is None else read_prices(prices)
    target, n_machines = "-" if output == STDIN else output, 1
    if options.shard is not None:
        n_machines = options.shard[1]
        target = target if target == "-" else shard_path(target, *options.shard)
    if target == "-" and not dry_run:
        note("standard output has no checkpoint: what is done cannot be gone on with")
    with connected(service) as (runner, client):
        settings: dict[str, Any] = {
            "rpm": rpm and rpm / n_machines,
            "tpm": tpm and tpm / n_machines,
            "max_cost": max_cost and max_cost / n_machines,
            "max_total_tokens": max_total_tokens and ceil(max_total_tokens / n_machines),
            "prices": None if table is None else table.prices,
            "retry": replace(RETRY, attempts=attempts),
            "deadline": read_seconds(deadline, "deadline"),
            "max_errors": max_errors,
            "grace": read_seconds(grace, "grace") or 0.0,
        }
        if concurrency is not None:
            settings["concurrency"] = read_concurrency(concurrency)
        work = engine.make_runner(client, settings)
        currency = "¥" if table is None else table.sign
        if dry_run:
            told = runner.run(work.estimate_file(source, target, options))
            show_estimate(told, currency)
            return 0
        try:
            with progress_view(progress, currency) as view:
                done = runner.run(run_with_signals(work, source, target, options, view))
        except (ErnieError, OSError):
            raise
        except Exception:  # noqa: BLE001 - a bug, which its author wants to see
            traceback.print_exc()
            return INTERNAL
    show_report(done, currency)
    if target != "-" and (done.failed or done.reason == "failures"):
        note(f"what failed is in {errors_path(Path(target))}; --only-failed does it again")
    if report is not None:
        from ernie_async.batch.page import render_page

        report.write_text(render_page(done, currency), encoding="utf-8")
    return done.exit_code


async def run_with_signals(
    work: "BatchRunner",
    source: Path,
    target: str,
    options: "FileOptions",
    view: View,
) -> "BatchReport":
    """Run; the first signal stops, the second breaks off."""
    seen: list[str] = []

    def on_signal(name: str) -> None:
        seen.append(name)
        if len(seen) == 1:
            note("stopping: calls under way may finish; once more to break them off")
            work.stop("sigint" if name == "sigint" else "sigterm")
        else:
            work.cancel()

    with signals(on_signal):
        return await work.run_file(source, target, options, on_progress=view)


@batch.command
def merge(
    *outputs: Path,
    output: Annotated[Path, Parameter(alias="-o")],
    input: Path | None = None,  # noqa: A002 - the option's name
    ordered: bool = False,
    reading: Reading = Reading(),
    json: bool = False,
) -> int:
    """Put the outputs of several machines together, with their dead letters.

    The exit code is 1 if lines are missing or double.

    Args:
        outputs: The results of each machine.
        output: The file to write.
        input: What they all read, to see what is missing.
        ordered: Write results in the order of the input.
        reading: How the input is read.
        json: Print what was found as one JSON object.
    """
    from ernie_async.batch.lines import LineReader  # a wing
    from ernie_async.batch.merge import merge as put_together

    if not outputs:
        raise ConfigError("no outputs to put together: name them, such as out-*.jsonl")

    given = reading.fields()
    kind = given.pop("kind")
    found = asyncio.run(
        put_together(
            outputs,
            output,
            source=input,
            kind=kind,
            reader=LineReader(**given),
            ordered=ordered,
        )
    )
    if json:
        print_json(found._asdict())
    else:
        missing = "" if found.missing is None else f", {found.missing:,} missing"
        letters = f"{found.failed:,} dead letters"
        sys.stdout.write(f"{found.ok:,} results, {letters}, {found.double:,} double{missing}\n")
    return FAILED if found.double or found.missing else 0
