"""Vectors that stand for texts or pictures.

Source: cloud.baidu.com/doc/qianfan-api/s/Fm7u3ropn; whether `model` is echoed is not documented.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import Field

from ernie_async.types.usage import Usage
from ernie_async.types.wire import AnswerModel

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["Embedding", "Embeddings"]


class Embedding(AnswerModel):
    """One vector, and the place of its text in the input."""

    embedding: list[float]
    index: int | None = None
    object: str | None = None


class Embeddings(AnswerModel):
    """The vectors of all texts, in the order of the texts.

    From a client, `data` is whole and in order, however many requests it took, and `usage` is that
    of all of them; `id` is the first one's. An estimate stands for a usage that was not told.
    """

    data: list[Embedding]
    usage: Usage = Field(default_factory=Usage)
    model: str | None = None
    id: str | None = None
    object: str | None = None
    created: int | None = None

    @property
    def vectors(self) -> list[list[float]]:
        """The numbers alone, of shape `(n_texts, dim)`: one vector for each text, in order."""
        return [item.embedding for item in self.data]

    def to_numpy(self) -> "NDArray[numpy.float32]":
        """The vectors as an array of shape `(n_texts, dim)`, 32-bit floats.

        Raises:
            ImportError: numpy is not installed.
        """
        try:
            library = import_module("numpy")
        except ImportError as error:
            raise ImportError(
                "Embeddings.to_numpy needs numpy: pip install 'ernie-async[numpy]'", name="numpy"
            ) from error
        array: NDArray[numpy.float32] = library.asarray(self.vectors, dtype=library.float32)
        return array
