"""The chat page, in the browser of a reader: real server, mock provider, headless Chromium."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect

import plain_http
from browsing import (
    DESK,
    PHONE,
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

KEY = "sw-the-key-of-this-test"

pytestmark = needs_chromium

DOCUMENTS = {
    "harbor.md": """\
# Harbor handbook

The harbor handbook tells crews how to arrive, moor and leave.

## Arriving

Call the harbor master on channel 12 before you pass the breakwater. The harbor master assigns a berth.

## Fees

| Length | Fee a night |
|---|---|
| up to 10 m | 18 euro |
| up to 20 m | 34 euro |

Fees are paid at the office or online.

## Storms

### Storm warnings

When a storm warning is given, double the mooring lines and clear the deck.

```
warning level 3: nobody may leave the harbor above wind force 9, and whoever is at sea comes back to the nearest harbor at once, whatever it costs
```
""",
    "refunds.md": """\
# Refunds

## How to get a refund

A refund is paid within 14 days. To get a refund, write to the office with your berth number and the dates.

## What is not refunded

Electricity and water are not refunded.
""",
    "pelicans.md": """\
# Pelicans

## What pelicans eat

At noon, pelicans eat herring <script>window.pwned = "script"</script> and bread <img src="http://evil.invalid/x.png" onerror="window.pwned = 1">
and ![fish](http://evil.invalid/fish.png) and [cake](javascript:window.pwned='link') and [water](https://example.org/water).
""",
}
WRONG = "A refund is paid within 14 days [1]. In code, `[1]` is no marker. A refund is paid within 41 days [1]. No such source [9]."
SETTINGS = """\
models:
  slow: {{base_url: "{steady}/v1", name: say-45}}
  once: {{base_url: "{cut_once}/v1", name: mock-model}}
  inject: {{base_url: "{steady}/v1", name: fault-inject}}
  down: {{base_url: "http://127.0.0.1:9/v1", name: nobody}}
  wrong: {{base_url: "{wrong}/v1", name: mock-model}}
apps:
  docs: {{knowledge: [./docs], route: slow}}
  breaking: {{knowledge: [./docs], route: once}}
  hostile: {{knowledge: [./docs], route: inject}}
  degraded: {{knowledge: [./docs], route: down}}
  doubtful: {{knowledge: [./docs], route: wrong}}
"""


class Line:
    """A line to a server that can be cut and mended."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._whole = True
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Line":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        self._whole = False
        while self._open:
            with suppress(OSError), self._open.pop() as end:
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole = True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._whole:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def quoting(folder: Path) -> Iterator[str]:
    """A server without a model."""
    with serving(folder / "quoting.log", "--docs", "docs") as url:
        yield url


@pytest.fixture(scope="module")
def writing(folder: Path) -> Iterator[str]:
    """A server with several apps: `docs` writes 45 words in 5.7 s, `breaking` breaks off once,
    `hostile` attacks, `degraded` has no model.
    """
    steady = command(
        folder / "steady.log", "mock", "--port", "0", "--ttft", "0.3", "--tpot", "0.12"
    )
    cut_once = command(
        folder / "cut.log",
        "mock",
        "--port",
        "0",
        "--ttft",
        "0.05",
        "--tpot",
        "0.01",
        "--script",
        "cut-5@1",
    )
    wrong = command(folder / "wrong.log", "mock", "--port", "0", "--text", WRONG)
    with steady as steady_url, cut_once as cut_url, wrong as wrong_url:
        (folder / "apps.yaml").write_text(
            SETTINGS.format(steady=steady_url, cut_once=cut_url, wrong=wrong_url)
        )
        with serving(folder / "writing.log", "--config", "apps.yaml") as url:
            yield url


def until_words(page: Page, least: int) -> None:
    page.wait_for_function(
        "(least) => (document.querySelector('.turn:last-child .answer')?.textContent.length ?? 0) > least",
        arg=least,
    )


def no_word_is_missing_or_twice(page: Page, url: str) -> None:
    """What is shown, and what the browser keeps, is the answer that the server has."""
    turn = kept(page)[-1]
    whole = plain_http.get(f"{url}/v1/answers/{turn['id']}").json()
    assert "".join(section["text"] for section in turn["sections"]) == whole["text"]
    assert plain(answer_text(page)) == plain(whole["text"])


def plain(text: str) -> str:
    """As the eye reads it: markers are numbers, and spaces do not count."""
    return re.sub(r"\s+", "", re.sub(r"\[(\d+)\]", r"\1", text))


# Answers and their sources


def test_without_a_model_the_documents_are_quoted_and_each_source_can_be_read(
    page: Page, quoting: str
) -> None:
    opened(page, quoting)
    expect(page.locator("#notices")).to_contain_text(
        "No language model is set up: answers are quoted from the documents."
    )
    expect(page.locator("#notices code")).to_have_text(
        "slipway serve --docs DIR --model dashscope/qwen-plus"
    )
    expect(page.locator("#empty-about")).to_have_text(
        "Ask about docs: 3 documents. Every answer shows its sources."
    )
    ask(page, "How do I get a refund?")
    settled(page)
    assert "A refund is paid within 14 days." in answer_text(page)
    expect(page.locator(".facts")).to_contain_text("Quoted from the documents")

    marker = page.locator(".answer .mark").first
    marker.click()
    passage = page.get_by_role("region", name="Source 1: refunds.md, How to get a refund")
    expect(passage).to_contain_text("refunds.md")
    expect(passage.locator(".trail")).to_have_text("Refunds")
    expect(passage.get_by_role("region")).to_contain_text(
        "write to the office with your berth number"
    )
    expect(marker).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(passage).to_have_count(0)
    expect(marker).to_be_focused()

    place = page.get_by_role("button", name="Source 1: refunds.md, How to get a refund").last
    place.click()
    expect(passage).to_be_visible()
    passage.get_by_role("button", name="Close").click()
    expect(place).to_be_focused()


def test_cited_places_come_first_and_the_others_are_a_click_away(page: Page, quoting: str) -> None:
    opened(page, quoting)
    ask(page, "What is the fee a night, and where are fees paid?")
    settled(page)
    cited = page.locator(".found > .sources .place")
    marks = {int(n) for n in page.locator(".answer .mark").all_text_contents()}
    assert marks
    assert {int(n) for n in cited.locator(".n").all_text_contents()} == marks
    page.locator("summary", has_text="Also found").click()
    others = page.locator(".found details .n")
    expect(others.first).to_be_visible()
    assert marks.isdisjoint(int(n) for n in others.all_text_contents())


def test_a_number_that_the_cited_source_lacks_is_shown_as_doubtful(
    page: Page, writing: str
) -> None:
    opened(page, writing, "doubtful")
    ask(page, "How do I get a refund?")
    settled(page)
    marks = page.locator(".answer .mark")
    expect(marks).to_have_count(2)
    expect(marks.nth(0)).to_have_accessible_name("Source 1: refunds.md, How to get a refund")
    expect(marks.nth(1)).to_have_accessible_name(
        "Source 1: refunds.md, How to get a refund. Not found in the cited source: 41"
    )
    expect(page.locator(".answer .doubtful")).to_have_count(1)
    expect(page.locator(".turn .notice")).to_have_text("Not found in the cited source: 41.")
    assert "[9]" not in answer_text(page)
    page.reload()
    expect(page.locator(".answer .doubtful")).to_have_count(1)


def test_what_the_documents_do_not_say_is_said_calmly(page: Page, quoting: str) -> None:
    opened(page, quoting)
    ask(page, "Which quantum harbor theorem did Noether prove about seals?")
    settled(page)
    assert answer_text(page).startswith("The documents do not say.")
    expect(page.locator(".facts")).to_contain_text("Not found in the documents")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_model_that_is_down_is_told_as_a_sentence(page: Page, writing: str) -> None:
    opened(page, writing, "degraded")
    ask(page, "How do I get a refund?")
    settled(page)
    expect(page.locator(".turn .notice")).to_have_text(
        "The model cannot be reached, so this answer is quoted from the documents."
    )


# While it is written


def test_text_is_seen_as_it_is_written_and_screen_readers_are_told_now_and_then(
    page: Page, writing: str
) -> None:
    opened(page, writing)
    page.evaluate("""() => {
        window.spoken = [];
        new MutationObserver(() => spoken.push([performance.now(), document.querySelector("#status").textContent]))
            .observe(document.querySelector("#status"), { childList: true, characterData: true, subtree: true });
    }""")
    ask(page, "What should I do in a storm?")
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".progress")).to_contain_text("Writing the answer…")
    seen = set()
    while page.locator(".facts").is_hidden():
        seen.add(len(answer_text(page)))
        page.wait_for_timeout(100)
    settled(page)
    assert len(seen) >= 5
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("status")).to_contain_text("The answer is complete, with")
    expect(page.locator(".facts")).to_contain_text("slow · ")
    spoken: list[tuple[float, str]] = page.evaluate("window.spoken")
    assert len(spoken) <= 6
    assert all(after - before >= 1990 for (before, _), (after, _) in pairwise(spoken))


def test_stop_keeps_what_was_written_and_try_again_goes_on(page: Page, writing: str) -> None:
    opened(page, writing)
    ask(page, "What should I do in a storm?")
    until_words(page, 60)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".stopped")).to_contain_text("Stopped.")
    kept = answer_text(page)
    assert 60 < len(kept) < 300
    expect(page.get_by_label("Your question")).to_be_focused()
    page.wait_for_timeout(300)
    assert plain(answer_text(page)) == plain(kept)
    page.get_by_role("button", name="Try again").click()
    settled(page)
    assert len(answer_text(page)) > len(kept)
    no_word_is_missing_or_twice(page, writing)
    expect(page.locator(".stopped")).to_have_count(0)


def test_an_answer_that_breaks_off_keeps_its_text_and_can_be_tried_again(
    page: Page, writing: str
) -> None:
    opened(page, writing, "breaking")
    ask(page, "What should I do in a storm?")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Reference ans-")
    kept = answer_text(page)
    assert kept
    alert.get_by_role("button", name="Try again").click()
    settled(page)
    expect(alert).to_have_count(0)
    assert len(answer_text(page)) > len(kept)
    no_word_is_missing_or_twice(page, writing)
    assert page.locator(".turn").count() == 1


def test_a_dropped_line_is_picked_up_and_no_word_comes_twice(
    watched: Watched, writing: str
) -> None:
    page = watched.page
    with Line(writing) as line:
        opened(page, line.url)
        ask(page, "What should I do in a storm?")
        until_words(page, 60)
        line.cut()
        expect(page.locator(".progress")).to_contain_text("The connection was lost. Trying again…")
        page.wait_for_timeout(600)
        line.mend()
        settled(page)
    no_word_is_missing_or_twice(page, writing)
    assert watched.errors
    watched.errors.clear()


def test_a_line_that_stays_down_keeps_the_text_and_reads_on_later(
    watched: Watched, writing: str
) -> None:
    page = watched.page
    page.clock.install()
    with Line(writing) as line:
        opened(page, line.url)
        ask(page, "What should I do in a storm?")
        until_words(page, 60)
        line.cut()
        alert = page.get_by_role("alert")
        while alert.count() == 0:
            page.clock.run_for(1000)
        expect(alert).to_contain_text(
            "The connection was lost before the answer was complete. Check your connection and try again."
        )
        assert len(answer_text(page)) >= 60
        line.mend()
        alert.get_by_role("button", name="Try again").click()
        settled(page)
    no_word_is_missing_or_twice(page, writing)
    assert page.locator(".turn").count() == 1
    watched.errors.clear()


def test_a_server_that_is_out_of_reach_is_told_and_asked_once_more(
    watched: Watched, context: BrowserContext, quoting: str
) -> None:
    page = watched.page
    opened(page, quoting)
    context.set_offline(True)
    ask(page, "How do I get a refund?")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(
        "The server cannot be reached. Check your connection and try again."
    )
    context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    settled(page)
    assert "14 days" in answer_text(page)
    watched.errors.clear()


# The tab


def test_the_conversation_outlives_a_reload_until_a_new_one_is_begun(
    page: Page, quoting: str
) -> None:
    opened(page, quoting)
    for question in ("How do I get a refund?", "Where are fees paid?"):
        ask(page, question)
        settled(page)
    votes = page.get_by_text("Was this helpful?")
    expect(votes).to_have_count(2)
    before = page.locator("#turns").inner_text()
    page.reload()
    settled(page)
    expect(page.locator("#turns")).to_have_text(re.compile("How do I get a refund"))
    expect(votes).to_have_count(2)
    assert page.locator("#turns").inner_text() == before
    page.locator(".answer .mark").first.click()
    expect(page.locator(".passage")).to_contain_text("berth number")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#empty")).to_be_visible()
    page.reload()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(0)


def test_an_answer_under_way_is_read_on_after_a_reload(page: Page, writing: str) -> None:
    opened(page, writing)
    ask(page, "What should I do in a storm?")
    until_words(page, 60)
    page.reload()
    settled(page)
    no_word_is_missing_or_twice(page, writing)


def test_a_follow_up_carries_the_conversation(page: Page, quoting: str) -> None:
    opened(page, quoting)
    ask(page, "How do I get a refund?")
    settled(page)
    with page.expect_request("**/v1/answers") as asked:
        ask(page, "And where are fees paid?")
    sent: Any = asked.value.post_data_json
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "user"]
    assert "14 days" in sent["messages"][1]["content"]
    expect(page.locator(".turn")).to_have_count(2)
    settled(page)


def test_keys_alone_are_enough(page: Page, writing: str) -> None:
    opened(page, writing)
    tab_to(page, "Skip to the question box", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("What should I do")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("in a storm?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What should I do in a storm?")).to_have_text(
        "What should I do\nin a storm?"
    )
    until_words(page, 60)
    page.keyboard.press("Escape")
    expect(page.locator(".stopped")).to_be_visible()
    tab_to(page, "Try again", "Shift+Tab")
    page.keyboard.press("Enter")
    settled(page)
    tab_to(page, "Source", "Shift+Tab")
    source = page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Enter")
    expect(page.locator(".passage")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.ariaLabel") == source


# Safe


def test_nothing_that_a_document_says_is_more_than_text(page: Page, quoting: str) -> None:
    opened(page, quoting)
    ask(page, "What do pelicans eat at noon, herring or bread?")
    settled(page)
    assert "pelicans eat herring" in answer_text(page)
    page.locator(".place").first.click()
    expect(page.locator(".passage")).to_contain_text("Pelicans")
    page.keyboard.press("Escape")
    harmless(page)
    page.reload()
    settled(page)
    harmless(page)


def test_nothing_that_a_model_says_is_more_than_text(page: Page, writing: str) -> None:
    opened(page, writing, "hostile")
    ask(page, "What do pelicans eat at noon?")
    settled(page)
    assert "<script>" in answer_text(page)
    harmless(page)


def harmless(page: Page) -> None:
    """The `watched` fixture sees to the rest: no request to another host, no breach of the policy,
    no script that ran.
    """
    page.wait_for_timeout(200)
    assert (
        page.locator("main :is(script, img, iframe, object, embed, style, svg:not(.icon))").count()
        == 0
    )
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.href)")
    assert all(re.match("https?:", link) for link in links)


def test_a_key_is_asked_for_and_kept_in_the_tab(watched: Watched, folder: Path) -> None:
    page = watched.page
    (folder / "keys.yaml").write_text(f"keys: [{KEY}]\napps: {{docs: {{knowledge: [./docs]}}}}\n")
    with serving(folder / "keys.log", "--config", "keys.yaml") as url:
        page.goto(url)
        lock = page.locator("#lock")
        expect(lock.get_by_role("heading", name="This server needs a key")).to_be_visible()
        expect(page.get_by_label("Key")).to_be_focused()
        page.keyboard.type("sw-a-wrong-one")
        page.keyboard.press("Enter")
        expect(lock).to_contain_text(
            "The server does not know this key. Check it, or ask the operator for another."
        )
        expect(page.get_by_label("Key")).to_be_focused()
        looked_at(page, "key")
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#empty")).to_be_visible()
        ask(page, "How do I get a refund?")
        settled(page)
        page.reload()
        settled(page)
        assert "14 days" in answer_text(page)
        assert KEY not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    assert [error for error in watched.errors if "401" not in error] == []
    watched.errors.clear()


# What the server can do


def test_where_nothing_can_answer_the_page_says_how_to_start(
    watched: Watched, tmp_path: Path
) -> None:
    page = watched.page
    with serving(tmp_path / "empty.log", ready=False) as url:
        page.goto(url)
        expect(page.locator("#notices")).to_contain_text("Nothing is set up to answer.")
        expect(page.get_by_label("Your question")).to_be_disabled()
        looked_at(page, "nothing")
    assert all("503" in error for error in watched.errors)
    watched.errors.clear()


def test_documents_that_are_still_being_read_are_counted(page: Page, quoting: str) -> None:
    early = {
        "status": "starting",
        "models": 0,
        "knowledge": {
            "docs": {"ready": False, "read": "27 %", "documents": 0, "passages": 0, "failed": 0}
        },
    }
    page.route("**/readyz", lambda route: route.fulfill(json=early))
    page.goto(quoting)
    expect(page.locator("#notices")).to_contain_text("Reading the documents… 27 %")
    page.unroute("**/readyz")
    expect(page.locator("#notices")).not_to_contain_text("Reading the documents")
    expect(page.locator("#empty-about")).to_contain_text("3 documents")


# Looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_state_is_accessible_and_fits_a_phone(page: Page, quoting: str, scheme: str) -> None:
    page.emulate_media(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    opened(page, quoting)
    looked_at(page, f"empty-{scheme}")
    ask(page, "What is the fee a night, and what happens when a storm warning of level 3 is given?")
    settled(page)
    looked_at(page, f"answer-{scheme}")
    page.locator(".place").first.click()
    expect(page.locator(".passage")).to_be_visible()
    looked_at(page, f"passage-{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_state_of_an_answer_is_accessible_and_fits_a_phone(
    watched: Watched, context: BrowserContext, writing: str, scheme: str
) -> None:
    page = watched.page
    page.emulate_media(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    opened(page, writing)
    ask(page, "What should I do in a storm?")
    until_words(page, 20)
    looked_at(page, f"writing-{scheme}", sizes=[PHONE])
    page.keyboard.press("Escape")
    expect(page.locator(".stopped")).to_be_visible()
    looked_at(page, f"stopped-{scheme}", sizes=[DESK, PHONE])
    context.set_offline(True)
    ask(page, "Where are fees paid?")
    expect(page.get_by_role("alert")).to_be_visible()
    looked_at(page, f"failed-{scheme}")
    context.set_offline(False)
    watched.errors.clear()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_light(page: Page, quoting: str, language: str) -> None:
    """All that it loads before the first question, compressed as it is sent."""
    loaded = {"/"}
    page.on("response", lambda response: loaded.add(urlsplit(response.url).path))
    opened(page, f"{quoting}/?lang={language}")
    page.wait_for_load_state("networkidle")
    assert len(loaded) > 15
    sizes = {path: sent_bytes(quoting + path) for path in loaded}
    assert sum(sizes.values()) <= 120_000, sorted(sizes.items(), key=lambda item: -item[1])
    assert not [path for path in loaded if re.search("katex|mermaid|highlight", path)]


def sent_bytes(url: str) -> int:
    with plain_http.stream("GET", url, headers={"accept-encoding": "gzip"}) as reply:
        for _ in reply.iter_raw():
            pass
        return int(reply.num_bytes_downloaded)
