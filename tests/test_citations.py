"""Test `[n]` in streamed text: kept if it names a source, dropped if not, left alone in code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.knowledge.citations import CitationParser
from slipway.knowledge.claims import Claims
from slipway.types import Citation, Source

TEXT = (
    "Use a key [1]. Then [2][9] go on [1, 2, 7]. See `a [1] b` and [1](http://x). "
    "第一句。第二句[2]。\n```\na [1]\n```\nEnd [12]."
)
SHOWN = (
    "Use a key [1]. Then [2] go on [1][2]. See `a [1] b` and [1](http://x). 第一句。第二句[2]。\n```\na "
    "[1]\n```\nEnd."
)


def marked(cuts: list[int]) -> tuple[str, list[tuple[int, str]], int]:
    marker, shown, citations, last = CitationParser({1, 2}), "", [], 0
    for cut in [*sorted(cuts), len(TEXT)]:
        text, found = marker.feed(TEXT[last:cut])
        shown, last = shown + text, cut
        citations += found
    text, found = marker.end()
    shown += text
    return shown, [(c.n, shown[c.start : c.end]) for c in citations + found], marker.dropped


def test_each_marker_of_a_source_is_a_citation_of_its_sentence() -> None:
    shown, citations, dropped = marked([])
    assert shown == SHOWN
    assert citations == [
        (1, "Use a key [1]"),
        (2, "Then [2]"),
        (1, "Then [2] go on [1]"),
        (2, "Then [2] go on [1][2]"),
        (2, "第二句[2]"),
    ]
    assert dropped == 3


@given(st.lists(st.integers(0, len(TEXT)), max_size=40))
def test_where_the_stream_is_split_makes_no_difference(cuts: list[int]) -> None:
    assert marked(cuts) == marked([])


def test_a_long_text_keeps_its_offsets() -> None:
    marker, shown, spans = CitationParser({1}), "", []
    for i in range(2000):
        for piece in (
            f"Line {i} says",
            " so [",
            "1].\n",
            "```\n[1]\n```\n" if i % 100 == 0 else "",
        ):
            text, found = marker.feed(piece)
            shown += text
            spans += found
    text, found = marker.end()
    shown, spans = shown + text, spans + found
    assert [shown[c.start : c.end] for c in spans] == [f"Line {i} says so [1]" for i in range(2000)]


def read(text: str, known: tuple[int, ...] = (1, 2)) -> tuple[str, list[int], int]:
    marker = CitationParser(set(known))
    parts = [marker.feed(text), marker.end()]
    return "".join(p[0] for p in parts), [c.n for p in parts for c in p[1]], marker.dropped


READ = {
    "A [1-3] b": ("A [1][2] b", [1, 2], 1),
    "A [1–2].": ("A [1][2].", [1, 2], 0),
    "A [Source 1] and [passage 2].": ("A [1] and [2].", [1, 2], 0),
    "[Source 1, Source 2; 3]": ("[1][2]", [1, 2], 1),
    "A (see [1]). B (see [9]). C ([8]) d": ("A (see [1]). B. C d", [1], 2),
    "A (see [9], [1]) and (see [9] for more)": ("A (see [1]) and (see for more)", [1], 2),
    "热茶【1】。冷茶【2†source】。没有【4:0†source】。（见[9]）": (
        "热茶[1]。冷茶[2]。没有。",
        [1, 2],
        2,
    ),
    "A [^1]. B [^9]. C ［２］. D [01].": ("A [1]. B. C [2]. D [1].", [1, 2, 1], 1),
    "A [1] [9]. B [9] [2]. C [1], [9] and [2].": ("A [1]. B [2]. C [1][2].", [1, 2, 1, 2], 3),
    "[[1]] [[9]]": ("[1]", [1], 1),
    "# H [1]\n\n- x [2]\n- y [9]\n\n| a [1] | b [9] |": (
        "# H [1]\n\n- x [2]\n- y\n\n| a [1] | b |",
        [1, 2, 1],
        2,
    ),
    "[9] Then go. x [9]y": ("Then go. x y", [], 2),
    "[999999999] [1-99999]": ("[1]", [1], 2),
    "[1](guide.md) [9](http://x) [[1]](http://x)": (
        "[1](guide.md) [9](http://x) [[1]](http://x)",
        [],
        0,
    ),
    "A [1](/v1/passages/psg-1). B [9](https://x.invalid:8080/v1/passages/psg-1).": (
        "A [1]. B.",
        [1],
        1,
    ),
    "**[1]** and **[9]**, *[9]* and **[9] so**": ("**[1]** and, and **so**", [1], 3),
    "[1]: https://x\n[9]: <http://y>": ("[1]: https://x\n[9]: <http://y>", [], 0),
    "a[1] my_list[2] myList[2] x.items[1] rows[0] but so[1]": (
        "a[1] my_list[2] myList[2] x.items[1] rows[0] but so[1]",
        [1],
        0,
    ),
    "[2024] [2019-2021] [ ] [x] [0, 1] [-1] [0-9] [1.5]": (
        "[2024] [2019-2021] [ ] [x] [0, 1] [-1] [0-9] [1.5]",
        [],
        0,
    ),
    "`[9]` ``a ` [9]`` ~~~ [1]": ("`[9]` ``a ` [9]`` ~~~ [1]", [1], 0),
    "~~~\n[9]\n```\n[9]\n~~~\n[9]x": ("~~~\n[9]\n```\n[9]\n~~~\nx", [], 1),
    "```a [9]``` [9].": ("```a [9]```.", [], 1),
    "[": ("[", [], 0),
    "[12": ("[12", [], 0),
}


@pytest.mark.parametrize("text", READ)
def test_markers_as_models_write_them(text: str) -> None:
    assert read(text) == READ[text]


MIXED = st.lists(
    st.sampled_from(
        [
            *READ,
            "[",
            "]",
            "(",
            ")",
            " ",
            "and ",
            ",",
            "`",
            "```",
            "\n",
            "x",
            "。",
            "http://",
            "(/v1/passages/",
            "**",
            "- ",
            "|",
        ]
    ),
    max_size=8,
).map("".join)


@given(MIXED, st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_however_a_text_of_markers_is_split(text: str, sizes: list[int]) -> None:
    marker, shown, at = CitationParser({1, 2}), "", 0
    numbers: list[int] = []
    for size in sizes * (len(text) // len(sizes) + 1):
        given_out, found = marker.feed(text[at : at + size])
        shown, numbers, at = shown + given_out, numbers + [c.n for c in found], at + size
    given_out, found = marker.end()
    assert (shown + given_out, numbers + [c.n for c in found], marker.dropped) == read(text)


@given(st.text(alphabet="[]【】()` \n1,9-aS", max_size=400))
def test_little_is_held_back(text: str) -> None:
    marker = CitationParser({1})
    for letter in text:
        marker.feed(letter)
        assert len(marker.held) < 240


def test_one_huge_piece_is_read_as_many_small_ones() -> None:
    text = "".join(f"Line {n} is [2024] so [{n % 4}] in `x[1]`.\n" for n in range(5_000))
    whole = read(text)
    marker = CitationParser({1, 2})
    assert (
        whole[0]
        == "".join(marker.feed(text[at : at + 7])[0] for at in range(0, len(text), 7))
        + marker.end()[0]
    )


def source(n: int, text: str, heading: str = "Tea") -> Source:
    return Source(
        n=n,
        id=f"psg-{n}",
        path="tea/green.md",
        heading=heading,
        start=0,
        end=len(text),
        text=text,
        version="v",
    )


def cited(answer: str, *texts: str, question: str = "How hot?") -> list[Citation]:
    sources = [source(n, text) for n, text in enumerate(texts, 1)]
    marker = CitationParser({s.n for s in sources}, Claims(sources, question).lacking)
    return marker.feed(answer)[1] + marker.end()[1]


HOT = (
    "Green tea is brewed at 80 degrees for two minutes, as Kyoto does since June 27th, 2024. It "
    "costs 1,000 yen. Set `max_heat` to 0.5 million."
)
FOUND = [
    "It is brewed at 80 degrees for 2 minutes [1].",
    "In 2024-06-27 it was 1000 or 1.000 yen [1].",
    "Tea of Kyoto needs `max_heat` and 500,000 or 500K [1].",
    'The page says "brewed at 80  degrees" [1].',
    "1. **Heat**: Take 80 degrees [1].",
    "要 80 度，两分钟 [1]。",
]
LACKING = {
    "It is brewed at 85 degrees for 2 minutes [1].": ("85",),
    "It came in July 2024 to Osaka [1].": ("July", "Osaka"),
    "Set `min_heat`, or max_cold [1].": ("min_heat", "max_cold"),
    'The page says "brewed at once" [1].': ("brewed at once",),
    "要 85 度，像 Osaka [1]。": ("85", "Osaka"),
    "Version 1.2.3 came [1].": ("1.2.3",),
}


@pytest.mark.parametrize("answer", FOUND)
def test_other_spellings_of_the_same_value_are_not_flagged(answer: str) -> None:
    assert [c.flags for c in cited(answer, HOT)] == [()]


@pytest.mark.parametrize("answer", LACKING)
def test_claims_that_the_source_lacks_are_flagged(answer: str) -> None:
    assert sorted(cited(answer, HOT)[0].flags) == sorted(LACKING[answer])


def test_words_of_the_question_are_not_flagged() -> None:
    assert cited("It is not 95 in Osaka [1].", HOT, question="Is it 95 in Osaka?")[0].flags == ()


def test_several_sources_of_a_sentence_count_together_and_another_sentence_alone() -> None:
    found = cited("It is 70 [1] or 90 [2]. It is 90 [1].", "90 is hot.", "Take 70.")
    assert [(c.n, c.flags) for c in found] == [(1, ()), (2, ()), (1, ())]
    found = cited("It is 70 [1][2]. It is 70 [1].", "90 is hot.", "Take 70.")
    assert [(c.n, c.flags) for c in found] == [(1, ()), (2, ()), (1, ("70",))]
