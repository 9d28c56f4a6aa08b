"""Documents by how well they answer a question.

Source: cloud.baidu.com/doc/qianfan-api/s/2m7u4zt74. Not imported with the package, since most
programs rank nothing.
"""

from pydantic import Field

from ernie_async.types.usage import Usage
from ernie_async.types.wire import AnswerModel

__all__ = ["RerankResult", "Reranking"]


class RerankResult(AnswerModel):
    """One document and its score.

    Attributes:
        index: Its position among the documents that were sent.
        relevance_score: Higher is better; comparable within one answer only.
        document: Its text.
    """

    index: int
    relevance_score: float
    document: str = ""


class Reranking(AnswerModel):
    """The documents, the best one first."""

    id: str | None = None
    model: str | None = None
    results: list[RerankResult] = []
    usage: Usage = Field(default_factory=Usage)
