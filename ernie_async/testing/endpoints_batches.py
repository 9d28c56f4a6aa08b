"""The lane for whole files: a batch is done when it is asked for the third time."""

import json
from typing import Any

from ernie_async.testing import render
from ernie_async.testing.endpoints_media import edit_image, generate_image
from ernie_async.testing.script import Raw, Refuse
from ernie_async.testing.seen import Asked, StoredFile, check_chat

__all__ = ["cancel_batch", "create_batch", "list_batches", "show_batch"]

CHAT = "/v2/chat/completions"
ENDPOINTS = {CHAT, "/v2/images/generations", "/v2/images/edits"}
MAX_LINES = 5000
DAY = 86_400

# What a batch says when it is asked for the first, the second and the third time.
STEPS = ("Queuing", "Running", "Done")
MOMENTS = ("in_progress", "expired", "failed", "finalizing", "completed", "cancelling", "cancelled")


def create_batch(asked: Asked) -> dict[str, Any] | Refuse:
    """Take a file that was uploaded for this purpose."""
    fields = asked.json if isinstance(asked.json, dict) else {}
    file = asked.shelf.files.get(str(fields.get("input_file_id")))
    if file is None or file.fields["purpose"] != "batch":
        return Refuse(400, message="input_file_id: no such file of purpose batch")
    if fields.get("endpoint") not in ENDPOINTS:
        return Refuse(400, message=f"endpoint must be one of {sorted(ENDPOINTS)}")
    if not str(fields.get("completion_window", "")).endswith("h"):
        return Refuse(400, message="completion_window must be 1h to 672h")
    lines = file.content.split(b"\n")
    if len([line for line in lines if line]) > MAX_LINES:
        return Refuse(400, message=f"the file has more than {MAX_LINES} lines")
    batch: dict[str, Any] = {
        "id": f"infer-mock{len(asked.shelf.batches) + 1:06d}",
        "object": "batch",
        "endpoint": fields["endpoint"],
        "model": None,
        "errors": None,
        "input_file_id": fields["input_file_id"],
        "completion_window": fields["completion_window"],
        "status": STEPS[0],
        "output_file_id": None,
        "error_file_id": None,
        "created_at": asked.created,
        "expires_at": asked.created + DAY,
        **{f"{name}_at": None for name in MOMENTS},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": fields.get("metadata") or {},
    }
    asked.shelf.batches[batch["id"]] = batch
    return batch


def list_batches(asked: Asked) -> dict[str, Any]:
    """All of them, the newest first."""
    data = [dict(batch) for batch in reversed(asked.shelf.batches.values())]
    ids = [batch["id"] for batch in data]
    if (after := asked.query.get("after")) in ids:
        data = data[ids.index(after) + 1 :]
    limit = int(asked.query.get("limit", "20"))
    return {
        "object": "list",
        "data": data[:limit],
        "first_id": data[0]["id"] if data else None,
        "last_id": data[:limit][-1]["id"] if data else None,
        "has_more": len(data) > limit,
    }


def show_batch(asked: Asked) -> dict[str, Any] | Refuse:
    """How far one is; each look brings it one step on."""
    batch = asked.shelf.batches.get(asked.name)
    if batch is None:
        return Refuse(404, "invalid_argument", "batch not found")
    told = dict(batch)
    if batch["status"] in STEPS[:-1]:
        batch["status"] = STEPS[STEPS.index(batch["status"]) + 1]
        if batch["status"] == STEPS[-1]:
            _finish(batch, asked)
    return told


def cancel_batch(asked: Asked) -> dict[str, Any] | Refuse:
    """Stop one, if it is not over."""
    batch = asked.shelf.batches.get(asked.name)
    if batch is None:
        return Refuse(404, "invalid_argument", "batch not found")
    if batch["status"] in STEPS[:-1]:
        batch |= {"status": "Stopped", "cancelled_at": asked.created}
    return dict(batch)


def _finish(batch: dict[str, Any], asked: Asked) -> None:
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    for raw in asked.shelf.files[batch["input_file_id"]].content.split(b"\n"):
        if raw:
            status, line = _answer(json.loads(raw), batch["endpoint"], asked)
            (good if status == 200 else bad).append(line)
    batch["completed_at"] = asked.created
    n_good, n_bad = len(good), len(bad)
    batch["request_counts"] = {"total": n_good + n_bad, "completed": n_good, "failed": n_bad}
    for name, lines in (("output_file_id", good), ("error_file_id", bad)):
        if lines:
            file_id = f"file-{name[:3]}{batch['id'][-6:]}"
            content = b"".join(render.to_json(line) + b"\n" for line in reversed(lines))
            fields = {"id": file_id, "object": "file", "purpose": "batch_output"}
            asked.shelf.files[file_id] = StoredFile({**fields, "bytes": len(content)}, content)
            batch[name] = file_id


def _answer(line: dict[str, Any], endpoint: str, asked: Asked) -> tuple[int, dict[str, Any]]:
    body = line.get("body")
    found: Any
    if endpoint == CHAT:
        found = check_chat(body)
        if found is None:
            reply = render.canned_reply(body or {}, chunk_ms=0)
            found = render.completion(
                reply, body or {}, body_id=asked.body_id, created=asked.created
            )
    else:
        handler = edit_image if endpoint.endswith("edits") else generate_image
        found = handler(asked._replace(json=body))
    status = 200
    if isinstance(found, Refuse | Raw):
        status = found.status
        refused = found if isinstance(found, Refuse) else Refuse(status)
        found = json.loads(render.refusal_body(refused, body_id=asked.body_id))
    response = {"status_code": status, "request_id": asked.body_id, "body": found}
    name = line.get("custom_id")
    return status, {
        "id": f"batch_req_{name}",
        "custom_id": name,
        "response": response,
        "error": None,
    }
