"""Conversations in the page: the list, what is kept of them, and what can be done with a turn."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

import plain_http
from browsing import (
    DESK,
    PHONE,
    SMALL,
    Watched,
    answer_text,
    ask,
    axe_finds_nothing,
    command,
    kept,
    looked_at,
    needs_chromium,
    opened,
    serving,
    settled,
)
from waiting import until

pytestmark = needs_chromium

DOCUMENTS = {
    "leave.md": "# Leave\n\n## Days of leave\n\nEveryone has 30 days of leave a year.\n\n"
    "## Leave without pay\n\nLeave without pay is granted for up to one year.\n",
    "parking.md": "# Parking\n\n## Where to park\n\nCars may park in garage 4.\n",
}
QUESTIONS = ["How many days of leave are there?", "Where may cars park?"]
SETTINGS = """\
models:
  first: {{base_url: "{first}/v1", name: mock-model}}
  second: {{base_url: "{second}/v1", name: mock-model}}
  slow: {{base_url: "{slow}/v1", name: say-60}}
apps:
  docs: {{knowledge: [./docs], route: first}}
  other: {{knowledge: [./docs], route: second}}
  slowly: {{knowledge: [./docs], route: slow}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """`docs` and `other` say different things at once, `slowly` takes two seconds."""
    first = command(folder / "1.log", "mock", "--port", "0", "--text", "First answer **30** [1].")
    second = command(folder / "2.log", "mock", "--port", "0", "--text", "Second answer [1].")
    slow = command(folder / "3.log", "mock", "--port", "0", "--tpot", "0.03")
    with first as first_url, second as second_url, slow as slow_url:
        text = SETTINGS.format(first=first_url, second=second_url, slow=slow_url)
        (folder / "slipway.yaml").write_text(text)
        with serving(folder / "server.log", "--config", "slipway.yaml") as url:
            yield url


def rows(page: Page) -> Locator:
    return page.locator("#side-list li")


def asked(page: Page, question: str) -> None:
    ask(page, question)
    settled(page)


def choose(page: Page, menu: Locator, item: str) -> None:
    menu.click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def more(row: Locator) -> Locator:
    return row.get_by_role("button", name="More about this conversation")


def last(page: Page, name: str) -> Locator:
    return page.locator(".turn").last.get_by_role("button", name=name)


def with_two(page: Page, server: str) -> None:
    opened(page, server, "docs")
    for question in QUESTIONS:
        page.get_by_role("button", name="New conversation").click()
        asked(page, question)
    expect(rows(page)).to_have_count(2)


# The list


def test_conversations_are_listed_searched_and_opened(
    page: Page, context: BrowserContext, server: str
) -> None:
    with_two(page, server)
    expect(rows(page).first).to_contain_text(QUESTIONS[1])
    expect(page.locator("#side-list [aria-current=true]")).to_have_text(QUESTIONS[1])
    page.get_by_label("Search conversations").fill("LEAVE many")
    expect(rows(page)).to_have_count(1)
    rows(page).get_by_role("button", name=QUESTIONS[0]).click()
    expect(page.get_by_role("heading", name=QUESTIONS[0])).to_be_visible()
    assert "First answer" in answer_text(page)
    page.get_by_label("Search conversations").fill("nothing has this")
    expect(page.locator("#side-none")).to_have_text("No conversation contains these words.")
    other = context.new_page()
    other.goto(server)
    expect(rows(other)).to_have_count(2)
    other.close()


def test_renaming_pinning_and_deleting_can_be_undone(page: Page, server: str) -> None:
    with_two(page, server)
    choose(page, more(rows(page).last), "Rename")
    page.get_by_label("New name").fill("Holidays")
    page.keyboard.press("Enter")
    expect(rows(page).last).to_contain_text("Holidays")
    choose(page, more(rows(page).last), "Pin")
    expect(rows(page).first).to_contain_text("Holidays")
    expect(page.locator("#side-list h3").first).to_have_text("Pinned")
    page.reload()
    expect(rows(page).first).to_contain_text("Holidays")
    choose(page, more(rows(page).first), "Delete")
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(rows(page)).to_have_count(2)
    page.get_by_role("button", name="Delete all").click()
    expect(rows(page)).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(rows(page)).to_have_count(2)


def test_the_shown_conversation_stays_deleted(page: Page, server: str) -> None:
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    choose(page, more(rows(page).first), "Delete")
    expect(page.locator("#empty")).to_be_visible()
    asked(page, QUESTIONS[1])
    expect(rows(page)).to_have_text([QUESTIONS[1]])


def test_one_or_all_are_exported(page: Page, server: str) -> None:
    with_two(page, server)
    with page.expect_download() as one:
        choose(page, more(rows(page).last), "Export as Markdown")
    text = one.value.path().read_text()
    assert f"## {QUESTIONS[0]}" in text
    assert "First answer **30** [1]." in text
    with page.expect_download() as both:
        page.get_by_role("button", name="Export all").click()
    found: list[dict[str, Any]] = json.loads(both.value.path().read_text())
    assert {each["title"] for each in found} == set(QUESTIONS)
    assert all(each["turns"][0]["sections"][0]["text"] for each in found)


MANY = """async (many) => {
    const { keepTurns, setCurrent } = await import("/static/conversations.js");
    for (let n = 0; n < many; n++) {
        const turn = { question: `Question ${n}`, state: "done", sections: [{ text: "word ".repeat(400), state: "done" }] };
        await keepTurns(`many-${n}`, [turn]);
    }
    setCurrent(null);
}"""


def test_five_hundred_are_kept_and_open_fast(page: Page, server: str) -> None:
    opened(page, server, "docs")
    page.evaluate(MANY, 503)
    page.evaluate("performance.clearMarks()")
    page.add_init_script("""
        new MutationObserver((_, observer) => {
            if (document.querySelectorAll("#side-list li").length < 500) return;
            window.listed = performance.now() - performance.getEntriesByName("first-contentful-paint")[0].startTime;
            observer.disconnect();
        }).observe(document, { childList: true, subtree: true });
    """)
    page.reload()
    expect(rows(page)).to_have_count(500)
    expect(rows(page).first).to_contain_text("Question 502")
    expect(rows(page).last).to_contain_text("Question 3")
    assert page.evaluate("window.listed") is not None
    page.get_by_label("Search conversations").fill("Question 177")
    expect(rows(page)).to_have_count(1)
    rows(page).get_by_role("button", name="Question 177").click()
    expect(page.get_by_role("heading", name="Question 177")).to_be_visible()


def test_conversations_of_one_key_are_not_shown_to_another(
    context: BrowserContext, folder: Path
) -> None:
    first, second = "sw-first-of-two-keys", "sw-second-of-two-keys"
    text = f"keys: [{first}, {second}]\nstore: sqlite:///keys.db\n"
    (folder / "keys.yaml").write_text(text + "apps: {docs: {knowledge: [./docs]}}\n")
    with serving(folder / "keys.log", "--config", "keys.yaml") as url:
        for key, before in ((first, 0), (second, 0), (first, 1)):
            page = context.new_page()
            page.goto(url)
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            expect(page.locator("#empty")).to_be_visible()
            expect(rows(page)).to_have_count(before)
            if not before:
                asked(page, QUESTIONS[0])
                expect(rows(page)).to_have_count(1)


def test_what_an_earlier_version_kept_is_taken_over(page: Page, server: str) -> None:
    old = {"at": 1, "turns": [{"question": "An old question", "state": "done", "sections": []}]}
    page.goto(server)
    page.evaluate("(old) => localStorage.setItem('slipway.talk.open.x1', old)", json.dumps(old))
    page.reload()
    expect(rows(page)).to_have_text(["An old question"])
    assert page.evaluate("localStorage.getItem('slipway.talk.open.x1')") is None


# A turn


def test_an_answer_is_made_again_and_both_are_kept(page: Page, server: str) -> None:
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    choose(page, last(page, "Answer again"), "Answer with other")
    settled(page)
    assert "Second answer" in answer_text(page)
    expect(page.locator(".versions")).to_have_text("2 of 2")
    last(page, "Previous answer").click()
    assert "First answer" in answer_text(page)
    expect(last(page, "Next answer")).to_be_focused()
    page.reload()
    settled(page)
    expect(page.locator(".versions")).to_have_text("1 of 2")
    last(page, "Next answer").click()
    assert "Second answer" in answer_text(page)
    assert [turn["app"] for turn in kept(page)] == ["other"]


def test_a_question_is_edited_and_that_can_be_undone(page: Page, server: str) -> None:
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    asked(page, "And unpaid leave?")
    page.get_by_role("button", name="Edit the question").first.click()
    page.get_by_role("textbox", name="Your question").first.fill(QUESTIONS[1])
    page.keyboard.press("Enter")
    settled(page)
    expect(page.locator(".turn .question")).to_have_text([QUESTIONS[1]])
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".turn .question")).to_have_text([QUESTIONS[0], "And unpaid leave?"])
    assert [turn["question"] for turn in kept(page)] == [QUESTIONS[0], "And unpaid leave?"]


def test_the_arrow_up_edits_the_last_question_and_escape_leaves_it(page: Page, server: str) -> None:
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    page.get_by_label("Your question").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".editing textarea")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".turn .question")).to_have_text([QUESTIONS[0]])
    expect(page.get_by_role("button", name="Edit the question")).to_be_focused()


def test_an_answer_is_copied_as_text_and_as_markdown(
    page: Page, context: BrowserContext, server: str
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    for item, text in (("text", "First answer 30 [1]."), ("Markdown", "First answer **30** [1].")):
        choose(page, last(page, "More actions"), f"Copy as {item}")
        expect(page.locator(".toast")).to_have_text("Copied")
        copied: str = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith(text)
    expect(page.locator(".answer .mark")).to_have_text("1")


def test_an_answer_is_read_aloud_without_its_citations(page: Page, server: str) -> None:
    page.add_init_script("""
        window.said = [];
        speechSynthesis.speak = (utterance) => said.push([utterance.text, utterance.lang]);
    """)
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    choose(page, last(page, "More actions"), "Read aloud")
    assert page.evaluate("window.said") == [["First answer 30 .", "en"]]


def test_questions_that_may_follow_come_from_the_headings(page: Page, server: str) -> None:
    opened(page, server, "docs")
    asked(page, QUESTIONS[0])
    suggestion = page.locator(".suggestions button")
    expect(suggestion.first).to_have_text("What do the documents say about “Leave without pay”?")
    suggestion.first.click()
    settled(page)
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").first.locator(".suggestions")).to_be_hidden()


# Settings, shortcuts, commands


def test_theme_size_and_language_are_chosen_and_remembered(page: Page, server: str) -> None:
    opened(page, server, "docs")
    choose(page, page.get_by_role("button", name="More", exact=True), "Settings")
    light = page.evaluate("getComputedStyle(document.body).color")
    page.get_by_label("Dark").check()
    assert page.evaluate("getComputedStyle(document.body).color") != light
    page.get_by_label("Largest").check()
    assert page.evaluate("getComputedStyle(document.documentElement).fontSize") == "20.8px"
    looked_at(page, "settings-dark", sizes=[DESK, SMALL, PHONE])
    page.get_by_label("中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("button", name="提问", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
    choose(page, page.get_by_role("button", name="更多", exact=True), "设置")
    looked_at(page, "settings-chinese", sizes=[DESK, SMALL])


def test_commands_and_shortcuts_by_keys_alone(page: Page, server: str) -> None:
    with_two(page, server)
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Commands")
    expect(field).to_be_focused()
    axe_finds_nothing(page)
    page.keyboard.type("many days")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=QUESTIONS[0])).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type("ask other")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Answers come from")).to_have_value("other")
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("#empty")).to_be_visible()
    page.keyboard.press("Control+b")
    expect(page.locator("#side")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    looked_at(page, "shortcuts", sizes=[DESK, SMALL])
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
    page.keyboard.press("Control+b")
    expect(page.locator("#side")).to_be_visible()


def test_the_list_covers_the_page_of_a_phone_until_one_is_chosen(page: Page, server: str) -> None:
    with_two(page, server)
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    expect(page.locator("#side")).to_be_hidden()
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_label("Search conversations")).to_be_focused()
    looked_at(page, "list-phone", sizes=[PHONE, SMALL])
    page.keyboard.press("Escape")
    expect(page.locator("#side")).to_be_hidden()
    expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    page.keyboard.press("Enter")
    rows(page).last.get_by_role("button", name=QUESTIONS[0]).click()
    expect(page.locator("#side")).to_be_hidden()
    expect(page.get_by_role("heading", name=QUESTIONS[0])).to_be_visible()


def test_a_shared_conversation_cannot_lead_a_reader_s_request_elsewhere(
    watched: Watched, server: str
) -> None:
    """Its sender makes up an id that leads from the route of votes to that of documents."""
    form = {"file": ("victim.md", b"# Victim\n\n## Words\n\nSome words.\n")}
    sent = plain_http.post(f"{server}/v1/documents", files=form, data={"app": "docs"})
    document = f"{server}/v1/documents/{sent.json()['data'][0]['id']}"
    until(lambda: plain_http.get(document).json()["state"] == "done")
    turn = {
        "question": "Hello?",
        "app": "docs",
        "sources": [],
        "state": "done",
        "done": {},
        "id": document.replace(f"{server}/v1/", "../"),
        "sections": [{"title": "", "text": "Good day.", "state": "done"}],
        "opinion": {"helpful": True},
    }
    share = plain_http.post(f"{server}/v1/shares", json={"turns": [turn]}).json()["id"]
    page = watched.page
    page.goto(f"{server}/?share={share}")
    page.get_by_role("button", name="Yes", exact=True).click()
    expect(page.locator(".opinion .failure, .opinion .said")).to_be_visible()
    assert plain_http.get(document).status_code == 200, "the reader's click deleted a document"
    assert plain_http.delete(document).status_code == 200
    watched.errors[:] = [each for each in watched.errors if "404" not in each]
