"""How what comes and goes is read: the settings that every model here shares, and JSON without one.

Requests are strict: a misspelt or foreign field fails here, with its name, before it costs a round
trip. Answers keep whatever else the service sends, because the service grows faster than we do.

pydantic's core keeps some 16,000 short strings that it has read, for the next time they come. Names
of fields do come again; what people and models write does not. Kept, it would lie between pieces
that live longer, and a process that streams would grow for hours. So only the names are kept.
"""

from functools import partial
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

__all__ = ["AnswerModel", "RequestModel", "read_json"]

read_json: partial[Any] = partial(from_json, cache_strings="keys")


class RequestModel(BaseModel):
    """Something the caller writes. Unknown names, wrong types, NaN and infinity are refused."""

    # Built at first use, so that importing the package does not pay for models nobody needs.
    model_config: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True
    )


class AnswerModel(BaseModel):
    """Something the service writes. Fields we do not know are kept, in `model_extra`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="allow", frozen=True, defer_build=True, cache_strings="keys"
    )
