"""The filter's law: however a text is cut, its pieces become what the whole text becomes."""

import copy
import pickle
import random
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_async.errors import BlockedError, ConfigError
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_part import FilterPart
from ernie_async.sansio.filter_values import Term, TextChecker, TextPattern
from ernie_async.sansio.folding import MOST_REMEMBERED, Folding, is_extending

# Characters that fold, compose, join, vanish or need two code units; with few of them, terms
# overlap and stand in the text by chance.
ALPHABET = [
    *"敏感词中aAbeE．.，, 1",
    "é", "ê", "ệ", "e\u0301", "\u0301", "\u0323", "\u0336", "\u3099", "か", "が", "ﾞ", "ｶ", "Ａ",
    "ｂ", "ﬁ", "㎏", "ß", "ẞ", "İ", "ı", "ſ", "ς", "α\u0345", "ᾳ", "한", "하", "\u1112", "\u1161",
    "\u11ab", "ㅏ", "ㅗ", "\u200b", "\u200d", "\ufe0f", "\u00ad", "\u0e01", "\u0e33", "\u0e49", "ো",
    "\u09be", "\u09c7", "👨", "👩", "👨\u200d👩", "🏽", "❤\ufe0f", "𠮷",
    "①", "Ⅳ", "ǆ", "\u0085", "\n", "𐐀", "\u0f71",
]  # fmt: skip
texts = st.lists(st.sampled_from(ALPHABET), max_size=12).map("".join)
terms = st.lists(
    st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=4).map("".join), max_size=6
)


# The oracle: slow, whole, and without anything of the filter's own.


def clusters(text: str) -> list[str]:
    found: list[str] = []
    for character in text:
        if found and is_extending(character):
            found[-1] += character
        else:
            found.append(character)
    return found


def folded(cluster: str, *, skips: bool) -> str:
    vanishing = {0xAD, 0x200B, 0x200D, 0xFE0F}
    text = "".join(c for c in cluster if ord(c) not in vanishing)
    for step in (lambda t: t, str.casefold):
        text = unicodedata.normalize("NFKC", step(text))
        text = "".join(c for c in text if unicodedata.combining(c) not in {1, *range(200, 256)})
    if skips:
        text = "".join(
            c
            for c in text
            if unicodedata.category(c)[0] not in "ZP" and unicodedata.category(c) != "Cc"
        )
    return text


def oracle(
    text: str,
    words: Sequence[str],
    patterns: Sequence[TextPattern] = (),
    *,
    skips: bool = False,
) -> str:
    """The text with an asterisk for each character of a match."""
    parts = clusters(text)
    folds = [folded(part, skips=skips) for part in parts]
    whole = "".join(folds)
    wanted = ["".join(folded(part, skips=skips) for part in clusters(word)) for word in words]
    out, number = "", 0
    while number < len(parts):
        at = sum(map(len, folds[:number]))
        lengths = [len(word) for word in wanted if folds[number] and whole.startswith(word, at)]
        for pattern in patterns if folds[number] else ():
            span = pattern.max_span
            before = max(0, at - span)
            window = whole[before : at + span]
            match = re.compile(pattern.expression, re.IGNORECASE).match(window, at - before)
            if match and (not pattern.starts_with or whole[at] in pattern.starts_with):
                lengths.append(match.end() - match.start())
        length = max(lengths, default=0)
        if not length:
            out += parts[number]
            number += 1
        while length > 0:
            length -= len(folds[number])
            out += "*" * len(parts[number])
            number += 1
    return out


def cuts_of(text: str, cuts: Sequence[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[begin:end] for begin, end in pairwise(edges)]


def fed(part: FilterPart, pieces: Sequence[str], whole: str) -> str:
    """All that comes out; and it is checked that nothing of it came too early."""
    shown = ""
    for piece in pieces:
        shown += part.feed(piece)
        assert whole.startswith(shown)
    return shown + part.close()


def usable(words: Sequence[str], **options: bool) -> list[str]:
    """The words of which something is left."""
    kept = []
    for word in words:
        try:
            ContentFilter([word], skip_separators=options.get("skips", False))
        except ConfigError:
            continue
        kept.append(word)
    return kept


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(texts, terms, st.lists(st.integers(0, 40), max_size=6), st.booleans())
@example("e\u0301", ["é"], [1], False)
@example("e\u0302\u0323x", ["ệ"], [2], False)
@example("ê\u0323x", ["ệ"], [1], False)
@example("\u1112\u1161\u11ab", ["한"], [1, 2], False)
@example("敏\u0336感", ["敏感"], [1, 2], False)
@example("敏 .感", ["敏感"], [1, 2, 3], True)
@example("\u0e49\u09bc", ["\u09bc"], [1], False)
@example(" \u0e49", ["\u0e49"], [1], True)
@example("-\u0f71ﾞ", ["ﾞ"], [2], True)
def test_pieces_become_what_the_whole_becomes(
    text: str, words: list[str], cuts: list[int], skips: bool
) -> None:
    words = usable(words, skips=skips)
    content_filter = ContentFilter(words, skip_separators=skips)
    whole = oracle(text, words, skips=skips)
    assert content_filter.apply(text) == whole
    assert fed(content_filter.open(), cuts_of(text, cuts), whole) == whole
    assert fed(content_filter.open(), list(text), whole) == whole
    for cut in range(1, len(text)):
        assert fed(content_filter.open(), [text[:cut], text[cut:]], whole) == whole


@pytest.mark.slow
def test_a_thousand_random_lists() -> None:
    chance = random.Random(7)
    for _ in range(1000):
        letters = chance.sample(ALPHABET, 8)
        words = usable(["".join(chance.choices(letters, k=chance.randint(1, 4))) for _ in range(8)])
        text = "".join(chance.choices([*letters, *"的了，。"], k=30))
        content_filter = ContentFilter(words)
        whole = oracle(text, words)
        pieces = cuts_of(text, chance.choices(range(60), k=5))
        assert fed(content_filter.open(), pieces, whole) == whole
        assert fed(content_filter.open(), list(text), whole) == whole


PATTERNS = [
    TextPattern(r"(?<!1)1[a1]{2,3}(?!1)", max_span=6),
    TextPattern(r"\be+\b", max_span=5, starts_with="e"),
    TextPattern(r"a.*?b", max_span=4, starts_with="a"),
    TextPattern(r"^中|词$", max_span=3),
    TextPattern(r"1+", max_span=2, starts_with="1"),
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*"1aeb中词 １Ａ", "é", "\u0301", "\u200b"]), max_size=16).map(
        "".join
    ),
    st.sets(st.sampled_from(PATTERNS), max_size=3),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_patterns_obey_the_law_too(text: str, chosen: set[TextPattern], cuts: list[int]) -> None:
    words = ["a1", "中e"]
    patterns = sorted(chosen)
    content_filter = ContentFilter(words, patterns=patterns)
    whole = oracle(text, words, patterns)
    assert content_filter.apply(text) == whole
    assert fed(content_filter.open(), cuts_of(text, cuts), whole) == whole
    assert fed(content_filter.open(), list(text), whole) == whole


@pytest.mark.parametrize("code", range(0, 0x20000, 0x800))
def test_a_mark_to_come_never_changes_the_base_of_a_letter(code: int) -> None:
    """Every letter that Unicode composes is held back where its base stands."""
    for character in map(chr, range(code, code + 0x800)):
        decomposed = unicodedata.normalize("NFD", character)
        if len(decomposed) == 1 or unicodedata.normalize("NFC", decomposed) != character:
            continue
        part = ContentFilter([character]).open()
        shown = "".join(map(part.feed, decomposed)) + part.close()
        assert shown == "*" * len(decomposed), hex(ord(character))


# What is held back


@pytest.mark.parametrize(
    ("words", "text", "held"),
    [
        (["敏感词"], "今天天气不错", ""),
        (["敏感词"], "这很敏", "敏"),
        (["敏感词"], "这很敏感", "敏感"),
        (["敏感词"], "这很敏捷", ""),
        (["敏感", "感冒药"], "敏感", "敏感"),
        (["敏感", "敏感词"], "敏感的", ""),
        (["é"], "cafe", "e"),
        (["é"], "caf", ""),
        (["敏感词"], "，", ""),
        (["敏感词"], "敏\u200b", "敏\u200b"),
    ],
)
def test_held_back_is_only_what_a_term_begins_with(words: list[str], text: str, held: str) -> None:
    part = ContentFilter(words).open()
    part.feed(text)
    assert part.held == held


def test_held_back_for_a_pattern_is_its_span_less_one() -> None:
    part = ContentFilter(patterns=[TextPattern(r"\d{11}", max_span=11)]).open()
    part.feed("x" * 50)
    assert len(part.held) == 10 + 1  # the last letter may still get an accent
    part = ContentFilter(patterns=[TextPattern(r"1\d{10}", max_span=11, starts_with="1")]).open()
    part.feed("x" * 50)
    assert part.held == ""
    part.feed("电话1")
    assert part.held == "1"


# What is done


def test_mask_stands_for_each_character_or_once() -> None:
    assert ContentFilter.from_terms(["敏感词"]).apply("是敏感词！") == "是***！"
    assert (
        ContentFilter.from_terms(["敏感词"], replacement="[删除]").apply("敏感词！") == "[删除]！"
    )
    assert ContentFilter.from_terms(["敏感词"], replacement="").apply("敏感词！") == "！"


def test_drop_and_flag() -> None:
    words = ContentFilter([Term("敏感", "a", "drop"), Term("感冒", "b", "flag")])
    assert words.apply("敏感感冒") == "感冒"
    found = words.find("，敏感感冒")
    assert [tuple(match) for match in found] == [
        (1, 3, "敏感", "a", "drop", ""),
        (3, 5, "感冒", "b", "flag", None),
    ]


def test_places_of_matches_are_those_of_the_text_as_fed() -> None:
    words = ContentFilter(["敏感"], patterns=[TextPattern("1+", starts_with="1", max_span=4)])
    text = "é\u0301x敏\u200b感，１１ 敏感"
    part = words.open()
    for character in text:
        part.feed(character)
    part.close()
    assert [text[match.start : match.end] for match in part.matches] == [
        "敏\u200b感",
        "１１",
        "敏感",
    ]


def test_block_ends_the_text_before_the_match() -> None:
    words = ContentFilter(["敏感词"], action="block")
    for pieces in (["好。敏感词，还有"], list("好。敏感词，还有"), ["好。敏感", "词，还有"]):
        part = words.open()
        shown = "".join(map(part.feed, pieces)) + part.close()
        assert shown == "好。"
        assert part.blocked is not None
        assert part.blocked.term == "敏感词"
    with pytest.raises(BlockedError) as caught:
        words.apply("好。敏感词")
    assert caught.value.term == "敏感词"
    assert "敏感词" not in str(caught.value)


def test_a_longer_term_protects_what_a_shorter_one_would_block() -> None:
    words = ContentFilter([Term("程碑", action="block"), Term("里程碑", action="flag")])
    assert words.apply("一座里程碑") == "一座里程碑"


def test_of_equal_terms_the_stricter_action_counts() -> None:
    for order in (1, -1):
        words = ContentFilter([Term("vpn", action="flag"), Term("ＶＰＮ", action="block")][::order])
        assert words.find("VPN")[0].action == "block"


def test_full_gives_nothing_away_before_the_end() -> None:
    part = ContentFilter(["敏感词"], mode="full").open()
    assert part.feed("你好。敏感词") == ""
    assert part.close() == "你好。***"
    part = ContentFilter(["敏感词"], mode="full", action="block").open()
    assert part.feed("你好。敏感词") + part.close() == ""
    assert part.blocked is not None


def test_folding_sees_through_tricks() -> None:
    words = ContentFilter(["敏感词", "vpn", "か゛き", "straße"])
    for trick in ("敏\u200b感\ufeff词", "敏\u0336感\u0336词\u0336", "敏\U000e0100感词", "敏⃝感⃝词⃝"):
        assert set(words.apply(trick)) == {"*"}, trick
    assert words.apply("ＶＰＮ Vpn ⓥⓟⓝ") == "*** *** ***"
    assert words.apply("STRASSE") == "*******"
    skipping = ContentFilter(["敏感词", "B-52"], skip_separators=True)
    assert skipping.apply("敏 感.词、敏感") == "*****、敏感"
    assert skipping.apply("b52 B 52") == "*** ****"


def test_many_terms_that_begin_alike_are_found() -> None:
    words = ContentFilter([f"www.example.com/{number}" for number in range(5000)])
    assert words.apply("见www.example.com/4999。") == "见" + "*" * 20 + "。"


def test_a_filter_can_be_copied_and_pickled_and_tells_no_term() -> None:
    words = ContentFilter(["敏感词"], patterns=[TextPattern("机密", max_span=2)])
    for copied in (copy.deepcopy(words), pickle.loads(pickle.dumps(words))):
        assert copied.apply("敏感词机密") == "*****"
        assert copied.actions == {"mask"}
    assert "敏感" not in repr(words)
    assert "机密" not in repr(words)


# Word lists


def test_word_list_has_comments_categories_and_actions(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + "# 注释\r\n\r\n敏感词\r\n 赌博 \tgambling\r\n发票\tfraud\tblock\n\\#号\t\tflag\n".encode()
    )
    words = ContentFilter.from_file(path, action="drop")
    assert words.apply("敏感词和赌博") == "和"
    assert [match[2:5] for match in words.find("#号赌博发票")] == [
        ("#号", "", "flag"),
        ("赌博", "gambling", "drop"),
        ("发票", "fraud", "block"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "好\n坏\tx\tdelete\n".encode(),
            "line 2: expected mask, drop, block or flag, got 'delete'",
        ),
        ("好\ta\tmask\tmore".encode(), "line 1: expected term, category and action between tabs"),
        ("好\n\n坏".encode("gbk"), "line 1: expected UTF-8"),
        ("好\n\tx\n".encode(), "line 2: nothing is left of this term"),
        ("好\n\u200b\n".encode(), "line 2: nothing is left of this term"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        ContentFilter.from_file(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ConfigError, match="No such file"):
        ContentFilter.from_file(tmp_path / "none.txt")


async def no_check(clause: object) -> None:
    return None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": "敏感词"}, "terms: expected a list"),
        ({"terms": [""]}, r"terms\[0\]: nothing is left"),
        ({"terms": [3]}, r"terms\[0\]: expected text or Term, got 3"),
        ({"action": "hide"}, "action: expected mask, drop, block or flag, got 'hide'"),
        ({"mode": "slow"}, "mode: expected window, full or live"),
        ({"channels": ["text"]}, "channels: expected some of content, reasoning"),
        ({"channels": "content"}, "channels: expected some of"),
        ({"replacement": None}, "replacement: expected text"),
        ({"patterns": [r"\d"]}, r"patterns\[0\]: expected TextPattern"),
        ({"patterns": [TextPattern("(")]}, r"patterns\[0\]: expression: "),
        ({"patterns": [TextPattern("a", max_span=0)]}, r"patterns\[0\]: max_span: "),
        ({"patterns": [TextPattern("a", action="x")]}, r"patterns\[0\]: expected mask"),  # type: ignore[arg-type]
        ({"checkers": [no_check]}, r"checkers\[0\]: expected TextChecker"),
        ({"checkers": [TextChecker(no_check, timeout=0)]}, r"checkers\[0\]: timeout: "),
        ({"checkers": [TextChecker(no_check, on_error="x")]}, r"checkers\[0\]: on_error: "),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_be_right_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContentFilter(**options)  # type: ignore[arg-type]


def test_of_live_text_nothing_can_be_taken_out() -> None:
    for action, is_refused in (("mask", True), ("drop", True), ("block", False), ("flag", False)):
        terms = ContentFilter(["x"], action=action, mode="live")
        checkers = ContentFilter(checkers=[TextChecker(no_check, action=action)], mode="live")
        for words in (terms, checkers):
            assert words.actions == {action}
            if is_refused:
                with pytest.raises(ConfigError, match="only the actions block and flag"):
                    words.check_live()
            else:
                words.check_live()
        ContentFilter(["x"], action=action, mode="window").check_live()


def test_who_can_be_told_to_take_text_back_may_see_it_masked_afterwards() -> None:
    words = ContentFilter(["x"], mode="live")
    words.check_live(takes_back=True)
    calls = words.with_settings(channels=["content", "tool_arguments"])
    with pytest.raises(ConfigError, match="block and flag for tool_arguments"):
        calls.check_live(takes_back=True)
    with pytest.raises(ConfigError, match="only the actions block and flag: a client"):
        calls.check_live()
    ContentFilter(["x"], mode="live", action="flag", channels=["tool_arguments"]).check_live(
        takes_back=True
    )


def test_the_same_words_may_be_looked_for_in_another_way() -> None:
    words = ContentFilter(["敏感词"], replacement="#", channels=["content"])
    full = words.with_settings(mode="full")
    assert (full.mode, full.channels, full.apply("敏感词")) == ("full", {"content"}, "###")
    assert full.open().feed("好") == ""
    other = words.with_settings(channels=["prompt"])
    assert (other.mode, other.channels) == ("window", {"prompt"})
    assert words.with_settings(channels=[]).channels == frozenset()
    assert (words.mode, words.channels) == ("window", {"content"})


def test_replacement_is_that_of_the_filter() -> None:
    for mark, shown in (("*", "***"), ("[…]", "[…]"), ("", "")):
        words = ContentFilter(replacement=mark)
        assert words.replacement("mask", 3) == shown
        assert words.replacement("drop", 3) == ""
        assert words.replacement("flag", 3) is words.replacement("block", 3) is None


def test_a_checker_that_is_right_is_taken() -> None:
    checker = TextChecker(no_check, "mask", timeout=1, on_error="allow")
    words = ContentFilter(["x"], checkers=[checker], action="drop")
    assert words.checkers == (checker,)
    assert words.actions == {"mask", "drop"}
    with pytest.raises(ConfigError, match=r"checkers\[0\]: check: expected a function, got 3"):
        ContentFilter(checkers=[TextChecker(3)])  # type: ignore[arg-type]


def test_what_is_remembered_of_characters_has_a_bound() -> None:
    folding = Folding(skips_separators=False)
    codes = range(0x3400, 0x3400 + MOST_REMEMBERED + 10)
    assert [folding.table[code] for code in codes] == [chr(code) for code in codes]
    assert len(folding.table) == MOST_REMEMBERED
    assert folding.fold("Ａ" + chr(codes[-1])).text == "a" + chr(codes[-1])


def test_a_match_has_no_part_of_a_cluster() -> None:
    """Of a character that folds to several it has all, and it begins with the first of them."""
    assert ContentFilter(["g"]).apply("㎏g") == "㎏*"
    assert ContentFilter(["k"]).apply("㎏g㎏") == "*g*"
    assert ContentFilter(["kgg"]).apply("㎏g") == "**"


def test_marks_without_a_letter_are_held_back_as_others_may_come_before_them() -> None:
    for words in (
        ContentFilter(["ﾞ"], skip_separators=True),
        ContentFilter(patterns=[TextPattern("\u3099", max_span=1)], skip_separators=True),
    ):
        part = words.open()
        assert part.feed("a-\u0f71") == "a"
        assert part.feed("ﾞ") + part.close() == words.apply("a-\u0f71ﾞ")[1:] == "***"
    part = ContentFilter(["\u093c"], skip_separators=True).open()
    assert part.feed("\u309b") == ""  # a space with a mark on it
    assert part.feed("\u093c") + part.close() == "**"
    part = ContentFilter(["a\u05b4"], skip_separators=True).open()
    assert part.feed("a-\u0e49") == ""
    assert part.feed("\u05b4") + part.close() == "****"


def test_what_is_nothing_so_far_is_held_back_where_a_match_may_begin_with_a_mark() -> None:
    for words in (
        ContentFilter(["\u0e49"], skip_separators=True),
        ContentFilter(patterns=[TextPattern("\u0e49", max_span=1)], skip_separators=True),
    ):
        part = words.open()
        assert part.feed("a ") == "a"
        assert part.held == " "
        assert part.feed("\u0e49") + part.close() == words.apply("a \u0e49")[1:] == "**"
    part = ContentFilter(["b"], skip_separators=True).open()
    assert part.feed("a ") == "a "
