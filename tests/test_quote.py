"""Test answers without a model: quotes of the documents."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.knowledge.quoting import Quote, quote
from slipway.types import Source


def source(n: int, heading: str, text: str, path: str = "guide.md") -> Source:
    return Source(
        n=n,
        id=f"psg-{n}",
        path=path,
        heading=heading,
        start=0,
        end=len(text),
        text=text,
        version="v",
    )


def quoted(question: str, sources: list[Source]) -> Quote:
    found = quote(question, sources)
    assert found is not None
    return found


MODELS = source(
    1,
    "Adding a model",
    "Every model has a name of its own. Add an entry under `models:` in the "
    "file:\n\n```yaml\nmodels:\n  qwen: {provider: openai}\n```\n\n"
    "The change is applied live. Ships sail on the sea.",
)
LIMITS = source(
    2,
    "Rate limits",
    "A key may ask 60 times a minute. Beyond that it gets status 429.\n\n- Wait for "
    "`Retry-After`.\n- Then ask again.",
    "limits.md",
)
TABLE = source(
    3,
    "Settings",
    "The defaults:\n\n| name | default |\n|---|---|\n| port | 8080 |\n\nHosts are names.",
    "settings.md",
)
ALL = [MODELS, LIMITS, TABLE]


def test_the_answer_is_quoted_word_for_word_with_the_block_it_announces() -> None:
    found = quoted("How do I add a model?", ALL)
    assert (
        "\n\nAdd an entry under `models:` in the file: [1]\n\n```yaml\nmodels:\n  qwen: "
        "{provider: openai}\n```" in found.text
    )
    assert "Ships" not in found.text


def test_a_citation_covers_the_quoted_words_and_their_marker() -> None:
    found = quoted("How many times a minute may a key ask?", ALL)
    first = found.citations[0]
    assert found.text[first.start : first.end] == "A key may ask 60 times a minute. [2]"
    assert first.n == 2


def test_a_table_is_quoted_whole_and_its_marker_follows_the_sentence_above_it() -> None:
    table = TABLE.text.removesuffix("\n\nHosts are names.")
    assert quoted("What is the default port?", ALL).text == table.replace(
        "defaults:", "defaults: [3]"
    )
    bare = source(3, "Settings", table.removeprefix("The defaults:\n\n"), "settings.md")
    assert quoted("What is the default port?", [bare]).text == f"{bare.text}\n\n[3]"


def test_of_a_long_table_the_names_of_its_columns_and_the_rows_that_answer_are_quoted() -> None:
    rows = [
        f"{house} | {flat} | {500 + flat}" for house in ("Mill", "Tower") for flat in range(1, 11)
    ]
    rents = source(
        1, "Rents", "\n".join(["House | Flat | Rent", "--- | --- | ---", *rows]), "book.xlsx"
    )
    top = "House | Flat | Rent\n--- | --- | ---\n"
    assert (
        quoted("What is the rent of flat 7 in the Tower?", [rents]).text
        == f"{top}Tower | 7 | 507\n\n[1]"
    )
    both = quoted("What is the rent of flat 7?", [rents]).text
    assert both == f"{top}Mill | 7 | 507\nTower | 7 | 507\n\n[1]", "all that answer equally well"
    assert quoted("What is the rent of a house or flat?", [rents]).text == f"{rents.text}\n\n[1]", (
        "no row tells more than another"
    )
    shown = source(1, "Rents", f"The rents:\n\n```\n{rents.text}\n```")
    assert quoted("How do I show the rent of flat 7 in the Tower?", [shown]).text.count("\n") > len(
        rows
    ), "what is shown as code stays whole"


def test_a_number_that_no_source_has_is_not_answered_with_its_neighbours() -> None:
    rows = "\n".join(f"R-{2000 + n} | gate | {100 + n}" for n in range(12))
    repairs = source(1, "Repairs", f"Number | What | Cost\n--- | --- | ---\n{rows}", "book.xlsx")
    assert (
        "R-2007 | gate | 107" in quoted("What did repair R-2007 of the gate cost?", [repairs]).text
    )
    assert quote("What did repair R-9999 of the gate cost?", [repairs]) is None
    assert (
        quote(
            "What did repair R-2000 of the gate cost?",
            [msgspec.structs.replace(repairs, text="R-200 of the gate cost 12.")],
        )
        is None
    )


def test_code_comes_with_the_sentence_before_it() -> None:
    text = "Restart it after each change.\n\n```sh\nslipway restart --server\n```"
    found = quoted("How do I restart the server?", [source(1, "Restarting the server", text)])
    assert found.text == text.replace("change.", "change. [1]")
    assert [found.text[c.start : c.end] for c in found.citations] == [
        "Restart it after each change. [1]"
    ]


def test_a_fact_that_another_source_repeats_is_quoted_once() -> None:
    twin = source(
        3, "Limits again", "Any key may ask up to 60 times a minute. Ships sail.", "again.md"
    )
    assert {
        c.n for c in quoted("How many times a minute may a key ask?", [LIMITS, twin]).citations
    } == {2}


def test_quotes_from_one_source_are_kept_together_in_reading_order() -> None:
    found = quoted(
        "How many times a minute may a key ask, and which status comes beyond that?", ALL
    )
    assert found.text == "A key may ask 60 times a minute. [2] Beyond that it gets status 429. [2]"


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "asdkjh qwe",
        "How do I bake bread?",
        "What is this?",
        "",
        "?!",
        "hello",
    ],
)
def test_it_says_honestly_that_the_documents_do_not_say(question: str) -> None:
    assert quote(question, ALL) is None


def test_without_sources_there_is_nothing_to_quote() -> None:
    assert quote("How do I add a model?", []) is None


def test_an_example_that_only_mentions_it_is_no_answer() -> None:
    example = source(
        1,
        "Writing tests",
        '```python\ncases = [{"q": "What is the capital of France?", "a": "Paris"}]\n```',
    )
    assert quote("What is the capital of France?", [example]) is None


def test_the_same_sentence_is_not_quoted_twice() -> None:
    twin = source(2, "Limits again", "A key may ask 60 times a minute.")
    assert (
        quoted("How many times a minute may a key ask?", [LIMITS, twin]).text.count(
            "60 times a minute"
        )
        == 1
    )


def test_abbreviations_code_and_wrapped_lines_do_not_end_a_sentence() -> None:
    text = (
        "Use a proxy, e.g. Nginx or `a. B`, in front of the server when it must face the "
        "open\ninternet all day. Other things follow."
    )
    assert quoted(
        "Which proxy goes in front of the server?", [source(1, "Proxies", text)]
    ).text.startswith(text[: text.index("day.") + 4] + " [1]")


def test_a_fence_that_the_passage_cut_off_is_never_quoted() -> None:
    text = "To restart the server, run the restart command.\n\n```sh\nslipway restart --server"
    assert "```" not in quoted("How do I restart the server?", [source(1, "Restarting", text)]).text


def test_words_are_matched_by_their_stems_and_in_scripts_without_spaces() -> None:
    assert quote(
        "configure retries", [source(1, "Retrying", "Retry configuration lives in one file.")]
    )
    assert (
        quoted("東京の天気は？", [source(1, "天気", "大阪は雨。東京の天気は晴れです。")]).text
        == "東京の天気は晴れです。 [1]"
    )


def test_code_with_blank_lines_is_quoted_whole() -> None:
    text = "To restart the server, run this:\n\n    stop()\n\n    start()\n\nThen wait."
    found = quoted("How do I restart the server?", [source(1, "Restarting", text)])
    assert found.text == text.replace("this:", "this: [1]").removesuffix("\n\nThen wait.")


def test_code_that_a_passage_begins_in_the_middle_of_is_never_quoted() -> None:
    code = "server = restart(now=True)\nprint(server.state);\n```\n\n"
    text = code + "To restart the server, press the button. The lamp goes out."
    found = quoted("How do I restart the server?", [source(1, "Restarting", text)])
    assert found.text.startswith("To restart the server, press the button. [1]")
    assert "print" not in found.text


def test_sentences_do_not_end_behind_abbreviations_or_ordinals() -> None:
    for asked, text in (
        ("Ab wann gilt der Kurs?", "Der Kurs gilt ab dem 3. Mai für alle."),
        ("Wo sind die Räume?", "Die Räume sind im 2. Stock, z. B. für Kurse, siehe Nr. 5 im Plan."),
        ("What does the course cost?", "The course costs approx. 5 euros, see No. 7 of Acme Inc."),
    ):
        found = quoted(asked, [source(1, "Info", f"{text} The rest follows here.")])
        assert f"{text} [1]" in found.text
    two = quoted("Does the pump have 3 or 4 valves?", [source(1, "Pump", "It has 3. Valves leak.")])
    assert "It has 3. [1]" in two.text or "Valves leak. [1]" in two.text


PIECES = st.sampled_from(
    [
        "Add a model.",
        "A model:",
        "```\nmodel\n```",
        "```",
        "- model one\n- two",
        "| model |\n|---|\n| x |",
        "**model. And",
        "`",
        "> model",
        "\n",
        "    model()",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=60), max_size=8).map("\n\n".join)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(TEXTS, max_size=4),
    question=st.just("How do I add a model?") | st.text(max_size=60),
    limit=st.integers(1, 5),
)
def test_whatever_the_sources_the_quote_is_theirs_and_its_fences_close(
    texts: list[str], question: str, limit: int
) -> None:
    sources = [source(n, "Adding a model", text) for n, text in enumerate(texts, 1)]
    found = quote(question, sources, limit)
    if found is None:
        return
    assert 0 < len(found.citations) <= limit
    for citation in found.citations:
        quoted = found.text[citation.start : citation.end].removesuffix(f"[{citation.n}]").rstrip()
        assert quoted.strip() in texts[citation.n - 1]
        assert sum(row.strip().startswith("```") for row in quoted.split("\n")) % 2 == 0
    assert [citation.n for citation in found.citations] == sorted(
        citation.n for citation in found.citations
    )
