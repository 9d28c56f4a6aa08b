"""Inputs and outputs of batches, for tests."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ernie_async.testing import MockErnie


def request_line(custom_id: str, text: str = "你好", **body: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v2/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": text}], **body},
    }


def write_input(path: Path, n: int, start: int = 0) -> Path:
    write_lines(path, [request_line(f"r{i}", f"r{i}") for i in range(start, start + n)])
    return path


def write_lines(path: Path, lines: Iterable[dict[str, Any] | bytes]) -> None:
    with path.open("ab") as file:
        for line in lines:
            raw = line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()
            file.write(raw + b"\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    raw = path.read_bytes()
    assert raw == b"" or raw.endswith(b"\n")
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def ids(path: Path) -> list[str]:
    return [record["custom_id"] for record in read_jsonl(path)]


def asked(server: MockErnie) -> Counter[str]:
    """How often each prompt came to the server."""
    return Counter(seen.json["messages"][-1]["content"] for seen in server.requests)
