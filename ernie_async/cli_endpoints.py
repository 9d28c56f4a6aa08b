"""The commands besides `chat`: vectors, rankings, pictures, models and files.

Each makes one call, and prints its answer: as text, or as JSON with --json.
"""

import sys
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from ernie_async.cli_service import STDIN, Service, Whole, connected
from ernie_async.cli_stdin import read_stdin
from ernie_async.cli_terminal import note, printable
from ernie_async.errors import ConfigError
from ernie_async.options import EmbedOptions, ImageOptions, RerankOptions
from ernie_async.types.files import FileObject
from ernie_async.types.images import Images
from ernie_async.types.models import ModelCard
from ernie_async.types.wire import AnswerModel

__all__ = ["embed", "files", "image", "models", "print_json", "rerank"]

# Numbers of a vector that are shown to a person, who will not read 384 of them.
SHOWN_NUMBERS = 4

# Of a terminal, in columns: a narrower one would cut the names of the models.
LEAST_TABLE_WIDTH = 60


def print_json(value: Any) -> None:
    """One line of JSON in UTF-8, whatever else the terminal speaks."""
    sys.stdout.buffer.write(dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n")
    sys.stdout.flush()


def plain(answer: AnswerModel) -> Any:
    """All that an answer holds, as JSON has it."""
    return answer.model_dump(mode="json", exclude_unset=True)


def say(text: str) -> None:
    """One line of the answer, unable to command the terminal."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")


def given_texts(arguments: tuple[str, ...]) -> list[str]:
    """The arguments; without any, or with `-`, the lines of standard input that are not empty.

    Raises:
        ConfigError: There is nothing to read, or it is no text.
    """
    if arguments not in {(), (STDIN,)}:
        return list(arguments)
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("no text: give some as arguments, or one a line on standard input")
    return [line for line in read_stdin().splitlines() if line.strip()]


def embed(
    *texts: str,
    model: str | None = None,
    batch_size: Annotated[int | None, Whole] = None,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Turn texts into vectors.

    Prints the beginning of each vector to a terminal, and elsewhere one vector a line, as JSON.

    Args:
        texts: The texts; without any, each line of standard input is one.
        model: The embedding model, embedding-v1 if not given.
        batch_size: Texts in one request; if not given, what the model is known to take.
        json: Print the whole answer as one JSON object.
        service: Whom to ask.
    """
    given = given_texts(texts)
    options: EmbedOptions = {}
    if model is not None:
        options["model"] = model
    if batch_size is not None:
        options["batch_size"] = batch_size
    with connected(service, embeds=True) as (runner, client):
        answer = runner.run(client.embed(given, **options))
    if json:
        print_json(plain(answer))
    elif sys.stdout.isatty():
        for text, vector in zip(given, answer.vectors, strict=True):
            shown = ", ".join(f"{number:.4f}" for number in vector[:SHOWN_NUMBERS])
            say(f"[{shown}, ...] {len(vector)} numbers: {text}")
    else:
        for vector in answer.vectors:
            print_json(vector)
    if service.verbose:
        note(f"{answer.usage.total_tokens} tokens")
    return 0


def rerank(
    query: str,
    /,
    *documents: str,
    model: str | None = None,
    top_n: Annotated[int | None, Whole] = None,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Order documents by how well they answer a query, the best first.

    Args:
        query: What they should answer.
        documents: The documents; without any, each line of standard input is one.
        model: The reranking model, bce-reranker-base if not given.
        top_n: How many to print; all if not given.
        json: Print the whole answer as one JSON object.
        service: Whom to ask.
    """
    options: RerankOptions = {}
    if model is not None:
        options["model"] = model
    if top_n is not None:
        options["top_n"] = top_n
    texts = given_texts(documents)
    with connected(service) as (runner, client):
        answer = runner.run(client.rerank(query, texts, **options))
    if json:
        print_json(plain(answer))
        return 0
    for found in answer.results:
        say(f"{found.relevance_score:.4f}\t{found.document}")
    return 0


def image(
    prompt: str,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("image.png"),
    model: str | None = None,
    n: Annotated[int | None, Whole] = None,
    size: str | None = None,
    seed: Annotated[int | None, Whole] = None,
    overwrite: bool = False,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Have a model draw, and save what it drew.

    Prints the names of the files: of several pictures, name-1.png, name-2.png and so on.

    Args:
        prompt: What to draw.
        output: Where to save it, image.png if not given.
        model: The model, qwen-image if not given.
        n: How many pictures.
        size: Such as 1024x1024.
        seed: For pictures that can be repeated.
        overwrite: Replace files that are there.
        json: Save nothing; print the whole answer as one JSON object.
        service: Whom to ask.
    """
    given = {"model": model, "n": n, "size": size, "seed": seed}
    options: ImageOptions = {}
    options.update({name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    paths = [output]
    if n is not None and n > 1:
        paths = [output.with_stem(f"{output.stem}-{number}") for number in range(1, n + 1)]
    if not json:
        check_places(paths, overwrite=overwrite)
    with connected(service) as (runner, client):
        answer = runner.run(client.generate_image(prompt, **options))
        if json:
            print_json(plain(answer))
            return 0
        for picture, path in zip(pictures(answer), paths, strict=False):
            runner.run(client.save_image(picture, path))
            say(str(path))
    return 0


def check_places(paths: list[Path], *, overwrite: bool) -> None:
    """Refuse to draw what could not be saved: it would be paid for.

    Raises:
        ConfigError: A file or folder is there already, or its folder is not.
    """
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"--output: {path} is a folder; name a file in it")
        if path.exists() and not overwrite:
            raise ConfigError(f"--output: {path} exists; --overwrite replaces it")
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"--output: there is no folder {path.absolute().parent}")


def pictures(answer: Images) -> list[Any]:
    """Those that could be made; of the others it is told."""
    failed = sum(picture.has_failed for picture in answer.data)
    if failed:
        note(f"{failed} of {len(answer.data)} pictures could not be made")
    return [picture for picture in answer.data if not picture.has_failed]


def models(*, json: bool = False, service: Service = Service()) -> int:
    """List the models that this key may use; at a terminal with type, context and prices.

    Args:
        json: Print all that is known of them, as one JSON array.
        service: Whom to ask.
    """
    with connected(service) as (runner, client):
        cards = runner.run(client.list_models())
    if json:
        print_json([plain(card) for card in cards])
        return 0
    console = Console()
    if not console.is_terminal or console.width < LEAST_TABLE_WIDTH:
        for card in cards:
            say(card.id)
        return 0
    table = Table("model", "type", "context", "yuan per 1,000 tokens", "owner", "since")
    for card in cards:
        table.add_row(
            printable(card.id),
            printable(card.type or ""),
            f"{card.context_length:,}" if card.context_length else "",
            prices(card),
            printable(card.owned_by or ""),
            day(card.created),
        )
    console.print(table)
    return 0


def prices(card: ModelCard) -> str:
    """What a prompt and an answer cost; a word where it depends on their length."""
    if not card.pricing:
        return ""
    if card.prompt_price is None and card.completion_price is None:
        return "by tiers"
    told = (card.prompt_price, card.completion_price)
    return " / ".join("?" if price is None else f"{price:g}" for price in told)


def day(seconds: int | None) -> str:
    """The date of a moment, if there is one."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if seconds else ""


files: App = App(name="files", help="The files that the service keeps for batches and training.")


@files.command(name="list")
def list_files(
    *,
    purpose: str | None = None,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """List all files: id, bytes, day, purpose and name, with tabs between.

    Args:
        purpose: Only files of this purpose.
        json: Print them as one JSON array.
        service: Whom to ask.
    """

    with connected(service) as (runner, client):

        async def collect() -> list[FileObject]:
            return [file async for file in client.files.all(purpose=purpose)]

        found = runner.run(collect())
    if json:
        print_json([plain(file) for file in found])
        return 0
    for file in found:
        columns = (file.id, file.bytes, day(file.created_at), file.purpose, file.filename)
        say("\t".join("" if column is None else str(column) for column in columns))
    if not found:
        note("there are no files")
    return 0


@files.command
def upload(
    path: Path,
    /,
    *,
    purpose: str = "batch",
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Send a file; print its id.

    Args:
        path: The file.
        purpose: batch if not given; also fine-tune, assistants, vision, user_data, evals.
        json: Print all that the service tells of it, as one JSON object.
        service: Whom to ask.
    """
    with connected(service) as (runner, client):
        file = runner.run(client.files.upload(path, purpose=purpose))
    if json:
        print_json(plain(file))
    else:
        say(file.id)
    return 0


@files.command
def get(
    file_id: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    service: Service = Service(),
) -> int:
    """Write the content of a file to standard output, or into a file.

    Args:
        file_id: Which file.
        output: Where to save it; standard output if not given.
        service: Whom to ask.
    """
    with connected(service) as (runner, client):
        if output is not None:
            say(str(runner.run(client.files.download(file_id, output))))
        else:
            sys.stdout.buffer.write(runner.run(client.files.content(file_id)))
            sys.stdout.flush()
    return 0


@files.command
def delete(file_id: str, /, *, service: Service = Service()) -> int:
    """Delete a file.

    Args:
        file_id: Which file.
        service: Whom to ask.
    """
    with connected(service) as (runner, client):
        is_gone = runner.run(client.files.delete(file_id))
    note(f"{file_id} is deleted" if is_gone else f"{file_id} is still there")
    return 0 if is_gone else 1
