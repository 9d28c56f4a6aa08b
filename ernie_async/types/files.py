"""Files that the service keeps for batches, training and assistants.

Source: cloud.baidu.com/doc/qianfan-api/s/9mi6szj38 (upload), Tmi74q65f (list), qmi74206h (delete).
"""

from ernie_async.types.wire import AnswerModel

__all__ = ["FileObject", "FilePage"]


class FileObject(AnswerModel):
    """One file.

    Attributes:
        bytes: Its size.
        created_at: Seconds since 1970.
        deleted: Whether it is gone; only the answer to a deletion says so.
    """

    id: str
    object: str | None = None
    bytes: int | None = None
    created_at: int | None = None
    filename: str | None = None
    purpose: str | None = None
    deleted: bool | None = None


class FilePage(AnswerModel):
    """Some of the files. Only some servers tell whether there are more."""

    data: list[FileObject] = []
    object: str | None = None
    has_more: bool | None = None
    first_id: str | None = None
    last_id: str | None = None
