"""The operations page in headless Chromium: a server with a past of an hour, and a mock provider."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import BrowserContext, Page, expect

import plain_http
from browsing import (
    DESK,
    PHONE,
    SMALL,
    Watched,
    axe_finds_nothing,
    command,
    looked_at,
    needs_chromium,
    serving,
    tab_to,
)
from past_traffic import PastAnswer, leave_past
from slipway.ledger import format_usd, usd
from slipway.settings import Settings
from waiting import PATIENCE_S, until

pytestmark = needs_chromium
ADMIN, PLAIN = "sw-the-admin-key-of-this-test", "sw-the-plain-key-of-this-test"
WIDE = (1680, 1050)
SETTINGS = """\
store: sqlite:///slipway.db
models:
  qwen-plus: {{base_url: "{mock}/v1", name: mock-model, zone: cn-beijing, price: {{input: 0.11, output: 0.28}}}}
  qwen-plus-sg: {{base_url: "http://127.0.0.1:9/v1", name: nobody, zone: ap-southeast, price: {{input: 0.11, output: 0.28}}}}
apps:
  support: {{knowledge: [./docs], route: qwen-plus, limits: {{usd_per_day: 0.05, rpm: 600}}}}
slo: {{availability: 99.5%, ttft_p95: 2500ms}}
keys:
  - {{key: "{admin}", admin: true, documents: true}}
  - {{key: "{plain}"}}
"""


class Server(NamedTuple):
    """A running server, the answers of its past, and the numbers before anybody asked it."""

    url: str
    past: list[PastAnswer]
    first: Mapping[str, Any] = MappingProxyType({})

    def get(self, path: str, key: str | None = ADMIN) -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return plain_http.get(self.url + path, headers=headers, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with operated(tmp_path_factory.mktemp("operations")) as found:
        yield found


@contextmanager
def operated(folder: Path) -> Iterator[Server]:
    """Serve with answers of the last hour behind it."""
    (folder / "docs").mkdir()
    (folder / "docs" / "harbor.md").write_text("# Harbor\n\nA berth costs 34 euro a night.\n")
    (folder / "docs" / "broken.pdf").write_bytes(b"%PDF-1.4 nothing follows")
    past = leave_past(
        Settings(store=f"sqlite:///{folder / 'slipway.db'}"), 900, time.time(), 3000.0
    )
    with command(folder / "mock.log", "mock", "--port", "0") as mock:
        text = SETTINGS.format(mock=mock, admin=ADMIN, plain=PLAIN)
        (folder / "slipway.yaml").write_text(text)
        with serving(folder / "serve.log", "--config", "slipway.yaml", ready=False) as url:
            found = Server(url, past)
            until(lambda: found.get("/readyz").json()["knowledge"]["support"]["ready"])
            until(lambda: found.get("/v1/operations").json()["totals"]["answers"])
            yield found._replace(first=found.get("/v1/operations?window=hour").json())


def chat(server: Server, model: str) -> Any:
    return plain_http.post(
        f"{server.url}/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {PLAIN}"},
        timeout=PATIENCE_S,
    )


def opened(page: Page, server: Server, key: str = ADMIN, query: str = "") -> None:
    page.add_init_script(f"sessionStorage.setItem('slipway.key', '{key}')")
    page.goto(f"{server.url}/ops{query}")
    expect(page.locator("#board")).to_be_visible()


# The JSON behind it


def test_only_admins_see_the_numbers(server: Server) -> None:
    assert server.get("/v1/operations", None).status_code == 401
    refused = server.get("/v1/operations", PLAIN)
    assert refused.status_code == 403
    assert "admin: true" in refused.json()["error"]["message"]
    wrong = server.get("/v1/operations?window=year")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "window")


def test_the_numbers_are_those_of_the_records(server: Server) -> None:
    shown = server.first
    rows = [row for each in server.past for row in each.rows]
    assert shown["totals"]["answers"] == len(server.past)
    assert shown["totals"]["input_tokens"] == sum(row.usage.input_tokens for row in rows)
    spent: dict[str, int] = {}
    for row in rows:
        spent[row.app] = spent.get(row.app, 0) + (row.cost or 0)
    assert {each["id"]: each["cost_usd"] for each in shown["money"]["app"]} == {
        app: format_usd(usd(cost)) for app, cost in spent.items()
    }
    latest = [each.done.id for each in server.past[-50:]]
    assert {each["id"] for each in shown["recent"]} == set(latest)
    assert [each["state"] for each in shown["documents"]["data"]] == ["failed", "done"]
    assert any("34 euro" in each["comment"] for each in shown["feedback"])
    assert shown["goals"] == {"availability": 0.995, "ttft_p95_s": 2.5}
    (limit,) = shown["limits"]
    assert (limit["name"], limit["budgets"][0]["limit_usd"]) == ("support", "0.05")


def test_the_page_is_found_without_and_with_a_slash(server: Server) -> None:
    page = server.get("/ops", None)
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    moved = server.get("/ops/?window=day", None)
    assert (moved.status_code, moved.headers["location"]) == (307, "../ops?window=day")


# Who may open it


def test_a_key_is_asked_for_and_must_be_an_admins(watched: Watched, server: Server) -> None:
    page = watched.page
    page.goto(f"{server.url}/ops")
    expect(page.locator("#lock")).to_be_visible()
    expect(page.locator("#key")).to_be_focused()
    axe_finds_nothing(page)
    page.keyboard.type("sw-unknown-key-of-this-test")
    page.keyboard.press("Enter")
    expect(page.locator("#lock-why")).to_contain_text("does not know this key")
    page.keyboard.type(PLAIN)
    page.keyboard.press("Enter")
    expect(page.locator("#lock-why")).to_contain_text("no admin key")
    expect(page.locator("#board")).to_be_hidden()
    page.keyboard.type(ADMIN)
    page.keyboard.press("Enter")
    expect(page.locator("#board")).to_be_visible()
    expect(page.locator("#lock")).to_be_hidden()
    statuses = [re.search(r"status of (\d+)", error) for error in watched.errors]
    assert [found and found[1] for found in statuses] == ["401", "401", "403"]
    watched.errors.clear()


# Reading it


def test_it_says_how_users_are_served(page: Page, server: Server) -> None:
    opened(page, server)
    expect(page.locator("#verdict")).to_have_attribute("data-state", re.compile("green|amber"))
    expect(page.locator("#verdict-reasons")).to_contain_text("first token within")
    expect(page.locator("#tile-answers")).to_contain_text(str(len(server.past)))
    models = page.get_by_role("region", name="Models")
    expect(models.get_by_role("rowheader", name="qwen-plus", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="Documents").locator("tbody tr").first).to_contain_text(
        "broken.pdf"
    )
    expect(page.get_by_role("region", name="Feedback")).to_contain_text("34 euro since March")


def test_it_fits_every_size_in_light_and_dark(
    page: Page, context: BrowserContext, server: Server
) -> None:
    opened(page, server)
    expect(page.locator("#charts path").first).to_be_attached()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        looked_at(page, f"operations-{theme}", (DESK, WIDE, SMALL, PHONE))


def test_charts_can_be_read_without_eyes(page: Page, server: Server) -> None:
    opened(page, server)
    chart = page.locator("figure", has_text="Time to first token")
    summary = chart.get_by_role("img").first
    expect(summary).to_have_accessible_name(re.compile(r"^Time to first token\. p50: .* between"))
    chart.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(chart.locator("tbody tr")).to_have_count(60)
    assert chart.locator("thead th").all_text_contents() == ["Time", "p50", "p95"]
    axe_finds_nothing(page)


def test_the_window_is_chosen_by_keyboard_and_kept_in_the_address(
    page: Page, server: Server
) -> None:
    opened(page, server)
    with page.expect_response(lambda reply: "window=day" in reply.url):
        page.keyboard.press("3")
    expect(page.get_by_role("radio", name="Day")).to_be_checked()
    page.get_by_role("radio", name="Day").focus()
    with page.expect_response(lambda reply: "window=week" in reply.url):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Week")).to_be_focused()
    assert page.url.endswith("/ops?window=week")
    page.reload()
    expect(page.get_by_role("radio", name="Week")).to_be_checked()


def test_what_is_live_takes_no_focus_and_can_be_paused(page: Page, server: Server) -> None:
    opened(page, server)
    answers = page.get_by_role("region", name="Recent answers")
    last = answers.get_by_role("button").first
    last.focus()
    name = last.get_attribute("aria-label")
    sent = chat(server, "qwen-plus")
    new = f"Show the trace of {sent.headers['x-slipway-answer-id']}"
    expect(answers.get_by_role("button", name=new)).to_be_visible()
    expect(answers.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("p")
    expect(page.locator("#updated")).to_contain_text("Paused")
    expect(page.get_by_role("button", name="Resume")).to_have_attribute("aria-pressed", "true")


def test_the_trace_of_an_answer_is_a_waterfall(page: Page, server: Server) -> None:
    retried = next(each for each in reversed(server.past) if len(each.attempts) == 2)
    opened(page, server, query=f"?answer={retried.done.id}")
    dialog = page.get_by_role("dialog", name="Trace")
    expect(dialog.locator(".waterfall tbody th.attempt")).to_have_count(2)
    expect(dialog).to_contain_text("connection refused")
    axe_finds_nothing(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    button = page.get_by_role("region", name="Recent answers").get_by_role("button").first
    button.focus()
    page.keyboard.press("Enter")
    expect(dialog.locator(".waterfall")).to_be_visible()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_money_is_shown_by_app_key_and_tenant(page: Page, server: Server) -> None:
    opened(page, server)
    money = page.locator("section", has=page.get_by_role("heading", name="Tokens and money"))
    expect(money.locator("tbody th").first).to_have_text("support")
    expect(money).to_contain_text("of 0.05 USD today")
    money.get_by_role("radio", name="App").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(money.locator("tbody th", has_text="acme")).to_be_visible()
    assert {*money.locator("tbody th").all_text_contents()} == {"acme", "globex", "default"}


def test_the_keyboard_reaches_the_numbers(page: Page, server: Server) -> None:
    opened(page, server)
    page.locator("body").press("Home")
    tab_to(page, "Skip to the state", "Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_be_focused()
    tab_to(page, "Values", "Tab")


def test_the_theme_is_chosen_in_the_settings(page: Page, server: Server) -> None:
    opened(page, server)
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name="Settings")
    dialog.get_by_role("radio", name="Dark").check()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    axe_finds_nothing(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Settings")).to_be_focused()


def test_it_speaks_chinese_with_the_same_words(page: Page, server: Server) -> None:
    opened(page, server, query="?lang=zh")
    expect(page.get_by_role("heading", name="运维")).to_be_visible()
    both = page.evaluate("""async () => {
        const names = (words) => Object.entries(words).map(([name, value]) =>
            typeof value === "object" ? [name, Object.keys(value)] : [name, typeof value]);
        const found = ["english", "chinese"].map((name) => import(`/static/ops/${name}.js`));
        return (await Promise.all(found)).map((each) => names(each.default));
    }""")
    assert both[0] == both[1]
    assert not re.search(r"undefined|NaN", page.locator("main").text_content() or "")


def test_an_incident_is_seen(page: Page, tmp_path: Path) -> None:
    with operated(tmp_path) as server:
        opened(page, server, query="?window=now")
        for _ in range(120):
            refused = chat(server, "qwen-plus-sg")
            assert refused.status_code == 502
        sees_the_incident(page)


def sees_the_incident(page: Page) -> None:
    expect(page.locator("#verdict")).to_have_attribute("data-state", "red")
    expect(page.locator("#verdict-reasons")).to_contain_text("of answers fail")
    expect(page.locator("#verdict-reasons")).to_contain_text("Not called now: qwen-plus-sg")
    alerts = page.get_by_role("region", name="Alerts")
    expect(alerts.get_by_role("rowheader", name="AvailabilityBurnFast")).to_be_visible()
    assert page.title().startswith("✕")
    looked_at(page, "operations-incident", (PHONE, DESK))
