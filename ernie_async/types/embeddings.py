"""Texts as vectors. Source: cloud.baidu.com/doc/qianfan-api/s/Fm7u3ropn.

Not imported with the package, since most programs embed nothing.
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ernie_async.types.usage import Usage
from ernie_async.types.wire import AnswerModel

if TYPE_CHECKING:
    import numpy

__all__ = ["Embedding", "Embeddings"]


class Embedding(AnswerModel):
    """One vector, and the position of its text among those that were sent."""

    embedding: list[float] = []
    index: int = 0


class Embeddings(AnswerModel):
    """The vectors of some texts, in the order of the texts."""

    id: str | None = None
    model: str | None = None
    data: list[Embedding] = []
    usage: Usage = Field(default_factory=Usage)

    @property
    def vectors(self) -> list[list[float]]:
        """One vector for each text: shape (n_texts, dim); all have the same dim."""
        return [item.embedding for item in self.data]

    def to_numpy(self) -> "numpy.ndarray[Any, Any]":
        """The vectors as one array of shape (n_texts, dim) and type float32.

        Raises:
            ImportError: numpy is not installed.
        """
        try:
            import numpy  # noqa: PLC0415 - needed by nothing else
        except ImportError:
            raise ImportError("to_numpy needs numpy: pip install numpy") from None
        return numpy.array(self.vectors, dtype=numpy.float32)
