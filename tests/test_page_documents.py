"""The documents in the chat page: what became of each, adding and removing them, and who sees what."""

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect

import hostile
import plain_http
import sample_documents
from browsing import (
    DESK,
    PHONE,
    Watched,
    answer_text,
    ask,
    looked_at,
    needs_chromium,
    opened,
    serving,
    settled,
    tab_to,
)
from waiting import PATIENCE_S

pytestmark = needs_chromium

CLERK, READER, PEOPLE = (
    "sw-the-clerk-of-this-test",
    "sw-the-reader-of-this-test",
    "sw-the-people-office-of-this-test",
)
SLOW = (
    b"<h1>Tortoises</h1><p>The tortoise is paid 77 crowns.</p>" + b"<div>" * 30_000 + b"x"
)  # takes a second to read: the parser is quadratic in the depth
FAILING = "A page of it is damaged (page 2)."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in {
        "harbor.md": "---\ntags: [harbor, berths]\ndate: 2026-03-14\n---\n# Harbor handbook\n\nThe harbor master assigns a berth.\n",
        "hr/salaries.md": "# Salaries\n\nThe harbor master earns 4,200 crowns.\n",
    }.items():
        (folder / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "docs" / name).write_text(text)
    (folder / "docs" / "survey.pdf").write_bytes(hostile.damaged_page())
    (folder / "docs" / "rules.pdf").write_bytes(sample_documents.pdf(12))
    (folder / "docs" / "talk.pptx").write_bytes(sample_documents.pptx(9))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """One app over a folder with a damaged file, whose `hr` is for the group of that name; and
    three keys.
    """
    settings = {
        "keys": [
            {"key": CLERK, "documents": True},
            {"key": PEOPLE, "documents": True, "groups": ["hr"]},
            {"key": READER},
        ],
        "apps": {
            "docs": {"knowledge": ["./docs"], "access": [{"path": "hr/**", "groups": ["hr"]}]},
            "open": {"route": "nobody"},
        },
        "models": {"nobody": {"base_url": "http://127.0.0.1:9/v1"}},
        "limits": {"document_mb": 2},
        "embedding": "none",
    }
    (folder / "slipway.yaml").write_text(json.dumps(settings))
    with serving(folder / "serve.log", "--config", "slipway.yaml") as url:
        yield url


@pytest.fixture(autouse=True)
def no_uploads(server: str) -> Iterator[None]:
    """Each test ends without uploads; one that is still being read is removed once it is."""
    yield
    end = time.monotonic() + PATIENCE_S
    with plain_http.Client(
        base_url=server, headers={"authorization": f"Bearer {PEOPLE}"}
    ) as client:
        while left := [
            each for each in client.get("/v1/documents").json()["data"] if each["uploaded"]
        ]:
            assert time.monotonic() < end
            refused = [
                client.delete(f"/v1/documents/{each['id']}").status_code
                for each in left
                if each["state"] != "reading"
            ]
            time.sleep(0.2 if refused.count(200) < len(left) else 0)


def entered(page: Page, url: str, key: str = CLERK) -> None:
    """The page of a reader who has given this key."""
    page.add_init_script(
        f"sessionStorage.getItem('slipway.key') ?? sessionStorage.setItem('slipway.key', '{key}')"
    )
    opened(page, url)


def documents(page: Page, url: str, key: str = CLERK) -> Locator:
    """The dialog, once it knows what there is."""
    entered(page, url, key)
    page.locator("#documents-open").click()
    dialog = page.get_by_role("dialog", name="Documents of docs")
    expect(dialog.locator("#documents-count")).not_to_have_text("Looking…")
    return dialog


def item(dialog: Locator, name: str) -> Locator:
    return dialog.locator(".document", has_text=name)


def choose(page: Page, *files: tuple[str, bytes]) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files(
        [
            FilePayload(name=name, mimeType="application/octet-stream", buffer=data)
            for name, data in files
        ]
    )


def slowly(page: Page, bytes_a_second: int) -> None:
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    line.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": bytes_a_second,
        },
    )


# What is there


def test_what_failed_stands_first_with_its_reason_its_page_and_what_to_do(
    page: Page, server: str
) -> None:
    entered(page, server)
    expect(page.get_by_role("button", name="Documents · 1 failed")).to_be_visible()
    dialog = documents(page, server)
    expect(dialog.locator("#documents-count")).to_contain_text(
        re.compile(r"3 documents · \d+ passages · 1 could not be read")
    )
    first = dialog.locator(".document").first
    expect(first).to_contain_text("survey.pdf")
    expect(first).to_contain_text(f"{FAILING} Print it to a new PDF, or remove it.")
    expect(dialog.get_by_role("heading", name="Could not be read (1)")).to_be_visible()
    harbor = item(dialog, "harbor.md")
    expect(harbor.locator(".name")).to_have_text("Harbor handbook")
    expect(harbor.locator(".facts")).to_contain_text("1 passage · 2026-03-14 · ")
    assert harbor.locator(".tag").all_text_contents() == ["berths", "harbor"]
    expect(dialog.locator("#documents-note")).to_have_text(
        "Search is by words only: switched off in the settings."
    )
    expect(dialog.get_by_role("button", name=re.compile("^Remove"))).to_have_count(
        0
    )  # of files of the folder
    expect(dialog.locator("#documents-filter")).to_be_hidden()


def test_a_key_sees_what_its_groups_may_read_and_no_more(page: Page, server: str) -> None:
    dialog = documents(page, server, READER)
    expect(item(dialog, "harbor.md")).to_be_visible()
    expect(item(dialog, "salaries.md")).to_have_count(0)
    expect(item(dialog, "survey.pdf")).to_have_count(0)  # nobody knows who may read it
    expect(dialog.get_by_role("button", name="Choose files")).to_be_hidden()


def test_the_group_sees_its_own(page: Page, server: str) -> None:
    expect(item(documents(page, server, PEOPLE), "salaries.md")).to_be_visible()


def test_only_an_app_with_documents_shows_them(page: Page, server: str) -> None:
    entered(page, server)
    expect(page.locator("#documents-open")).to_be_visible()
    page.get_by_label("Answers come from").select_option("open")
    expect(page.locator("#documents-open")).to_be_hidden()


def test_many_documents_are_filtered_by_words_of_path_title_and_tags(
    page: Page, server: str
) -> None:
    made = [made_up(n) for n in range(30)]
    page.route("**/v1/documents?*", lambda route: route.fulfill(json={**LISTED, "data": made}))
    dialog = documents(page, server)
    expect(dialog.locator(".document")).to_have_count(30)
    dialog.get_by_label("Filter").fill("chapter 7")
    expect(dialog.locator(".document")).to_have_count(3)
    dialog.get_by_label("Filter").fill("ODD chapter 27")
    expect(dialog.locator(".document")).to_have_count(1)
    dialog.get_by_label("Filter").fill("unheard of")
    expect(dialog.locator("#documents-none")).to_have_text(
        "No document has these words in its name, title or tags."
    )


def test_how_far_reading_and_the_search_by_meaning_are_is_said_quietly(
    page: Page, server: str
) -> None:
    def ready(route: Any) -> None:
        state = route.fetch().json()
        state["knowledge"]["docs"] |= said.pop(0) if len(said) > 1 else said[0]
        route.fulfill(json=state)

    said = [{"dense": "120/232"}] * 2 + [{"dense": "51 %"}] + [{"dense": "232/232"}]
    page.route("**/readyz", ready)
    dialog = documents(page, server)
    note = dialog.locator("#documents-note")
    expect(note).to_have_text("Search by meaning is being prepared: 120 of 232 passages.")
    expect(note).to_have_text("Search by meaning is being prepared: 51 %.")
    expect(note).to_be_hidden()


def test_what_documents_are_called_is_only_ever_text(page: Page, server: str) -> None:
    bad = "<img src=x onerror='window.pwned=1'>"
    made = [
        {**made_up(1), "title": bad, "path": f"{bad}.md", "tags": [bad], "date": bad},
        {
            **made_up(2),
            "state": "failed",
            "reason": f"It is `{bad}`.",
            "next": bad,
            "page": 3,
            "path": "talk.pptx",
        },
    ]
    page.route("**/v1/documents?*", lambda route: route.fulfill(json={**LISTED, "data": made}))
    dialog = documents(page, server)
    expect(dialog.locator(".name").last).to_have_text(bad)
    expect(item(dialog, "talk.pptx")).to_contain_text("(slide 3)")
    assert dialog.locator("img").count() == 0


LISTED = {"object": "list", "may_add": False, "kinds": [".md"], "largest_mb": 2}


def made_up(n: int) -> dict[str, Any]:
    odd = ["odd"] if n % 2 else []
    return {
        "id": f"doc-{n}",
        "app": "docs",
        "path": f"guide/{n:02}.md",
        "state": "done",
        "title": f"Chapter {n}",
        "passages": 2,
        "version": "1",
        "size": 4096,
        "date": "",
        "tags": odd,
        "uploaded": False,
        "error": None,
        "reason": None,
        "page": None,
        "next": None,
    }


# Adding


def test_an_upload_can_be_asked_about(page: Page, server: str) -> None:
    dialog = documents(page, server)
    kinds = (
        "Markdown, Jupyter, HTML, text, reStructuredText, PDF, Word, PowerPoint, Excel, "
        "OpenDocument, E-Mail, EPUB, CSV"
    )
    expect(dialog.locator("#documents-kinds")).to_have_text(f"{kinds} · up to 2 MB each")
    choose(
        page,
        ("pelicans.md", b"# Pelicans\n\nAt noon, pelicans eat herring.\n"),
        ("gulls.txt", b"Gulls steal chips.\n"),
    )
    expect(item(dialog, "pelicans.md").locator(".tag.new")).to_have_text("Just added")
    expect(item(dialog, "gulls.txt").locator(".tag.new")).to_have_text("Just added")
    expect(dialog.locator("#documents-uploads li")).to_have_count(0)
    expect(dialog.locator("#documents-count")).to_contain_text("5 documents")
    expect(dialog.get_by_role("button", name="Choose files")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#documents-open")).to_be_focused()
    expect(page.locator("#empty-about")).to_contain_text("5 documents")
    ask(page, "What do pelicans eat at noon?")
    settled(page)
    assert "pelicans eat herring" in answer_text(page)


def test_a_file_is_told_as_it_is_sent_and_read(page: Page, server: str) -> None:
    dialog = documents(page, server)
    page.evaluate("""() => {
        window.spoken = [];
        const line = document.querySelector("#documents [role=status]");
        new MutationObserver(() => spoken.push([performance.now(), line.textContent])).observe(line, { childList: true, characterData: true, subtree: true });
    }""")
    slowly(page, 75_000)
    choose(page, ("tortoise.html", SLOW))
    upload = dialog.locator("#documents-uploads li")
    expect(upload).to_contain_text("tortoise.html")
    expect(upload).not_to_contain_text("takes the place")
    expect(upload).to_contain_text(re.compile(r"Sending: [1-9]\d? % of 147 KB"))
    looked_at(page, "documents-sending", sizes=[DESK, PHONE])
    expect(upload).to_contain_text("Reading…")
    looked_at(page, "documents-reading", sizes=[DESK])
    expect(dialog.get_by_role("status")).to_have_text(
        "tortoise.html is ready: you can ask about it now."
    )
    expect(item(dialog, "tortoise.html").locator(".facts")).to_contain_text("Just added1 passage")
    choose(page, ("tortoise.html", SLOW))
    expect(upload).to_contain_text("replaces the file of the same name")
    page.wait_for_timeout(2500)
    spoken: list[tuple[float, str]] = page.evaluate("window.spoken")
    assert spoken[0][1] == "Sending tortoise.html."
    assert all(after - before >= 1990 for (before, _), (after, _) in pairwise(spoken))


def test_a_damaged_upload_ends_as_failed_with_its_reason_and_what_to_do(
    page: Page, server: str
) -> None:
    dialog = documents(page, server)
    choose(page, ("minutes.pdf", hostile.damaged_page()))
    failed = item(dialog, "minutes.pdf")
    expect(failed).to_contain_text(f"{FAILING} Print it to a new PDF, or remove it.")
    expect(dialog.locator(".document").first).to_contain_text("minutes.pdf")  # the newest first
    expect(dialog.get_by_role("status")).to_have_text(
        "minutes.pdf could not be read: A page of it is damaged (page 2)."
    )
    expect(page.locator("#documents-open")).to_have_text("Documents · 2 failed")
    expect(failed.get_by_role("button", name="Remove uploads/minutes.pdf")).to_be_visible()


def test_what_is_too_large_or_of_another_kind_is_refused_before_it_is_sent(
    page: Page, server: str
) -> None:
    dialog = documents(page, server)
    sent: list[str] = []
    page.on(
        "request", lambda request: sent.append(request.url) if request.method == "POST" else None
    )
    choose(
        page, ("big.pdf", b"%PDF" + b" " * 3 * 2**20), ("run.exe", b"MZ"), ("old.doc", b"\xd0\xcf")
    )
    uploads = dialog.locator("#documents-uploads li")
    expect(uploads).to_have_count(3)
    expect(uploads.nth(0)).to_contain_text(
        "It has 3.0 MB; the limit is 2 MB. Split it into smaller files, or have the operator raise limits.document_mb."
    )
    expect(uploads.nth(1)).to_contain_text(
        "This kind of file is not supported. Supported: Markdown, Jupyter, HTML, "
    )
    expect(uploads.nth(2)).to_contain_text(
        ".doc files are not supported. Save it as .docx and choose that file."
    )
    looked_at(page, "documents-refused", sizes=[DESK, PHONE])
    for name in ("big.pdf", "run.exe", "old.doc"):
        page.get_by_role("button", name=f"Dismiss {name}").click()
    expect(uploads).to_have_count(0)
    expect(dialog.get_by_role("button", name="Choose files")).to_be_focused()
    assert sent == []


def test_files_are_dropped_onto_the_panel(page: Page, server: str) -> None:
    dialog = documents(page, server)
    drop = """([name, text]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([text], name));
        const target = document.querySelector("#documents-others");
        for (const kind of ["dragenter", "dragover"]) target.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
        window.over = document.querySelector("#documents-add").className;
        return !target.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
    }"""
    assert page.evaluate(drop, ["dropped.md", "# Dropped\n\nIt fell from the sky.\n"])
    assert page.evaluate("window.over") == "over"
    expect(item(dialog, "dropped.md").locator(".tag.new")).to_be_visible()
    expect(dialog.locator("#documents-add")).not_to_have_class("over")


def test_an_upload_that_did_not_come_through_keeps_its_file_and_is_tried_again(
    watched: Watched, context: BrowserContext, server: str
) -> None:
    page = watched.page
    dialog = documents(page, server)
    context.set_offline(True)
    choose(page, ("patience.md", b"# Patience\n\nIt came through in the end.\n"))
    upload = dialog.locator("#documents-uploads li")
    expect(upload).to_contain_text(
        "The server cannot be reached. Check your connection and try again."
    )
    looked_at(page, "documents-offline", sizes=[PHONE])
    context.set_offline(False)
    page.get_by_role("button", name="Try patience.md again").click()
    expect(item(dialog, "patience.md").locator(".tag.new")).to_be_visible()
    watched.errors.clear()


def test_a_file_that_went_away_meanwhile_is_told_from_a_server_out_of_reach(
    watched: Watched, context: BrowserContext, server: str, tmp_path: Path
) -> None:
    page = watched.page
    dialog = documents(page, server)
    (tmp_path / "brief.md").write_text("# Brief\n\nIt was here.\n")
    context.set_offline(True)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(tmp_path / "brief.md")
    upload = dialog.locator("#documents-uploads li")
    expect(upload).to_contain_text("The server cannot be reached.")
    (tmp_path / "brief.md").unlink()
    context.set_offline(False)
    page.get_by_role("button", name="Try brief.md again").click()
    expect(upload).to_contain_text("The browser can no longer read the file. Choose it again.")
    expect(upload.get_by_role("button", name=re.compile("^Try"))).to_be_hidden()
    watched.errors.clear()


def test_a_server_out_of_reach_is_told_and_looked_at_again(
    watched: Watched, context: BrowserContext, server: str
) -> None:
    page = watched.page
    entered(page, server)
    page.locator("#documents-open").click()
    page.get_by_role("button", name="Close").click()
    context.set_offline(True)
    page.locator("#documents-open").click()
    dialog = page.get_by_role("dialog", name="Documents of docs")
    expect(dialog.get_by_role("alert")).to_contain_text(
        "The server cannot be reached. Check your connection and try again."
    )
    context.set_offline(False)
    dialog.get_by_role("button", name="Try again").click()
    expect(item(dialog, "harbor.md")).to_be_visible()
    expect(dialog.get_by_role("alert")).to_have_count(0)
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    watched.errors.clear()


def test_the_servers_own_words_are_shown_where_it_refuses(watched: Watched, server: str) -> None:
    page = watched.page
    dialog = documents(page, server)
    name = "n" * 160 + ".md"
    choose(page, (name, b"# Long\n"))
    upload = dialog.locator("#documents-uploads li")
    expect(upload).to_contain_text("is longer than 150 bytes. Give the file a shorter name.")
    expect(upload.get_by_role("button", name=re.compile("^Try"))).to_be_hidden()
    assert all("400" in error for error in watched.errors)
    watched.errors.clear()


def test_a_file_on_its_way_is_called_back(page: Page, server: str, folder: Path) -> None:
    dialog = documents(page, server)
    slowly(page, 20_000)
    choose(page, *[(f"{n}.md", b"# One\n\n" + b"Text. " * 50_000) for n in range(3)])
    uploads = dialog.locator("#documents-uploads li")
    expect(uploads.nth(0)).to_contain_text(re.compile("Sending: [1-9]"))
    expect(uploads.nth(2)).to_contain_text("Waiting")
    page.get_by_role("button", name="Cancel 2.md").click()
    page.get_by_role("button", name="Cancel 0.md").click()
    expect(uploads).to_have_count(1)
    expect(dialog.get_by_role("button", name="Choose files")).to_be_focused()
    page.get_by_role("button", name="Cancel 1.md").click()
    expect(uploads).to_have_count(0)
    known = plain_http.get(
        f"{server}/v1/documents", headers={"authorization": f"Bearer {CLERK}"}
    ).json()["data"]
    assert not [each for each in known if each["uploaded"]]
    assert "defect" not in (folder / "serve.log").read_text()


# Removing


def test_an_upload_is_removed_after_a_second_word(page: Page, server: str) -> None:
    dialog = documents(page, server)
    choose(page, ("pelicans.md", b"# Pelicans\n\nAt noon, pelicans eat herring.\n"))
    dialog.get_by_role("button", name="Remove uploads/pelicans.md").click()
    confirm = dialog.get_by_role("group", name="Remove uploads/pelicans.md?")
    expect(confirm.get_by_role("button", name="Keep it")).to_be_focused()
    looked_at(page, "documents-remove", sizes=[DESK, PHONE])
    page.keyboard.press("Escape")
    expect(confirm).to_have_count(0)
    expect(dialog.get_by_role("button", name="Remove uploads/pelicans.md")).to_be_focused()
    page.keyboard.press("Enter")
    confirm.get_by_role("button", name="Remove").click()
    expect(item(dialog, "pelicans.md")).to_have_count(0)
    expect(dialog).to_be_visible()
    assert page.evaluate("document.querySelector('#documents').contains(document.activeElement)")
    assert page.evaluate("document.activeElement !== document.querySelector('#documents')")
    expect(dialog.get_by_role("status")).to_have_text("uploads/pelicans.md was removed.")
    page.keyboard.press("Escape")
    ask(page, "What do pelicans eat at noon?")
    settled(page)
    assert "herring" not in answer_text(page)


def test_keys_alone_are_enough(page: Page, server: str) -> None:
    page.on(
        "filechooser", lambda chooser: None
    )  # from now on: Enter is pressed faster than a browser can be asked to hand over file choosers
    entered(page, server)
    tab_to(page, "Documents", "Shift+Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Documents of docs")
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    expect(dialog.get_by_role("button", name="Choose files")).to_be_visible()
    tab_to(page, "Choose files", "Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(
        [
            FilePayload(
                name="keys.md", mimeType="text/markdown", buffer=b"# Keys\n\nThey are enough.\n"
            )
        ]
    )
    expect(item(dialog, "keys.md").locator(".tag.new")).to_be_visible()
    tab_to(page, "Remove uploads/keys.md", "Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(item(dialog, "keys.md")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#documents-open")).to_be_focused()


# Sources and looks


def test_a_source_names_its_page_or_slide(page: Page, server: str) -> None:
    entered(page, server)
    ask(page, f"Which deposit does the {sample_documents.subject(6)} regulation demand?")
    settled(page)
    expect(page.locator(".place .path", has_text="rules.pdf, page 7")).to_have_count(1)
    slide = page.locator(".place", has_text="talk.pptx, slide 7")
    if not slide.is_visible():
        page.locator("summary").last.click()
    slide.click()
    expect(page.locator(".passage .path")).to_have_text("talk.pptx, slide 7")


def test_what_is_quoted_is_marked_in_its_passage(page: Page, server: str) -> None:
    dialog = documents(page, server)
    choose(
        page,
        (
            "otters.md",
            b"# Otters\n\nThey are small. Otters sleep in the old boathouse. They like rain.\n",
        ),
    )
    expect(item(dialog, "otters.md").locator(".tag.new")).to_be_visible()
    page.keyboard.press("Escape")
    ask(page, "Where do otters sleep?")
    settled(page)
    page.locator(".answer .mark").first.click()
    expect(page.locator(".passage mark")).to_have_text("Otters sleep in the old boathouse.")
    expect(page.locator(".passage .text")).to_have_text(
        "They are small. Otters sleep in the old boathouse. They like rain."
    )


def test_a_passage_of_a_sheet_is_a_table_whose_quoted_row_is_marked_and_in_sight(
    page: Page, server: str
) -> None:
    dialog = documents(page, server)
    bad = "<img src=x onerror='window.pwned=1'>"
    rows = [f"Pier {n},{40 + n},{bad if n == 16 else 'stone|wood'}" for n in range(30)]
    choose(page, ("piers.csv", "\n".join(["Pier,Length,Remark", *rows]).encode()))
    expect(item(dialog, "piers.csv").locator(".tag.new")).to_be_visible()
    page.keyboard.press("Escape")
    ask(page, "What is the length of pier 17?")
    settled(page)
    page.locator(".answer .mark").first.click()
    said = page.locator(".passage tr:has(mark)")
    expect(said).to_have_count(1)
    assert said.locator("td").all_text_contents() == ["Pier 17", "57", "stone|wood"]
    expect(page.locator(".passage td", has_text=bad)).to_have_count(1)
    expect(page.locator(".passage img")).to_have_count(0)
    expect(said).to_be_in_viewport()
    assert page.locator(".passage thead th").all_text_contents() == ["Pier", "Length", "Remark"]
    looked_at(page, "passage-of-a-sheet")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_documents_are_accessible_and_fit_a_phone(page: Page, server: str, scheme: str) -> None:
    page.emulate_media(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    dialog = documents(page, server)
    choose(
        page,
        ("minutes.pdf", hostile.damaged_page()),
        ("pelicans.md", b"# Pelicans\n\nAt noon, pelicans eat herring.\n"),
    )
    expect(item(dialog, "pelicans.md").locator(".tag.new")).to_be_visible()
    expect(item(dialog, "minutes.pdf").locator(".tag.new")).to_be_visible()
    looked_at(page, f"documents-{scheme}")
    page.keyboard.press("Escape")
    ask(page, "What do pelicans eat at noon?")
    settled(page)
    looked_at(page, f"documents-closed-{scheme}")
