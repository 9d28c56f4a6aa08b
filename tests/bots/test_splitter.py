"""Long answers become messages: every part fits, no Markdown is torn, nothing is lost."""

import itertools
import os
import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_async.bots.splitter import LOOK_AHEAD, Part, Splitter, Unit, measure, split_message
from ernie_async.errors import ConfigError

UNITS: tuple[Unit, ...] = ("utf16", "chars", "bytes")

WORDS = [
    "量子纠缠", "现象", "测量其中一个，", "结果。", "为什么？", "“好的。”", "word", "another",
    "end. ", "is it? ", "3.14", "👩‍👩‍👧‍👦", "🇨🇳", "🇨🇳🇯🇵", "e\u0301", "🏳️‍🌈", "👍🏽", "한국어",
    "각", "नमस्ते", "กำ", "\t", "`code`", "``a ` b``", "[link](https://a.b/c(d))", "![x](y)",
    "https://example.com/a?b=c", "`", "[", "](", "**bold**", "*it*", "~~no~~", "_", " ", "  ",
    "\\", "|", "\r\n", "\n", "\n\n", "中", "。", "！", "\u3000",
]  # fmt: skip


CODE = ["print(1)", "x = '中'", "", "```", "```py", "~~~"]


def random_markdown(rng: random.Random, size: int) -> str:
    """Paragraphs, lists, tables and fences in fences, as a model might write them, and worse."""
    blocks: list[str] = []
    while sum(map(len, blocks)) < size:
        kind = rng.randrange(7)
        prose = "".join(rng.choices(WORDS, k=rng.randint(1, 40)))
        if kind == 0:
            row = "| " + " | ".join(rng.choices(["甲", "b", "`c`", "长长的单元格"], k=4)) + " |\n"
            blocks.append(row + "|---|---|---|---|\n" + row * rng.randint(1, 9))
        elif kind in {1, 2}:
            fence = rng.choice(["```", "````", "~~~", "`````"])
            lines = "".join(
                rng.choice(["    ", "", "  "]) + rng.choice(CODE)
                + "\n"
                for _ in range(rng.randint(0, 25))
            )  # fmt: skip
            end = fence if rng.random() < 0.9 else ""
            indent = rng.choice(["", "", "   "])
            blocks.append(
                f"{indent}{fence}{rng.choice(['', 'python', 'c++ x=1'])}\n{lines}{indent}{end}\n"
            )
        elif kind == 3:
            blocks.append("- " + prose + "\n" + "    1. " + prose + "\n")
        elif kind == 4:
            blocks.append("长" * rng.randint(1, 300))
        else:
            blocks.append(prose)
        blocks.append(rng.choice(["\n", "\n\n", "\n\n", ""]))
    return "".join(blocks)[:size]


def parts_of(text: str, limit: int, unit: Unit, pieces: list[str] | None = None) -> list[Part]:
    splitter = Splitter(limit, unit)
    parts = []
    for piece in pieces or [text]:
        parts += splitter.feed(piece)
    return parts + splitter.close()


def cut_up(text: str, rng: random.Random) -> list[str]:
    pieces, n = [], 0
    most = rng.choice([1, 3, 20, 400])
    while n < len(text):
        step = rng.randint(1, most)
        pieces.append(text[n : n + step])
        n += step
    return pieces


def is_balanced(text: str) -> bool:
    """Whether every fence of code is closed, read line by line."""
    fence = ""
    for line in text.split("\n"):
        opens = re.match(r"[ \t]*(`{3,}|~{3,})[^`]*$", line)
        if fence and re.fullmatch(rf"[ \t]*{fence[0]}{{{len(fence)},}}[ \t\r]*", line):
            fence = ""
        elif not fence and opens:
            fence = opens[1]
    return not fence


def check(text: str, limit: int, unit: Unit, rng: random.Random) -> None:
    parts = parts_of(text, limit, unit)
    assert "".join(part.body for part in parts) == text
    assert all(part.body for part in parts)
    for part in parts:
        assert measure(part.text, unit) <= limit
        assert re.fullmatch(r"([ \t]*(`{3,}|~{3,})\S*\n)?", part.opening)
        assert re.fullmatch(r"(\n?[ \t]*(`{3,}|~{3,}))?", part.closing)
        assert part.text.encode("utf-8")  # no half of a character
        assert is_balanced(part.text)
    for before, after in itertools.pairwise(parts):
        assert (
            before.closing.strip(" \t\n")
            == after.opening.lstrip(" \t")[: len(before.closing.strip(" \t\n"))]
        )
    assert parts_of(text, limit, unit, cut_up(text, rng)) == parts
    assert split_message(text, limit, unit) == [part.text for part in parts]


@pytest.mark.parametrize("unit", UNITS)
def test_random_markdown_is_split_and_put_together(unit: Unit) -> None:
    """Acceptance 3: 10,000 texts with SPLITTER_TEXTS=3334, which takes four minutes."""
    rng = random.Random(f"{unit}-1")
    for _ in range(int(os.environ.get("SPLITTER_TEXTS", "200"))):
        text = random_markdown(rng, rng.choice([30, 300, 300, 1200, 1200, 6000]))
        check(text, rng.choice([100, 101, 160, 500, 1500, 5000]), unit, rng)


@settings(max_examples=150)
@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(WORDS), st.sampled_from(["```\n", "````py\n", "|a|\n"]), st.text()
        )
    ),
    limit=st.integers(4, 120),
    unit=st.sampled_from(UNITS),
)
def test_any_text_and_any_limit(pieces: list[str], limit: int, unit: Unit) -> None:
    text = "".join(pieces)
    whole = parts_of(text, limit, unit)
    assert "".join(part.body for part in whole) == text
    assert all(measure(part.text, unit) <= limit for part in whole)
    assert parts_of(text, limit, unit, pieces) == whole
    assert parts_of(text, limit, unit, list(text)) == whole


@pytest.mark.parametrize("limit", range(20, 60, 7))
def test_no_cluster_is_cut(limit: int) -> None:
    clusters = [
        "👩‍👩‍👧‍👦",
        "🇨🇳",
        "🇯🇵",
        "e\u0301\u0323",
        "👍🏽",
        "각",
        "क्षि",
        "กำ",
        "🏴\U000e0067\U000e0062\U000e007f",
        "\r\n",
    ]
    text = "".join(random.Random(limit).choices(clusters, k=200))
    starts = {0}
    for part in split_message(text, limit, "utf16"):
        starts.add(max(starts) + len(part))
    rng = random.Random(limit)
    allowed, n = {0}, 0
    for cluster in rng.choices(clusters, k=200):
        n += len(cluster)
        allowed.add(n)
    assert starts <= allowed


@pytest.mark.parametrize("unit", UNITS)
def test_what_belongs_together_stays_together(unit: Unit) -> None:
    rng = random.Random(f"{unit}-2")
    atoms = [
        "`a b c`",
        "``x ` y。z``",
        "[看 这里。](https://a.b/c_(d))",
        "![图 片](x.png)",
        "https://a.b/c?d=e.f&g",
    ]
    for _ in range(120):
        limit, text, taken = rng.choice([100, 120, 200]), "", []
        for _ in range(60):
            if rng.random() < 0.2:
                line = "| " + " | ".join(rng.choices(["甲。", "b c", "`d`"], k=6)) + " |"
                text += "\n"
                taken.append((len(text), len(text) + len(line)))
                text += line + "\n"
            elif rng.random() < 0.3:
                atom = rng.choice(atoms)
                taken.append((len(text), len(text) + len(atom)))
                text += atom + " "
            else:
                text += rng.choice(["中文", "句子。", "word ", "\n", "长" * 40])
        cuts, n = [], 0
        for body in bodies(text, limit, unit):
            n += len(body)
            cuts.append(n)
        assert not [(cut, span) for cut in cuts for span in taken if span[0] < cut < span[1]]


def test_more_marks_than_a_message_holds_are_still_sent() -> None:
    text = "a" + "\u0301" * 500
    parts = split_message(text, 40, "bytes")
    assert "".join(parts) == text
    assert all(len(part.encode()) <= 40 for part in parts)


def bodies(text: str, limit: int, unit: Unit = "chars") -> list[str]:
    return [part.body for part in parts_of(text, limit, unit)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a" * 30 + "\n\n" + "b" * 20 + ". " + "c" * 20 + "\n" + "d" * 40, "a" * 30 + "\n\n"),
        ("a" * 30 + "\n" + "b" * 20 + ". " + "c" * 40, "a" * 30 + "\n"),
        ("中" * 30 + "。”" + "b" * 10 + " " + "c" * 40, "中" * 30 + "。”"),
        ("a" * 30 + '." ' + "b" * 10 + " " + "c" * 40, "a" * 30 + '." '),
        ("a" * 30 + " 3.14" + "c" * 40, "a" * 30 + " "),
        ("中" * 70, "中" * 50),
        ("a" * 10 + "\n\n" + "b" * 60, "a" * 10 + "\n\n" + "b" * 38),  # not before half
        ("a" * 20 + "`" + "b" * 40 + "`" + "c" * 30, "a" * 20),  # unless it tears
        ("a" * 20 + "[text with spaces](https://example.com/x)" + "c" * 30, "a" * 20),
        ("see https://example.com/a/b/c/d/e/f/g/h/i/j/k/l/m/n next", "see "),
        ("a" * 30 + "\n| a b c | d e f | g h i |\n| x |", "a" * 30 + "\n"),
        ("x`" + " b" * 60, "x`" + " b" * 23 + " "),  # a lone backtick holds nothing together
        ("[x" + " b" * 60, "[x" + " b" * 23 + " "),
    ],
)  # fmt: skip
def test_where_it_is_cut(text: str, first: str) -> None:
    assert bodies(text, 50)[0] == first


def test_code_is_closed_and_opened_again() -> None:
    code = "".join(f"    line {n}\n" for n in range(20))
    text = f"看：\n\n````python\n{code}```\nnot the end\n````\n\n完。"
    parts = split_message(text, 80)
    assert len(parts) > 3
    assert parts[0].endswith("\n````")
    for part in parts[1:-1]:
        assert part.startswith("````python\n    line") or "not the end" in part
    for part in parts:
        assert len(re.findall(r"^````", part, re.MULTILINE)) % 2 == 0
    assert "".join(bodies(text, 80)) == text


def test_what_fits_is_one_part() -> None:
    assert split_message("你好", 4) == ["你好"]
    assert split_message("", 4) == []
    assert split_message("```py\nx\n```\n", 40) == ["```py\nx\n```\n"]
    assert split_message("```py\nx", 40) == ["```py\nx\n```"]  # closed where it ends


def test_a_limit_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="limit: expected at least 4, got 3"):
        split_message("x", 3)


def test_sealed_parts_come_as_soon_as_they_are_certain() -> None:
    splitter = Splitter(100)
    assert splitter.feed("字" * (99 + LOOK_AHEAD)) == []
    assert [part.text for part in splitter.feed("字")] == ["字" * 100]
    splitter = Splitter(100)
    splitter.feed("x" * 80 + "`" + "y" * 30)
    assert splitter.rest.text == "x" * 80 + "`" + "y" * 19
    # Whether this is code is not known yet, so nothing is torn.
    assert [part.body for part in splitter.feed("z" * 60)] == ["x" * 80]


def test_the_rest_is_a_preview_that_is_closed() -> None:
    splitter = Splitter(60)
    splitter.feed("a\n```py\nx = 1\n")
    assert splitter.rest == Part("", "a\n```py\nx = 1\n", "```")
    splitter.feed("y = 2\n" * 20)
    assert splitter.rest.opening == "```py\n"
    assert len(splitter.rest.text) <= 60


def test_paragraphs_can_be_taken_one_by_one() -> None:
    splitter = Splitter(1000)
    splitter.feed("一。\n\n```\na\n\nb\n```\n\n三")
    taken = []
    while (part := splitter.seal_block()) is not None:
        taken.append(part.text)
    assert taken == ["一。\n\n", "```\na\n\nb\n```\n\n"]
    assert [part.text for part in splitter.close()] == ["三"]


@pytest.mark.parametrize(
    "piece", ["`", "[", "`a``b", "| x", "https://a", "[a](", "    ", "字。", "```\n"]
)
def test_work_is_linear(piece: str) -> None:
    # Counted, not timed: how often characters are looked at.
    class Counting(Splitter):
        looks = 0

        def _part(self, n):
            self.looks += len(self._opening) + n
            return super()._part(n)

        def _n_fitting(self, limit):
            self.looks += len(self._text)
            return super()._n_fitting(limit)

    text = piece * (20_000 // len(piece))
    for pieces in ([text], list(text)):
        splitter = Counting(500)
        for delta in pieces:
            splitter.feed(delta)
        splitter.close()
        assert splitter.looks < 25 * len(text)


def test_every_unit_is_measured_as_its_platform_does() -> None:
    text = "a中😀"
    assert [measure(text, unit) for unit in UNITS] == [4, 3, 8]
    assert unicodedata.category("😀") == "So"
