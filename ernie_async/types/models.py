"""The models a key may use, as the service lists them.

Source: cloud.baidu.com/doc/qianfan-api/s/Dmba8k71y. The 2026 page has more fields; they are kept.
"""

from ernie_async.types.wire import AnswerModel

__all__ = ["AnyAnswer", "ModelCard", "ModelList"]


class ModelCard(AnswerModel):
    """One model. Servers that know more (context length, prices) have it in `model_extra`."""

    id: str
    object: str | None = None
    owned_by: str | None = None
    created: int | None = None


class ModelList(AnswerModel):
    """The answer of `GET /models`."""

    data: list[ModelCard] = []


class AnyAnswer(AnswerModel):
    """Any JSON object: all its fields are in `model_extra`."""
