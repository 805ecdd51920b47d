"""More than two hundred hostile texts in a real browser: nothing runs, nothing is fetched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from attacks import attacks, lines
from browsing import Watched, ask, command, needs_chromium, opened, serving, settled

pytestmark = needs_chromium
NAMES = [
    "<img src=x onerror=window.pwned=1>.md",
    '"><svg onload=window.pwned=1>.md',
    "javascript:window.pwned=1.md",
    "${window.pwned=1}.md",
    "'onmouseover='window.pwned=1.md",
]
KEEP = """async (texts) => {
    const { keepTurns, setCurrent } = await import("/static/conversations.js");
    const turns = texts.map((text, n) => ({
        question: text, app: text, id: `ans-${n}`, state: "done",
        sections: [{ title: text, text, state: "done" }, { title: text, text: `${text}\\n\\n${text}`, state: "done" }],
        sources: [{ n: 1, id: text, path: text, heading: text, title: text, trail: [text], text, page: text }],
        citations: [{ section: 0, n: 1, flags: [text] }],
        notices: [{ code: "x", text }], files: [{ id: "x", name: text }],
        done: { served_by: text, model: text, attempts: text, prompt: text, duration_s: 1, id: text },
        usage: { cost_usd: text, input_tokens: 1, output_tokens: 1 },
    }));
    for (let n = 0; n < texts.length; n += 40) await keepTurns(`many-${n}`, turns.slice(n, n + 40));
    for (const [n, turn] of turns.entries()) await keepTurns(`one-${n}`, [turn]);
    setCurrent(null);
}"""
UNSAFE = """() => {
    const found = [];
    for (const each of document.querySelectorAll("body *")) {
        if (["SCRIPT", "OBJECT", "EMBED", "STYLE", "LINK", "BASE", "META", "VIDEO", "AUDIO"].includes(each.tagName)) found.push(each.outerHTML);
        if (each.tagName === "IMG" && !each.src.endsWith("/static/icon.svg")) found.push(each.outerHTML);
        if (each.tagName === "IFRAME" && !each.src.endsWith("/static/diagram.html")) found.push(each.outerHTML);
        for (const { name, value } of each.attributes)
            if (/^on/i.test(name) || (/^(href|src|action|formaction|xlink:href)$/i.test(name) && !/^(https?:|static\\/|#|blob:)/.test(value)))
                found.push(`${each.tagName} ${name}=${value}`);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "docs").mkdir()
    for n, name in enumerate(NAMES):
        heading = attacks()[n]
        (folder / "docs" / name).write_text(
            f"# {heading}\n\n## Pelicans {heading}\n\nPelicans eat herring {n}. {heading}\n"
        )
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    text = "\n\n".join([*attacks(), "The end [1]."])
    (folder / "answer.txt").write_text(text)
    mock = command(folder / "mock.log", "mock", "--port", "0", "--tpot", "0.0005", "--text", text)
    with mock as url:
        model = f'{{base_url: "{url}/v1", name: mock-model}}'
        (folder / "slipway.yaml").write_text(
            f"models: {{m: {model}}}\napps: {{docs: {{knowledge: [./docs], route: m}}}}\n"
        )
        with serving(folder / "server.log", "--config", "slipway.yaml") as found:
            yield found


def nothing_happened(page: Page) -> None:
    """The `watched` fixture sees to requests, policy breaches and `window.pwned`."""
    unsafe: list[Any] = page.evaluate(UNSAFE)
    assert unsafe == []


def test_there_are_two_hundred_of_them() -> None:
    assert len(set(attacks())) >= 200
    assert all(lines(text) for text in attacks())


def test_hostile_conversations_are_only_text(watched: Watched, server: str) -> None:
    """As answers, questions, titles, headings, names of documents, notices and facts."""
    page = watched.page
    page.on("dialog", lambda dialog: watched.errors.append(f"dialog: {dialog.message}"))
    opened(page, server)
    page.evaluate(KEEP, attacks())
    page.reload()
    rows = page.locator("#side-list li")
    expect(rows).to_have_count(len(attacks()) + -(-len(attacks()) // 40))
    nothing_happened(page)
    for n in range(0, len(attacks()), 40):
        page.evaluate(
            """async (id) => {
            const { fresh, restore } = await import("/static/talk.js");
            fresh();
            await restore(id);
        }""",
            f"many-{n}",
        )
        expect(page.locator(".turn")).to_have_count(min(40, len(attacks()) - n))
        for trigger in page.locator(".found .place").all()[:3]:
            trigger.click()
            expect(page.locator(".passage")).to_be_visible()
            nothing_happened(page)
        nothing_happened(page)
    page.wait_for_timeout(500)
    watched.errors[:] = [error for error in watched.errors if "404" not in error]  # their passages


def test_a_hostile_answer_is_only_text_while_it_streams(watched: Watched, server: str) -> None:
    page = watched.page
    opened(page, server)
    ask(page, "What do pelicans eat?")
    expect(page.locator(".turn .block").nth(20)).to_be_visible()
    nothing_happened(page)
    expect(page.locator(".turn .how")).to_be_visible(timeout=60_000)
    nothing_happened(page)
    page.locator(".place").first.click()
    expect(page.locator(".passage .path")).to_contain_text(".md")
    nothing_happened(page)
    page.keyboard.press("Escape")
    page.locator("#documents-open").click()
    expect(page.get_by_role("dialog", name="Documents of docs")).to_contain_text(NAMES[0])
    nothing_happened(page)
    page.reload()
    settled(page)
    nothing_happened(page)
