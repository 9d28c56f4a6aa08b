"""What was sent to the service's lane for whole files, remembered beside the output."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic_core import to_json

from ernie_async.batch.stopping import BatchError
from ernie_async.batch.writing import replacing
from ernie_async.types.wire import read_json

__all__ = ["Manifest", "Part", "manifest_path", "state_of"]

State = Literal["under way", "done", "stopped"]

# The service's words, and OpenAI's; any other word means that it is not over.
STATES: dict[str, State] = {
    "done": "done",
    "completed": "done",
    "stopped": "stopped",
    "failed": "stopped",
    "expired": "stopped",
    "cancelled": "stopped",
}


def state_of(status: object) -> State:
    """What a status means."""
    return STATES.get(str(status).lower(), "under way")


@dataclass(slots=True)
class Part:
    """One file that was sent.

    Attributes:
        endpoint: The url of its lines.
        lines: How many they are.
        last_line: Where the last of them stands in the input.
        file_id: What the service calls the file.
        batch_id: What it calls the work on it; `None` if that was not begun, as far as is known.
        status: As the service told last.
        output_file_id: Where the results are.
        error_file_id: Where the failures are.
        is_fetched: Whether all it brought is in the output.
    """

    endpoint: str
    lines: int = 0
    last_line: int = 0
    file_id: str = ""
    batch_id: str | None = None
    status: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    is_fetched: bool = False


@dataclass(slots=True)
class Manifest:
    """What was sent for one output; kept in a file.

    Attributes:
        path: The file.
        is_complete: Whether all lines were sent.
        parts: The files that were sent.
    """

    path: Path
    is_complete: bool = False
    parts: list[Part] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read it; an empty one if there is none.

        Raises:
            BatchError: It is damaged.
        """
        try:
            fields = read_json(path.read_bytes())
            parts = [Part(**part) for part in fields["parts"]]
            return cls(path, bool(fields["is_complete"]), parts)
        except FileNotFoundError:
            return cls(path)
        except (ValueError, KeyError, TypeError) as error:
            raise BatchError(f"{path}: {error}", "damaged") from error

    def save(self) -> None:
        """Write it, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        fields = {"is_complete": self.is_complete, "parts": [asdict(part) for part in self.parts]}
        with replacing(self.path) as file:
            file.write(to_json(fields, indent=2) + b"\n")


def manifest_path(out: Path) -> Path:
    """Where it is kept."""
    return out.with_name(f"{out.name}.remote.json")
