"""Test how folders are indexed and searched: ranked places with exact spans."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_base import OPERATOR, KnowledgeBase
from slipway.errors import SettingsError
from slipway.knowledge.passages import LONGEST_FENCE, passages
from slipway.knowledge.readers import READERS, ParsedDocument, read
from slipway.store import Store
from slipway.types import Passage


@pytest.fixture
def known(tmp_path: Path) -> Callable[..., KnowledgeBase]:
    """Writes files (path=text or bytes) under `docs` and builds knowledge of them."""

    def build(files: dict[str, str | bytes]) -> KnowledgeBase:
        for path, content in files.items():
            file = tmp_path / "docs" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        knowledge = KnowledgeBase([tmp_path / "docs"])
        knowledge.build()
        return knowledge

    return build


def cut(text: str, path: str = "page.md") -> tuple[ParsedDocument, list[Passage]]:
    document = read(text.encode(), path)
    return document, passages(document, path, "v1")


# Finding


def test_a_question_finds_the_place_that_answers_with_its_exact_span(
    known: Callable[..., KnowledgeBase],
) -> None:
    text = (
        "# Guide\n\nWelcome.\n\n## Adding a model\n\nWrite it under `models:`.\n\n## "
        "Removing\n\nDelete the line.\n"
    )
    knowledge = known({"guide.md": text})
    best = knowledge.search("How do I add models?")[0].passage
    assert (best.path, best.title, best.heading, best.trail) == (
        "guide.md",
        "Guide",
        "Adding a model",
        ("Guide", "Adding a model"),
    )
    assert best.text == text[best.start : best.end] == "Write it under `models:`."
    assert knowledge.passage(best.id) == best
    assert knowledge.passage("psg-" + "0" * 32) is None


def test_places_are_distinct_and_each_shows_its_best_passage(
    known: Callable[..., KnowledgeBase],
) -> None:
    filler = "\n\n".join(
        f"Paragraph {n} talks about harbours and ships at length. " * 8 for n in range(12)
    )
    knowledge = known(
        {
            "a.md": f"# Ships\n\n{filler}\n\nThe anchor chain weighs nine tons.\n",
            "b.md": "# Anchors\n\nAn anchor holds.\n",
        }
    )
    hits = knowledge.search("anchor chain weight of ships")
    assert len({(hit.passage.path, hit.passage.heading) for hit in hits}) == len(hits) == 2
    assert "nine tons" in next(hit.passage.text for hit in hits if hit.passage.path == "a.md")
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_file_name_and_the_headings_above_help_to_find(
    known: Callable[..., KnowledgeBase],
) -> None:
    section = "### Limits\n\nAt most ten.\n"
    knowledge = known(
        {
            "uploads.md": f"# Files\n\n## Uploading\n\n{section}",
            "searches.md": f"# Search\n\n## Querying\n\n{section}",
        }
    )
    assert knowledge.search("limits for uploading")[0].passage.path == "uploads.md"


@pytest.mark.parametrize("question", ["東京の天気", "船舶", "ภาษาไทย", "발사대"])
def test_text_without_spaces_between_words_is_found(
    known: Callable[..., KnowledgeBase], question: str
) -> None:
    pages = {
        "a.md": "# 天気\n\n東京の天気は晴れです。",
        "b.md": "# 船\n\n大きな船舶が港に入る。",
        "c.md": "# ไทย\n\nนี่คือภาษาไทยครับ",
        "d.md": "# 배\n\n발사대에서 배가 나간다.",
    }
    order = ["東京の天気", "船舶", "ภาษาไทย", "발사대"]
    assert known(pages).search(question)[0].passage.path == "abcd"[order.index(question)] + ".md"


@pytest.mark.usefixtures("embedder")
@pytest.mark.parametrize(
    ("question", "number"),
    [("怎么退款？", 0), ("年假有几天？", 1), ("机密文件放在哪里？", 2), ("食堂几点开？", 3)],
)
def test_chinese_is_found_by_its_words_where_the_model_does_not_read_it(
    tmp_path: Path, question: str, number: int
) -> None:
    texts = [
        "退款须在三十天内申请，并附上收据。",
        "员工每年有二十天年假。",
        "机密文件保存在保险柜里。",
        "公司食堂中午十二点开放。",
    ]
    for n, text in enumerate(texts):
        (tmp_path / f"{n}.md").write_text(f"# 手册\n\n{text}\n")
    knowledge = KnowledgeBase([tmp_path], embedding="minilm")
    knowledge.build()
    knowledge.knowledge.synchronizer.embed()
    found = knowledge.knowledge.ranked(question, OPERATOR, 4)
    assert found[0].passage.path == f"{number}.md"
    assert {each.cosine for each in found} == {0.0}
    assert [
        each.cosine > 0
        for each in knowledge.knowledge.ranked("How much leave is there?", OPERATOR, 1)
    ] in ([True], [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        '"',
        "a:b [x TO *] AND (",
        "title:(",
        "😀",
        "\0",
        "\ud800",
        "?",
        "e\u0301" * 99,
        "word " * 20_000,
        " ".join(map(str, range(20_000))),
    ],
)
def test_any_text_is_a_valid_question(known: Callable[..., KnowledgeBase], text: str) -> None:
    knowledge = known({"a.md": "# Word\n\nA word."})
    assert knowledge.search(text) in ([], knowledge.search("word"))


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=300))
def test_no_text_breaks_the_search(text: str, shared: KnowledgeBase) -> None:
    assert isinstance(shared.search(text), list)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("shared")
    for n in range(20):
        (folder / f"page-{n}.md").write_text(
            f"# Page {n}\n\nThis is about subject{n} and things.\n"
        )
    knowledge = KnowledgeBase([folder])
    knowledge.build()
    return knowledge


def test_words_that_no_page_has_find_nothing(shared: KnowledgeBase) -> None:
    assert shared.search("asdkjh qwe") == []
    assert shared.search("subject3", limit=0) == []


def test_searches_run_in_threads(shared: KnowledgeBase) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: shared.search(f"subject{n % 20}")[0].passage.path, range(400))
        )
    assert found == [f"page-{n % 20}.md" for n in range(400)]


def test_before_it_is_built_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\ntext")
    knowledge = KnowledgeBase([tmp_path])
    assert not knowledge.knowledge.ready
    assert knowledge.search("text") == []


def test_building_tells_true_counts(tmp_path: Path) -> None:
    for name in ("a.md", "b.txt", "c.html"):
        (tmp_path / name).write_text("some words here")
    reported: list[tuple[int, int]] = []
    knowledge = KnowledgeBase([tmp_path])
    done = knowledge.knowledge.build(lambda done: reported.append((done.seen, done.total)))
    assert reported[:4] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (done.read, done.unchanged, done.failed, done.dropped) == (3, 0, 0, 0)
    assert knowledge.knowledge.ready
    assert (knowledge.counts.documents, knowledge.counts.passages) == (3, 3)


def test_importing_knowledge_loads_no_heavy_library() -> None:
    heavy = (
        "tantivy",
        "selectolax",
        "markdown_it",
        "pypdfium2",
        "python_calamine",
        "yaml",
        "watchfiles",
    )
    code = f"import sys, slipway.knowledge; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_a_gateway_loads_nothing_that_only_documents_and_the_page_need(tmp_path: Path) -> None:
    heavy = (
        "httpx",
        "sqlite3",
        "numpy",
        "tantivy",
        "markdown_it",
        "yaml",
        "xml.etree",
        "ctypes",
        "prometheus_client",
    )
    build = (
        "import sys, slipway.cli; from slipway.app.building import build; "
        "from slipway.app.loading import load_settings; from slipway.settings import Flags; "
        "build(load_settings(Flags(models=('http://127.0.0.1:9/v1#m',))).settings)"
    )
    code = f"{build}; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout
        == "[]\n"
    )


# Files


def test_sources_that_cannot_be_knowledge_stop_the_start_with_a_sentence_each(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.png").write_bytes(b"png")
    with pytest.raises(SettingsError) as caught:
        KnowledgeBase([tmp_path / "gone", tmp_path / "empty", tmp_path / "photo.png"])
    gone, empty, photo = caught.value.problems
    assert (
        gone == f"{tmp_path}/gone does not exist; name a folder or a file of documents with --docs."
    )
    kinds = ", ".join(READERS)
    assert empty.endswith(
        f"has no {kinds} files; put documents there or name another folder with --docs."
    )
    assert "it reads .md" in photo


def test_a_file_that_cannot_be_read_is_reported_and_costs_no_other(
    known: Callable[..., KnowledgeBase],
) -> None:
    files: dict[str, str | bytes] = {
        "good.md": "# Good\n\ntext",
        "bytes.md": bytes(range(1, 32)) + b"\xff",
        "empty.md": "\n \n",
        "binary.txt": b"a\0b",
        "front.md": "---\ntitle: x\n---\n",
        "script.html": "<script>x</script>",
        "big.txt": b"x" * 52_428_801,
    }
    knowledge = known(files)
    failed = knowledge.reasons
    assert knowledge.counts.documents == 1
    assert failed == {
        "big.txt": "It has 50 MB, and 50 MB is the limit. Split it into smaller files, or raise `limits.document_mb`.",
        "binary.txt": "It is not text (it has zero bytes). Export it as Markdown, HTML or text.",
        "empty.md": "It is empty. Add text, or remove the file.",
        "front.md": "It has no readable text. Add some, or remove the file.",
        "bytes.md": "Its encoding could not be determined. Save it as UTF-8.",
        "script.html": "It has no readable text. Add some, or remove the file.",
    }


def test_hidden_files_are_skipped_and_links_never_lead_out(tmp_path: Path) -> None:
    docs, outside = tmp_path / "docs", tmp_path / "outside"
    (docs / ".git").mkdir(parents=True)
    outside.mkdir()
    for file in (docs / "a.md", docs / ".secret.md", docs / ".git" / "b.md", outside / "c.md"):
        file.write_text("# Text\n\nhere")
    (docs / "inner.md").symlink_to(docs / "a.md")
    (docs / "mounted.md").symlink_to(docs / ".git" / "b.md")  # as Kubernetes mounts a ConfigMap
    (docs / "leak.md").symlink_to(outside / "c.md")
    (docs / "leaks").symlink_to(outside)
    (docs / "dead.md").symlink_to(docs / "nowhere.md")
    (docs / "circle").symlink_to(docs)
    knowledge = KnowledgeBase([docs])
    knowledge.build()
    states = {report.path: report.state for report in knowledge.reports}
    assert states == {
        "a.md": "done",
        "mounted.md": "done",
        "leak.md": "failed",
        "leaks": "failed",
        "dead.md": "failed",
    }
    reasons = knowledge.reasons
    assert (
        reasons["leak.md"]
        == reasons["leaks"]
        == "It is a link that leads out of the folder. Copy the document into the folder."
    )
    assert (
        reasons["dead.md"]
        == "It is gone, or a link to a file that does not exist. Fix or remove it."
    )


def test_the_same_path_in_two_folders_gets_the_folders_name(tmp_path: Path) -> None:
    for folder in ("x/docs", "y/docs", "z"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.md").write_text(f"# A\n\nof {folder}")
    (tmp_path / "z" / "only.md").write_text("# B\n\ntext")
    sources = [tmp_path / "x/docs", tmp_path / "y/docs", tmp_path / "z", tmp_path / "z" / "only.md"]
    knowledge = KnowledgeBase(sources)
    knowledge.build()
    assert [report.path for report in knowledge.reports] == [
        "docs-2/a.md",
        "docs/a.md",
        "only.md",
        "z/a.md",
    ]


# Reading


@pytest.mark.parametrize(
    ("source", "heading"),
    [
        ("## Use `foo` **now**", "Use foo now"),
        ("## Closed ##", "Closed"),
        ("## [A link](x.md) and ![a picture](p.png)", "A link and a picture"),
        ("## Anchored { #anchored }", "Anchored"),
        ("## Tom &amp; \\*Jerry\\*", "Tom & *Jerry*"),
        ("## C#", "C#"),
        ("Under\nlined\n---", "Under lined"),
    ],
)
def test_a_heading_is_its_own_plain_text(source: str, heading: str) -> None:
    assert [passage.heading for passage in cut(f"# Top\n\n{source}\n\ntext\n")[1]] == [heading]


def test_only_real_headings_count() -> None:
    text = "# Top\n\n```sh\n# no\n```\n\n- # no\n\n> # no\n\n    # no\n\n## Yes\n\nbody\n"
    assert [heading.text for heading in cut(text)[0].headings] == ["Top", "Yes"]


def test_comments_in_code_that_lost_its_fence_are_no_headings() -> None:
    text = (
        "# Top\n\n## Use\n\nCall it:\n# first, connect\nconnect()\n\n# then send\nsend()\n\n## "
        "More\n\ntext\n"
    )
    assert [heading.text for heading in cut(text)[0].headings] == ["Top", "Use", "More"]
    dense = "# One\ntext\n## Sub\ntext\n# Two\ntext\n"  # here titles hang on their text by habit
    assert [heading.text for heading in cut(dense)[0].headings] == ["One", "Sub", "Two"]


@pytest.mark.parametrize(
    ("path", "text", "title"),
    [
        ("a.md", "---\ntitle: Front\n---\n# First\n\nx", "First"),
        ("a.md", "---\ntitle: 'Front: it'\n---\nx", "Front: it"),
        ("rate-limits_v2.md", "just text", "Rate limits v2"),
        ("a.html", "<title>In  head</title><p>x", "In head"),
        ("a.html", "<title>In head</title><h1>On page</h1><p>x", "On page"),
        ("a.txt", "Release notes\n\nMuch was done.", "Release notes"),
        ("some.txt", "This is a sentence.\n\nAnd another.", "Some"),
        ("a.rst", "=====\nTitle\n=====\n\ntext", "Title"),
    ],
)
def test_a_document_has_a_title(path: str, text: str, title: str) -> None:
    assert cut(text, path)[0].title == title


def test_text_before_the_first_heading_belongs_to_the_title() -> None:
    first, second = cut("Intro.\n\n## Part\n\nBody.", "my-page.md")[1]
    assert (first.heading, first.text, first.trail) == ("My page", "Intro.", ("My page",))
    assert (second.heading, second.trail) == ("Part", ("Part",))


def test_empty_headings_live_in_the_trails_below_them_or_are_the_text() -> None:
    found = cut("# Top\n\n## Parent\n\n### Child\n\nbody\n\n## Alone\n")[1]
    assert [(passage.trail, passage.text) for passage in found] == [
        (("Top", "Parent", "Child"), "body"),
        (("Top", "Alone"), "## Alone"),
    ]


def test_line_ends_and_the_byte_order_mark_do_not_shift_offsets() -> None:
    document = read(b"\xef\xbb\xbf# A\r\n\r\nOne.\r\nTwo.\r\n", "a.md")
    assert document.text == "# A\n\nOne.\nTwo.\n"


PAGE = """<html><head><title>T</title><style>p {}</style></head><body><header>Site</header><nav>Menu</nav>
<main><article><header><h1>Real <em>title</em> <a class="headerlink" href="#t">¶</a></h1></header>
<p>Hello <b>bold</b>,
world.<br>Next &amp; last.</p><ul><li>one</li><li><p>two</p></li></ul>
<table><tr><th>Name</th><th>Use</th></tr><tr><td><p>a</p></td><td>b</td></tr></table>
<h2>Code</h2><pre>x = 1

  y = 2
</pre><script>no()</script></article></main><footer>Foot</footer></body></html>"""


def test_html_becomes_readable_text() -> None:
    document, (first, second) = cut(PAGE, "a.html")
    assert (
        first.text
        == "Hello bold, world.\nNext & last.\n\n- one\n- two\n\nName | Use\n--- | ---\na | b"
    )
    assert (second.heading, second.text) == ("Code", "```\nx = 1\n\n  y = 2\n```")
    assert second.text == document.text[second.start : second.end]


# Cutting

WORDS = st.text(alphabet="abc .:", min_size=1, max_size=40)
BLOCKS = st.one_of(
    st.builds(
        "{} {}".format,
        st.sampled_from(["#", "##", "###"]),
        st.sampled_from(["One", "Two", "`Three`"]),
    ),
    st.builds(
        "```\n{}\n```".format,
        st.lists(WORDS | st.just("") | st.just("# no"), max_size=60).map("\n".join),
    ),
    st.lists(st.builds("- {}".format, WORDS), min_size=1, max_size=60).map("\n".join),
    st.builds(lambda words, times: f"{words} " * times, WORDS, st.integers(1, 150)),
    st.text(max_size=200),
)


@settings(max_examples=100, deadline=None)
@given(
    blocks=st.lists(BLOCKS, min_size=1, max_size=12),
    kind=st.sampled_from(["a.md", "a.txt", "a.rst"]),
    gap=st.sampled_from(["\n", "\n\n"]),
)
def test_passages_are_exact_apart_and_under_one_heading(
    blocks: list[str], kind: str, gap: str
) -> None:
    text = "start " + gap.join(blocks).replace("\0", "").encode("utf-8", "ignore").decode()
    document, found = cut(text, kind)
    before = 0
    for passage in found:
        assert (
            passage.text == document.text[passage.start : passage.end] == passage.text.strip() != ""
        )
        assert before <= passage.start < passage.end <= passage.start + LONGEST_FENCE
        whole = [
            heading
            for heading in document.headings
            if passage.start < heading.end and heading.start < passage.end
        ]
        assert not whole or (len(whole) == 1 and passage.heading == whole[0].text)
        before = passage.end
    left = [
        sign
        for at, sign in enumerate(document.text)
        if not any(passage.start <= at < passage.end for passage in found)
    ]
    headings = sum(heading.end - heading.start for heading in document.headings)
    assert sum(not sign.isspace() for sign in left) <= headings, "text outside headings was lost"


def test_long_sections_are_cut_between_blocks_and_code_stays_whole() -> None:
    code = "```python\n" + "call(1)\n\n" * 200 + "```"
    paragraph = "A sentence about nothing much. " * 20
    found = cut(f"# Top\n\n{paragraph}\n\n{paragraph}\n\n{paragraph}\n\n{code}\n\nEnd.\n")[1]
    assert [passage.text.count("```") % 2 for passage in found] == [0] * len(found)
    assert all(len(passage.text) <= 1_300 or "```" in passage.text for passage in found)


def test_a_paragraph_without_end_is_cut_between_sentences() -> None:
    found = cut("# Top\n\n" + "This sentence is one of very many. " * 200)[1]
    assert len(found) > 2
    assert all(len(passage.text) <= 2_000 and passage.text.endswith(".") for passage in found)


def test_passage_ids_name_the_version_outlive_a_restart_and_cannot_be_guessed(
    tmp_path: Path,
) -> None:
    def ids(store: Path) -> list[str]:
        knowledge = KnowledgeBase([tmp_path / "docs"], Store(store / "slipway.db"))
        knowledge.build()
        found = [hit.passage.id for hit in knowledge.search("text")]
        knowledge.close()
        return found

    (tmp_path / "docs").mkdir()
    file = tmp_path / "docs" / "a.md"
    file.write_text("# A\n\nsome text")
    (one,) = ids(tmp_path / "store")
    assert one.startswith("psg-")
    assert len(one) == 36
    assert ids(tmp_path / "store") == [one]
    assert ids(tmp_path / "other") != [one]
    file.write_text("# A\n\nother text")
    assert ids(tmp_path / "store") != [one]


def test_examples_are_the_questions_that_documents_ask(tmp_path: Path) -> None:
    for name, text in {
        "a.md": "# A\n\n## Why?\n\nSo.\n\n## How?\n\nThus.\n",
        "b.md": "# B\n\nx\n",
        "c.md": "# C\n\n## When?\n\nNow.\n",
    }.items():
        (tmp_path / name).write_text(text)
    knowledge = KnowledgeBase([tmp_path])
    knowledge.build()
    assert knowledge.examples() == ["Why?", "When?"]
