"""What is read of office files and PDF: merged cells, hidden parts, numbers, charts, tables, forms."""

import datetime
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docx import Document as Word
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from fpdf import FPDF
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

import hostile
from office_files import (
    form_pdf,
    numbered,
    raw_pdf,
    saved,
    scanned,
    shown,
    with_numbers,
    workbook,
    written,
)
from processes import run
from slipway.knowledge.parsing import Parser
from slipway.knowledge.readers import ParsedDocument
from slipway.knowledge.readers.ocr import MEMORY_MB, is_installed


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser() as one:
        yield one


def losses(document: ParsedDocument) -> list[str]:
    return [loss.what for loss in document.losses]


# Excel


def test_merged_cells_of_a_sheet_are_repeated_and_heads_joined(parser: Parser) -> None:
    rows: list[list[Any]] = [
        ["Fees of 2025", None, None, None],
        ["Plan", "Fee", None, "Note"],
        [None, "Europe", "Asia", None],
        ["Gold", 90, 80, "a"],
        [None, 91, 81, "b"],
    ]

    def merge(sheet: Any) -> None:
        for cells in ("A1:D1", "A2:A3", "B2:C2", "D2:D3", "A4:A5"):
            sheet.merge_cells(cells)

    text = parser.parse(workbook(rows, merge), "a.xlsx").text
    assert "Fees of 2025\n\nPlan | Fee Europe | Fee Asia | Note\n--- | --- | --- | ---\n" in text
    assert "Gold | 90 | 80 | a\nGold | 91 | 81 | b" in text


def test_values_are_shown_as_excel_shows_them(parser: Parser) -> None:
    formats = {
        "VAT": (0.19, "0%", "19%"),
        "Rate": (0.0375, "0.00%", "3.75%"),
        "Day": (datetime.date(2025, 1, 31), "dd.mm.yyyy", "2025-01-31"),
        "Opens": (datetime.time(9, 30), "h:mm AM/PM", "09:30"),
        "At": (datetime.datetime(2025, 1, 31, 9, 5), "yyyy-mm-dd hh:mm", "2025-01-31 09:05"),  # noqa: DTZ001
        "Took": (1.5, "[h]:mm", "36:00"),
        "Pay": (1234.5, '"$"#,##0.00', "$1,234.50"),
        "Lohn": (1234.5, "#,##0.00 [$€-407]", "1,234.50 €"),
        "Owed": (-12.5, "#,##0.00;(#,##0.00)", "(12.50)"),
        "Size": (12.345678, '0.0 "kg"', "12.3 kg"),
        "Code": (42, "00000", "00042"),
        "Plain": (0.1 + 0.2, "General", "0.3"),
        "Small": (2.5, "0.##", "2.5"),
    }
    names, values = list(formats), [value for value, _, _ in formats.values()]

    def style(sheet: Any) -> None:
        for column, (_, code, _) in enumerate(formats.values(), start=1):
            sheet.cell(2, column).number_format = code

    text = parser.parse(workbook([names, values], style), "a.xlsx").text
    assert text.splitlines()[4].split(" | ") == [shown for _, _, shown in formats.values()]


def test_hidden_rows_columns_and_sheets_are_left_out_and_counted(parser: Parser) -> None:
    def hide(sheet: Any) -> None:
        sheet.column_dimensions["C"].hidden = True
        sheet.row_dimensions[3].hidden = True
        sheet.parent.create_sheet("Old")["A1"] = "gone"
        sheet.parent["Old"].sheet_state = "hidden"

    rows: list[list[Any]] = [
        ["Name", "Desk", "Salary"],
        ["Ada", 12, 91000],
        ["Cyd", 15, 55000],
        ["Bob", 14, 67000],
    ]
    document = parser.parse(workbook(rows, hide), "a.xlsx")
    assert "Name | Desk\n--- | ---\nAda | 12\nBob | 14" in document.text
    assert losses(document) == ["1 hidden sheet, 1 hidden column, 1 hidden row are left out"]


def test_formulas_without_a_stored_value_are_reported(parser: Parser) -> None:
    document = parser.parse(workbook([["Price", "Twice"], [40, "=A2*2"]]), "a.xlsx")
    assert losses(document) == ["1 formula has no stored value"]
    assert "computed" in document.losses[0].fix


def test_a_sheet_with_cells_at_its_far_corners_is_read(parser: Parser) -> None:
    assert "1 | 2" in parser.parse(hostile.sheet_without_end(), "a.xlsx").text


# Word


def test_automatic_numbers_of_word_are_read(parser: Parser) -> None:
    word = Word()
    with_numbers(word)
    for level, name in ((0, "Parties"), (0, "Payment"), (1, "Due date"), (1, "Late fees")):
        numbered(word.add_heading(name, level + 1), level)
    numbered(word.add_paragraph("A late payment costs 2 %."), 2)
    numbered(word.add_paragraph("Reminders are free."), 2)
    document = parser.parse(saved(word), "a.docx")
    assert [each.text for each in document.headings] == [
        "1 Parties",
        "2 Payment",
        "2.1 Due date",
        "2.2 Late fees",
    ]
    assert "(a) A late payment costs 2 %.\n    (b) Reminders are free." in document.text


def test_raised_struck_out_and_hidden_text_of_word(parser: Parser) -> None:
    word = Word()
    line = word.add_paragraph("Up to 10")
    line.add_run("6").font.superscript = True
    line.add_run(" documents for ")
    line.add_run("$10").font.strike = True
    line.add_run("$12.")
    line.add_run(" Secret.").font.hidden = True
    document = parser.parse(saved(word), "a.docx")
    assert document.text.strip() == "Up to 10^6 documents for $12."
    assert losses(document) == ["1 piece of hidden text is left out"]


def test_merged_cells_of_word_are_repeated(parser: Parser) -> None:
    word = Word()
    table = word.add_table(rows=4, cols=3)
    rows = [
        ["Plan", "Region", "Fee"],
        ["Gold", "Europe", "90"],
        ["", "Asia", "80"],
        ["Free", "", ""],
    ]
    for row, texts in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    table.cell(3, 0).merge(table.cell(3, 2))
    text = parser.parse(saved(word), "a.docx").text
    assert "Gold | Europe | 90\nGold | Asia | 80\nFree | Free | Free" in text


def test_a_document_embedded_in_a_word_file_is_read(parser: Parser) -> None:
    word = Word()
    word.add_paragraph("Before.")
    chunk = OxmlElement("w:altChunk")
    chunk.set(qn("r:id"), "rIdChunk")
    word.element.body.insert(1, chunk)
    relation = (
        '<Relationship Id="rIdChunk" Target="/word/part.html" Type="http://schemas.openxmlformats.org'
        '/officeDocument/2006/relationships/aFChunk"/></Relationships>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(word))) as made, zipfile.ZipFile(out, "w") as file:
        for name in made.namelist():
            data = made.read(name)
            if name == "word/_rels/document.xml.rels":
                data = data.replace(b"</Relationships>", relation.encode())
            file.writestr(name, data)
        file.writestr("word/part.html", "<h1>Inner</h1><p>The inner text.</p>")
    document = parser.parse(out.getvalue(), "a.docx")
    assert [each.text for each in document.headings] == ["Inner"]
    assert "The inner text." in document.text


# PowerPoint


def test_charts_of_a_slide_are_read(parser: Parser) -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    assert slide.shapes.title is not None
    slide.shapes.title.text = "Revenue by region"
    data: Any = CategoryChartData(number_format="0.0")  # type: ignore[no-untyped-call]
    data.categories = ["Europe", "Asia"]
    data.add_series("2024", (19.2, 21.4))
    data.add_series("2025", (20.04, 25))
    slide.shapes.add_chart(
        XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(1), Inches(6), Inches(4), data
    )
    text = parser.parse(saved(deck), "a.pptx").text
    assert "| 2024 | 2025\n--- | --- | ---\nEurope | 19.2 | 20.0\nAsia | 21.4 | 25.0" in text


# OpenDocument

_SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{what}:1.0"'
    for name, what in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("style", "style"),
        ("fo", "xsl-fo-compatible"),
        ("draw", "drawing"),
        ("presentation", "presentation"),
    )
)


def opendocument(body: str, styles: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(
            "content.xml",
            f"<office:document-content {_SPACES}><office:automatic-styles>{styles}"
            f"</office:automatic-styles><office:body>{body}</office:body></office:document-content>",
        )
    return out.getvalue()


def test_an_opendocument_text_is_read(parser: Parser) -> None:
    styles = (
        '<style:style style:name="up"><style:text-properties style:text-position="super 58%"/></style:style>'
        '<style:style style:name="out"><style:text-properties style:text-line-through-style="solid"/></style:style>'
    )
    body = """<office:text><text:h text:outline-level="1">Limits</text:h>
<text:p>Up to 10<text:span text:style-name="up">6</text:span> for <text:span text:style-name="out">$10</text:span>$12.
<text:note><text:note-body><text:p>Yearly.</text:p></text:note-body></text:note></text:p>
<text:list><text:list-item><text:p>One</text:p>
<text:list><text:list-item><text:p>Two</text:p></text:list-item></text:list></text:list-item></text:list>
<table:table><table:table-row><table:table-cell><text:p>Plan</text:p></table:table-cell>
<table:table-cell><text:p>Fee</text:p></table:table-cell></table:table-row>
<table:table-row><table:table-cell table:number-rows-spanned="2"><text:p>Gold</text:p></table:table-cell>
<table:table-cell><text:p>90</text:p></table:table-cell></table:table-row>
<table:table-row><table:covered-table-cell/><table:table-cell><text:p>80</text:p></table:table-cell></table:table-row></table:table></office:text>"""
    document = parser.parse(opendocument(body, styles), "a.odt")
    assert document.text.strip() == (
        "Limits\n\nUp to 10^6 for $12. [Yearly.]\n\n- One\n  - Two\n\n"
        "Plan | Fee\n--- | ---\nGold | 90\nGold | 80"
    )
    assert [each.text for each in document.headings] == ["Limits"]


def test_opendocument_sheets_show_what_a_person_sees(parser: Parser) -> None:
    def row(*cells: str, more: str = "") -> str:
        inner = "".join(
            f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>" for cell in cells
        )
        return f"<table:table-row {more}>{inner}</table:table-row>"

    body = (
        '<office:spreadsheet><table:table table:name="Rates">'
        + row("Country", "VAT")
        + row("Germany", "19 %")
        + row("Old", "16 %", more='table:visibility="filter"')
        + '<table:table-row table:number-rows-repeated="1000000"><table:table-cell table:number-columns-repeated="16384"/></table:table-row>'
        + "</table:table></office:spreadsheet>"
    )
    document = parser.parse(opendocument(body), "a.ods")
    assert document.text.strip() == "Rates\n\nCountry | VAT\n--- | ---\nGermany | 19 %"
    assert losses(document) == ["1 hidden part is left out"]


def test_opendocument_slides_are_pages(parser: Parser) -> None:
    body = """<office:presentation><draw:page draw:name="p1">
<draw:frame presentation:class="title"><draw:text-box><text:p>Anchors</text:p></draw:text-box></draw:frame>
<draw:frame><draw:text-box><text:p>They hold.</text:p></draw:text-box></draw:frame>
<presentation:notes>
<draw:frame><draw:text-box><text:p>Say it twice.</text:p></draw:text-box></draw:frame></presentation:notes></draw:page></office:presentation>"""
    document = parser.parse(opendocument(body), "a.odp")
    assert document.text.strip() == "Anchors\n\nThey hold.\n\nNotes:\nSay it twice."
    assert document.pages == (0,)


# PDF


def test_a_wide_table_of_a_pdf_becomes_rows_with_its_heads(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        for row in (
            ("Product", "Warranty", "Delivery", "Price"),
            ("Chair", "18 months", "3 days", "100.00"),
            ("Desk", "24 months", "", "200.00"),
        ):
            for cell in row:
                paper.cell(47, 7, cell)
            paper.ln()
        paper.ln(10)
        paper.multi_cell(0, 6, "All prices are in euros. " * 12)

    text = parser.parse(written(lines), "a.pdf").text
    assert text.startswith(
        "Product | Warranty | Delivery | Price\n--- | --- | --- | ---\n"
        "Chair | 18 months | 3 days | 100.00\nDesk | 24 months |  | 200.00\n\nAll prices"
    )


def test_pages_that_look_alike_lose_no_amount(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        for number, name in enumerate(("Alpha", "Beta", "Gamma", "Delta")):
            if number:
                paper.add_page()
            paper.cell(0, 7, f"Invoice for {name} Ltd", new_x="LMARGIN", new_y="NEXT")
            paper.ln(14)
            paper.cell(0, 7, f"Total due: {100 + number}.50 EUR", new_x="LMARGIN", new_y="NEXT")

    text = parser.parse(written(lines), "a.pdf").text
    assert [text.count(f"Total due: {100 + number}.50 EUR") for number in range(4)] == [1] * 4


def test_raised_numbers_of_a_pdf_are_set_apart(parser: Parser) -> None:
    def lines(paper: FPDF) -> None:
        paper.write(6, "Up to 10")
        paper.char_vpos = "SUP"
        paper.write(6, "6")
        paper.char_vpos = "LINE"
        paper.write(6, " documents in 2025.")

    assert parser.parse(written(lines), "a.pdf").text.strip() == "Up to 10^6 documents in 2025."


def test_chinese_lines_of_a_pdf_are_joined_without_spaces(parser: Parser) -> None:
    content = shown("各施工单位在每次爆破前应当进行振动监", 60, 760) + shown("测工作。", 60, 740)
    text = parser.parse(raw_pdf("UniGB-UCS2-H", content), "a.pdf").text
    assert text.strip() == "各施工单位在每次爆破前应当进行振动监测工作。"


def test_vertical_chinese_is_read_column_by_column_from_the_right(parser: Parser) -> None:
    content = shown("每天不得超过三米。", 460, 760) + shown("开挖进尺", 500, 760)
    text = parser.parse(raw_pdf("UniGB-UCS2-V", content), "a.pdf").text
    assert "".join(text.split()) == "开挖进尺每天不得超过三米。"


def test_the_values_of_a_form_stand_behind_their_labels(parser: Parser) -> None:
    data = form_pdf("Number of employees:", "214")
    assert parser.parse(data, "a.pdf").text.strip() == "Number of employees: 214"


# Scanned pages


def test_scanned_pages_say_how_their_text_can_be_recognised(parser: Parser) -> None:
    (loss,) = parser.parse(scanned(), "a.pdf").losses
    assert loss.what == "page 2 is only a picture of text"
    assert "`ocr: true`" in loss.fix


def test_scanned_pages_are_recognised_if_that_is_switched_on() -> None:
    pytest.importorskip(
        "rapidocr_onnxruntime", reason="the extra `ocr` (300 MB) is not installed here"
    )
    with Parser(60.0, MEMORY_MB, ocr=True) as parser:
        document = parser.parse(scanned(), "a.pdf")
    assert "The lighthouse opens at nine" in document.text
    assert document.losses == ()
    assert document.text.index("lighthouse") >= document.pages[1]


@pytest.mark.skipif(is_installed(), reason="the extra `ocr` is installed here")
def test_text_recognition_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Tea\n\nIt is hot.\n")
    config = tmp_path / "settings.yaml"
    config.write_text("ocr: true\napps: {docs: {knowledge: ./docs}}\n")
    done = run("check", "--config", str(config), cwd=tmp_path)
    assert done.returncode != 0
    assert "ocr: true needs the extra: pip install 'slipway[ocr]'" in done.stdout + done.stderr
