"""Make files that are broken, or made to break what reads them.

`FILES` maps a name to how it is made, words of the reason that Slipway gives, and the page, if any.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

from fpdf import FPDF
from PIL import Image

import sample_documents


class Hostile(NamedTuple):
    make: Callable[[], bytes]
    reason: str
    page: int | None = None


_PARTS = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


# PDF


def _pdf(*objects: bytes) -> bytes:
    """Objects 1, 2, … of a file whose catalog is object 1."""
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return (
        out
        + head
        + table
        + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, len(out))
    )


_FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def _page(parent: int, contents: int, font: int) -> bytes:
    return (
        b"<</Type/Page/Parent %d 0 R/MediaBox[0 0 600 800]/Contents %d 0 R/Resources<</Font<</F %d 0 R>>>>>>"
        % (parent, contents, font)
    )


def _stream(data: bytes, filters: bytes = b"") -> bytes:
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(data), filters, data)


def _says(text: str) -> bytes:
    return _stream(f"BT /F 12 Tf 50 700 Td ({text}) Tj ET".encode())


def picture() -> Image.Image:
    return Image.new("RGB", (200, 200), "white")


def pictures_only() -> bytes:
    paper = FPDF()
    for _ in range(3):
        paper.add_page()
        paper.image(picture(), 10, 10, 100)
    return bytes(paper.output())


def endless_pages() -> bytes:
    """Write a page tree of four levels with equal branches: ten pages times a hundred, three times."""
    branches = (
        b"<</Type/Pages/Count %d/Parent %d 0 R/Kids[%s]>>"
        % (10**n, 6 - n, b"%d 0 R " % (8 - n) * 10)
        for n in (4, 3, 2, 1)
    )
    return _pdf(
        b"<</Type/Catalog/Pages 3 0 R>>",
        _FONT,
        *(b.replace(b"/Parent 2 0 R", b"") for b in branches),
        _page(6, 8, 2),
        _says("Again"),
    )


def pages_in_a_circle() -> bytes:
    return _pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 3/Kids[2 0 R 2 0 R 2 0 R]/Parent 2 0 R>>",
    )


def damaged_page() -> bytes:
    """Write a PDF whose second page of three is a number."""
    pages = b"<</Type/Pages/Count 3/Kids[3 0 R 6 0 R 7 0 R]>>"
    return _pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        pages,
        _page(2, 4, 5),
        _says("First"),
        _FONT,
        b"42",
        _page(2, 4, 5),
    )


def deflate_bomb() -> bytes:
    """Deflated twice: a few kilobytes that unpack to three gigabytes."""
    packer, block = zlib.compressobj(9), b"BT (" + b"A" * 1_000_000 + b") Tj ET\n"
    first, again = (packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    contents = _stream(
        zlib.compress(first + again * 3_000 + packer.flush(), 9),
        b"/Filter[/FlateDecode/FlateDecode]",
    )
    return _pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        _page(2, 4, 5),
        contents,
        _FONT,
    )


def page_of_a_million_signs() -> bytes:
    text = (
        "BT /F 1 Tf 50 700 Td "
        + "".join(f"({'abcdefghij' * 100}) Tj 0 -1 Td " for _ in range(400))
        + "ET"
    )
    return _pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        _page(2, 4, 5),
        _stream(text.encode()),
        _FONT,
    )


# Office


def _zip(**parts: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return out.getvalue()


def _word(document: str | bytes, **more: str | bytes) -> bytes:
    types = (
        f'<Types xmlns="{_PARTS}"><Default Extension="xml" ContentType="application/xml"/></Types>'
    )
    main = f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="a" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>'
    return _zip(
        **{"[Content_Types].xml": types, "_rels/.rels": main, "word/document.xml": document, **more}
    )


def _body(text: str, before: str = "") -> str:
    return f'<?xml version="1.0"?>{before}<w:document xmlns:w="{_WORD}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'


def laughs() -> str:
    entities = [
        '<!ENTITY a0 "ha">',
        *(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)),
    ]
    return f"<!DOCTYPE d [{''.join(entities)}]>"


def without(data: bytes, name: str) -> bytes:
    """Return the archive without one of its parts."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _zip(**{each: archive.read(each) for each in archive.namelist() if each != name})


def replaced(data: bytes, name: str, part: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _zip(
            **{each: part if each == name else archive.read(each) for each in archive.namelist()}
        )


def encrypted_entries() -> bytes:
    """Set the encryption flag of each entry, as a zip program does."""
    data = bytearray(_word(_body("secret")))
    at = -1
    while (at := data.find(b"PK\1\2", at + 1)) >= 0:
        flags = struct.unpack_from("<H", data, at + 8)[0]
        struct.pack_into("<H", data, at + 8, flags | 1)
    return bytes(data)


def bad_checksum() -> bytes:
    """Damage the document's own bytes; the archive's directory stays valid."""
    data = bytearray(sample_documents.docx(3))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        at = archive.getinfo("word/document.xml").header_offset
    data[at + 200 : at + 260] = b"\xff" * 60
    return bytes(data)


def sheet_without_end() -> bytes:
    """Three cells at the corners of the largest sheet there can be: 17 thousand million cells
    between them.
    """
    cells = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="A1048576"><v>1</v></c><c r="XFD1048576"><v>2</v></c></row>'
    sheet = f'<worksheet xmlns="{_SHEET}"><dimension ref="A1:XFD1048576"/><sheetData>{cells}</sheetData></worksheet>'
    book = f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets><sheet name="S" sheetId="1" r:id="a"/></sheets></workbook>'
    main = f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="a" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    sheets = f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="a" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>'
    types = (
        f'<Types xmlns="{_PARTS}"><Default Extension="xml" ContentType="application/xml"/></Types>'
    )
    return _zip(
        **{
            "[Content_Types].xml": types,
            "_rels/.rels": main,
            "xl/workbook.xml": book,
            "xl/_rels/workbook.xml.rels": sheets,
            "xl/worksheets/sheet1.xml": sheet,
        }
    )


_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_TOO_MUCH = "which is too much for its size"

FILES: dict[str, Hostile] = {
    "empty.pdf": Hostile(lambda: b"", "It is empty"),
    "blank.md": Hostile(lambda: b" \n\t\n", "It is empty"),
    "truncated.pdf": Hostile(lambda: sample_documents.pdf(3)[:900], "It is damaged, or no PDF"),
    "no.pdf": Hostile(lambda: b"<html>Not found</html>", "It is damaged, or no PDF"),
    "password.pdf": Hostile(lambda: sample_documents.pdf(2, password="secret"), "It is encrypted"),
    "scanned.pdf": Hostile(pictures_only, "It has no text, only pictures of it"),
    "circle.pdf": Hostile(pages_in_a_circle, "A page of it is damaged (page 1)", 1),
    "endless.pdf": Hostile(endless_pages, "5000 is the limit"),
    "page.pdf": Hostile(damaged_page, "A page of it is damaged (page 2)", 2),
    "bomb.pdf": Hostile(deflate_bomb, "(page 1)", 1),
    "signs.pdf": Hostile(page_of_a_million_signs, "200000 is the limit", 1),
    "bomb.docx": Hostile(lambda: _word(b" " * 60_000_000), _TOO_MUCH),
    "parts.docx": Hostile(
        lambda: _word(_body("x"), **{f"p{n}.xml": "" for n in range(10_001)}), "10000 is the limit"
    ),
    "laughs.docx": Hostile(lambda: _word(_body("&a9;", laughs())), "Its XML declares entities"),
    "external.docx": Hostile(
        lambda: _word(_body("&x;", '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>')),
        "Its XML declares entities",
    ),
    "utf16.docx": Hostile(
        lambda: _word(_body("&a9;", laughs()).encode("utf-16")), "Its XML declares entities"
    ),
    "password.docx": Hostile(lambda: _OLE + bytes(4_000), "It is protected by a password"),
    "zipped.docx": Hostile(encrypted_entries, "It is protected by a password"),
    "part.docx": Hostile(
        lambda: without(sample_documents.docx(2), "word/document.xml"),
        "its part word/document.xml is missing",
    ),
    "xml.docx": Hostile(
        lambda: _word("<w:document"), "its part word/document.xml is not valid XML"
    ),
    "checksum.docx": Hostile(bad_checksum, "cannot be unpacked"),
    "renamed.docx": Hostile(lambda: sample_documents.pdf(1), "not a whole office file"),
    "slide.pptx": Hostile(
        lambda: without(sample_documents.pptx(5), "ppt/slides/slide3.xml"),
        "a slide is missing (page 3)",
        3,
    ),
    "truncated.xlsx": Hostile(
        lambda: sample_documents.xlsx(1, 50)[:3_000], "not a whole office file"
    ),
    "password.xlsx": Hostile(lambda: _OLE + bytes(4_000), "It is protected by a password"),
    "bomb.xlsx": Hostile(
        lambda: _zip(**{"xl/worksheets/sheet1.xml": b"0" * 50_000_000}), _TOO_MUCH
    ),
    "zero.csv": Hostile(lambda: b"a,b\n1,\0\n", "zero bytes"),
    "control.csv": Hostile(lambda: b"a,b\n\x01\xe9,2\n", "Its encoding could not be determined"),
    "quote.csv": Hostile(lambda: b'a,b\n1,"' + b"x" * 1_100_000, "is not a row of values"),
    "bytes.txt": Hostile(
        lambda: bytes(range(1, 32)) + b"\xff", "Its encoding could not be determined"
    ),
    "half.txt": Hostile(
        lambda: "\ufeffabc".encode("utf-16-le") + b"\0\xd8" * 9, "It is not whole UTF-16-LE text"
    ),
    "zero.txt": Hostile(lambda: b"a\0b", "zero bytes"),
    "rights.md": Hostile(lambda: b"---\naccess: [hr\n---\n# Salaries\n\nx\n", "who may read it"),
    "itself.md": Hostile(
        lambda: b"---\naccess: &a [*a]\n---\ntext\n", "who may read it, is nested too deeply"
    ),
    "open.md": Hostile(lambda: b"---\naccess: [hr]\n\n# Salaries\n\nx\n", "who may read it"),
    "aliases.md": Hostile(
        lambda: (
            "---\naccess: [hr]\na0: &a0 [x]\n"
            + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 10}]\n" for n in range(1, 9))
            + "---\nx"
        ).encode(),
        "too many values",
    ),
}

SLOW: dict[str, Hostile] = {
    "deep.html": Hostile(
        lambda: b"<div>" * 100_000 + b"x", "It took longer than"
    ),  # the parser is quadratic in the depth
}

STRANGE: dict[str, Callable[[], bytes]] = {  # unusual, and readable all the same
    "quotes.md": lambda: b">" * 20_000 + b" text",
    "brackets.md": lambda: b"# Top\n\n" + b"[" * 50_000 + b" text",
    "lists.md": lambda: b"\n".join(b"  " * n + b"- text" for n in range(500)),
    "deep.docx": lambda: _word(
        f'<w:document xmlns:w="{_WORD}">{"<w:body>" * 50_000}<w:p><w:r><w:t>text</w:t></w:r></w:p>{"</w:body>" * 50_000}</w:document>'
    ),
    "counted.pdf": lambda: _pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 2000000000/Kids[3 0 R]>>",
        _page(2, 4, 5),
        _says("text"),
        _FONT,
    ),
    "utf16.csv": lambda: "name;text\nÄ;ß\n".encode("utf-16"),
    "western.csv": lambda: "name;text\nÄ;ß €\n".encode("cp1252"),
    "front.md": lambda: b"---\ntitle: [unclosed\n---\ntext\n",
}
