"""How requests and answers treat names they do not know: the settings every model here shares.

Requests are strict: a misspelt or foreign field fails here, with its name, before it costs a round
trip. Answers keep whatever else the service sends, because the service grows faster than we do.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["AnswerModel", "RequestModel"]


class RequestModel(BaseModel):
    """Something the caller writes. Unknown names, wrong types, NaN and infinity are refused."""

    # Built at first use, so that importing the package does not pay for models nobody needs.
    model_config: ClassVar[ConfigDict] = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True
    )


class AnswerModel(BaseModel):
    """Something the service writes. Fields we do not know are kept, in `model_extra`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", frozen=True, defer_build=True)
