"""Write documents of real size with the libraries that people use.

Chapter n of each document says things that no other chapter says.
"""

import datetime
import io

from docx import Document as Word
from fpdf import FPDF
from openpyxl import Workbook
from pptx import Presentation

SUBJECTS = [
    "anchor",
    "barrel",
    "compass",
    "dinghy",
    "engine",
    "funnel",
    "galley",
    "hammock",
    "island",
    "jetty",
    "keel",
    "lantern",
    "mast",
    "needle",
    "oar",
    "paddle",
    "quay",
    "rudder",
    "sail",
    "tiller",
]
FILLER = (
    "Every ship that enters the harbour is inspected by two officers, who write down what they "
    "find and hand their notes to the "
    "superintendent. Nothing leaves the dock before the papers are signed, and whoever objects "
    "may do so in writing within a week. "
)


def subject(number: int) -> str:
    """Return a name for number 0..399 that nothing else has."""
    return f"{SUBJECTS[number // 20 % 20]}{SUBJECTS[number % 20]}"


def fact(number: int) -> str:
    return f"The {subject(number)} regulation demands a deposit of {100 + number} crowns."


class _Paper(FPDF):
    def header(self) -> None:
        self.set_font("helvetica", size=8)
        self.cell(0, 6, "Harbour Handbook - confidential draft", new_x="LMARGIN", new_y="NEXT")

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font("helvetica", size=8)
        self.cell(0, 6, f"Page {self.page_no()} of {{nb}}", align="C")


def pdf(pages: int = 120, *, outline: bool = True, password: str = "") -> bytes:
    """Write a PDF with a page for each chapter: a large title, prose with a fact in its middle, a
    short table; running headers and footers.
    """
    paper = _Paper()
    paper.set_title("Harbour Handbook")
    paper.set_author("Port Authority")
    paper.set_creation_date(datetime.datetime(2024, 1, 31, 12, 0, tzinfo=datetime.UTC))
    if password:
        paper.set_encryption(owner_password="owner", user_password=password)
    for number in range(pages):
        paper.add_page()
        if outline:
            paper.start_section(f"Chapter {number + 1}: On the {subject(number)}")
        paper.set_font("helvetica", "B", 16)
        paper.cell(
            0, 12, f"Chapter {number + 1}: On the {subject(number)}", new_x="LMARGIN", new_y="NEXT"
        )
        paper.set_font("helvetica", size=11)
        paper.multi_cell(
            0, 6, FILLER * 2 + fact(number) + " " + FILLER, new_x="LMARGIN", new_y="NEXT"
        )
        paper.ln(6)
        paper.multi_cell(0, 6, FILLER, new_x="LMARGIN", new_y="NEXT")
        paper.ln(6)
        for row in ("Berth   Crowns", f"North   {number}", f"South   {number * 2}"):
            paper.cell(0, 6, row, new_x="LMARGIN", new_y="NEXT")
    return bytes(paper.output())


def docx(chapters: int = 60) -> bytes:
    """About a page to a chapter: heading, prose, list, and a table in every tenth."""
    word = Word()
    word.core_properties.author = "Port Authority"
    # Python-docx takes UTC as such
    word.core_properties.modified = datetime.datetime(2024, 1, 31, 12, 0)  # noqa: DTZ001
    word.add_heading("Harbour Handbook", 0)
    for number in range(chapters):
        word.add_heading(f"Chapter {number + 1}: On the {subject(number)}", 1)
        word.add_paragraph(FILLER * 4)
        word.add_heading("Deposits", 2)
        word.add_paragraph(fact(number)).add_run(" It is due at noon.").bold = True
        for item in ("Sign the form.", "Pay the deposit."):
            word.add_paragraph(item, style="List Bullet")
        if number % 10 == 0:
            table = word.add_table(rows=2, cols=2)
            for cell, text in zip(
                [*table.rows[0].cells, *table.rows[1].cells],
                ["Berth", "Crowns", "North", str(number)],
                strict=True,
            ):
                cell.text = text
        word.add_page_break()  # type: ignore[no-untyped-call]
    return _saved(word)


def pptx(slides: int = 50) -> bytes:
    """Write slides with a title, two lines, a table on every tenth slide, and notes; the third
    slide has no title, the fourth is hidden.
    """
    deck = Presentation()
    for number in range(slides):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = "" if number == 2 else f"On the {subject(number)}"
        body = slide.placeholders[1].text_frame
        body.text = fact(number)
        more = body.add_paragraph()
        more.text, more.level = "Pay at noon", 1
        slide.notes_slide.notes_text_frame.text = (
            f"Tell them that the {subject(number)} clerk is called Mr "
            f"{subject(number + 1).title()}."
        )
        if number % 10 == 0:
            table = slide.shapes.add_table(2, 2, 0, 0, 1000000, 1000000).table
            for at, text in enumerate(["Berth", "Crowns", "North", str(number)]):
                table.cell(at // 2, at % 2).text = text
        if number == 3:
            slide._element.set("show", "0")
    return _saved(deck)


def xlsx(sheets: int = 5, rows: int = 2_000) -> bytes:
    """Sheets with a line above the names of the columns, dates, whole and broken numbers, an empty
    column; and a hidden one.
    """
    book = Workbook()
    book.remove(book.worksheets[0])
    book.properties.title = "Harbour Dues"
    for number in range(sheets):
        sheet = book.create_sheet(f"Year {2020 + number}")
        sheet.append([f"All dues of {2020 + number}"])
        sheet.append([])
        sheet.append(["Ship", "Arrived", None, "Crowns", "Paid"])
        for row in range(rows):
            day = datetime.date(2020 + number, 1, 1) + datetime.timedelta(days=row % 360)
            sheet.append(
                [
                    f"Vessel {subject(row % 400)} {2020 + number}-{row}",
                    day,
                    None,
                    row + (0.1 + 0.2) * (row % 2),
                    row % 3 == 0,
                ]
            )
    hidden = book.create_sheet("Salaries")
    hidden.sheet_state = "hidden"
    hidden.append(["secretsalary", 9])
    return _saved(book)


def _saved(what: object) -> bytes:
    out = io.BytesIO()
    what.save(out)  # type: ignore[attr-defined]
    return out.getvalue()
