"""`[n]` in streamed text: kept and told where it names a source, dropped where it does not, left alone in code and links."""

from hypothesis import given
from hypothesis import strategies as st

from slipway.knowledge.citations import Marker

TEXT = "Use a key [1]. Then [2][9] go on [1, 2, 7]. See `a [1] b` and [1](http://x). 第一句。第二句[2]。\n```\na [1]\n```\nEnd [12]."
SHOWN = "Use a key [1]. Then [2] go on [1][2]. See `a [1] b` and [1](http://x). 第一句。第二句[2]。\n```\na [1]\n```\nEnd."


def marked(cuts: list[int]) -> tuple[str, list[tuple[int, str]], int]:
    marker, shown, citations, last = Marker({1, 2}), "", [], 0
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
        (1, "Then [2] go on [1][2]"),
        (2, "Then [2] go on [1][2]"),
        (2, "第二句[2]"),
    ]
    assert dropped == 3


@given(st.lists(st.integers(0, len(TEXT)), max_size=40))
def test_where_the_stream_is_split_makes_no_difference(cuts: list[int]) -> None:
    assert marked(cuts) == marked([])


def test_a_long_text_keeps_its_offsets() -> None:
    marker, shown, spans = Marker({1}), "", []
    for i in range(2000):
        for piece in (f"Line {i} says", " so [", "1].\n", "```\n[1]\n```\n" if i % 100 == 0 else ""):
            text, found = marker.feed(piece)
            shown += text
            spans += found
    shown += marker.end()[0]
    assert [shown[c.start : c.end] for c in spans] == [f"Line {i} says so [1]" for i in range(2000)]
