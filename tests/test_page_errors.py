"""What the page says when something goes wrong: one plain sentence, in the reader's language, and
*Try again*.
"""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import plain_http
from browsing import (
    DESK,
    SMALL,
    Watched,
    answer_text,
    command,
    kept,
    looked_at,
    needs_chromium,
    opened,
    serving,
    settled,
    tab_to,
)
from processes import COMMAND, free_port

pytestmark = needs_chromium
WORDS = {
    "en": {
        "what": "The answer broke off before it was complete. Try again in a moment.",
        "again": "Try again",
        "wait": "The model gets too many questions right now. Try again in about 60 minutes.",
        "strange": "The server sent a reply that this page does not understand. Try again in a moment.",
    },
    "zh": {
        "what": "回答在完成前中断了。 请稍后重试。",
        "again": "重试",
        "wait": "模型当前收到的问题太多。 请约 60 分钟后重试。",
        "strange": "服务器返回了页面无法理解的内容。 请稍后重试。",
    },
}


class Provider:
    """A mock provider in a process of its own, which can be killed and started again at the same
    address.
    """

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, free_port()
        self.start()

    def start(self) -> None:
        with self.log.open("w") as out:
            arguments = ["mock", "--port", str(self.port), "--ttft", "0.05", "--tpot", "0.05"]
            self.process = subprocess.Popen([*COMMAND, *arguments], stdout=out, stderr=out)
        while "mock provider at" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    provider = Provider(tmp_path_factory.mktemp("provider") / "mock.log")
    yield provider
    provider.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page-errors")
    (folder / "docs").mkdir()
    (folder / "docs" / "leave.md").write_text(
        "# Leave\n\n## How many days of leave are there?\n\nEveryone has 30 days of leave a year.\n"
    )
    with command(folder / "limited.log", "mock", "--port", "0") as limited:
        (folder / "slipway.yaml").write_text(
            f'models:\n  dies: {{base_url: "http://127.0.0.1:{provider.port}/v1", name: mock-model}}\n'
            f'  limited-en: {{base_url: "{limited}/v1", name: fault-status-429-3600}}\n'
            "  limited-zh: {extends: limited-en, name: fault-status-429-3600}\n"
            "apps:\n  docs: {knowledge: [./docs], route: dies}\n"
        )
        with serving(folder / "serve.log", "--config", "slipway.yaml") as url:
            yield url


def typed(page: Page, question: str) -> None:
    """In any language of the page."""
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")


def alert_says(page: Page, words: str) -> None:
    expect(page.get_by_role("alert").locator("p").first).to_have_text(words)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_provider_that_is_killed_in_the_middle_costs_a_sentence_and_a_key_press(
    page: Page, server: str, provider: Provider, language: str
) -> None:
    """By keys alone, on a small phone."""
    words = WORDS[language]
    page.set_viewport_size({"width": SMALL[0], "height": SMALL[1]})
    page.goto(f"{server}/?lang={language}")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("How many days of leave are there?")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => (document.querySelector('.answer')?.textContent.length ?? 0) > 30"
    )
    provider.kill()
    alert_says(page, words["what"])
    before = answer_text(page)
    assert len(before) > 30
    assert page.get_by_role("alert").count() == 1
    looked_at(page, f"killed-{language}", sizes=[DESK, SMALL])
    provider.start()
    tab_to(page, words["again"], "Shift+Tab")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.locator(".turn").count() == 1
    turn = kept(page)[-1]
    whole = plain_http.get(f"{server}/v1/answers/{turn['id']}").json()
    assert (whole["state"], turn["state"]) == ("done", "done")
    assert "".join(section["text"] for section in turn["sections"]) == whole["text"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_how_long_to_wait_is_said_and_counted_and_nobody_has_to(
    watched: Watched, server: str, language: str
) -> None:
    page, words = watched.page, WORDS[language]
    page.goto(f"{server}/?lang={language}")
    page.locator("#choice").select_option(f"limited-{language}")
    typed(page, "Hello")
    alert_says(page, words["wait"])
    again = page.get_by_role("alert").get_by_role("button", name=words["again"])
    left = page.locator(".again [aria-hidden]")
    expect(left).to_have_text(re.compile(r"^(60|59) (min|分) (59|58|0) (s|秒)$"))
    expect(left).to_have_text(re.compile(r"^59 (min|分) 5[67] (s|秒)$"))
    expect(again).to_be_enabled()
    looked_at(page, f"wait-{language}", sizes=[DESK, SMALL])
    page.reload()
    alert_says(page, words["wait"])
    expect(left).to_have_text(re.compile(r"^59 (min|分) \d+ (s|秒)$"))
    with page.expect_response("**/retry") as tried:
        again.click()
    assert tried.value.ok
    expect(again).to_be_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_reply_that_is_not_the_servers_is_told_without_its_number(
    watched: Watched, server: str, language: str
) -> None:
    page = watched.page
    page.goto(f"{server}/?lang={language}")
    expect(page.locator("#empty")).to_be_visible()
    page.route(
        "**/v1/answers",
        lambda route: route.fulfill(
            status=502, content_type="text/html", body="<h1>502 Bad Gateway</h1>"
        ),
    )
    typed(page, "How many days of leave are there?")
    alert_says(page, WORDS[language]["strange"])
    page.unroute("**/v1/answers")
    page.get_by_role("alert").get_by_role("button").click()
    settled(page)
    assert all("502" in error for error in watched.errors)
    watched.errors.clear()


def test_a_refusal_is_told_in_the_language_of_the_page(watched: Watched, server: str) -> None:
    """Not in that of the browser, which is English here."""
    page = watched.page
    opened(page, f"{server}/?lang=zh")
    page.route(
        "**/v1/answers", lambda route: route.continue_(post_data='{"question": "?", "app": "gone"}')
    )
    typed(page, "How many days of leave are there?")
    alert_says(page, "没有这个名称的模型或应用。 请选择其他模型或应用后重新提问。")
    expect(page.get_by_role("alert").get_by_role("button")).to_have_count(0)
    expect(page.locator(".ref code")).to_have_text(re.compile("^ref-[0-9a-f]{32}$"))
    assert all("404" in error for error in watched.errors)
    watched.errors.clear()
