"""A form with a file in it, as bytes before and after the file.

Source: RFC 7578, and the WHATWG text on how a name is written in it. Reads no file.
"""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Form", "form"]

ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


class Form(NamedTuple):
    """What stands around the file.

    Attributes:
        head: Everything before the file's bytes.
        tail: Everything after them.
        content_type: With the boundary.
    """

    head: bytes
    tail: bytes
    content_type: str


def form(fields: Mapping[str, str], filename: str, *, boundary: str) -> Form:
    """A form of these fields and one part `file`.

    Args:
        fields: Sent before the file.
        filename: Without its folder.
        boundary: A line that no part holds: chosen at random.
    """
    lines = []
    for name, value in fields.items():
        lines += [
            f"--{boundary}",
            f'Content-Disposition: form-data; name="{name.translate(ESCAPES)}"',
            "",
            value,
        ]
    lines += [
        f"--{boundary}",
        f'Content-Disposition: form-data; name="file"; filename="{filename.translate(ESCAPES)}"',
        "Content-Type: application/octet-stream",
        "",
        "",
    ]
    return Form(
        head="\r\n".join(lines).encode(),
        tail=f"\r\n--{boundary}--\r\n".encode(),
        content_type=f"multipart/form-data; boundary={boundary}",
    )
