"""A whole body, within a bound. Knows nothing of what it says."""

from ernie_async.errors import DecodeError
from ernie_async.net.reply import Reply

__all__ = ["SHORT_BYTES", "read_body"]

# An answer in one piece may hold pictures or thousands of vectors; an error never needs so much.
MAX_ANSWER_BYTES = 256 * 1024 * 1024
SHORT_BYTES = MAX_ERROR_BYTES = 64 * 1024


async def read_body(reply: Reply) -> bytes:
    """Read a whole body, within a bound, and give its connection back.

    Of an error, what is beyond the bound is left out: what it means, its start and its status say.

    Raises:
        ConnectError: It was cut.
        DecodeError: It is larger than any answer.
    """
    whole = reply.read_whole(SHORT_BYTES)
    if whole is not None:
        return whole
    is_answer = reply.status < 300
    limit = MAX_ANSWER_BYTES if is_answer else MAX_ERROR_BYTES
    parts: list[bytes] = []
    size = 0
    try:
        while not reply.is_at_end and (part := await reply.read(limit)):
            parts.append(part)
            size += len(part)
            if size > limit and not is_answer:
                break
            if size > limit:
                raise DecodeError(f"the answer is larger than {limit:,} bytes", body=parts[0])
    finally:
        reply.close()
    return b"".join(parts)
