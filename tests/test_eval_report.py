"""Test the report of `slipway eval answers` in a browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import plain_http
from browsing import DESK, SMALL, command, looked_at, needs_chromium
from test_eval_answers import QUESTIONS, EvalWorkspace, two_apps

pytestmark = needs_chromium
BAD = (
    "Everyone has 30 days of leave a year [1]. [9] <script>window.pwned = 1</script><img src=x "
    'onerror="window.pwned = 1">'
)


@pytest.fixture
def workspace(tmp_path: Path) -> EvalWorkspace:
    return EvalWorkspace(tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_shows_numbers_plots_and_every_answer(
    workspace: EvalWorkspace, browser: Browser, scheme: str
) -> None:
    workspace.ask(
        [*QUESTIONS, {"id": "dog", "question": "May I bring my dog?", "unanswerable": True}]
    )
    with command(workspace.folder / "mock.log", "mock", "--port", "0", "--text", BAD) as url:
        workspace.settings(**two_apps(url))
        done = workspace.run("--html", "report.html", "--json")
    assert done.returncode == 0, done.stderr
    assert "the report is in report.html" in done.stderr
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": DESK[0], "height": DESK[1]},
    )
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((workspace.folder / "report.html").as_uri())
    assert len(asked) == 1  # itself
    expect(page.get_by_role("heading", name="Answers, measured")).to_be_visible()
    table = page.get_by_role("region", name="Results").locator("tbody tr", has_text="fact overlap")
    assert (
        table.locator("td").all_text_contents()[1].startswith("0.500")
    )  # of two questions, one has its facts
    assert page.get_by_role("img", name="Shares").locator(".dot").count() >= 10
    assert page.get_by_role("img", name="Seconds to the first words").locator(".curve").count() == 2
    expect(page.get_by_role("heading", name="Differences to plain")).to_be_visible()
    first = page.locator("details").first
    first.locator("summary").click()
    written = first.locator("section", has_text="written")
    expect(written.locator(".text")).to_have_text(BAD.replace(" [9]", ""))
    assert written.locator("mark").all_text_contents() == ["30", "year"]
    expect(written.locator(".citations .good")).to_have_text("right")
    expect(written.locator(".citations li").last).to_have_text(
        "1 more named no source, and were removed"
    )
    expect(page.locator("details", has_text="dog").locator("summary")).to_contain_text(
        "written: no answer"
    )
    page.emulate_media(media="print")
    expect(page.locator("details").nth(1).locator(".gold")).to_contain_text(
        "80 degrees"
    )  # on paper, nothing is folded
    assert (
        page.evaluate(
            "getComputedStyle(document.querySelectorAll('details')[1], "
            "'::details-content').contentVisibility"
        )
        == "visible"
    )
    page.emulate_media(media="screen")
    assert page.evaluate("window.pwned") is None
    looked_at(page, f"report-{scheme}", sizes=[DESK, SMALL])
    context.close()


def test_the_report_shows_a_failed_answer(workspace: EvalWorkspace, browser: Browser) -> None:
    with command(
        workspace.folder / "mock.log", "mock", "--port", "0", "--text", BAD, "--script", "cut-5@1"
    ) as url:
        workspace.settings(**two_apps(url))
        done = workspace.run("--app", "written", "--html", "report.html", "--concurrency", "1")
    assert done.returncode == 1
    page = browser.new_page()
    page.goto((workspace.folder / "report.html").as_uri())
    expect(page.locator("summary .verdict", has_text="failed")).to_have_count(1)
    expect(page.locator(".notes")).to_contain_text("1 of 2 answers failed and count as none")
    page.locator("details").first.locator("summary").click()
    expect(page.locator("details").first.locator(".text").last).to_have_text(
        "Everyone has 30 days of "
    )  # what came before it broke
    page.close()


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_paid(
    workspace: EvalWorkspace,
) -> None:
    with command(workspace.folder / "mock.log", "mock", "--port", "0", "--text", BAD) as url:
        workspace.settings(**two_apps(url))
        done = workspace.run("--html", "nowhere/report.html")
        assert plain_http.get(f"{url}/requests").json() == []
    assert done.returncode == 2
    assert "--html: nowhere/report.html cannot be written: no such file or directory" in done.stderr
