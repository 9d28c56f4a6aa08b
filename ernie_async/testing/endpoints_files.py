"""Files, kept in memory as long as the mock runs."""

import re
from email import message_from_bytes
from typing import Any

from ernie_async.testing.script import Raw, Refuse
from ernie_async.testing.seen import Asked, StoredFile

__all__ = ["delete_file", "file_content", "list_files", "upload_file"]

PAGE = 10_000

# The service keeps the files of some purposes to itself; this one is recorded.
UNREADABLE = {"assistants"}


def upload_file(asked: Asked) -> dict[str, Any] | Refuse:
    """Keep a file."""
    content_type = asked.headers.get("Content-Type", "")
    if not content_type.startswith("multipart/form-data"):
        return Refuse(400, "invalid_upload_file", "missing file parameter")
    form = read_form(content_type, asked.body)
    purpose = form.get("purpose", ("", b""))[1].decode()
    if "file" not in form:
        return Refuse(400, "invalid_upload_file", "missing file parameter")
    if not purpose:
        return Refuse(400, "invalid_upload_file", "missing purpose parameter")
    filename, content = form["file"]
    shelf = asked.shelf
    shelf.n_files += 1
    file_id = f"file-mock{shelf.n_files:06d}"
    fields = {
        "id": file_id,
        "object": "file",
        "bytes": len(content),
        "created_at": asked.created,
        "filename": filename,
        "purpose": purpose,
    }
    shelf.files[file_id] = StoredFile(fields, content)
    return fields


def list_files(asked: Asked) -> dict[str, Any] | Refuse:
    """One page of the files, the newest first unless asked otherwise."""
    query = asked.query
    limit = query.get("limit", str(PAGE))
    if not limit.isdecimal() or not 1 <= int(limit) <= PAGE:
        return Refuse(400, "invalid_argument", "limit must be between 1 and 10000")
    fields = [file.fields for file in asked.shelf.files.values()]
    if query.get("order", "desc") != "asc":
        fields.reverse()
    if "purpose" in query:
        fields = [held for held in fields if held["purpose"] == query["purpose"]]
    if "after" in query:
        ids = [held["id"] for held in fields]
        start = ids.index(query["after"]) + 1 if query["after"] in ids else len(ids)
        fields = fields[start:]
    return {"data": fields[: int(limit)], "object": "list"}


def file_content(asked: Asked) -> Raw | Refuse:
    """The bytes of a file."""
    file = asked.shelf.files.get(asked.name)
    if file is None:
        return Refuse(404, "invalid_retrieve_content_file", "file not found")
    if (purpose := file.fields["purpose"]) in UNREADABLE:
        message = f"Not allowed to download files of purpose:{purpose}"
        return Refuse(400, "invalid_retrieve_content_file", message)
    return Raw(
        file.content,
        content_type="application/octet-stream",
        headers={"Content-Length": str(len(file.content))},
    )


def delete_file(asked: Asked) -> dict[str, Any] | Refuse:
    """Forget a file."""
    if asked.shelf.files.pop(asked.name, None) is None:
        return Refuse(404, "invalid_delete_file", "file not found")
    return {"id": asked.name, "object": "file", "deleted": True}


def read_form(content_type: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """The parts of a form: the name of the file, if it is one, and the bytes."""
    boundary = message_from_bytes(f"Content-Type: {content_type}\n\n".encode()).get_boundary()
    found = {}
    for part in body.split(f"--{boundary}".encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        names = dict(re.findall(r'(\w+)="([^"]*)"', head.decode("utf-8", "replace")))
        if "name" in names:
            found[names["name"]] = (names.get("filename", ""), content.removesuffix(b"\r\n"))
    return found
