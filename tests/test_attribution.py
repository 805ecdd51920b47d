"""Test how sources are matched to sentences by their words, for models that cite none."""

import json
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from processes import mocking, models, run, serving
from slipway.knowledge.attribution import Attributor
from slipway.knowledge.claims import Claims
from slipway.types import Source

PLACES = [
    (
        "leave.md",
        "Days",
        "Everyone has 30 days of leave a year. Leave is asked for in the office of the harbour.",
    ),
    (
        "tea.md",
        "Brewing",
        (
            "Green tea is brewed at 80 degrees for two minutes. Black tea is brewed with boiling "
            "water."
        ),
    ),
    ("cars.md", "Parking", "Cars may park in garage 4 behind the bakery, which opens at 6:30."),
]
SOURCES = [
    Source(
        n=n,
        id=f"psg-{n}",
        path=path,
        heading=heading,
        start=0,
        end=len(text),
        text=text,
        version="1",
    )
    for n, (path, heading, text) in enumerate(PLACES, 1)
]
ANSWER = """In a year, everyone has 30 days of leave. Green tea wants 80 degrees for two minutes! It is nice.

- Cars may park behind the bakery, in garage 4
- Everyone has 31 days of leave a year

# Tea is brewed with boiling water

```
Green tea is brewed at 80 degrees.
```
Black tea is brewed with boiling water [2]. Boiling water is for black tea that is brewed"""
MARKED = """In a year, everyone has 30 days of leave. [1] Green tea wants 80 degrees for two minutes! [2] It is nice.

- Cars may park behind the bakery, in garage 4 [3]
- Everyone has 31 days of leave a year

# Tea is brewed with boiling water

```
Green tea is brewed at 80 degrees.
```
Black tea is brewed with boiling water [2]. Boiling water is for black tea that is brewed [2]"""


def marked(pieces: list[str]) -> str:
    attributor = Attributor(SOURCES, Claims(SOURCES, "").lacking)
    return "".join([*(attributor.feed(piece) for piece in pieces), attributor.end()])


def test_sentences_get_only_the_source_that_supports_them() -> None:
    """No source says 31 days; headings, code and sentences with a marker stay as they are."""
    assert marked([ANSWER]) == MARKED


@given(st.lists(st.integers(0, len(ANSWER)), max_size=30))
def test_however_it_is_cut_the_same_marks_are_set(cuts: list[int]) -> None:
    edges = sorted({0, *cuts, len(ANSWER)})
    assert marked([ANSWER[a:b] for a, b in pairwise(edges)]) == MARKED


@given(st.text(alphabet="ab1.!?。\n #`:|-", max_size=60), st.integers(0, 60))
def test_no_character_is_lost(text: str, cut: int) -> None:
    found = marked([text[:cut], text[cut:]])
    assert found.replace(" [1]", "").replace(" [2]", "").replace(" [3]", "") == text


def test_an_app_may_have_sources_matched(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for path, heading, text in PLACES:
        (tmp_path / "docs" / path).write_text(f"# {heading}\n\n{text}\n")
    with mocking(text="Everyone has 30 days of leave. Nobody knows why.") as mock:
        app = {"knowledge": "docs", "route": "m", "cite": "match"}
        with serving(
            tmp_path, settings={"embedding": "none", **models(mock.url, "m"), "apps": {"docs": app}}
        ) as server:
            whole = server.post(
                "/v1/answers", {"question": "How many days of leave are there?"}
            ).json()
        read = json.dumps(mock.requests[-1].body)
    assert whole["text"] == "Everyone has 30 days of leave. [1] Nobody knows why."
    (citation,) = whole["citations"]
    assert (
        whole["text"][citation["start"] : citation["end"]] == "Everyone has 30 days of leave. [1]"
    )
    assert "matched" in [notice["code"] for notice in whole["notices"]]
    assert "square brackets" not in read  # the model is not asked for what it would not do


def test_an_unknown_value_of_cite_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "slipway.yaml").write_text(
        json.dumps({"apps": {"docs": {"knowledge": ".", "cite": "guess"}}})
    )
    reported = run("check", cwd=tmp_path)
    assert reported.returncode == 2
    assert "apps.docs.cite" in reported.stderr + reported.stdout
