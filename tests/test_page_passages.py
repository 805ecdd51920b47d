"""Passages in the page: as the document is, with the ones beside them, and the PDF at its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fpdf import FPDF
from playwright.sync_api import Page, expect

import plain_http
from browsing import DESK, PHONE, ask, looked_at, needs_chromium, opened, serving, settled

DOCUMENTS = {
    "guide.md": """\
# Guide

## Mooring

Moor with **two lines** and *double* them.

| Length | Fee |
|---|---|
| up to 10 m | 18 euro |

```python
def fee(length):
    return length * 1.8
```

## Leaving

Call the harbor master before you leave.
""",
}

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passages")
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text)
    pdf = FPDF()
    for text in ("Anchors weigh ten kilograms.", "Ropes are forty metres long and made of nylon."):
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        pdf.multi_cell(0, 8, text)
    pdf.output(str(folder / "docs" / "gear.pdf"))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with serving(folder / "server.log", "--docs", "docs") as url:
        yield url


def opened_passage(page: Page, server: str, question: str) -> None:
    opened(page, server)
    ask(page, question)
    settled(page)
    page.locator(".answer .mark").first.click()
    expect(page.locator(".passage .steps")).to_be_visible()


def test_a_passage_looks_as_in_its_document_and_what_is_quoted_is_marked(
    page: Page, server: str
) -> None:
    opened_passage(page, server, "How do I moor, with how many lines?")
    passage = page.locator(".passage .text")
    expect(passage.locator("strong")).to_have_text("two lines")
    expect(passage.locator("table th").first).to_have_text("Length")
    expect(passage.locator(".code .bar")).to_contain_text("python")
    marked = "".join(passage.locator("mark").all_text_contents())
    assert marked == "Moor with two lines and double them."
    looked_at(page, "passage-rendered", sizes=[DESK, PHONE])


def test_the_passages_beside_it_are_read_by_keys(page: Page, server: str) -> None:
    opened_passage(page, server, "How do I moor, with how many lines?")
    passage = page.locator(".passage")
    after = passage.get_by_role("button", name="Next passage")
    before = passage.get_by_role("button", name="Previous passage")
    expect(before).to_be_disabled()
    after.press("Enter")
    expect(passage.locator(".heading")).to_have_text("Leaving")
    expect(after).to_be_disabled()
    before.press("Enter")
    expect(passage.locator(".heading")).to_have_text("Mooring")


def test_a_pdf_opens_at_the_page_of_the_passage(page: Page, server: str) -> None:
    page.add_init_script("window.open = () => (window.tab = {});")
    opened_passage(page, server, "How long are ropes, and what are they made of?")
    expect(page.locator(".passage .path")).to_have_text("gear.pdf, page 2")
    with page.expect_response("**/v1/passages/*/file") as sent:
        page.get_by_role("button", name="Open the PDF at page 2").click()
    page.wait_for_function("window.tab.location")
    assert page.evaluate("window.tab.location").startswith("blob:")
    assert page.evaluate("window.tab.location").endswith("#page=2")
    assert sent.value.headers["content-type"] == "application/pdf"
    assert "sandbox" in sent.value.headers["content-security-policy"]


def test_a_file_is_only_for_who_may_read_its_document(folder: Path) -> None:
    (folder / "keys.yaml").write_text(
        "keys: [{key: sw-one-of-staff, groups: [staff]}, sw-somebody-else]\n"
        "store: sqlite:///keys.db\n"
        "apps: {docs: {knowledge: [./docs], access: [{path: '*.pdf', groups: [staff]}]}}\n"
    )
    with serving(folder / "keys.log", "--config", "keys.yaml", ready=False) as url:
        staff = {"authorization": "Bearer sw-one-of-staff"}
        body = {"question": "How long are ropes?", "app": "docs"}
        found = plain_http.post(f"{url}/v1/answers", json=body, headers=staff, timeout=30).json()
        passage = next(s["id"] for s in found["sources"] if s["path"] == "gear.pdf")
        file = f"{url}/v1/passages/{passage}/file"
        assert plain_http.get(file, headers=staff).content.startswith(b"%PDF")
        other = {"authorization": "Bearer sw-somebody-else"}
        assert plain_http.get(file, headers=other).status_code == 404
        assert plain_http.get(file).status_code == 401
