"""Recognise the text of scanned PDF pages: optional (the extra `ocr`), and off by default.

The engine is RapidOCR (Apache-2.0) with the PP-OCRv4 models that its wheel holds; it reads Chinese
and English best. It runs in the child process that parses files, so its limits hold here as well.
"""

import time
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from slipway.knowledge.readers.document import one_line

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

    from slipway.knowledge.readers.pdf_text import TextLine

EXTRA = "slipway[ocr]"
MEMORY_MB = 3072  # the engine maps about 1 GB, and a large page needs as much again
_MODULE = "rapidocr_onnxruntime"
_DPI = 200
_LARGEST = 4000  # pixels of a page's longer side
_LEAST_SURE = 0.5  # lines that the engine trusts less are left out
_SAME_LINE = 0.5  # of a line's height


class _Switch:
    """Whether this process recognises text, and for how many seconds of each file."""

    budget_s = 0.0


def is_installed() -> bool:
    """Return whether the engine is installed."""
    return find_spec(_MODULE) is not None


def switch_on(budget_s: float) -> None:
    """Recognise text in this process, for at most `budget_s` of each file."""
    _Switch.budget_s = budget_s


class Recogniser:
    """Recognises the pages of one file until its time is up."""

    def __init__(self) -> None:
        self._until = time.monotonic() + _Switch.budget_s

    def is_on(self) -> bool:
        """Return whether another page may be recognised."""
        return time.monotonic() < self._until

    def lines(self, page: "PdfPage") -> "list[TextLine]":
        """Return the lines of a page from top to bottom; empty if the engine finds none."""
        width, height = page.get_size()
        scale = min(_DPI / 72, _LARGEST / max(width, height, 1))
        picture = page.render(scale=scale).to_numpy()[:, :, :3]
        found, _ = _engine()(picture)
        lines = [
            _line(box, text, height, scale)
            for box, text, sure in found or ()
            if float(sure) >= _LEAST_SURE and text.strip()
        ]
        return sorted(lines, key=lambda line: (-round(line.bottom / (_SAME_LINE * 12)), line.left))


def _line(box: Any, text: str, height: float, scale: float) -> "TextLine":
    # here, since the server loads this module and needs no PDF library
    from slipway.knowledge.readers.pdf_text import TextLine

    across, down = [float(x) / scale for x, _ in box], [float(y) / scale for _, y in box]
    top, bottom = height - min(down), height - max(down)
    return TextLine(
        text=one_line(text),
        left=min(across),
        right=max(across),
        bottom=bottom,
        top=top,
        size=round((top - bottom) * 0.75, 0),  # the box is higher than its letters
        bold=False,
    )


@cache
def _engine() -> Any:
    from rapidocr_onnxruntime import RapidOCR  # loads its models in 3 s

    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
