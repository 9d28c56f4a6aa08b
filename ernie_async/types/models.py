"""The models a key may use, as the service lists them.

Source: cloud.baidu.com/doc/qianfan-api/s/Dmba8k71y (2025) and Amwbl43sp (2026).
"""

from pydantic import JsonValue

from ernie_async.types.wire import AnswerModel

__all__ = ["AnyAnswer", "ModelCard", "ModelList"]


class ModelCard(AnswerModel):
    """One model. A server that tells more than this has it in `model_extra`.

    Attributes:
        type: `chat`, `text2image`, `embeddings`, `rerank` or another word.
        context_length: The most tokens of prompt and answer together.
        max_completions_tokens: The most tokens of thinking and answer; the service spells it so.
        max_tokens: The most tokens of the answer.
        pricing: Yuan for 1,000 tokens, under `prompt` and `completion`: a number as text, or a list
            of tiers.
    """

    id: str
    object: str | None = None
    owned_by: str | None = None
    created: int | None = None
    type: str | None = None
    context_length: int | None = None
    max_completions_tokens: int | None = None
    max_tokens: int | None = None
    pricing: dict[str, JsonValue] | None = None

    @property
    def prompt_price(self) -> float | None:
        """Yuan for 1,000 tokens of a prompt; `None` if it is not told, or has tiers."""
        return self._price("prompt")

    @property
    def completion_price(self) -> float | None:
        """Yuan for 1,000 tokens of an answer; `None` if it is not told, or has tiers."""
        return self._price("completion")

    def _price(self, kind: str) -> float | None:
        told = (self.pricing or {}).get(kind)
        try:
            return float(told) if isinstance(told, str | int | float) else None
        except ValueError:
            return None


class ModelList(AnswerModel):
    """The answer of `GET /models`."""

    data: list[ModelCard] = []


class AnyAnswer(AnswerModel):
    """Any JSON object: all its fields are in `model_extra`."""
