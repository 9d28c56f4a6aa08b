"""Documents in the order of how well they answer a query.

Source: cloud.baidu.com/doc/qianfan-api/s/2m7u4zt74 (2025-11-28).
"""

from typing import Any

from pydantic import Field, field_validator

from ernie_async.types.usage import Usage
from ernie_async.types.wire import AnswerModel

__all__ = ["RankedDocument", "Ranking"]


class RankedDocument(AnswerModel):
    """One document and its score.

    Attributes:
        index: Its place in the documents that were given.
        relevance_score: Higher is better; each model has a range of its own.
        document: Its text. A client fills it in if the server leaves it out.
    """

    index: int
    relevance_score: float
    document: str | None = None

    @field_validator("document", mode="before")
    @classmethod
    def _text_of(cls, value: Any) -> Any:
        # vLLM wraps the text into an object.
        return value.get("text") if isinstance(value, dict) else value


class Ranking(AnswerModel):
    """The best documents; from a client, in descending order of their scores."""

    results: list[RankedDocument]
    usage: Usage = Field(default_factory=Usage)
    model: str | None = None
    id: str | None = None
    object: str | None = None
    created: int | None = None
