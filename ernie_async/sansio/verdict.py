"""The service's own verdict on an answer: may it be shown?

Source: the `flag` table of cloud.baidu.com/doc/qianfan-api/s/wmwbl48n4. With flag 1 (low risk) and
2 (the conversation must end) the text may be shown; they are fields of the answer and no errors.
"""

from collections.abc import Iterable

from ernie_async.errors import RETRACT_FLAG, BlockedError
from ernie_async.types.chunk import ChunkChoice
from ernie_async.types.completion import Choice

__all__ = ["find_verdict"]

STOP_FLAGS = frozenset({3, RETRACT_FLAG})  # it must not be shown


def find_verdict(choices: Iterable[Choice | ChunkChoice]) -> BlockedError | None:
    """The error for answers of which one must not be shown; `None` if all may be."""
    for choice in choices:
        if choice.flag in STOP_FLAGS:
            what = (
                "what was shown has to be taken back"
                if choice.flag == RETRACT_FLAG
                else "it must not be shown"
            )
            return BlockedError(
                f"the service's safety check stopped the answer: {what} (flag {choice.flag})",
                flag=choice.flag,
                ban_round=choice.ban_round,
            )
        if choice.finish_reason == "content_filter":
            return BlockedError(
                "the service's safety check stopped the answer (finish_reason content_filter)"
            )
    return None
