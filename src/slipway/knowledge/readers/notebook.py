"""Read Jupyter notebooks: text cells as Markdown, code cells and their printed results as code."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from slipway.knowledge.readers.document import Loss, OnPage, ParsedDocument, UnreadableFile, counted
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.front_matter import FrontMatter, front_matter
from slipway.knowledge.readers.markdown import markdown_text

_LONGEST_RESULT = 2_000  # characters of a printed result
_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


def notebook(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read a notebook of format 4 or 3. Results that are pictures only are counted as missing."""
    file = decoded(data)
    try:
        book = msgspec.json.decode(file.text.encode("utf-8", "surrogatepass"))
    except msgspec.DecodeError:
        raise UnreadableFile("It is not a whole notebook", "save it again in Jupyter") from None
    if not isinstance(book, dict):
        raise UnreadableFile("It is not a notebook", "save it again in Jupyter")
    sheets = book.get("worksheets")  # format 3
    cells = book.get("cells") or (
        [cell for sheet in sheets for cell in sheet.get("cells", [])]
        if isinstance(sheets, list)
        else []
    )
    cells = [cell for cell in cells if isinstance(cell, dict)]
    metadata = book.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language", "") if isinstance(kernel, dict) else ""
    text = "\n\n".join(part for cell in cells for part in _parts(cell, str(language)))
    pictures = sum(_pictures(cell) for cell in cells)
    losses = file.losses
    if pictures:
        what = counted(pictures, "picture among the results is", "pictures among the results are")
        losses = (*losses, Loss(what=f"{what} not read", fix="describe them in a text cell"))
    front = front_matter(_joined(cells[0].get("source", ""))) if cells else FrontMatter()
    document = markdown_text(f"{text}\n", fallback, losses=losses)
    return msgspec.structs.replace(document, meta=document.meta or front.meta)


def _parts(cell: dict[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input", "")))
    kind = cell.get("cell_type")
    if kind == "heading":  # format 3
        level = cell.get("level")
        yield f"{'#' * (level if isinstance(level, int) and 0 < level < 7 else 1)} {source}"
    elif kind == "code":
        yield _fenced(source, language) if source.strip() else ""
        for result in cell.get("outputs") or []:
            if isinstance(result, dict) and (said := _printed(result)):
                yield _fenced(said[:_LONGEST_RESULT], "text")
    elif kind != "raw":
        yield source


def _printed(result: dict[str, Any]) -> str:
    data = result.get("data")
    plain = data.get("text/plain", "") if isinstance(data, dict) else ""
    return _joined(result.get("text") or plain).strip()


def _pictures(cell: dict[str, Any]) -> int:
    results = [each for each in cell.get("outputs") or [] if isinstance(each, dict)]
    datas = [each.get("data") for each in results]
    return sum(isinstance(data, dict) and any(kind in data for kind in _PICTURES) for data in datas)


def _joined(source: Any) -> str:
    if isinstance(source, list):
        return "".join(each for each in source if isinstance(each, str))
    return source if isinstance(source, str) else ""


def _fenced(code: str, language: str) -> str:
    ticks = max((len(found) for found in re.findall("`{3,}", code)), default=2) + 1
    return f"{'`' * ticks}{language}\n{code.rstrip()}\n{'`' * ticks}"
