"""Test how documents of every format are read in a child process, and how broken ones fail."""

import datetime
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openpyxl
import pytest
from docx import Document as Word
from fpdf import FPDF

import hostile
import sample_documents
from knowledge_base import KnowledgeBase
from slipway.knowledge.parsing import Parser
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import ParsedDocument, UnreadableFile
from slipway.knowledge.reading import failure_text
from slipway.types import Passage
from waiting import PATIENCE_S, until


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser(deadline_s=20.0, memory_mb=512) as made:
        yield made


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Load handbooks of a real size, one in each format, as one knowledge."""
    folder = tmp_path_factory.mktemp("harbour")
    made = {
        "a.pdf": sample_documents.pdf(),
        "b.pdf": sample_documents.pdf(30, outline=False),
        "c.docx": sample_documents.docx(),
        "d.pptx": sample_documents.pptx(),
        "e.xlsx": sample_documents.xlsx(),
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    knowledge = KnowledgeBase([folder])
    knowledge.build()
    hidden = {
        "d.pptx": ("partly", "1 hidden slide is left out."),
        "e.xlsx": ("partly", "1 hidden sheet is left out."),
    }
    assert {report.path: (report.state, report.reason) for report in knowledge.reports} == {
        name: hidden.get(name, ("done", "")) for name in made
    }
    return knowledge


def best(knowledge: KnowledgeBase, question: str, path: str) -> Passage:
    return next(
        hit.passage for hit in knowledge.search(question, limit=40) if hit.passage.path == path
    )


# The right place


@pytest.mark.parametrize("number", [0, 1, 59, 118, 119])
def test_a_question_finds_the_page_of_a_pdf(harbour: KnowledgeBase, number: int) -> None:
    found = best(harbour, f"deposit of the {sample_documents.subject(number)} regulation", "a.pdf")
    assert (found.page, found.title, found.heading) == (
        number + 1,
        "Harbour Handbook",
        f"Chapter {number + 1}: On the {sample_documents.subject(number)}",
    )
    assert sample_documents.fact(number) in found.text.replace("\n", " ")


def test_without_bookmarks_the_headings_of_a_pdf_are_found_by_their_font(
    harbour: KnowledgeBase,
) -> None:
    found = best(harbour, f"deposit of the {sample_documents.subject(17)} regulation", "b.pdf")
    assert (found.page, found.heading) == (18, f"Chapter 18: On the {sample_documents.subject(17)}")


@pytest.mark.parametrize("number", [0, 31, 59])
def test_a_question_finds_the_heading_of_a_word_file(harbour: KnowledgeBase, number: int) -> None:
    found = best(harbour, f"deposit of the {sample_documents.subject(number)} regulation", "c.docx")
    assert found.trail == (
        "Harbour Handbook",
        f"Chapter {number + 1}: On the {sample_documents.subject(number)}",
        "Deposits",
    )
    assert found.text.startswith(
        f"{sample_documents.fact(number)} It is due at noon.\n\n- Sign the form.\n- Pay the "
        "deposit."
    )
    assert found.page is None


def test_a_question_finds_the_slide_and_its_notes(harbour: KnowledgeBase) -> None:
    found = best(harbour, f"{sample_documents.subject(30)} clerk called", "d.pptx")
    assert (found.page, found.heading) == (31, f"On the {sample_documents.subject(30)}")
    assert "Berth | Crowns\n--- | ---\nNorth | 30" in found.text
    assert best(harbour, sample_documents.fact(2), "d.pptx").page == 3, (
        "a slide without a title keeps its page"
    )
    assert all(
        hit.passage.page != 4
        for hit in harbour.search(sample_documents.fact(3), limit=40)
        if hit.passage.path == "d.pptx"
    ), "hidden"


@pytest.mark.parametrize(("year", "row"), [(2020, 0), (2022, 1234), (2024, 1999)])
def test_a_question_finds_the_row_of_a_sheet(harbour: KnowledgeBase, year: int, row: int) -> None:
    found = best(
        harbour, f"Vessel {sample_documents.subject(row % 400)} {year}-{row} crowns", "e.xlsx"
    )
    assert (found.heading, found.page) == (f"Year {year}", None)
    assert "Ship | Arrived | Crowns | Paid\n--- | --- | --- | ---\n" in found.text, (
        "each passage names its columns"
    )
    assert f"{year}-{row} | " in found.text


def test_hidden_sheets_are_not_read(harbour: KnowledgeBase) -> None:
    assert harbour.search("secretsalary") == []


def test_no_passage_crosses_a_page(parser: Parser) -> None:
    document = parser.parse(sample_documents.pdf(12), "a.pdf")
    assert len(document.pages) == 12
    for passage in passages(document, "a.pdf", "v"):
        assert passage.page
        assert document.pages[passage.page - 1] <= passage.start
        assert passage.end <= [*document.pages, len(document.text)][passage.page]
        assert passage.text == document.text[passage.start : passage.end]


# What documents say of themselves


def test_files_tell_title_author_and_date(parser: Parser) -> None:
    pdf, word = (
        parser.parse(sample_documents.pdf(1), "a.pdf"),
        parser.parse(sample_documents.docx(1), "a.docx"),
    )
    assert pdf.meta == {
        "title": "Harbour Handbook",
        "author": "Port Authority",
        "date": "2024-01-31T12:00:00Z",
    }
    assert word.meta == {"author": "Port Authority", "date": "2024-01-31T12:00:00Z"}
    assert (pdf.title, word.title) == ("Harbour Handbook", "Harbour Handbook")


def test_front_matter_is_parsed_with_plain_types(parser: Parser) -> None:
    text = (
        b"---\ntitle: A\naccess: [hr, board]\ndate: 2024-01-31\nn: 18446744073709551616\nmore: "
        b"{2: [yes, null, 1.5]}\n---\ntext\n"
    )
    assert parser.parse(text, "a.md").meta == {
        "title": "A",
        "access": ["hr", "board"],
        "date": "2024-01-31",
        "n": "18446744073709551616",
        "more": {"2": [True, None, 1.5]},
    }


@pytest.mark.parametrize("front", ["title: a: b", "- one\n- two", "just words", "date: 2024-13-45"])
def test_front_matter_that_says_nothing_clear_is_ignored(parser: Parser, front: str) -> None:
    assert parser.parse(f"---\n{front}\n---\ntext".encode(), "a.md").meta == {}


def test_a_page_that_begins_with_a_rule_and_speaks_of_groups_is_read(parser: Parser) -> None:
    assert parser.parse(b"---\nThere are two groups: ours and theirs.\n\ntext\n", "a.md").meta == {}


# PDF


def written(lines: Callable[[FPDF], None]) -> bytes:
    paper = FPDF()
    paper.add_page()
    paper.set_font("helvetica", size=11)
    lines(paper)
    return bytes(paper.output())


def test_running_headers_and_page_numbers_are_left_out(parser: Parser) -> None:
    text = parser.parse(sample_documents.pdf(12), "a.pdf").text
    assert "confidential draft" not in text
    assert "Page 3" not in text
    assert text.count("Berth Crowns\nNorth") == 12, "rows stay lines"


def test_words_cut_at_line_ends_are_joined_and_lines_become_paragraphs(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        for line in (
            "The harbour master decides about the in-",
            "spection of every vessel that comes in by night or",
            "by day.",
            "- First item",
            "- Second item",
        ):
            paper.cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")

    text = parser.parse(written(lines), "a.pdf").text.strip()
    assert text == (
        "The harbour master decides about the inspection of every vessel that comes in by night "
        "or by day.\n- First item\n- Second item"
    )


def test_a_bookmark_that_its_page_does_not_repeat_is_a_heading_all_the_same(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        paper.start_section("Part I")
        paper.start_section("On ships", level=1)
        paper.cell(0, 6, "On ships", new_x="LMARGIN", new_y="NEXT")
        paper.cell(0, 6, "They float.")

    document = parser.parse(written(lines), "a.pdf")
    assert [(passage.trail, passage.text) for passage in passages(document, "a.pdf", "v")] == [
        (("Part I", "On ships"), "They float.")
    ]


def test_bold_lines_are_headings_where_nothing_is_larger(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        for number in (1, 2):
            paper.set_font("helvetica", "B", 11)
            paper.cell(0, 7, f"On ships {number}", new_x="LMARGIN", new_y="NEXT")
            paper.set_font("helvetica", "", 11)
            paper.multi_cell(0, 6, sample_documents.FILLER, new_x="LMARGIN", new_y="NEXT")

    document = parser.parse(written(lines), "a.pdf")
    assert [heading.text for heading in document.headings] == ["On ships 1", "On ships 2"]


class _Book(FPDF):
    """Chapters with bookmarks, sections in larger letters without, and a header that names the
    chapter and the page.
    """

    def header(self) -> None:
        self.set_font("helvetica", size=9)
        self.cell(
            0,
            6,
            f"Chapter {(self.page_no() - 2) // 2 + 1}: Ships {self.page_no() - 1}",
            new_x="LMARGIN",
            new_y="NEXT",
        )
        self.ln(8)


def book(chapters: int) -> bytes:
    paper = _Book()
    paper.add_page()
    for number in range(chapters):
        paper.set_font("helvetica", "B", 13)
        paper.cell(
            0,
            8,
            f"{number + 1} Ships . . . . . . . . . . {number * 2 + 1}",
            new_x="LMARGIN",
            new_y="NEXT",
        )
    for number in range(chapters):
        for side in ("bow", "stern"):
            paper.add_page()
            if side == "bow":
                paper.start_section(f"{number + 1} Ships")
                paper.set_font("helvetica", "B", 18)
                paper.cell(0, 12, f"{number + 1} Ships", new_x="LMARGIN", new_y="NEXT")
            paper.set_font("helvetica", "B", 13)
            paper.cell(0, 8, f"Of the {side}", new_x="LMARGIN", new_y="NEXT")
            paper.set_font("helvetica", size=11)
            paper.multi_cell(
                0,
                6,
                sample_documents.fact(number) + " " + sample_documents.FILLER * 3,
                new_x="LMARGIN",
                new_y="NEXT",
            )
    return bytes(paper.output())


def test_sections_below_the_bookmarks_are_found_by_their_font(parser: Parser) -> None:
    document = parser.parse(book(4), "a.pdf")
    trails = [passage.trail for passage in passages(document, "a.pdf", "v") if passage.page != 1]
    assert trails == [
        (f"{number} Ships", f"Of the {side}") for number in range(1, 5) for side in ("bow", "stern")
    ]
    assert all("Ships . ." not in heading.text for heading in document.headings), (
        "a line of the table of contents is none"
    )


def test_a_header_with_the_chapter_and_the_page_is_left_out(parser: Parser) -> None:
    text = parser.parse(book(4), "a.pdf").text
    assert "Chapter" not in text
    assert text.count("Of the stern") == 4


def test_columns_are_read_one_after_the_other(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        with paper.text_columns(ncols=2, gutter=8) as columns:
            for number in range(16):
                columns.write(f"{sample_documents.fact(number)} {sample_documents.FILLER}\n\n")

    text = parser.parse(written(lines), "a.pdf").text.replace("\n", " ")
    places = [text.index(sample_documents.fact(number)) for number in range(16)]
    assert places == sorted(places)


def test_scanned_pages_among_others_are_reported(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        paper.cell(0, 6, "Only this page has text.")
        paper.add_page()
        paper.image(hostile.picture(), 10, 10, 100)
        paper.add_page()

    (loss,) = parser.parse(written(lines), "a.pdf").losses
    assert loss.what == "page 2 is only a picture of text"
    assert "ocrmypdf" in loss.fix


def test_letters_beyond_the_basic_plane_survive(parser: Parser) -> None:
    text = parser.parse("naïve – 20 € 😀 text".encode(), "a.txt").text
    assert text == "naïve – 20 € 😀 text"


# Word


def saved(word: object) -> bytes:
    out = io.BytesIO()
    word.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def test_a_word_files_table_reads_as_markdown(parser: Parser) -> None:
    word = Word()
    table = word.add_table(rows=2, cols=2)
    for cell, text in zip(
        [*table.rows[0].cells, *table.rows[1].cells],
        ["Name", "Us|e", "two\nlines", ""],
        strict=True,
    ):
        cell.text = text
    word.add_paragraph("After.")
    assert (
        parser.parse(saved(word), "some-name.docx").text
        == "Name | Us\\|e\n--- | ---\ntwo lines |\n\nAfter.\n\n"
    )


def test_damaged_metadata_costs_no_text(parser: Parser) -> None:
    assert (
        "regulation"
        in parser.parse(
            hostile.replaced(sample_documents.docx(1), "docProps/core.xml", b"<"), "a.docx"
        ).text
    )


# Sheets


def sheet(*rows: list[object]) -> bytes:
    book = openpyxl.Workbook()
    assert book.active
    for row in rows:
        book.active.append(row)
    return saved(book)


def test_cells_read_as_a_person_sees_them(parser: Parser) -> None:
    moment = datetime.datetime(2024, 1, 31, 9, 30)  # noqa: DTZ001 - sheets know no zones
    text = parser.parse(
        sheet(
            ["a", "b", "c", "d", "e"], [1.0, 0.1 + 0.2, datetime.date(2024, 1, 31), moment, True]
        ),
        "a.xlsx",
    ).text
    assert text.splitlines()[-2] == "1 | 0.3 | 2024-01-31 | 2024-01-31 09:30 | TRUE"


def test_two_tables_on_a_sheet_keep_their_own_names(parser: Parser) -> None:
    text = parser.parse(
        sheet(["Ship", "Crowns"], ["Anna", 3], [], ["Port", "Berths", "Depth"], ["North", 5, 9]),
        "a.xlsx",
    ).text
    assert text.split("\n\n")[1:3] == [
        "Ship | Crowns\n--- | ---\nAnna | 3",
        "Port | Berths | Depth\n--- | --- | ---\nNorth | 5 | 9",
    ]


def test_a_sheet_with_very_many_columns_names_each_value(parser: Parser) -> None:
    names = [f"A rather long column name {n}" for n in range(40)]
    text = parser.parse(sheet(list(names), [1, None, 3], ["x"]), "a.xlsx").text
    assert (
        "A rather long column name 0: 1; A rather long column name 2: 3\nA rather long column "
        "name 0: x" in text
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separated_values_are_cut_where_they_are_even(parser: Parser, separator: str) -> None:
    rows = [["Ship", "Note"], ["Anna", "a, b; and c"], ["Berta", "none"]]
    text = "\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    assert (
        parser.parse(text.encode(), "a.csv").text
        == "Ship | Note\n--- | ---\nAnna | a, b; and c\nBerta | none\n\n"
    )


# Broken and hostile files


def test_every_hostile_file_has_its_reason_and_a_good_file_is_still_served(
    tmp_path: Path,
) -> None:
    for name, file in hostile.FILES.items():
        (tmp_path / name).write_bytes(file.make())
    (tmp_path / "z-good.md").write_text("# Good\n\nThe lighthouse is white.\n")
    knowledge = KnowledgeBase([tmp_path])
    knowledge.build()
    failed = [doc for doc in knowledge.reports if doc.state == "failed"]
    reasons = {doc.path: failure_text(doc) for doc in failed}
    assert len(hostile.FILES) >= 20
    assert reasons.keys() == hostile.FILES.keys()
    assert [name for name, file in hostile.FILES.items() if file.reason not in reasons[name]] == []
    assert [doc.path for doc in failed if not doc.next.endswith(".")] == [], "each says what to do"
    assert knowledge.search("lighthouse")[0].passage.path == "z-good.md"


@pytest.mark.parametrize("name", hostile.FILES)
def test_a_hostile_file_names_its_page_where_it_has_one(parser: Parser, name: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        parser.parse(hostile.FILES[name].make(), name)
    assert caught.value.page == hostile.FILES[name].page
    assert hostile.FILES[name].reason in str(caught.value)
    assert parser.parse(b"text", "a.txt").text == "text"


@pytest.mark.parametrize("name", hostile.STRANGE)
def test_a_strange_file_is_read(parser: Parser, name: str) -> None:
    assert "text" in parser.parse(hostile.STRANGE[name](), name).text


def test_a_file_that_eats_memory_ends_at_the_limit_and_the_next_is_read() -> None:
    with Parser(memory_mb=100) as parser:
        with pytest.raises(
            UnreadableFile, match="It needs more than 100 MB of memory to read; split it"
        ):
            parser.parse(b"ab," * 6_500_000, "a.csv")
        assert parser.parse(b"text", "a.txt").text == "text"


@pytest.mark.parametrize("name", hostile.SLOW)
def test_a_file_that_takes_too_long_ends_at_the_deadline_and_the_next_is_read(name: str) -> None:
    with Parser(deadline_s=1.5) as parser:
        before = time.monotonic()
        with pytest.raises(UnreadableFile, match=r"took longer than 1\.5 s to read") as caught:
            parser.parse(hostile.SLOW[name].make(), name)
        assert time.monotonic() - before < 10, "the file takes much longer than that"
        assert caught.value.fix
        assert parser.parse(b"text", "a.txt").text == "text"


# The child


def busy(parser: Parser) -> tuple[threading.Thread, list[str]]:
    """Let the parser read a file that takes half a minute, in a thread.

    The list gets the error that this ends with.
    """
    reported = list[str]()

    def read() -> None:
        try:
            parser.parse(hostile.SLOW["deep.html"].make(), "deep.html")
        except UnreadableFile as error:
            reported.append(str(error))

    parser.parse(b"text", "a.txt")
    thread = threading.Thread(target=read)
    assert parser.child
    idle = ticks(parser.child)
    thread.start()
    until(lambda: ticks(parser.child or 0) > idle + 5)
    return thread, reported


def ticks(pid: int) -> int:
    """Return how much processor time a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_crash_of_the_child_costs_one_file() -> None:
    with Parser() as parser:
        thread, reported = busy(parser)
        assert parser.child
        os.kill(parser.child, signal.SIGSEGV)
        thread.join(PATIENCE_S)
        assert reported == [
            (
                "Reading it ended the parser (SIGSEGV): it is damaged, or needs more than 1024 "
                "MB; split it into smaller files, or save it in a simpler form."
            )
        ]
        assert parser.parse(b"text", "a.txt").text == "text"


def test_a_child_that_ended_between_files_is_replaced() -> None:
    with Parser() as parser:
        parser.parse(b"text", "a.txt")
        first = parser.child
        assert first
        os.kill(first, signal.SIGKILL)
        until(lambda: not alive(first))
        assert parser.parse(b"text", "a.txt").text == "text"
        assert parser.child != first


def test_files_share_a_child_and_threads_take_turns() -> None:
    with Parser() as parser, ThreadPoolExecutor(8) as pool:
        assert parser.child is None, "it starts with the first file"
        texts = list(
            pool.map(lambda n: parser.parse(f"text {n}".encode(), "a.txt").text, range(100))
        )
        first = parser.child
        assert texts == [f"text {n}" for n in range(100)]
        parser.parse(b"text", "a.txt")
        assert parser.child == first


def test_thousands_of_files_go_through_one_child() -> None:
    with Parser() as parser:
        parser.parse(b"text", "a.txt")
        first = parser.child
        assert {parser.parse(b"text", "a.txt").text for _ in range(3_000)} == {"text"}
        assert parser.child == first


def test_a_file_that_leaves_the_child_fat_gets_the_next_one_a_new_child() -> None:
    with Parser(memory_mb=120) as parser:
        parser.parse(b"text", "a.txt")
        first = parser.child
        assert len(parser.parse(b"many words " * 1_500_000, "b.txt").text) == 16_500_000
        parser.parse(b"text", "a.txt")
        assert parser.child != first


def test_closing_ends_the_child() -> None:
    with Parser() as parser:
        parser.parse(b"text", "a.txt")
        child = parser.child
    assert child
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("path", ["deep.html", "idle"])
def test_the_child_ends_with_its_parent_at_work_and_idle(path: str) -> None:
    code = (
        "import sys, threading, time; from slipway.knowledge.parsing import Parser; p = Parser(); "
        "p.parse(b'x', 'a.txt');"
        "print(p.child, flush=True); sys.argv[1] == 'idle' and time.sleep(60); p.parse(b'<div>' * "
        "100_000, 'deep.html')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        idle = ticks(child)
        until(lambda: path == "idle" or ticks(child) > idle + 5)
        assert alive(child)
        parent.kill()
    until(lambda: not alive(child))


def test_the_child_has_limits_and_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with Parser(memory_mb=300) as parser:
        parser.parse(b"text", "a.txt")
        environment = Path(f"/proc/{parser.child}/environ").read_bytes()
        limits = Path(f"/proc/{parser.child}/limits").read_text()
    assert b"secret" not in environment
    said = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert (said["Max core file size"], said["Max file size"], said["Max open files"]) == (
        "0",
        "0",
        "64",
    )
    assert 300_000_000 < int(said["Max address space"]) < 700_000_000


def test_the_whole_document_crosses_the_pipe(parser: Parser) -> None:
    text = "# Top\n\ntext\n\n## Below\n\nmore\n"
    document = parser.parse(text.encode(), "a.md")
    assert isinstance(document, ParsedDocument)
    assert document.text == text
    assert [
        (heading.level, heading.text, heading.start, heading.end) for heading in document.headings
    ] == [
        (1, "Top", 0, 6),
        (2, "Below", 13, 22),
    ]


def test_the_parent_loads_no_parser() -> None:
    heavy = "('pypdfium2', 'python_calamine', 'selectolax', 'markdown_it', 'yaml')"
    code = (
        "import sys; from slipway.knowledge.parsing import Parser; p = Parser(); p.parse(b'a,b', "
        "'a.csv'); p.parse(b'<p>x', 'a.html');"
        f"p.close(); print([m for m in {heavy} if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
