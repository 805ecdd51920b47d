"""How answers are rendered while they arrive: Markdown, code, tables, formulas and diagrams."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browsing import (
    DESK,
    PHONE,
    SMALL,
    Watched,
    ask,
    command,
    looked_at,
    needs_chromium,
    opened,
    serving,
    settled,
)

STATIC = Path(__file__).parents[1] / "src/slipway/web/static"
DOCUMENT = "# Harbor\n\n## Berths\n\nThe harbor master assigns a berth.\n"
QUESTION = "How are berths assigned?"
ANSWER = """\
# A heading

First **bold**, ~~struck out~~, https://example.org/a_b and a citation [1] in the middle, `code [1]`[^note].
中文**粗体。**后面 [1]。

- [x] done
- [ ] open
  - nested

1. one
2. two

| Left | Right | Mid |
|:---|---:|:-:|
| a | 1 | harbor_master_and_crew |
| harbor_master_and_crew_of_the_breakwater | 22222 | y |

```python
def fee(length: float) -> float:
    return length * 1.8  # a line that is longer than a phone is wide, so that it has to scroll in itself
```

The formula $e^{i\\pi} + 1 = 0$ costs $5 and $10.

$$\\int_0^1 x^2\\,dx = \\frac13$$

```mermaid
graph LR
  A[Start] --> B[End]
```

مرحبا بالعالم

[^note]: The note.

The end.
"""

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("rendering")
    (folder / "docs").mkdir()
    (folder / "docs" / "harbor.md").write_text(DOCUMENT)
    slow = command(folder / "slow.log", "mock", "--port", "0", "--tpot", "0.01", "--text", ANSWER)
    held = command(
        folder / "held.log", "mock", "--port", "0", "--tpot", "0.12",
        "--text", "Some text [1] in a block that goes on **and on** for a while.\n\n"
        "```python\ndef first():\n    return 1\n\n\ndef second():\n    return 2\n```\n\nDone, at last.",
    )  # fmt: skip
    with slow as slow_url, held as held_url:
        rows = f'm: {{base_url: "{slow_url}/v1", name: mock-model}}, h: {{base_url: "{held_url}/v1", name: mock-model}}'
        apps = "docs: {knowledge: [./docs], route: m}, held: {knowledge: [./docs], route: h}"
        (folder / "slipway.yaml").write_text(f"models: {{{rows}}}\napps: {{{apps}}}\n")
        with serving(folder / "server.log", "--config", "slipway.yaml") as url:
            yield url


def test_every_kind_of_block_is_rendered(page: Page, server: str) -> None:
    opened(page, server, "docs")
    ask(page, QUESTION)
    settled(page)
    answer = page.locator(".answer")
    expect(answer.locator("h3")).to_have_text(["", "A heading"])
    expect(answer.locator("s")).to_have_text("struck out")
    expect(answer.get_by_role("link")).to_have_attribute("href", "https://example.org/a_b")
    expect(answer.locator(".mark")).to_have_count(2)
    expect(answer.locator("strong")).to_have_text(["bold", "粗体。"])
    boxes = answer.locator(".task-list-item > input")
    assert [box.is_checked() for box in boxes.all()] == [True, False]
    assert (
        answer.locator("ol").evaluate("(list) => getComputedStyle(list).listStyleType") == "decimal"
    )
    assert (
        answer.locator("ul ul").evaluate("(list) => getComputedStyle(list).listStyleType")
        == "circle"
    )
    alignments = answer.locator("tbody tr").first.locator("td")
    assert [
        cell.evaluate("(td) => getComputedStyle(td).textAlign") for cell in alignments.all()
    ] == ["start", "right", "center"]
    expect(answer.locator(".code .bar span").first).to_have_text("python")
    expect(answer.locator(".hljs-keyword").first).to_have_text("def")
    expect(answer.locator(".katex").first).to_be_visible()
    expect(answer.locator(".katex-display")).to_be_visible()
    expect(answer).to_contain_text("costs $5 and $10.")
    expect(answer.locator("iframe.drawn")).to_be_visible()
    expect(answer.locator("sup")).to_have_text("1")
    expect(answer.locator(".footnote")).to_contain_text("The note.")
    arabic = answer.locator("p", has_text="مرحبا")
    expect(arabic).to_have_count(1)
    assert arabic.evaluate("(p) => getComputedStyle(p).direction") == "rtl"
    looked_at(page, "rendered", sizes=[DESK, (768, 1024), PHONE, SMALL])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_wide_code_and_tables_scroll_in_themselves(page: Page, server: str, scheme: str) -> None:
    page.emulate_media(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    page.set_viewport_size({"width": SMALL[0], "height": SMALL[1]})
    opened(page, server, "docs")
    ask(page, QUESTION)
    settled(page)
    for wide in (page.get_by_role("region", name="Code"), page.get_by_role("region", name="Table")):
        wide.first.focus()
        assert wide.first.evaluate("(each) => each.scrollWidth > each.clientWidth")
    looked_at(page, f"rendered-{scheme}", sizes=[SMALL, DESK])


def test_code_has_its_language_and_a_copy_button_while_it_streams(page: Page, server: str) -> None:
    opened(page, server, "held")
    ask(page, QUESTION)
    expect(page.locator(".answer .mark")).to_have_count(1)  # in the middle of a block
    expect(page.locator(".answer .code .bar")).to_contain_text("python")
    expect(page.locator(".answer .copy")).to_be_visible()
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    assert "second" not in (page.locator(".answer code").text_content() or "")
    settled(page)
    expect(page.locator(".answer code")).to_contain_text("second")


def test_blocks_that_are_final_are_drawn_once(page: Page, server: str) -> None:
    """The reader's selection and place survive what arrives behind them."""
    opened(page, server, "held")
    ask(page, QUESTION)
    first = page.locator(".answer .block").first
    expect(page.locator(".answer .code")).to_be_visible()
    first.evaluate("""(block) => {
        window.first = block.firstElementChild;
        window.changes = 0;
        new MutationObserver((found) => (changes += found.length)).observe(block, { childList: true, subtree: true, characterData: true });
        getSelection().selectAllChildren(block);
    }""")
    settled(page)
    assert page.evaluate("[first.isConnected, changes]") == [True, 0]
    assert "Some text" in page.evaluate("getSelection().toString()")


PIECES = """async ([text, step]) => {
    const { Stream } = await import("/static/stream.js");
    const { blocksOf } = await import("/static/markdown.js");
    const options = () => ({ isSource: (n) => n === 1, furnish: () => {}, settled: () => {} });
    await import("/static/vendor/remend.js");
    const home = document.createElement("div");
    const whole = document.createElement("div");
    const stream = new Stream(home, options());
    for (let end = 0; end < text.length; end += step) {
        stream.update(text.slice(0, end), false);
        if (end % 50 < step) await new Promise((resolve) => setTimeout(resolve));
    }
    stream.update(text, true);
    new Stream(whole, options()).update(text, true);
    return [home.innerHTML, whole.innerHTML];
}"""
CASES = [
    ANSWER,
    "1. a\n\n2. b\n\n3. c\n\ntext\n\n- x\n\n- y\n",
    "a\n===\n\nb\n---\n\n> q\n> r\n\ns\n\n    code\n\n    more\n\nend",
    "x[^a] y[^b]\n\n[^b]: second\n\n[^a]: first\n    goes on\n\nz",
    "| a |\n|---|\n| b |\n\n**bold\n\n`code\n\n~~~\nfence\n\nnot closed",
    "$$\na + b\n\nc\n$$\n\n\\[ x \\]\n\ntext \\(y\\) and [1][1].",
]


@pytest.mark.parametrize("step", [1, 3, 17])
@pytest.mark.parametrize("text", CASES)
def test_however_a_text_arrives_it_ends_as_if_it_had_come_at_once(
    page: Page, server: str, text: str, step: int
) -> None:
    page.goto(server)
    pieces, whole = page.evaluate(PIECES, [text, step])
    assert pieces == whole


def test_vendored_files_are_what_the_list_says(watched: Watched) -> None:
    listed = (STATIC / "vendor" / "VENDORED.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", listed, re.MULTILINE)
    assert len(rows) >= 10
    for name, digest in rows:
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest, name
    scripts = {
        str(path.relative_to(STATIC / "vendor")) for path in (STATIC / "vendor").rglob("*.js")
    }
    assert scripts <= {name for name, _ in rows}
    assert len(list((STATIC / "vendor" / "licences").glob("*.txt"))) >= 10
