"""The command `ernie-async`: a first try, a small tool for pipes, and a mock server.

Knows every wing, and imports one only in the command that needs it. What an answer looks like is
decided in `cli_terminal`.
"""

import asyncio
import json as json_module
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnusedCliTokensError
from cyclopts.validators import Number

from ernie_async.cli_batch import batch
from ernie_async.cli_chat import Asker, converse, explain
from ernie_async.cli_endpoints import embed, files, image, models, print_json, rerank
from ernie_async.cli_offline import cancel, fetch, status, submit
from ernie_async.cli_serve import serve
from ernie_async.cli_service import OFFLINE_CHUNK_MS, STDIN, Service, Whole, connected
from ernie_async.cli_stdin import read_stdin
from ernie_async.cli_terminal import note, printable
from ernie_async.errors import ConfigError, ErnieError
from ernie_async.media import image_part
from ernie_async.sansio.output import type_of_schema
from ernie_async.settings import ChatOptions
from ernie_async.version import __version__

__all__ = ["main"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE ended

EPILOGUE = (
    "Exit codes: 0 all is well; 1 the service or the network failed; 2 wrong usage or settings; "
    "130 Ctrl-C; 141 nobody reads the output any more."
)
SERVER_EPILOGUE = (
    "Exit codes: 0 stopped, by Ctrl-C too; 1 it cannot listen, or the network failed; "
    "2 wrong usage or settings."
)

# A program that starts this one may leave standard input open and never write to it. Beside a
# prompt, text is expected to begin within so many seconds; without one it is waited for.
STDIN_SECONDS = 3.0

# Sources in the text and behind it.
SEARCH = {"enable": True, "enable_citation": True, "enable_trace": True}

# Options that take no value.
FLAGS = {
    "--no-stream",
    "--json",
    "--verbose",
    "--offline",
    "--local",
    "--overwrite",
    "--chat",
    "--search",
    "--think",
    "--no-think",
    "--ordered",
    "--only-failed",
    "--strict",
    "--fresh",
    "--repair",
    "--dry-run",
    "--group",
}

app: App = App(
    name="ernie-async",
    help="Talk to Baidu's ERNIE models, or to any server that speaks the same.",
    help_epilogue=EPILOGUE,
    version=f"ernie-async {__version__}",
    default_parameter=Parameter(negative=(), show_default=False),
)


@app.command
def chat(
    prompt: str | None = None,
    /,
    *,
    model: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: Annotated[int | None, Whole, Parameter(validator=Number(gte=1))] = None,
    seed: Annotated[int | None, Whole] = None,
    image: list[str] | None = None,
    schema: Path | None = None,
    search: bool = False,
    think: Annotated[bool | None, Parameter(negative="--no-think")] = None,
    no_stream: bool = False,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Ask a question, or without one have a conversation.

    The answer is shown while it is being written. Text that is piped in is added to the prompt, if
    it begins within 3 seconds.

    Args:
        prompt: The question; `-` reads it from standard input. One that begins with a hyphen goes
            behind `--`.
        model: The model to ask.
        system: Instructions for the whole conversation.
        temperature: From 0 to 2; a model may take less.
        top_p: From 0 to 1.
        max_tokens: The longest answer, in tokens (sent as max_completion_tokens).
        seed: For answers that can be repeated.
        image: A picture to ask about, a file or a URL; may be given several times.
        schema: A file with a JSON schema: the answer is JSON of this form.
        search: Let the service search the web, and tell the sources.
        think: Switch thinking on, and show it, or off.
        no_stream: Wait for the whole answer.
        json: Print the whole answer as one JSON object.
        service: Whom to ask.
    """
    text = read_prompt(prompt)
    for name, is_given in (("json", json), ("image", image), ("schema", schema)):
        if text is None and is_given:
            raise ConfigError(f"--{name} needs a prompt")
    wanted = None if schema is None else read_schema(schema)
    parts = [image_part(source) for source in image or ()]
    options = ChatOptions(
        model=model,
        temperature=temperature,
        top_p=top_p,
        max_completion_tokens=max_tokens,
        seed=seed,
        enable_thinking=think,
        web_search=SEARCH if search else None,
    )
    messages: list[dict[str, Any]]
    messages = [] if system is None else [{"role": "system", "content": system}]
    with connected(service) as (runner, client):
        asker = Asker(
            client,
            options,
            is_stream=not no_stream,
            is_verbose=service.verbose,
            shows_thoughts=think or service.verbose,
        )
        if text is None:
            converse(runner, asker, messages)
            return 0
        question = (
            text
            if not parts
            else [*(part.model_dump() for part in parts), {"type": "text", "text": text}]
        )
        messages.append({"role": "user", "content": question})
        if wanted is not None:
            print_json(runner.run(client.parse(messages, into=type_of_schema(wanted), **options)))
        elif json:
            answer = runner.run(asker.whole(messages))
            print_json(answer.model_dump(mode="json", exclude_unset=True))
        else:
            runner.run(asker.show(messages))
    return 0


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON schema from a file.

    Raises:
        ConfigError: There is none.
    """
    try:
        schema = json_module.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--schema: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--schema: {path}: expected JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"--schema: {path}: expected a JSON schema, which is an object")
    return schema


for _command in (embed, rerank, image, models):
    app.command(_command)
app.command(serve, help_epilogue=SERVER_EPILOGUE)
app.command(files)
for _lane_command in (submit, status, fetch, cancel):
    batch.command(_lane_command)
app.command(batch)
BOT_HELP = "Try what answers look like in a chat."
app.command("ernie_async.cli_bot:bot", name="bot", help=BOT_HELP)  # imported by its own commands


@app.command
def doctor(
    *,
    model: str | None = None,
    chat: bool = False,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Look for what stands between this machine and an answer.

    Each line says ok, warn or fail, and what to do. The exit code is 1 if one says fail.

    Args:
        model: The model that you want to use.
        chat: Also ask for an answer of one token, which costs something.
        json: Print all findings as one JSON object.
        service: Whom to ask.
    """
    from ernie_async.cli_doctor import Finding, examine, find_credential

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not json:
            remedy = f" - {finding.remedy}" if finding.remedy else ""
            print(printable(f"{finding.state:4} {finding.check:10} {finding.text}{remedy}"))

    is_local = service.local or service.local_model is not None
    embedded = "--offline" if service.offline else "--local" if is_local else None
    if embedded is None and (credential := find_credential("")).state == "fail":
        tell(credential)
    try:
        with connected(service) as (runner, client):
            if embedded is None:
                tell(find_credential(client.base_url))
            else:
                tell(Finding("credential", "ok", f"none is needed with {embedded}"))
            tell(Finding("base URL", "ok", client.base_url))
            asked = client if model is None else client.with_options(model=model)
            runner.run(examine(asked, asked.model or "", asks=chat, tell=tell))
    except ConfigError as error:
        if error.message.startswith("no API key"):
            remedy = "set QIANFAN_API_KEY; --offline and --local need none"
            tell(Finding("credential", "fail", "none found in the environment", remedy))
        elif not found:
            tell(Finding("settings", "fail", error.message))
    is_well = all(finding.state != "fail" for finding in found)
    if json:
        print_json({"ok": is_well, "checks": [finding._asdict() for finding in found]})
    return 0 if is_well else FAILED


@app.command(help_epilogue=SERVER_EPILOGUE)
def mock(
    *,
    port: Annotated[int, Whole, Parameter(validator=Number(gte=0, lte=65535))] = 0,
    chunk_ms: Annotated[float, Parameter(validator=Number(gte=0))] = OFFLINE_CHUNK_MS,
    rpm: Annotated[int | None, Whole, Parameter(validator=Number(gte=1))] = None,
    concurrency: Annotated[int | None, Whole, Parameter(validator=Number(gte=1))] = None,
) -> int:
    """Run a server that speaks Qianfan V2 with canned answers, until Ctrl-C.

    Its base URL is the first line on standard output.

    Args:
        port: On 127.0.0.1; 0 takes a free one.
        chunk_ms: Milliseconds between the chunks of a stream, 20 if not given.
        rpm: Refuse requests above so many a minute.
        concurrency: Refuse requests above so many at a time.
    """
    from ernie_async.testing import MockErnie

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = MockErnie(
            port, chunk_ms=chunk_ms, requests_per_minute=rpm, concurrency=concurrency
        )
        async with server:
            print(server.base_url, flush=True)
            note(f'try: ernie-async chat --base-url {server.base_url} "你好" (Ctrl-C stops me)')
            await stop.wait()

    try:
        asyncio.run(serve())
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ErnieError(f"cannot listen on port {port}: {error.strerror}") from error
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. No mistake of the user ends in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # for terminals without Chinese
    if isinstance(sys.stdin, TextIOWrapper):
        # What is piped is UTF-8, unless it is said to be something else; what is typed is not.
        is_named = sys.stdin.isatty() or os.environ.get("PYTHONIOENCODING")
        encoding = sys.stdin.encoding if is_named else "utf-8"
        sys.stdin.reconfigure(encoding=encoding, errors="strict")  # no half characters travel on
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as we run
    if sys.stdout is None:
        note("standard output is closed; there is nowhere to write the answer")
        return FAILED
    try:
        given = translate(sys.argv[1:] if arguments is None else arguments)
        code: int | None = app(
            given,
            print_error=False,
            exit_on_error=False,
            verbose=False,
            result_action="return_value",
        )
        sys.stdout.flush()
        return code or 0
    except CycloptsError as error:
        command = " ".join(["ernie-async", *(error.command_chain or ())])
        is_loose_prompt = isinstance(error, UnusedCliTokensError) and command.endswith("chat")
        hint = "a prompt of several words needs quotes; " if is_loose_prompt else ""
        note(f"{error} ({hint}see {command} --help)")
        return MISUSED
    except ErnieError as error:
        note(explain(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Else Python would try again to write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as error:
        # rich ends so when nobody reads the help any more.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return BROKEN_PIPE
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        name = f" {error.filename}" if isinstance(error.filename, str) else ""
        note(f"cannot read or write{name}: {error.strerror}")
        return FAILED


def exit_code(error: ErnieError) -> int:
    """What the shell is told of an error."""
    from ernie_async.batch.stopping import EXIT_CODES, BatchError

    if isinstance(error, BatchError):
        return EXIT_CODES[error.reason]
    return MISUSED if isinstance(error, ConfigError) else FAILED


def translate(arguments: Sequence[str]) -> list[str]:
    """Put the model file of `--local`, and `-`, into a form that is not ambiguous."""
    given = list(arguments)
    done: list[str] = []
    while given and given[0] != "--":
        argument = given.pop(0)
        if argument.startswith("--local="):
            argument = argument.replace("--local=", "--local-model=", 1)
        elif argument == "--local" and given and given[0].lower().endswith(".gguf"):
            argument = f"--local-model={given.pop(0)}"
        is_value = bool(done) and done[-1].startswith("--") and done[-1] not in FLAGS
        done.append(STDIN if argument == "-" and not is_value else argument)
    return done + given


def read_prompt(prompt: str | None) -> str | None:
    """The prompt and what is on standard input; `None` if there is to be a conversation."""
    is_typed = sys.stdin is None or sys.stdin.isatty()
    if prompt is None and sys.stdin is not None and is_typed:
        return None
    parts = [] if prompt in {None, STDIN} else [prompt]
    if sys.stdin is not None and (prompt == STDIN or not is_typed):
        if parts and not begins_soon():
            note("standard input is open but silent: going on without it; `-` would wait for it")
        else:
            parts.append(read_stdin().rstrip("\r\n"))
    text = "\n\n".join(part for part in parts if part)
    if not text.strip():
        raise ConfigError(
            'no prompt: give one, as in ernie-async chat "你好", or on standard input'
        )
    return text


def begins_soon() -> bool:
    """Whether standard input has text, or its end, before the time for that is over."""
    try:
        return bool(select.select([sys.stdin], [], [], STDIN_SECONDS)[0])
    except (OSError, ValueError):
        return True  # nothing that can be waited for, such as a pipe on Windows
