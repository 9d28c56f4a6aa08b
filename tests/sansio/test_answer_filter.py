"""Where matches are, in texts that were over and go on."""

from ernie_async import ContentFilter
from ernie_async.sansio.answer_filter import AnswerFilter
from ernie_async.types.chunk import ChatChunk


def test_places_count_from_the_very_beginning_of_a_text() -> None:
    live = AnswerFilter(ContentFilter.from_terms(["坏"], mode="live"))
    for name, text in (
        ("reasoning_content", "想坏"),
        ("content", "说坏"),
        ("reasoning_content", "再想坏事"),
        ("content", "再说坏话"),
    ):
        live.feed([ChatChunk.model_validate({"choices": [{"delta": {name: text}}]})])
    live.close()
    found = [(key.channel, match.start, match.end) for key, match in live.matches]
    assert sorted(found) == [
        ("content", 1, 2), ("content", 4, 5), ("reasoning", 1, 2), ("reasoning", 4, 5),
    ]  # fmt: skip
