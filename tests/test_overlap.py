"""Test that an answer which another model continues reads as one text."""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.providers.mock.words import write
from slipway.routing.continuation import head_of
from slipway.routing.overlap import OverlapFilter
from slipway.types import Piece

CHINESE = "港口清晨有船缓慢驶过灯塔下面几个孩子正在看书他们问老师为什么海水会涨又退去答案写墙上但没人读懂它直到第二天雨停了风也小"
PREFACES = [
    "Sure, here is the rest:\n\n",
    "Sure! Here's the rest of the answer:\n\n",
    "Certainly! Here is the continuation of my previous response:\n\n---\n\n",
    "Continuing from where I left off:\n\n",
    "**Continuing from where it was cut off:**\n\n",
    "Of course. I'll continue exactly where the answer stopped.\n\n",
    "Apologies for the interruption. Let me continue from where I left off:\n\n",
    "Okay, picking up right where we left off…\n",
    "当然，以下是剩余部分：",
    "好的，接着上文：\n",
    "好的，我继续回答：\n\n",
    "抱歉，从刚才中断的地方继续：\n\n",
    "Here's the continuation:\n\n",
    "Here is the rest of my answer: ",
    "The remainder of the previous response:\n",
    "Sorry about that. To continue: ",
    "Understood. I'll carry on right where the text broke off. ",
    "[Continued]\n\n",
    "Sorry, I was cut off. Continuing:\n\n",
    "(Continuing from the previous message)\n\n",
    "The rest of the answer is as follows:\n\n",
    "**(continued)**\n",
    "... continuing: ",
    "...continued:\n",
    "以下是剩余的内容：\n",
    "好的，继续：",
    "抱歉，从刚才中断的地方继续。",
    "（续上文）\n",
    "……（续）",
]


def joined(shown: str, *pieces: str, prefilled: bool = False) -> tuple[str, str]:
    """Return what the reader sees after `shown`, and what was found."""
    joint = OverlapFilter(shown, prefilled=prefilled)
    seen = "".join(map(joint.feed, pieces)) + joint.end()
    return seen, joint.found


def english(rng: random.Random) -> str:
    return "".join(write(rng, 120))


def chinese(rng: random.Random) -> str:
    return "".join(
        "".join(rng.sample(CHINESE, rng.randint(4, 14))) + rng.choice("，。。？") for _ in range(12)
    )


def markdown(rng: random.Random) -> str:
    items = "".join(
        f"{rng.choice(['-', '1.', '  -'])} **{''.join(write(rng, 2))}** {''.join(write(rng, 7))}\n"
        for _ in range(4)
    )
    rows = "".join(
        f"| {''.join(write(rng, 1))} | {''.join(write(rng, 2))} | yes |\n" for _ in range(5)
    )
    return (
        f"## {''.join(write(rng, 3))}\n\n{''.join(write(rng, 30))}\n\n{items}\n| a | b | c "
        f"|\n|---|---|---|\n{rows}\n{''.join(write(rng, 30))}\n"
    )


def code(rng: random.Random) -> str:
    lines = "".join(
        f"{'    ' * rng.randint(1, 3)}{rng.choice('abc')} = f({rng.randint(0, 99)}, "
        f"{rng.choice('xyz')})\n"
        for _ in range(12)
    )
    return (
        f"So:\n\n```python\ndef f(a, b):\n{lines}    x += 1\n    x += 1\n    return "
        f"x\n```\n\n{''.join(write(rng, 20))}"
    )


WRITERS = [english, chinese, markdown, code]


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, str]:
    """Cut a text somewhere: return what was shown, and the rest."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    text = draw(st.sampled_from(WRITERS))(rng)
    cut = draw(st.integers(1, len(text) - 1))
    return text[:cut], text[cut:]


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=30)))
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]


@settings(deadline=None)
@given(broken(), st.data())
def test_an_exact_continuation_is_never_changed(text: tuple[str, str], data: st.DataObject) -> None:
    shown, rest = text
    assert joined(shown, *data.draw(pieces(rest))) == (rest, "exact")
    assert joined(shown, rest, prefilled=True) == (rest, "exact")


@settings(deadline=None)
@given(
    st.text(alphabet="ab .,\n|`今天…", max_size=60),
    st.text(alphabet="ab .,\n|`今天…", max_size=60),
    st.data(),
)
def test_how_it_is_cut_into_pieces_makes_no_difference(
    shown: str, text: str, data: st.DataObject
) -> None:
    assert joined(shown, *data.draw(pieces(text))) == joined(shown, text) == joined(shown, *text)


@settings(deadline=None)
@given(broken(), st.sampled_from(["", *PREFACES]), st.integers(0, 400), st.data())
def test_nor_where_it_repeats(
    text: tuple[str, str], preface: str, back: int, data: st.DataObject
) -> None:
    shown, rest = text
    said = preface + shown[-back:] + rest
    assert joined(shown, *data.draw(pieces(said))) == joined(shown, said) == joined(shown, *said)


def prose(seed: int, cut: float) -> tuple[str, str]:
    text = "".join(write(random.Random(seed), 120))
    at = 30 + int(cut * (len(text) - 60))
    return text[:at], text[at:]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(6, 20))
def test_words_that_are_said_again_are_seen_once(seed: int, cut: float, count: int) -> None:
    shown, rest = prose(seed, cut)
    words = shown.split(" ")
    again = " ".join(words[-count:])
    if len(set(words[-count:])) > 4 and len(again) < 100:
        assert joined(shown, again + rest)[0] == rest


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(["", *PREFACES]))
def test_an_answer_that_begins_again_is_seen_once(seed: int, cut: float, preface: str) -> None:
    shown, rest = prose(seed, cut)
    assert joined(shown, *(preface + shown + rest)) == (rest, "restart")
    words = shown.rstrip(" ")
    assert joined(words, "\n" + words.replace(" ", " \n") + rest) == (rest, "restart")


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(PREFACES))
def test_a_preface_is_not_seen(seed: int, cut: float, preface: str) -> None:
    shown, rest = prose(seed, cut)
    assert joined(shown, preface, rest) == (rest, "preface")


CASES = {
    # It says the last words again
    ("The quick brown fox", "quick brown fox jumps"): (" jumps", "repeat"),
    ("It is so. The quick brown fox ju", "The quick brown fox jumps."): ("mps.", "repeat"),
    ("It is so. The quick brown fox ", "The quick brown fox jumps."): ("jumps.", "repeat"),
    ("See the harbour", "harbour of Kiel"): (" of Kiel", "repeat"),
    ("So it is. Explain", "Explains the rest."): ("s the rest.", "repeat"),
    ("Then we go over the harbour wa", "…over the harbour wall"): ("ll", "repeat"),
    ("We sell three kinds of tea.\n\n", "three kinds of tea.\n\nThe first"): (
        "The first",
        "repeat",
    ),
    ("1. Open the settings\n2. Choose your language", "2. Choose your language\n3. Save"): (
        "\n3. Save",
        "repeat",
    ),
    ("他们在海边看见一艘很大的船", "看见一艘很大的船慢慢靠岸。"): ("慢慢靠岸。", "repeat"),
    # It begins again
    ("Open the gate and", "Open the gate and go in."): (" go in.", "restart"),
    ("The", "The answer is 4."): (" answer is 4.", "restart"),
    ("Harbour", "Harbour masters"): (" masters", "restart"),
    ("根据文档", "根据文档，答案是四。"): ("，答案是四。", "restart"),
    # It says first that it goes on
    ("Open the gate and ", "Sure, here is the rest:\n\ngo in."): ("go in.", "preface"),
    ("Open the gate and go in to", "Continuing from where I left off:\n\ngo in to the house"): (
        " the house",
        "repeat",
    ),
    ("Open the gate and ", "(continued)\n\ngo in."): ("go in.", "preface"),
    ("Open the gate and ", "…go in."): ("go in.", "preface"),
    ("打开门，", "（接上文）走进去。"): ("走进去。", "preface"),
    ("打开门，", "以下是剩余部分：走进去。"): ("走进去。", "preface"),
    ("Done.", "Sure, here is the rest:"): ("", "preface"),
    ("It is late. ", "(continued)\n\nThe harbour sleeps."): ("The harbour sleeps.", "preface"),
    ("It is late. ", "Continuing:\n\nThe harbour sleeps."): ("The harbour sleeps.", "preface"),
    ("It is late. ", "...The harbour sleeps."): ("The harbour sleeps.", "preface"),
    ("It is very ", "...continuing: late."): ("late.", "preface"),
    ("它很大。", "（接上文）\n船很小。"): ("船很小。", "preface"),
    # It opens the code again that is open
    ("```python\ndef f(", "```python\na, b):\n"): ("a, b):\n", "fence"),
    ("```python\ndef f(", "Sure, here is the rest:\n\n```python\na, b):\n"): ("a, b):\n", "fence"),
    # White space
    ("The quick ", " brown fox"): ("brown fox", "space"),
    ("The quick ", "\n\nbrown fox"): ("brown fox", "space"),
    ("It is late.", "The harbour sleeps."): (" The harbour sleeps.", "space"),
    ("It is late,", "but the harbour"): (" but the harbour", "space"),
    # False friends
    ("It was very ", "very late, and very very dark."): ("very late, and very very dark.", "exact"),
    ("| a | b |\n", "| a | c |\n"): ("| a | c |\n", "exact"),
    (
        "| name | open |\n|---|---|\n| the harbour | is open now |\n",
        "| the harbour | is open now |\n",
    ): (
        "| the harbour | is open now |\n",
        "exact",
    ),
    ("```python\nvalues.append(next(rows))\n", "values.append(next(rows))\nreturn"): (
        "values.append(next(rows))\nreturn",
        "exact",
    ),
    ("```python\nvalues.append(next(rows))", "\nvalues.append(next(rows))\n"): (
        "\nvalues.append(next(rows))\n",
        "exact",
    ),
    ("And so:\nLet it be, let it be\n", "Let it be, let it be\n"): (
        "Let it be, let it be\n",
        "exact",
    ),
    ("0.0, 0.0, 0.0, 0.0, 0.0, ", "0.0, 0.0, 0.0, 0.0, 1.0"): ("0.0, 0.0, 0.0, 0.0, 1.0", "exact"),
    ("哈哈哈哈哈哈哈哈", "哈哈哈哈哈哈哈哈，真好笑"): ("哈哈哈哈哈哈哈哈，真好笑", "exact"),
    ("今天我们", "继续讨论：预算。"): ("继续讨论：预算。", "exact"),
    ("You ask? ", "Sure, it opens at nine:\n"): ("Sure, it opens at nine:\n", "exact"),
    ("Some of it is above. ", "Here is the rest of the list:\n"): (
        "Here is the rest of the list:\n",
        "exact",
    ),
    ("The stream is resumed. ", "Continuing from where it left off, the server"): (
        "Continuing from where it left off, the server",
        "exact",
    ),
    ("Press ", "Continue:\n"): ("Continue:\n", "exact"),
    ("1. Open it.\n2. ", "Continue: press the button."): ("Continue: press the button.", "exact"),
    ("- New: who begins\n- ", "Continuing: who stays"): ("Continuing: who stays", "exact"),
    ("It knows two states. ", "Continued: the answer"): ("Continued: the answer", "exact"),
    ("It prints:\n", "Continuing...\nDone."): ("Continuing...\nDone.", "exact"),
    ("Choose **", "Continued:** and wait"): ("Continued:** and wait", "exact"),
    ("The installer waits. ", "To continue, press Enter."): ("To continue, press Enter.", "exact"),
    ("The installer waits. ", "To continue:\n\n1. Press Enter."): (
        "To continue:\n\n1. Press Enter.",
        "exact",
    ),
    ("## Ships\n\n", "(continued)\n\n"): ("(continued)\n\n", "exact"),
    ("So he left. ", "...or so they say."): ("...or so they say.", "exact"),
    ("The fee is due. ", "I will continue where you left off. Thank you."): (
        "I will continue where you left off. Thank you.",
        "exact",
    ),
    ("他不听。", "我继续说：不行。"): ("我继续说：不行。", "exact"),
    ("满足条件后", "可以继续：先保存。"): ("可以继续：先保存。", "exact"),
    ("你学过了。", "可以接着上次的内容继续说。"): ("可以接着上次的内容继续说。", "exact"),
    ("请点击", "（继续）按钮。"): ("（继续）按钮。", "exact"),
    ("请点击", "继续：然后等待。"): ("继续：然后等待。", "exact"),
    ("See https://example.com/", "The page"): ("The page", "exact"),
    ("Call `a.", "The `"): ("The `", "exact"),
    ("about node.", "js and e.g."): ("js and e.g.", "exact"),
    ("Version 3.", "5 is out"): ("5 is out", "exact"),
    ("He waited", "... and left"): ("... and left", "exact"),
    ("def f(a, ", "...rest)"): ("...rest)", "exact"),
    ("One.\n", "\nTwo."): ("\nTwo.", "exact"),
    ("```\nif x:\n  ", "  y()"): ("  y()", "exact"),
    ("```python\nf()\n", "```\nThat is it."): ("```\nThat is it.", "exact"),
    ("````markdown\nSo:\n", "```python\nf()\n```\n````\n"): (
        "```python\nf()\n```\n````\n",
        "exact",
    ),
    ("So:\n\n", "```python\nf()\n```\n"): ("```python\nf()\n```\n", "exact"),
    ("He said: ", '"So be it."'): ('"So be it."', "exact"),
    ("今天是星期三，", "明天是星期四。"): ("明天是星期四。", "exact"),
    ("", "Sure, here is the rest:"): ("Sure, here is the rest:", "exact"),
}


@pytest.mark.parametrize(("shown", "text"), CASES)
def test_cases(shown: str, text: str) -> None:
    assert joined(shown, text) == joined(shown, *text) == CASES[shown, text]


LONG = (
    "The harbour is open. It is large. Ships come from all over the world to visit it, and they "
    "pay well. Then they"
)


def test_a_restart_in_other_words_is_joined_where_it_comes_to_the_same_words() -> None:
    other = LONG.replace("visit it,", "see it,")
    assert joined(LONG, other + " go home.") == (" go home.", "restart")


def test_a_restart_that_never_comes_there_is_seen_from_the_sentence_that_differs() -> None:
    seen, found = joined(
        LONG,
        "The harbour is open. It is large. Ships come from all over the world to trade here. "
        "That is all.",
    )
    assert (seen, found) == (
        "\n\nShips come from all over the world to trade here. That is all.",
        "diverged",
    )


def test_text_that_only_begins_like_the_answer_is_recognised() -> None:
    letters = (
        "Dear customer, thank you for your order of 4 March. It is on its way to you, with our "
        "best wishes.\n\n"
    )
    another = "Dear customer, thank you for your order of 4 March. It is late.\n\n"
    assert joined(letters, another) == (another, "exact")


def test_a_restart_that_breaks_off_again_adds_nothing() -> None:
    assert joined(LONG, LONG[:90]) == ("", "restart")


def test_a_prefilled_turn_is_continued_token_by_token() -> None:
    for text in (" of Kiel", "harbour", "  and", "Sure, here is the rest:\n\n"):
        assert joined("See the big harbour", text, prefilled=True) == (text, "exact")
    assert joined(LONG, LONG + " go.", prefilled=True) == (" go.", "restart")


def test_little_is_held_back() -> None:
    rng, waits = random.Random(1), []
    for _ in range(300):
        text = english(rng)
        cut = rng.randint(30, len(text) - 60)
        joint = OverlapFilter(text[:cut])
        waits.append(next(n for n, character in enumerate(text[cut:], 1) if joint.feed(character)))
    assert sorted(waits)[150] <= 6
    assert max(waits) <= 60


@settings(deadline=None)
@given(broken(), st.integers(0, 400), st.sampled_from(["", " ", "\n"]))
def test_not_much_more_is_held_back_than_was_shown(
    text: tuple[str, str], cut: int, space: str
) -> None:
    shown, rest = text
    for said in (shown[:cut] + space * 2000 + rest, PREFACES[0] + shown[:cut] + rest * 3):
        joint, held = OverlapFilter(shown), 0
        for character in said:
            held = 0 if joint.feed(character) or joint.settled else held + 1
            assert (
                held <= len(PREFACES[0]) + len(shown) + len(shown) + 400
            )  # a preface, a restart, and what may follow it


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (
            "".join(write(random.Random(1), 30_000)),
            "".join(write(random.Random(1), 30_000)) + " More.",
        ),
        ("a b " * 50_000, "a b " * 50_000),
        ("哈" * 200_000, "哈" * 200_000),
        ("\n" * 200_000 + "x", "\n" * 200_000),
    ],
    ids=["restart", "words", "characters", "lines"],
)
def test_a_long_answer_takes_no_longer_a_character(shown: str, text: str) -> None:
    began = time.process_time()
    joined(shown, *text)
    assert time.process_time() - began < 20  # quadratic work would take minutes


def test_the_continuation_keeps_the_id_of_the_first_chunk_with_text() -> None:
    """Azure sends what its filters say of the prompt first, without an id."""
    opening = [
        b'data: {"id": "", "created": 0, "choices": []}\n\n',
        b'data: {"id": "c-1", "created": 7, "choices": [{"delta": {}}]}\n\n',
    ]
    assert head_of([Piece(raw=raw) for raw in opening]) == {"id": "c-1", "created": 7}
