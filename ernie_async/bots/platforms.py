"""What chat platforms allow: a dated table that the caller can change.

The table is `platforms.json` beside this file. Platforms change their limits without notice, so the
sender also obeys what they answer.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ernie_async.bots.splitter import Unit
from ernie_async.errors import ConfigError
from ernie_async.types.wire import read_json

__all__ = ["Platform", "platform"]

TABLE = Path(__file__).with_name("platforms.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What one platform allows. Change one with `dataclasses.replace`.

    Attributes:
        name: In lower case.
        limit: The longest message.
        unit: What `limit` counts.
        interval: Seconds between two calls for one chat.
        group_interval: The same in a group; `None` if groups are no different.
        per_second: Calls of one bot in all its chats; `None` for no limit.
        append_limit: The longest text of one call that appends; `None` for `limit`.
        typing_seconds: How often "is typing" is renewed; `None` if there is no such thing.
        draft_seconds: How often an unchanged draft is renewed; `None` if drafts stay.
        edit_seconds: Age up to which a message is edited; the rest goes into a new one. `None` for
            any age.
        max_messages: Messages that may answer one of the user's; `None` for any number.
    """

    name: str
    limit: int
    unit: Unit = "chars"
    interval: float = 1.0
    group_interval: float | None = None
    per_second: float | None = None
    append_limit: int | None = None
    typing_seconds: float | None = None
    draft_seconds: float | None = None
    edit_seconds: float | None = None
    max_messages: int | None = None


@cache
def platform(name: str) -> Platform:
    """What is known of a platform, such as `"telegram"`.

    Raises:
        ConfigError: The table does not have it; make a `Platform` of your own.
    """
    known = read_json(TABLE.read_bytes())["platforms"]
    if name not in known:
        raise ConfigError(f"platform: expected one of {', '.join(known)}, got {name!r}")
    return Platform(name=name, **known[name])
