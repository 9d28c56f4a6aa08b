"""A whole answer of the model.

Source: cloud.baidu.com/doc/qianfan-api/s/wmwbl48n4 and recorded bodies. Words such as the finish
reason are an open vocabulary, so they are plain strings.
"""

import re
from typing import NamedTuple

from pydantic import Field, JsonValue

from ernie_async.types.messages import AnswerMessage
from ernie_async.types.prices import Prices, standard_prices
from ernie_async.types.tools import ToolCall
from ernie_async.types.usage import Timing, Usage
from ernie_async.types.wire import AnswerModel

__all__ = ["AnswerHead", "ChatCompletion", "Choice", "Citation", "SearchResult"]


# The service's safety class "the conversation must end; the text may be shown".
CLOSE_FLAG = 2


class SearchResult(AnswerModel):
    """A source that web search found; `index` is the number in the text's citation marks."""

    index: int | None = None
    url: str | None = None
    title: str | None = None


class Citation(NamedTuple):
    """A place in the text that says where something is from.

    Attributes:
        start: Where the mark begins in `text`, such as `^[1]^`.
        end: Behind it.
        source: What it stands for.
    """

    start: int
    end: int
    source: SearchResult


class Choice(AnswerModel):
    """One of the answers.

    Attributes:
        finish_reason: `stop`, `length`, `content_filter`, `tool_calls`, `normal`, or another word.
        flag: The service's safety class: 0 or `None` is safe; 1 low risk; 2 the conversation must
            end; 3 must not be shown; 4 take back what was shown.
        ban_round: Where the problem is when `flag` is not 0: the round, or -1 for this question.
    """

    index: int = 0
    # A factory: an instance here would build the model while the package is imported (20 ms).
    message: AnswerMessage = Field(default_factory=AnswerMessage)
    finish_reason: str | None = None
    flag: int | None = None
    ban_round: int | None = None


class AnswerHead(NamedTuple):
    """What may be known of an answer without reading it.

    Attributes:
        id: The service's id of it.
        model: The model that answered, as the service names it.
        finish_reasons: Why it stopped, of each choice that came to an end.
    """

    id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()


class ChatCompletion(AnswerModel):
    """The model's answer, streamed or not, with what it cost.

    The properties speak of the first choice; with `n` above 1, look into `choices`. If the service
    does not tell the usage, a client puts in an estimate; see `Usage.is_estimate`.
    """

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    choices: list[Choice] = []
    usage: Usage = Field(default_factory=Usage)
    # A failed search was described as an object with an error in it.
    search_results: list[SearchResult] | dict[str, JsonValue] | None = None

    @property
    def message(self) -> AnswerMessage:
        """The answer as a message, ready to be put into the next request's messages."""
        return self.choices[0].message if self.choices else AnswerMessage()

    @property
    def text(self) -> str:
        """What the model says; empty if it only called tools."""
        choices = self.choices
        return (choices[0].message.content or "") if choices else ""

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered; empty if it shows none."""
        return self.message.reasoning_content or self.message.reasoning or ""

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls the model asks for."""
        return self.message.tool_calls or []

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped; see `Choice`."""
        return self.choices[0].finish_reason if self.choices else None

    @property
    def head(self) -> AnswerHead:
        """What may be known of it without reading it."""
        reasons = tuple(c.finish_reason for c in self.choices if c.finish_reason)
        return AnswerHead(self.id, self.model, reasons)

    def cost(self, prices: Prices | None = None) -> float | None:
        """What the answer cost, in CNY; `None` if the table does not have its model.

        An estimate as far as `usage` is one. Searches and pictures that are billed by the piece are
        not in it.

        Args:
            prices: Instead of the table that comes with this version.
        """
        return (standard_prices() if prices is None else prices).cost(self.model, self.usage)

    @property
    def sources(self) -> list[SearchResult]:
        """What a web search found; empty without one, and if it failed."""
        return self.search_results if isinstance(self.search_results, list) else []

    @property
    def citations(self) -> list[Citation]:
        """The marks in `text` that stand for a source, in order. Ask with `enable_citation`."""
        known = {source.index: source for source in self.sources}
        return [
            Citation(mark.start(), mark.end(), known[int(number)])
            for mark in re.finditer(r"\^((?:\[\d+\])+)\^", self.text)
            for number in re.findall(r"\d+", mark[1])
            if int(number) in known
        ]

    @property
    def conversation_closed(self) -> bool:
        """Whether the service demands that the conversation ends with this answer (flag 2)."""
        return any(choice.flag == CLOSE_FLAG for choice in self.choices)

    @property
    def request_id(self) -> str | None:
        """What to quote to the service's support: the answer's own id, else the header's."""
        return self.id or (self.__pydantic_private__ or {}).get("request_id")

    @property
    def timing(self) -> Timing:
        """Where the time went; all zero for an answer that did not come through a client."""
        timing: Timing = (self.__pydantic_private__ or {}).get("timing") or Timing()
        return timing

    @property
    def fell_back_from(self) -> tuple[str, ...]:
        """Models that were asked before and failed, in order; empty for most answers."""
        models: tuple[str, ...] = (self.__pydantic_private__ or {}).get("fell_back_from", ())
        return models

    def observed(
        self,
        *,
        request_id: str | None,
        timing: Timing,
        usage: Usage | None = None,
        fell_back_from: tuple[str, ...] = (),
    ) -> "ChatCompletion":
        """Note what the client saw besides the body. For the client's own use.

        Args:
            request_id: What it sent as `X-Request-Id`.
            timing: Where the time went.
            usage: Its estimate, if the service did not tell.
            fell_back_from: Models that it asked before.
        """
        # Where pydantic keeps private attributes, which are copied and pickled with the rest. With
        # a declared one it would take twice as long to read an answer, whoever reads it.
        seen = {"request_id": request_id, "timing": timing, "fell_back_from": fell_back_from}
        object.__setattr__(self, "__pydantic_private__", seen)
        if usage is not None:
            object.__setattr__(self, "usage", usage)  # frozen for everybody else
        return self
