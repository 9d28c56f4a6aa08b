"""What reached the mock, and what the service would have refused of it.

Knows requests and their bodies; does not answer, and knows no quota.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ernie_async.testing.script import Refuse

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(slots=True, eq=False)
class Seen:
    """One request, as it came.

    Attributes:
        method: HTTP method.
        path: Path without query.
        headers: Request headers; names in any case.
        received_at: Seconds on `time.monotonic`, when the headers were complete.
        connection: Number of the TCP connection, from 1; equal numbers mean it was reused.
        body: The bytes of the body.
        json: The parsed body, None if it is not JSON.
        ended: "done" when the answer was sent to its end; "cut" when the script broke it or the
            server stopped; "client_gone" when the client left first; None while it is running.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    received_at: float
    connection: int
    body: bytes = b""
    json: Any = None
    ended: Literal["done", "cut", "client_gone"] | None = None

    @property
    def is_stream(self) -> bool:
        """Whether the request asks for events."""
        return isinstance(self.json, dict) and bool(self.json.get("stream"))


class StoredFile(NamedTuple):
    """A file that was uploaded: what is told of it, and its bytes."""

    fields: dict[str, Any]
    content: bytes


@dataclass(slots=True)
class Shelf:
    """What the mock remembers from one request to the next.

    Attributes:
        files: By id, oldest first.
        n_files: Files ever uploaded.
        tasks: How often each video task was asked for.
        batches: By id, oldest first.
    """

    files: dict[str, StoredFile] = field(default_factory=dict)
    n_files: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)


class Asked(NamedTuple):
    """One request as the handler of an endpoint sees it.

    Attributes:
        json: The parsed body, None if it is not JSON.
        body: Its bytes.
        headers: Names in any case.
        query: The query of the path.
        name: The part of the path that names something, if the route has one.
        origin: This server, such as `http://127.0.0.1:8000`.
        body_id: The id for the answer.
        created: Seconds since 1970.
        shelf: What was remembered.
    """

    json: Any
    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str]
    name: str
    origin: str
    body_id: str
    created: int
    shelf: Shelf


def parse_body(body: bytes) -> Any:
    """The JSON of a body, None if it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def check_chat(request: Any) -> Refuse | None:
    """Refuse what the service was seen to refuse in the parsed body of a chat request."""
    if not isinstance(request, dict):
        return Refuse(400, "malformed_json")
    if not request.get("model"):
        return Refuse(400, message="you must provide a model parameter")
    messages = request.get("messages")
    if not messages:
        return Refuse(400, message="messages cannot be empty")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return Refuse(400, "malformed_json")
    if any(message.get("role") not in ROLES for message in messages):
        allowed = ",".join(ROLES)
        return Refuse(400, message=f"the role must be one of the following: {allowed}")
    return None
