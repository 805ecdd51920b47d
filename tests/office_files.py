"""Make small office files and PDFs for tests, each with one thing that is easily read wrong."""

import io
from collections.abc import Callable
from typing import Any

from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import qn
from fpdf import FPDF
from openpyxl import Workbook
from PIL import Image, ImageDraw, ImageFont


def saved(file: Any) -> bytes:
    out = io.BytesIO()
    file.save(out)
    return out.getvalue()


def workbook(rows: list[list[Any]], change: Callable[[Any], None] = lambda sheet: None) -> bytes:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    change(sheet)
    return saved(book)


def numbered(paragraph: Any, level: int) -> None:
    properties = paragraph._p.get_or_add_pPr()
    number = OxmlElement("w:numPr")
    for name, value in (("w:ilvl", level), ("w:numId", 90)):
        each = OxmlElement(name)
        each.set(qn("w:val"), str(value))
        number.append(each)
    properties.append(number)


def with_numbers(word: Any) -> None:
    root = word.part.numbering_part.element
    levels = "".join(
        f'<w:lvl w:ilvl="{at}"><w:start w:val="1"/><w:numFmt w:val="{kind}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for at, (kind, text) in enumerate(
            [("decimal", "%1"), ("decimal", "%1.%2"), ("lowerLetter", "(%3)")]
        )
    )
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    root.insert(
        0, parse_xml(f'<w:abstractNum {space} w:abstractNumId="90">{levels}</w:abstractNum>')
    )
    root.append(parse_xml(f'<w:num {space} w:numId="90"><w:abstractNumId w:val="90"/></w:num>'))


def written(lines: Callable[[FPDF], None]) -> bytes:
    paper = FPDF()
    paper.add_page()
    paper.set_font("helvetica", size=11)
    lines(paper)
    return bytes(paper.output())


def raw_pdf(font: str, content: str, size: str = "600 800") -> bytes:
    """A page in a Chinese font that every reader has; `content` is hexadecimal UTF-16."""
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {size}]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        f"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/{font}/DescendantFonts[6 0 R]>>",
        "<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light/CIDSystemInfo 8 0 R/DW 1000/FontDescriptor 7 0 R>>",
        "<</Type/FontDescriptor/FontName/STSong-Light/Flags 4/FontBBox[0 -200 1000 900]/Ascent 800/Descent -200>>",
        "<</Registry(Adobe)/Ordering(GB1)/Supplement 2>>",
    ]
    out = "%PDF-1.4\n" + "".join(f"{n} 0 obj\n{o}\nendobj\n" for n, o in enumerate(objects, 1))
    return (out + "trailer<</Size 9/Root 1 0 R>>\n%%EOF").encode("latin-1")


def shown(text: str, x: int, y: int) -> str:
    return f"BT /F1 14 Tf 1 0 0 1 {x} {y} Tm <{text.encode('utf-16-be').hex()}> Tj ET\n"


def scanned() -> bytes:
    picture = Image.new("RGB", (1240, 300), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(48)
    draw.text((40, 60), "The lighthouse opens at nine.", font=font, fill="black")

    def lines(paper: FPDF) -> None:
        paper.cell(0, 6, "The first page has text.")
        paper.add_page()
        paper.image(picture, 10, 10, 190)

    return written(lines)


def form_pdf(label: str, value: str) -> bytes:
    """Return a page with one field of a form, right of its label."""
    field = (
        f"<</Type/Annot/Subtype/Widget/FT/Tx/T(n)/V({value})/Rect[200 695 300 715]/F 4/P 3 0 R>>"
    )
    content = f"BT /F1 11 Tf 60 700 Td ({label}) Tj ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[6 0 R]>>>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Annots[6 0 R]/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        field,
    ]
    out = "%PDF-1.4\n" + "".join(f"{n} 0 obj\n{o}\nendobj\n" for n, o in enumerate(objects, 1))
    return (out + "trailer<</Size 7/Root 1 0 R>>\n%%EOF").encode()
