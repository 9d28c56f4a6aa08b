"""Where the files of the service are, page by page, and what an answer in raw bytes may be.

Source: cloud.baidu.com/doc/qianfan-api/s/Tmi74q65f (list), Bmi6vu310 (content).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from ernie_async.errors import ConfigError
from ernie_async.sansio.refusals import holds_error
from ernie_async.types.files import FilePage
from ernie_async.types.wire import read_json

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "MAX_UPLOAD_BYTES",
    "content_path",
    "file_path",
    "is_refusal",
    "list_path",
    "next_after",
]

# Source: cloud.baidu.com/doc/qianfan-api/s/9mi6szj38.
MAX_UPLOAD_BYTES = 512 * 1024 * 1024

# The service's own default, and the most it gives.
PAGE_LIMIT = 10_000

# An error envelope is small, and has no other fields than these.
ENVELOPE = {"error", "id", "request_id"}
MAX_ENVELOPE_BYTES = 16 * 1024


def file_path(file_id: str) -> str:
    """The path of one file.

    Raises:
        ConfigError: There is no id, so that the path would be that of all files.
    """
    if not isinstance(file_id, str) or not file_id:
        raise ConfigError(f"file_id: expected something like file-abc123, got {file_id!r}")
    return f"/files/{quote(file_id, safe='')}"


def content_path(file_id: str) -> str:
    """The path of a file's bytes.

    Raises:
        ConfigError: There is no id.
    """
    return f"{file_path(file_id)}/content"


def list_path(**query: str | int | None) -> str:
    """The path of one page of files; what is `None` is left to the service."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"/files?{urlencode(given)}" if given else "/files"


def next_after(page: FilePage, after: str | None, limit: int | None) -> str | None:
    """The id behind which the next page begins; `None` if this one was the last.

    The documented answer does not tell whether there is more, so a page that is not full is the
    last one, and so is one that a server which ignores `after` sends again.
    """
    if not page.data or page.has_more is False:
        return None
    last = page.data[-1].id
    is_full = len(page.data) >= (limit or PAGE_LIMIT)
    return last if (page.has_more or is_full) and last != after else None


def is_refusal(body: bytes) -> bool:
    """Whether the bytes of a good answer are really an error, and no file that looks alike."""
    if len(body) > MAX_ENVELOPE_BYTES or not body.lstrip().startswith(b"{"):
        return False
    try:
        fields: Mapping[str, Any] = read_json(body)
    except ValueError:
        return False
    return fields.keys() <= ENVELOPE and holds_error(fields)
