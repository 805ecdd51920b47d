"""The small chat in another site: for allowed origins only."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import expect

import plain_http
from browsing import DESK, PHONE, Watched, looked_at, needs_chromium, serving

DOCUMENT = "# Office\n\n## Opening hours\n\nThe office opens at nine.\n"
KEY = "sw-a-public-key"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Another site on this machine: `localhost` is another site than `127.0.0.1`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    for name in ("docs", "site"):
        (folder / name).mkdir()
    (folder / "docs" / "office.md").write_text(DOCUMENT)
    return folder


@pytest.fixture(scope="module")
def other_site(folder: Path) -> Iterator[str]:
    with site(folder / "site") as url:
        yield url


@pytest.fixture(scope="module")
def server(folder: Path, other_site: str) -> Iterator[str]:
    (folder / "slipway.yaml").write_text(
        f"listen: {{allowed_origins: ['{other_site}']}}\n"
        f"keys: [{{key: {KEY}, apps: [support]}}]\n"
        "apps: {support: {knowledge: [./docs]}, other: {knowledge: [./docs]}}\n"
    )
    with serving(folder / "server.log", "--config", "slipway.yaml", ready=False) as url:
        yield url


def write_page(folder: Path, server: str) -> None:
    script = f'<script src="{server}/embed.js" data-app="support" data-key="{KEY}"></script>'
    page = (
        f'<html lang="en"><title>Shop</title><body><main><h1>Shop</h1></main>{script}</body></html>'
    )
    (folder / "site" / "index.html").write_text(page)


def test_only_allowed_origins_may_frame_the_page(server: str, other_site: str) -> None:
    policy = plain_http.get(f"{server}/embed").headers["content-security-policy"]
    assert f"frame-ancestors {other_site}" in policy
    assert "frame-ancestors 'none'" in plain_http.get(server).headers["content-security-policy"]
    cross = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    script = plain_http.get(f"{server}/embed.js", headers=cross)
    assert (script.status_code, script.headers["content-type"].partition(";")[0]) == (
        200,
        "text/javascript",
    )
    assert plain_http.get(f"{server}/v1/models", headers=cross).status_code == 403


@needs_chromium
def test_a_visitor_of_another_site_asks_and_gets_an_answer(
    watched: Watched, folder: Path, server: str, other_site: str
) -> None:
    page = watched.page
    write_page(folder, server)
    page.goto(other_site)
    opener = page.get_by_role("button", name="Ask a question")
    expect(page.locator("iframe")).to_be_hidden()
    opener.click()
    chat = page.frame_locator("iframe")
    expect(chat.locator("#empty")).to_be_visible()
    chat.get_by_label("Your question").fill("When does the office open?")
    chat.get_by_label("Your question").press("Enter")
    expect(chat.locator(".turn .how")).to_be_visible()
    expect(chat.locator(".answer")).to_contain_text("opens at nine")
    expect(chat.locator("#side-toggle")).to_be_hidden()
    looked_at(page, "embed", sizes=[DESK, PHONE])
    chat.get_by_label("Your question").press("Escape")
    expect(page.locator("iframe")).to_be_hidden()
    expect(opener).to_be_focused()
    watched.strayed[:] = [url for url in watched.strayed if not url.startswith(other_site)]
    expected = ("404", "postMessage")  # the other site's favicon; axe, which speaks to each frame
    watched.errors[:] = [each for each in watched.errors if not any(e in each for e in expected)]


@needs_chromium
def test_a_link_cannot_put_another_key_in_place_of_the_reader_s(
    watched: Watched, server: str
) -> None:
    """The frame takes its key from its address. Opened by itself, the page asks for the reader's."""
    page = watched.page
    page.goto(f"{server}/embed#key={KEY}&app=support")
    expect(page.locator("#lock")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('slipway.key')") is None
    watched.errors[:] = [each for each in watched.errors if "401" not in each]
