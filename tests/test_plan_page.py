"""Test the reports of `eval run` and `plan` in a browser, and the questions of `plan init` as a
page.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from browsing import DESK, PHONE, needs_chromium
from processes import COMMAND, mock_process, run

pytestmark = needs_chromium
EVIL = 'Answer: A <script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'


@contextmanager
def looked(browser: Browser, url: str, size: tuple[int, int], scheme: str) -> Iterator[Page]:
    """Check a page: nothing may fail, nothing may be fetched, and everybody can read it."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page, errors = context.new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: (
            errors.append(request.url)
            if not request.url.startswith(url.split("#")[0][:20])
            else None
        ),
    )
    page.goto(url)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    found = Axe().run(page).response["violations"]
    assert not found, [(each["id"], [n["html"][:120] for n in each["nodes"][:2]]) for each in found]
    assert not errors
    context.close()


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_the_report_of_a_run_names_the_better_candidate(
    tmp_path: Path, browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    rows = [
        {
            "question": f"Which? {n}",
            "choices": ["x", "y"],
            "reference": "A" if n % 4 else "B",
            "tags": ["odd" if n % 2 else "even"],
        }
        for n in range(24)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (
        mock_process("--text", EVIL, "--ttft", "0", "--tpot", "0") as one,
        mock_process("--text", "Answer: B", "--ttft", "0", "--tpot", "0") as other,
    ):
        price = {"input": 1, "output": 1}
        models = {
            name: {"base_url": m, "name": "mock-model", "price": price}
            for name, m in (("one", one), ("other", other))
        }
        (tmp_path / "slipway.yaml").write_text(json.dumps({"models": models}))
        run(
            "eval",
            "run",
            "--set",
            "own.jsonl",
            "--html",
            "report.html",
            "--save",
            "log.jsonl",
            cwd=tmp_path,
        )
    with looked(browser, (tmp_path / "report.html").as_uri(), size, scheme) as page:
        expect(
            page.get_by_text("No candidate is surely better than all others.").or_(
                page.get_by_text("one is better than every other candidate")
            )
        ).to_be_visible()
        expect(page.get_by_role("img", name="Scores")).to_be_visible()
        expect(page.get_by_role("img", name="Quality and cost")).to_be_visible()
        expect(page.get_by_role("img", name="Differences")).to_be_visible()
        page.locator("summary").first.click()
        expect(page.get_by_text("<script>window.pwned = 1</script>").first).to_be_visible()
        assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_a_manager_can_read_a_plan(
    tmp_path: Path, browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    needs = {
        "name": "Desk <b>one</b>",
        "task": "rag",
        "privacy": {"deployment": "own"},
        "availability": 0.999,
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(needs))
    run("plan", "r.yaml", cwd=tmp_path)
    with looked(browser, (tmp_path / "plan" / "report.html").as_uri(), size, scheme) as page:
        expect(page.get_by_role("heading", name="Plan: Desk <b>one</b>")).to_be_visible()
        expect(page.get_by_text("Use open/qwen2.5-32b-instruct, for $")).to_be_visible()
        for heading in (
            "What it costs",
            "If it fails",
            "Who passes",
            "Who does not",
            "What was reckoned with",
            "Where the facts are from",
        ):
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        expect(page.get_by_role("img", name="A month in USD")).to_be_visible()
        expect(page.get_by_role("img", name="Quality and cost")).to_be_visible()


class Asking:
    """`slipway plan init --page` under way."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process, self.url = process, url


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    process = subprocess.Popen(
        [*COMMAND, "plan", "init", "--page", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as out:
        said = out.readline()
        yield Asking(process, said.split(" ")[4])
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_the_questions_are_asked_on_a_page(
    tmp_path: Path, browser: Browser, asking: Asking, size: tuple[int, int], scheme: str
) -> None:
    with looked(browser, asking.url, size, scheme) as page:
        page.get_by_label("What is the model for?").fill("poetry")
        page.get_by_label("How many requests come in a second, on average?").fill("2")
        page.get_by_label("And in the busiest minute?").fill("1")
        page.get_by_role("button", name="Make the plan").click()
        expect(page.get_by_role("alert")).to_have_text(
            "2 of the answers cannot be used; each says why."
        )
        expect(page.get_by_text("task: there is no `poetry`")).to_be_visible()
        expect(
            page.get_by_text("traffic.peak_rps: 1 is less than traffic.mean_rps, 2")
        ).to_be_visible()
        assert not (tmp_path / "requirements.yaml").exists()
        page.get_by_label("What is the model for?").fill("rag")
        page.get_by_label("And in the busiest minute?").fill("9")
        page.get_by_label("In which regions may they be answered?").fill("cn")
        page.get_by_role("button", name="Make the plan").click()
        expect(page.get_by_role("heading", name="What it costs")).to_be_visible()
    written = yaml.safe_load((tmp_path / "requirements.yaml").read_text())
    assert (written["task"], written["traffic"]) == ("rag", {"mean_rps": 2, "peak_rps": 9})


def test_no_other_site_can_send_the_form(asking: Asking, tmp_path: Path) -> None:
    assert httpx.get(asking.url, headers={"Host": "evil.example"}).status_code == 403
    assert httpx.post(asking.url, data={"task": "rag"}).status_code == 403
    assert httpx.post(asking.url, data={"task": "rag", "token": "guessed"}).status_code == 403
    assert httpx.post(asking.url, content=b"x" * 70_000).status_code == 413
    assert not (tmp_path / "requirements.yaml").exists()
