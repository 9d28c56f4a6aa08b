"""The commands of `ernie-async batch` for the service's own lane: submit, status, fetch, cancel."""

import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ernie_async.cli_batch import FAILED, Reading, Source
from ernie_async.cli_endpoints import print_json
from ernie_async.cli_service import Service, Whole, connected
from ernie_async.cli_terminal import note, printable

if TYPE_CHECKING:
    from ernie_async.batch.manifest import Part
    from ernie_async.batch.offline import OfflineLane

__all__ = ["cancel", "fetch", "status", "submit"]

UNFINISHED = 75

Output = Annotated[Path, Parameter(alias="-o")]


def show(parts: "list[Part]") -> None:
    """One line for each part."""
    for part in parts:
        columns = [part.batch_id or "not begun", part.status or "", f"{part.lines:,} lines"]
        columns += ["fetched"] if part.is_fetched else []
        sys.stdout.write("\t".join(printable(column) for column in columns) + "\n")


def ask_of_parts(
    output: Path,
    service: Service,
    ask: "Callable[[OfflineLane], Coroutine[Any, Any, list[Part]]]",
    *,
    json: bool,
) -> int:
    """Ask something of all parts, and show how they are then."""
    from ernie_async.batch.offline import OfflineLane  # a wing

    with connected(service) as (runner, client):
        parts = runner.run(ask(OfflineLane(client, output)))
    if json:
        print_json([asdict(part) for part in parts])
    else:
        show(parts)
        if not parts:
            note(f"nothing was sent for {output}")
    return 0


def submit(
    source: Source,
    /,
    *,
    output: Output,
    reading: Reading = Reading(),
    window: str = "24h",
    part_lines: Annotated[int, Whole, Parameter(validator=Number(gte=1))] = 5000,
    service: Service = Service(),
) -> int:
    """Send a file to the service's own batch lane: slower, and for less than half the price.

    Lines that OUT has already are left out. What was sent is remembered in OUT.remote.json.

    Args:
        source: As for run.
        output: Where results will go.
        reading: How the input is read.
        window: How long the service may take, from 1h to 672h; 24h if not given.
        part_lines: Lines in one file, 5000 if not given, which is the service's limit.
        service: Whom to ask.
    """
    from ernie_async.batch.offline import OfflineLane  # a wing

    with connected(service) as (runner, client):
        lane = OfflineLane(client, output, max_lines=part_lines)
        n_lines = runner.run(lane.submit(source, reading.file_options(), window=window))
    show(lane.manifest.parts)
    note(f"{n_lines:,} lines sent")
    return 0


def status(
    *,
    output: Output,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Ask how far the files are that were sent for an output.

    Args:
        output: As for submit.
        json: Print all that is known as one JSON array.
        service: Whom to ask.
    """
    return ask_of_parts(output, service, lambda lane: lane.refresh(), json=json)


def fetch(
    source: Source,
    /,
    *,
    output: Output,
    reading: Reading = Reading(),
    service: Service = Service(),
) -> int:
    """Write into an output what the lane has ready, as run would have.

    The exit code is 75 while lines are without a result: call it again later, or let run do them.

    Args:
        source: As for submit.
        output: As for submit.
        reading: How the input is read, as for submit.
        service: Whom to ask.
    """
    from ernie_async.batch.offline import OfflineLane  # a wing

    with connected(service) as (runner, client):
        lane = OfflineLane(client, output)
        told = runner.run(lane.fetch(source, reading.file_options()))
    show(lane.manifest.parts)
    note(f"{told.ok:,} succeeded, {told.failed:,} failed, {told.undone:,} without a result")
    if told.undone:
        return UNFINISHED
    return FAILED if told.failed else 0


def cancel(
    *,
    output: Output,
    json: bool = False,
    service: Service = Service(),
) -> int:
    """Ask the service to stop (unverified: its documentation has no page about that).

    Args:
        output: As for submit.
        json: Print all that is known as one JSON array.
        service: Whom to ask.
    """
    return ask_of_parts(output, service, lambda lane: lane.cancel(), json=json)
