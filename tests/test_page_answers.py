"""What the page makes of long answers, of what readers say of them, and of languages: real server,
mock provider, headless Chromium.
"""

import json
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

import plain_http
from browsing import (
    DESK,
    PHONE,
    SMALL,
    Watched,
    answer_text,
    ask,
    command,
    kept,
    looked_at,
    needs_chromium,
    opened,
    serving,
    settled,
    tab_to,
)
from processes import ROOT, run
from slipway.catalogue import CATALOGUE
from slipway.feedback import REASONS

pytestmark = needs_chromium
DOCUMENTS = {
    "leave.md": "# Leave\n\n## How many days of leave are there?\n\nEveryone has 30 days of leave a year.\n",
    "travel.md": "# Travel\n\n## Which trains may I book?\n\nTrains of first class may be booked for trips over three hours.\n",
    "parking.md": "# Parking\n\n## Where may I park?\n\nCars may park in garage 4, behind the bakery.\n",
}
TITLES = [
    "How many days of leave are there?",
    "Which trains may I book?",
    "Where may I park my car?",
]
THREE = " ".join(TITLES)
BLOCKS = "There are **30 days** of leave [1].\n\nThey may be taken in summer, in winter, and in every other season of the year, says the handbook [1]."
SETTINGS = """\
models:
  slow: {{base_url: "{slow}/v1", name: say-30, price: {{input: 1, output: 2}}}}
  once: {{base_url: "{once}/v1", name: mock-model}}
  blocks: {{base_url: "{blocks}/v1", name: mock-model}}
apps:
  docs: {{knowledge: [./docs], route: slow}}
  breaking: {{knowledge: [./docs], route: once}}
  marked: {{knowledge: [./docs], route: blocks}}
  quotes: {{knowledge: [./docs]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """`docs` begins after 1.2 s and writes a section in 3 s, `breaking` breaks off in its second
    call, `quotes` has no model.
    """
    slow = command(folder / "slow.log", "mock", "--port", "0", "--ttft", "1.2", "--tpot", "0.1")
    once = command(
        folder / "once.log", "mock", "--port", "0", "--tokens", "30", "--script", "cut-9@2"
    )
    blocks = command(
        folder / "blocks.log", "mock", "--port", "0", "--tpot", "0.08", "--text", BLOCKS
    )
    with slow as slow_url, once as once_url, blocks as blocks_url:
        (folder / "slipway.yaml").write_text(
            SETTINGS.format(slow=slow_url, once=once_url, blocks=blocks_url)
        )
        (folder / "mocks.json").write_text(json.dumps({"slow": slow_url, "once": once_url}))
        with serving(folder / "server.log", "--config", "slipway.yaml") as url:
            yield url


def calls(folder: Path, mock: str) -> int:
    """How many answers that mock was asked for."""
    url = json.loads((folder / "mocks.json").read_text())[mock]
    return sum(
        each["path"].endswith("/chat/completions")
        for each in plain_http.get(f"{url}/requests").json()
    )


def states(page: Page) -> list[str]:
    return page.locator(".outline .state").all_text_contents()


def part(page: Page, n: int) -> Locator:
    return page.locator(".turn").last.locator(".part").nth(n)


def until(page: Page, n: int, least: int) -> None:
    """Section `n` has so many characters."""
    page.wait_for_function(
        "([n, least]) => (document.querySelectorAll('.turn:last-child .part .text')[n]?.textContent.length ?? 0) > least",
        arg=[n, least],
    )


def whole(page: Page, url: str) -> dict[str, Any]:
    found: dict[str, Any] = plain_http.get(f"{url}/v1/answers/{kept(page)[-1]['id']}").json()
    return found


def is_whole(page: Page, url: str) -> None:
    """What the browser keeps is the answer that the server has."""
    answer = whole(page, url)
    sections = [answer["text"][s["start"] : s["end"]] for s in answer["sections"]]
    assert [section["text"] for section in kept(page)[-1]["sections"]] == sections


def choose(page: Page, menu: str, item: str) -> None:
    page.get_by_role("button", name=menu, exact=True).last.click()
    page.get_by_role("menuitem", name=item).click()


# Sections and progress


def test_what_was_found_is_there_before_a_word_is_written(page: Page, server: str) -> None:
    opened(page, server, "docs")
    ask(page, THREE)
    expect(page.locator(".found .place").first).to_be_visible()
    expect(page.locator(".progress")).to_contain_text("Writing the answer: section 1 of 3…")
    assert answer_text(page) == "".join(TITLES)  # no text yet
    assert page.locator(".found .place").count() == len(DOCUMENTS)
    settled(page)


def test_sections_come_in_order_with_an_outline_that_goes_to_them(
    page: Page, server: str, folder: Path
) -> None:
    before = calls(folder, "slow")
    opened(page, server, "docs")
    ask(page, THREE)
    expect(page.get_by_role("navigation", name="Sections").get_by_role("button")).to_have_count(3)
    assert states(page) == ["writing", "waiting", "waiting"]
    until(page, 0, 20)
    assert page.locator(".part .text").nth(2).text_content() == ""
    settled(page)
    assert states(page) == ["done"] * 3
    expect(page.locator(".answer h3")).to_have_text(TITLES)
    is_whole(page, server)
    assert calls(folder, "slow") == before + 3
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.locator(".outline button").nth(2).click()
    heading = page.get_by_role("heading", name=TITLES[2], exact=True)
    expect(heading).to_be_focused()
    expect(heading).to_be_in_viewport()


def test_markdown_and_citations_are_shown_while_the_rest_is_written(
    page: Page, server: str
) -> None:
    opened(page, server, "marked")
    ask(page, TITLES[0])
    expect(page.locator(".block strong")).to_have_text("30 days")
    expect(page.locator(".block .mark")).to_have_count(1)
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    settled(page)
    expect(page.locator(".block .mark")).to_have_count(2)


def test_screen_readers_are_told_of_sections_and_never_more_than_one_thing_in_two_seconds(
    page: Page, server: str
) -> None:
    opened(page, server, "docs")
    page.evaluate("""() => {
        window.spoken = [];
        const all = { childList: true, characterData: true, subtree: true };
        for (const region of document.querySelectorAll("[role=status], [aria-live]"))
            new MutationObserver(() => spoken.push([performance.now(), region.textContent])).observe(region, all);
    }""")
    ask(page, THREE)
    settled(page)
    expect(page.get_by_role("status")).to_contain_text("The answer is complete, with 3 sources.")
    spoken: list[tuple[float, str]] = page.evaluate("window.spoken")
    assert all(after - before >= 1990 for (before, _), (after, _) in pairwise(spoken))
    assert len(spoken) >= 2
    words = answer_text(page).split()[6:12]
    assert not any(" ".join(words) in text for _, text in spoken)


def test_a_tab_reloaded_in_the_middle_reads_on_without_another_call(
    page: Page, server: str, folder: Path
) -> None:
    before = calls(folder, "slow")
    opened(page, server, "docs")
    ask(page, THREE)
    until(page, 0, 30)
    page.reload()
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    settled(page)
    expect(page.locator(".turn")).to_have_count(1)
    is_whole(page, server)
    assert whole(page, server)["state"] == "done"
    assert calls(folder, "slow") == before + 3


def test_a_section_that_failed_says_so_in_its_place_and_is_the_only_one_tried_again(
    page: Page, server: str, folder: Path
) -> None:
    opened(page, server, "breaking")
    ask(page, THREE)
    alert = page.get_by_role("alert")
    expect(alert).to_have_count(1)
    expect(page.locator(".outline .failed")).to_have_count(1)
    assert sorted(states(page)) == ["done", "done", "failed"]
    failed = states(page).index("failed")
    texts = [part(page, n).locator(".text").inner_text() for n in range(3)]
    expect(part(page, failed).get_by_role("alert")).to_be_visible()
    before = calls(folder, "once")
    looked_at(page, "failed-section")
    part(page, failed).get_by_role("button", name="Try again").click()
    settled(page)
    expect(alert).to_have_count(0)
    assert calls(folder, "once") == before + 1
    is_whole(page, server)
    assert all(
        part(page, n).locator(".text").inner_text() == texts[n] for n in range(3) if n != failed
    )


def test_what_answered_is_told_on_demand(page: Page, server: str) -> None:
    opened(page, server, "docs")
    ask(page, TITLES[0])
    settled(page)
    facts = page.locator(".how dl")
    expect(facts).to_be_hidden()
    page.locator(".how summary").click()
    shown = dict(
        zip(
            facts.locator("dt").all_text_contents(),
            facts.locator("dd").all_text_contents(),
            strict=True,
        )
    )
    answer = whole(page, server)
    assert shown["Answered by"] == "a model"
    assert shown["Model"] == "slow"
    assert shown["Reference"] == answer["id"]
    assert shown["Cost"] == f"{answer['cost_usd']} USD"
    assert shown["Tokens"].startswith(f"{answer['usage']['input_tokens']} read, 30 written")
    assert shown["First words after"].endswith(" s")
    assert shown["Calls to models"] == "1"


# Taking answers along


def test_an_answer_is_copied_with_its_sources(
    page: Page, context: BrowserContext, server: str
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, server, "quotes")
    ask(page, TITLES[0])
    settled(page)
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.get_by_role("button", name="Copy the answer")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{whole(page, server)['text']}\n\nSources:\n\n[1] leave.md, {TITLES[0]}"


def test_where_the_browser_does_not_copy_the_text_is_selected(page: Page, server: str) -> None:
    page.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', { value: { writeText: async () => { throw new Error('no') } } })"
    )
    opened(page, server, "quotes")
    ask(page, TITLES[0])
    settled(page)
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator(".toast")).to_contain_text("press Ctrl+C")
    assert "30 days" in page.evaluate("getSelection().toString()")


def test_a_conversation_is_exported_as_markdown(page: Page, server: str) -> None:
    opened(page, server, "quotes")
    for question in TITLES[:2]:
        ask(page, question)
        settled(page)
    with page.expect_download() as download:
        choose(page, "More", "Export as Markdown")
    assert download.value.suggested_filename.endswith(".md")
    text = download.value.path().read_text()
    for question in TITLES[:2]:
        assert f"\n## {question}\n" in text
    assert "30 days of leave" in text
    assert "[1] travel.md, Which trains may I book?" in text


# FeedbackRoutes


def said(folder: Path) -> list[dict[str, Any]]:
    """What `slipway feedback list` shows, while the server runs."""
    listed = run("feedback", "list", "--json", "--config", "slipway.yaml", cwd=folder)
    assert listed.returncode == 0, listed.stderr
    rows: list[dict[str, Any]] = json.loads(listed.stdout)
    return rows


def answered(page: Page, server: str) -> str:
    opened(page, server, "quotes")
    ask(page, TITLES[0])
    settled(page)
    answer_id: str = kept(page)[-1]["id"]
    return answer_id


def test_a_vote_with_reasons_and_a_comment_is_kept(page: Page, server: str, folder: Path) -> None:
    answer_id = answered(page, server)
    group = page.get_by_role("group", name="Was this helpful?")
    group.get_by_role("button", name="No").click()
    expect(page.locator(".opinion .said")).to_have_text("Feedback saved.")
    expect(page.get_by_role("checkbox").first).to_be_focused()
    assert page.get_by_role("checkbox").count() == len(REASONS)
    page.get_by_label("It is out of date").check()
    page.get_by_label("Comment").fill("It is 28 days since June.")
    looked_at(page, "opinion", sizes=[DESK, SMALL, PHONE])
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("checkbox")).to_have_count(0)
    expect(group.get_by_role("button", name="No")).to_be_focused()
    expect(group.get_by_role("button", name="No")).to_have_attribute("aria-pressed", "true")
    looked_at(page, "opinion-sent", sizes=[DESK, PHONE])
    row = next(row for row in said(folder) if row["answer"] == answer_id)
    assert (row["helpful"], row["reasons"], row["comment"]) == (
        False,
        ["outdated"],
        "It is 28 days since June.",
    )
    assert row["question"] == TITLES[0]
    page.reload()
    settled(page)
    expect(group.get_by_role("button", name="No")).to_have_attribute("aria-pressed", "true")


def test_a_vote_is_changed_and_taken_back(page: Page, server: str, folder: Path) -> None:
    answer_id = answered(page, server)
    yes = page.get_by_role("group", name="Was this helpful?").get_by_role("button", name="Yes")
    yes.click()
    expect(yes).to_have_attribute("aria-pressed", "true")
    assert [row["helpful"] for row in said(folder) if row["answer"] == answer_id] == [True]
    yes.click()
    expect(page.locator(".opinion .said")).to_have_text("Your vote was removed.")
    expect(yes).to_have_attribute("aria-pressed", "false")
    assert [row for row in said(folder) if row["answer"] == answer_id] == []


def test_a_problem_is_reported_with_words(page: Page, server: str, folder: Path) -> None:
    answer_id = answered(page, server)
    report = page.get_by_role("button", name="More actions")
    choose(page, "More actions", "Report a problem")
    expect(page.get_by_label("What is the problem?")).to_be_focused()
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".opinion .said")).to_have_text("Please say what the problem is.")
    page.get_by_label("What is the problem?").fill("It names a colleague.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".opinion .said")).to_have_text("Report saved.")
    expect(report).to_be_focused()
    assert [
        (row["kind"], row["comment"]) for row in said(folder) if row["answer"] == answer_id
    ] == [("report", "It names a colleague.")]
    choose(page, "More actions", "Report a problem")
    page.keyboard.press("Escape")
    expect(page.get_by_label("What is the problem?")).to_have_count(0)
    expect(report).to_be_focused()


def test_a_vote_that_did_not_come_through_can_be_tried_again(
    watched: Watched, context: BrowserContext, server: str, folder: Path
) -> None:
    page = watched.page
    answer_id = answered(page, server)
    context.set_offline(True)
    page.get_by_role("group", name="Was this helpful?").get_by_role("button", name="Yes").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".opinion .said")).to_have_text("Feedback saved.")
    expect(alert).to_have_count(0)
    assert [row["helpful"] for row in said(folder) if row["answer"] == answer_id] == [True]
    watched.errors.clear()


# Languages


def section_of(heading: str) -> str:
    """A section of docs/api.md."""
    return (ROOT / "docs" / "api.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


def words(page: Page, server: str) -> dict[str, dict[str, Any]]:
    """Both dictionaries, with functions as their arity."""
    page.goto(server)
    found: dict[str, dict[str, Any]] = page.evaluate("""async () => {
        const plain = (value) => typeof value === "function" ? "()" : Array.isArray(value) || typeof value !== "object" ? value
            : Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
        const [en, zh] = await Promise.all(["english", "chinese"].map((name) => import(`/static/${name}.js`)));
        return { en: plain(en.default), zh: plain(zh.default) };
    }""")
    return found


def test_both_languages_have_the_same_words(page: Page, server: str) -> None:
    both = words(page, server)
    own = ("notices",)  # the server says them in English
    assert {
        k: v.keys() if isinstance(v, dict) and k not in own else None for k, v in both["en"].items()
    } == {
        k: v.keys() if isinstance(v, dict) and k not in own else None for k, v in both["zh"].items()
    }
    assert both["en"]["reasons"].keys() == REASONS.keys()
    assert both["zh"]["notices"].keys() == set(
        re.findall(r"^\| `(\w+)` \|", section_of("What does a notice say?"), re.MULTILINE)
    )
    assert (
        not both["en"]["failures"].keys() & CATALOGUE.keys()
    )  # what the server finds, it says itself


def test_chinese_by_the_browsers_language(browser: Browser, server: str) -> None:
    context = browser.new_context(
        locale="zh-CN", viewport={"width": PHONE[0], "height": PHONE[1]}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(server)
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("heading", name="您想了解什么？")).to_be_visible()
    page.get_by_label("回答来自").select_option("docs")
    page.get_by_label("您的问题").fill(THREE)
    page.keyboard.press("Enter")
    expect(page.locator(".progress")).to_contain_text("正在撰写回答：第 1 节，共 3 节…")
    looked_at(page, "chinese-writing", sizes=[PHONE])
    settled(page)
    expect(page.get_by_role("navigation", name="各节")).to_be_visible()
    expect(page.get_by_role("group", name="这个回答有帮助吗？")).to_be_visible()
    looked_at(page, "chinese", sizes=[DESK, SMALL, PHONE])
    page.goto(f"{server}/?lang=en")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    context.close()


# Phones, keys, looks


def test_it_can_be_installed_on_a_phone(page: Page, server: str) -> None:
    page.goto(server)
    manifest = plain_http.get(f"{server}/static/manifest.webmanifest").json()
    assert (manifest["display"], manifest["name"]) == ("standalone", "Slipway")
    pictures = {icon["sizes"]: icon for icon in manifest["icons"] if icon["type"] == "image/png"}
    for size in ("192x192", "512x512"):
        data = plain_http.get(f"{server}/static/{pictures[size]['src']}").content
        assert "maskable" in pictures[size]["purpose"]
        assert "x".join(map(str, struct.unpack(">II", data[16:24]))) == size
    assert page.locator("link[rel=apple-touch-icon]").get_attribute("href") == "static/icon-180.png"
    assert plain_http.get(f"{server}/static/icon-180.png").headers["content-type"] == "image/png"


def test_sections_passages_and_opinions_by_keys_alone(page: Page, server: str) -> None:
    opened(page, server, "docs")
    ask(page, THREE)
    settled(page)
    page.locator(".question").last.focus()
    tab_to(page, f"{TITLES[0]}done", "Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=TITLES[1], exact=True)).to_be_focused()
    tab_to(page, "Source", "Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".passage")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".passage")).to_have_count(0)
    tab_to(page, "slow", "Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".how dl")).to_be_visible()
    tab_to(page, "No", "Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("checkbox").first).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox").first).to_be_checked()
    page.keyboard.press("Escape")
    expect(page.get_by_role("checkbox")).to_have_count(0)
    tab_to(page, "More actions", "Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.get_by_label("What is the problem?")).to_be_focused()
    page.keyboard.type("Too long.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".opinion .said")).to_have_text("Report saved.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_state_is_accessible_and_fits_a_phone(page: Page, server: str, scheme: str) -> None:
    page.emulate_media(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    opened(page, server, "docs")
    ask(page, THREE)
    expect(page.locator(".found .place").first).to_be_visible()
    looked_at(page, f"searching-{scheme}", sizes=[DESK, SMALL])
    until(page, 0, 20)
    looked_at(page, f"partial-{scheme}", sizes=[DESK, SMALL])
    settled(page)
    page.locator(".how summary").click()
    page.locator(".answer .mark").first.click()
    looked_at(page, f"sections-{scheme}", sizes=[DESK, SMALL, PHONE])
    page.get_by_label("Answers come from").select_option("quotes")
    ask(page, "Which quantum theorem did Noether prove about seals?")
    settled(page)
    looked_at(page, f"abstained-{scheme}", sizes=[DESK, SMALL])
    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#empty")).to_be_visible()
    looked_at(page, f"conversations-{scheme}", sizes=[DESK, SMALL])
