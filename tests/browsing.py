"""Open the chat page in headless Chromium, and look at it as a reader does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import plain_http
from processes import START_S, started
from waiting import PATIENCE_S, until

SHELL = Path("/usr/bin/chromium-headless-shell")  # without the windows of a browser: half the work
CHROMIUM = SHELL if SHELL.exists() else Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
OUT = Path(__file__).parent / ".out"
DESK, PHONE, SMALL = (1280, 800), (390, 844), (360, 640)
keeps_screenshots = False  # set by `--screenshots`
expect.set_options(timeout=PATIENCE_S * 1000)

REPORT_BREACHES = """addEventListener("securitypolicyviolation", (breach) => {
    const { blockedURI, sourceFile, lineNumber, sample } = breach;
    console.error(`policy: ${blockedURI} ${sourceFile}:${lineNumber} ${sample}`);
})"""

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(),
    reason=f"Chromium is not installed at {CHROMIUM}: apt-get install chromium-headless-shell",
)


class Watched(NamedTuple):
    """A page, and what must stay empty: requests that left for other hosts, errors, and breaches of
    the policy.
    """

    page: Page
    strayed: list[str]
    errors: list[str]


@contextmanager
def command(log: Path, *arguments: str) -> Iterator[str]:
    """Run `slipway ARGUMENTS`, and give the address that it prints."""
    with started(log, *arguments, cwd=log.parent) as (_, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def serving(log: Path, *arguments: str, ready: bool = True) -> Iterator[str]:
    """Run `slipway serve ARGUMENTS`, with `ready` until its documents can be searched."""
    with command(log, "serve", "--port", "0", *arguments) as url:
        if ready:
            until(lambda: _is_ready(url), START_S)
        yield url


def _is_ready(url: str) -> bool:
    state = plain_http.get(f"{url}/readyz", timeout=PATIENCE_S)
    knowledge = state.json()["knowledge"].values()
    return state.status_code == 200 and all(each["ready"] for each in knowledge)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Open Chromium for the tests of a file: while it is open, no test may call `asyncio.run`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    width, height = DESK
    context = browser.new_context(
        viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    yield context
    context.close()


@pytest.fixture
def watched(context: BrowserContext) -> Iterator[Watched]:
    """Open a page that may speak with its own server only. It fails the test if it meets an error
    that the test has not removed from its list.
    """
    found = Watched(context.new_page(), [], [])
    found.page.on(
        "request",
        lambda r: None if urlsplit(r.url).hostname == "127.0.0.1" else found.strayed.append(r.url),
    )
    found.page.on(
        "console", lambda m: found.errors.append(m.text) if m.type in ("error", "warning") else None
    )
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.add_init_script(REPORT_BREACHES)
    yield found
    assert found.strayed == [], found.strayed
    assert found.errors == [], found.errors
    assert found.page.evaluate("window.pwned") is None


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def opened(page: Page, url: str, app: str | None = None) -> None:
    page.goto(url)
    expect(page.locator("#empty")).to_be_visible()
    if app:
        page.get_by_label("Answers come from").select_option(app)


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def settled(page: Page) -> None:
    """Wait until the last answer is complete."""
    expect(page.locator(".turn").last.locator(".how")).to_be_visible()


def kept(page: Page) -> list[dict[str, Any]]:
    """Return the turns of the conversation that this tab shows, as the browser keeps them."""
    found: list[dict[str, Any]] = page.evaluate("""async () => {
        const { currentId, turnsOf } = await import("/static/conversations.js");
        const { keep } = await import("/static/talk.js");
        await keep();
        return await turnsOf(currentId());
    }""")
    return found


def answer_text(page: Page) -> str:
    return page.locator(".turn").last.locator(".answer").text_content() or ""


def tab_to(page: Page, name: str, key: str) -> None:
    """Presses `key` until a visible focus ring is around what is called `name`."""
    for _ in range(20):
        page.keyboard.press(key)
        found, outline = page.evaluate(
            "(({ ariaLabel, textContent }, { outlineStyle }) => [ariaLabel ?? textContent, outlineStyle])"
            "(document.activeElement, getComputedStyle(document.activeElement))"
        )
        if found.startswith(name):
            assert outline == "solid", f"{found} shows no focus"
            return
    raise AssertionError(f"{name} was not reached")


def looked_at(
    page: Page, name: str, sizes: Sequence[tuple[int, int]] = (DESK, SMALL, PHONE)
) -> None:
    """Fail if the page is wider than its window in one of these sizes, or not accessible. With
    `--screenshots`, what it looks like is kept under tests/.out.
    """
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{name} is wider than {width} px"
        )
        if keeps_screenshots:
            page.screenshot(path=OUT / f"{name}-{width}x{height}.png")
    axe_finds_nothing(page)


def axe_finds_nothing(page: Page) -> None:
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    violations = [(each["id"], [node["target"] for node in each["nodes"]]) for each in found]
    assert violations == [], violations
