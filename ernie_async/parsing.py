"""Answers as values of a type: whole, or while they are being written."""

from collections import deque
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar, cast

from ernie_async.calling import answer_chat, ask_chat, split_options
from ernie_async.errors import BadRequestError, ConfigError, ErnieError, OutputError
from ernie_async.net.desk import Desk
from ernie_async.net.stream import ChatStream
from ernie_async.options import ParseOptions
from ernie_async.sansio.chat_request import Prompt, chat_request
from ernie_async.sansio.output import METHODS, OutputType, ask_again, ask_for
from ernie_async.sansio.output_reader import OutputReader
from ernie_async.sansio.rest import Request
from ernie_async.sansio.servers import OutputMethod
from ernie_async.settings import ChatOptions
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.usage import Usage

__all__ = ["ParsedStream", "parse"]

T = TypeVar("T")
Y = TypeVar("Y")

# Once helps; a model that fails twice seldom gets it right.
REASKS = 1


class _Asking:
    """What is asked next: the same in words if the form was refused, or with what was wrong."""

    def __init__(
        self, desk: Desk, model: str | None, prompt: Prompt, into: type[Any], given: ParseOptions
    ) -> None:
        fields, self._call = split_options(given, ParseOptions)
        method = fields.pop("method", "auto")
        if method != "auto" and method not in METHODS:
            raise ConfigError(f"method: expected auto, {', '.join(METHODS)}, got {method!r}")
        self._reasks_left = fields.pop("reasks", REASKS)
        if not isinstance(self._reasks_left, int) or self._reasks_left < 0:
            raise ConfigError(f"reasks: expected a whole number from 0, got {self._reasks_left!r}")
        self._request = chat_request(prompt, fields)
        if (self._request.n or 1) > 1:
            raise ConfigError("n: expected 1, since one value is asked for")
        self.output: OutputType[Any] = OutputType(into)
        self._model = self._request.model or model
        if desk.resume.mode == "continue":  # JSON with a seam in it is no JSON
            desk = replace(desk, resume=replace(desk.resume, mode="server"))
        self._desk = desk
        self._method: OutputMethod = self._usual_method() if method == "auto" else method
        self._has_fallen_back = False

    def _usual_method(self) -> OutputMethod:
        is_refused = self._model in self._desk.formless_models
        return "prompt" if is_refused else self._desk.server.output_method

    def next(self, *, is_stream: bool) -> tuple[Desk, Request]:
        asked = ask_for(self._request, self.output, self._method)
        call = cast("ChatOptions", self._call)
        return ask_chat(self._desk, asked, call, model=self._model, is_stream=is_stream)

    def falls_back(self) -> bool:
        """After a 400: whether to ask once more, without the form that may be what was refused."""
        if self._method == "prompt":
            return False
        self._method, self._has_fallen_back = "prompt", True
        return True

    def note_answer(self) -> None:
        """There is an answer: if it came in words alone, that is how this model is asked."""
        if self._has_fallen_back and self._model is not None:
            self._desk.formless_models.add(self._model)

    def asks_again(self, error: OutputError) -> bool:
        """Whether the model shall mend its answer."""
        if self._reasks_left == 0:
            return False
        self._reasks_left -= 1
        self._request = ask_again(self._request, error)
        return True


async def parse(
    desk: Desk, model: str | None, prompt: Prompt, into: type[T], given: ParseOptions
) -> T:
    """See `AsyncClient.parse`."""
    asking = _Asking(desk, model, prompt, into, given)
    while True:
        asked, request = asking.next(is_stream=False)
        try:
            answer = await answer_chat(asked, request)
        except BadRequestError:
            if not asking.falls_back():
                raise
            continue
        asking.note_answer()
        try:
            value: T = _read(asking.output, answer)
        except OutputError as error:
            if answer.finish_reason == "length" or not asking.asks_again(error):
                raise
        else:
            return value


def _read(output: OutputType[T], answer: ChatCompletion) -> T:
    try:
        return output.read(answer.text)
    except OutputError as error:
        message = error.message
    if answer.finish_reason == "length":
        message = f"the answer was cut off by max_completion_tokens: {message}"
    failure = OutputError(message, text=answer.text)
    failure.request_id = answer.request_id
    raise failure


class ParsedStream(Generic[Y, T]):
    """An answer of a type, as it is being written, from `AsyncClient.stream_parse`.

    Iterate over it. A model, a dict or a text comes again and again, the same object with more in
    it each time: what has not come yet is missing (to read such a field is an `AttributeError`),
    and what is there is valid, except that text may go on. The last one is another object, whole
    and validated. Of a list, each item comes once, when it is complete and valid.

    ```python
    async for invoice in client.stream_parse("...", into=Invoice):
        print(invoice)
    ```

    Raises, while iterating:
        OutputError: The answer does not fit the type, and the model was not asked to mend it. It is
            asked `reasks` times, but never once an item was handed over, since it might write
            others.
        ErnieError: As for `ChatStream`.
    """

    def __init__(
        self, desk: Desk, model: str | None, prompt: Prompt, into: type[Any], given: ParseOptions
    ) -> None:
        self._asking = _Asking(desk, model, prompt, into, given)
        self._failure: ErnieError | None = None
        self._result: list[T] = []  # of one, once it is there
        self._is_over = False
        self._earlier_usage: Usage | None = None
        self._begin()

    def _begin(self) -> None:
        self._stream = ChatStream(*self._asking.next(is_stream=True))
        self._reader = OutputReader(self._asking.output)
        self._ready: deque[Any] = deque()  # values to hand over
        self._items: list[Any] = []  # of a list: those that were

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Y:
        while not (self._ready or self._is_over):
            try:
                await self._read_on()
            except BadRequestError as error:
                self._leave_unless(self._asking.falls_back(), error)
            except OutputError as error:
                is_cut = self._stream.snapshot().finish_reason == "length"
                may_ask = not (self._items or is_cut) and self._asking.asks_again(error)
                self._leave_unless(may_ask, error)
            except ErnieError as error:
                self._leave_unless(False, error)
        if not self._ready:
            raise StopAsyncIteration
        value = self._ready.popleft()
        if self._asking.output.is_list:
            self._items.append(value)
        return cast("Y", value)

    async def _read_on(self) -> None:
        """Take one chunk, or come to the end."""
        output = self._asking.output
        async for chunk in self._stream:
            has_more = bool(chunk.text) and self._reader.feed(chunk.text)
            break
        else:
            has_more = self._reader.feed("", is_last=True)
            self._is_over = True
        if output.is_list:
            self._ready.extend(map(self._item, _taken(self._reader.items)))
        elif has_more and not self._is_over:
            self._ready.append(self._reader.value)
        if self._is_over:
            await self._end()

    async def _end(self) -> None:
        answer = await self._stream.final()
        self._asking.note_answer()
        output = self._asking.output
        if not output.is_list:
            self._ready.append(_read(output, answer))
            self._result = [self._ready[-1]]
            return
        if not (self._items or self._ready):
            self._ready.extend(_read(output, answer))
        elif not self._reader.is_over:
            raise self._output_error("the list has no end")
        self._result = [cast("T", self._items)]  # to which the others are added

    def _item(self, found: bytes) -> Any:
        try:
            return self._asking.output.read_item(found)
        except OutputError as error:
            raise self._output_error(error.message) from None

    def _output_error(self, message: str) -> OutputError:
        failure = OutputError(message, text=self._stream.snapshot().text)
        failure.request_id = self._stream.request_id
        return failure

    def _leave_unless(self, may_go_on: bool, error: ErnieError) -> None:
        self._stream.cancel()
        if not may_go_on:
            self._failure, self._is_over = error, True
            raise error
        self._earlier_usage = self.usage
        self._is_over = False
        self._begin()

    async def final(self) -> T:
        """Read the rest and return the whole value.

        Raises:
            OutputError: The answer does not fit the type.
            ErnieError: As for `ChatStream`.
        """
        async for _ in self:
            pass
        if self._failure is not None:
            raise self._failure
        return self._result[0]

    @property
    def usage(self) -> Usage | None:
        """Tokens of all answers together; see `ChatStream.usage`."""
        used, before = self._stream.usage, self._earlier_usage
        return used if before is None else before if used is None else before.plus(used)

    @property
    def request_id(self) -> str:
        """What to quote to the service's support; see `ChatStream.request_id`."""
        return self._stream.request_id

    async def aclose(self) -> None:
        """Leave the stream: the connection is closed at once. Does nothing after the end."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _taken(found: deque[bytes]) -> list[bytes]:
    taken = list(found)
    found.clear()
    return taken
