"""Clauses: what is judged depends on the text alone, and not on how it came."""

from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.clauses import ClauseCutter


def test_a_clause_ends_with_its_mark_and_knows_what_came_before() -> None:
    cutter = ClauseCutter("reasoning")
    clauses = cutter.feed("你好。真的？好") + cutter.feed("\n3.5") + cutter.close()
    assert [(one.text, one.context, one.channel) for one in clauses] == [
        ("你好。", "", "reasoning"),
        ("真的？", "你好。", "reasoning"),
        ("好\n", "你好。真的？", "reasoning"),
        ("3.", "你好。真的？好\n", "reasoning"),
        ("5", "你好。真的？好\n3.", "reasoning"),
    ]
    assert cutter.close() == []


def test_no_clause_is_longer_than_200_and_no_context_than_50() -> None:
    cutter = ClauseCutter("content")
    clauses = cutter.feed("字" * 450 + "。")
    assert [len(clause.text) for clause in clauses] == [200, 200, 51]
    assert [len(clause.context) for clause in clauses] == [0, 50, 50]


@given(st.lists(st.text("字。.a\n", max_size=120), max_size=8))
def test_pieces_make_the_clauses_of_the_whole(pieces: list[str]) -> None:
    whole, cutter = ClauseCutter("content"), ClauseCutter("content")
    clauses = [clause for piece in pieces for clause in cutter.feed(piece)] + cutter.close()
    assert clauses == whole.feed("".join(pieces)) + whole.close()
    assert "".join(clause.text for clause in clauses) == "".join(pieces)
