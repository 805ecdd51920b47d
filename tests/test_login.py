"""Signing in: a trusted proxy's header, and OpenID Connect with a real provider on loopback."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, expect

import plain_http
from browsing import Watched, ask, needs_chromium, settled
from processes import Serving, free_port, serving

ADA = {"sub": "ada", "name": "Ada Lovelace", "groups": ["staff"], "email": "ada@example.org"}
BOB = {"sub": "bob", "name": "Bob", "groups": [], "email": "bob@example.org"}
DOCUMENTS = {
    "open.md": "# Open\n\n## Opening hours\n\nThe office opens at nine.\n",
    "staff.md": "---\ngroups: [staff]\n---\n# Staff\n\n## Salaries\n\nSalaries are paid on day 25.\n",
}
QUESTION = "When are salaries paid, and when does the office open?"


BROWSERS: list[httpx.Client] = []  # of the test that runs


@pytest.fixture(autouse=True)
def browsers_are_closed() -> Iterator[None]:
    yield
    while BROWSERS:
        BROWSERS.pop().close()


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Start an OpenID Connect provider with two users, who sign in by pressing their name."""
    port = free_port()
    module = ["-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce"]
    users = [part for user in (ADA, BOB) for part in ("--user-claims", json.dumps(user))]
    process = subprocess.Popen([sys.executable, *module, *users], stderr=subprocess.DEVNULL)
    url = f"http://localhost:{port}"
    until = time.monotonic() + 20
    while not answers(f"{url}/.well-known/openid-configuration"):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(10)


def answers(url: str) -> bool:
    try:
        return plain_http.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("login")
    (folder / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (folder / "docs" / name).write_text(text)
    return folder


def settings(folder: Path, login: dict[str, Any], **more: Any) -> dict[str, Any]:
    apps = {"docs": {"knowledge": [str(folder / "docs")]}}
    return {"login": login, "apps": apps, "conversations": "server", **more}


@pytest.fixture(scope="module")
def server(folder: Path, provider: str) -> Iterator[Serving]:
    oidc = {"issuer": provider, "client_id": "slipway", "client_secret": "a-secret"}
    with serving(folder, settings=settings(folder, {"oidc": oidc})) as server:
        yield server


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Serving]:
    place = tmp_path_factory.mktemp("proxied")
    login = {"header": "X-Forwarded-User", "proxies": ["127.0.0.1"]}
    keys = [{"key": "sw-a-key-beside", "groups": ["staff"]}]
    with serving(place, settings=settings(folder, login, keys=keys)) as server:
        yield server


def signing_in(server: Serving, provider: str, sub: str) -> tuple[httpx.Client, str]:
    """Follow a sign-in until the provider sends the browser back; return the browser and the
    address.
    """
    client = plain_http.Client(base_url=server.url)
    BROWSERS.append(client)
    begun = client.get("/login")
    assert begun.status_code == 303
    url = begun.headers["location"]
    assert url.startswith(provider)
    asked = parse_qs(urlsplit(url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["nonce"]
    assert asked["state"]
    returned = plain_http.post(url, data={"sub": sub})
    assert returned.status_code == 302, returned.text
    return client, returned.headers["location"]


def signed_in(server: Serving, provider: str, sub: str) -> httpx.Client:
    client, back = signing_in(server, provider, sub)
    reply = client.get(back)
    assert (reply.status_code, reply.headers["location"]) == (303, "../")
    return client


def refused(client: httpx.Client, back: str) -> bool:
    reply = client.get(back)
    assert "slipway_session" not in reply.cookies
    return reply.headers["location"] == "/?signin=refused"


def answered(client: httpx.Client) -> set[str]:
    """Return the documents that an answer to QUESTION uses."""
    headers = {"sec-fetch-site": "same-origin"}
    body = {"question": QUESTION, "app": "docs"}
    reply = client.post("/v1/answers", json=body, headers=headers, timeout=30)
    assert reply.status_code == 200, reply.text
    return {source["path"] for source in reply.json()["sources"]}


# OpenID Connect


def test_people_sign_in_and_their_groups_count(server: Serving, provider: str) -> None:
    with (
        closing(signed_in(server, provider, "ada")) as ada,
        closing(signed_in(server, provider, "bob")) as bob,
    ):
        assert ada.get("/v1/session").json()["person"] == "Ada Lovelace"
        assert answered(ada) == {"open.md", "staff.md"}
        assert answered(bob) == {"open.md"}
    assert plain_http.get(f"{server.url}/v1/session").status_code == 401
    assert plain_http.get(f"{server.url}/readyz").json()["login"] is True


def test_the_session_is_a_strict_cookie_and_ends_by_signing_out(
    server: Serving, provider: str
) -> None:
    client, back = signing_in(server, provider, "ada")
    set_cookies = client.get(back).headers.get_list("set-cookie")
    [session] = [each for each in set_cookies if each.startswith("slipway_session=")]
    assert "HttpOnly" in session
    assert "SameSite=strict" in session
    value = client.cookies["slipway_session"]
    ours = {"sec-fetch-site": "same-origin"}
    assert client.post("/logout", headers=ours).status_code == 200
    assert client.get("/v1/session").status_code == 401
    again = plain_http.get(f"{server.url}/v1/session", cookies={"slipway_session": value})
    assert again.status_code == 401, "the old cookie must not count any more"


def test_who_signed_out_stays_signed_out_after_a_restart(
    tmp_path: Path, folder: Path, provider: str
) -> None:
    oidc = {"issuer": provider, "client_id": "slipway", "client_secret": "a-secret"}
    tree = settings(folder, {"oidc": oidc})
    with serving(tmp_path, settings=tree) as server:
        ada, bob = (signed_in(server, provider, each) for each in ("ada", "bob"))
        cookies = [dict(each.cookies) for each in (ada, bob)]
        assert ada.post("/logout", headers={"sec-fetch-site": "same-origin"}).status_code == 200
    with serving(tmp_path, settings=tree) as server:
        sent = [plain_http.get(f"{server.url}/v1/session", cookies=each) for each in cookies]
        assert [reply.status_code for reply in sent] == [401, 200]


def test_state_nonce_and_codes_of_others_are_refused(server: Serving, provider: str) -> None:
    client, back = signing_in(server, provider, "ada")
    other, others_back = signing_in(server, provider, "bob")
    with closing(client), closing(other):
        with closing(plain_http.Client(base_url=server.url)) as stranger:
            assert refused(stranger, back), "without the cookie"
        forged = re.sub("state=[^&]+", "state=guessed", back)
        assert refused(client, forged)
    client, back = signing_in(server, provider, "ada")
    with closing(
        client
    ):  # a code that was made for somebody else's attempt: its nonce and verifier differ
        code = parse_qs(urlsplit(others_back).query)["code"][0]
        assert refused(client, re.sub("code=[^&]+", f"code={code}", back))
    client, back = signing_in(server, provider, "ada")
    with closing(client):
        assert client.get(back).headers["location"] == "../"
        assert refused(client, back), "a reply counts once"


def test_a_session_cannot_be_forged_or_taken_from_the_attempt(
    server: Serving, provider: str
) -> None:
    client, _ = signing_in(server, provider, "ada")
    attempt = client.cookies["slipway_sign_in"]
    for value in ("x", "e30.e30", attempt, f"{attempt.partition('.')[0]}.", "é.ü"):
        cookie = {b"cookie": f"slipway_session={value}".encode()}
        reply = plain_http.get(f"{server.url}/v1/session", headers=cookie)
        assert reply.status_code == 401, value


@pytest.mark.parametrize(
    "after",
    ["https://evil.invalid/", "//evil.invalid", "/\\evil.invalid", "javascript:alert(1)", "?x=y"],
)
def test_signing_in_leads_back_to_the_page_only(server: Serving, provider: str, after: str) -> None:
    with plain_http.Client(base_url=server.url) as client:
        url = client.get("/login", params={"next": after}).headers["location"]
        back = plain_http.post(url, data={"sub": "ada"}).headers["location"]
        assert client.get(back).headers["location"] == "../"
        url = client.get("/login", params={"next": "?share=shr-1"}).headers["location"]
        back = plain_http.post(url, data={"sub": "ada"}).headers["location"]
        assert client.get(back).headers["location"] == "../?share=shr-1"


def test_another_site_cannot_act_with_the_cookie(server: Serving, provider: str) -> None:
    with closing(signed_in(server, provider, "ada")) as ada:
        body = {"question": QUESTION, "app": "docs"}
        for headers in (
            {},
            {"origin": "https://evil.invalid"},
            {"sec-fetch-site": "cross-site"},
            {"origin": "null"},
        ):
            reply = ada.post("/v1/answers", json=body, headers=headers)
            assert reply.status_code == 403, headers
        ours = {"origin": server.url}
        assert ada.post("/v1/answers", json=body, headers=ours, timeout=30).status_code == 200


def test_conversations_of_other_people_are_not_visible(server: Serving, provider: str) -> None:
    ours = {"sec-fetch-site": "same-origin"}
    turn = {"question": "Q", "app": "docs", "sources": [{"path": "staff.md"}], "sections": []}
    row = {"title": "Mine", "at": 1, "turns": [turn]}
    with (
        closing(signed_in(server, provider, "ada")) as ada,
        closing(signed_in(server, provider, "bob")) as bob,
    ):
        assert ada.put("/v1/conversations/c1", json=row, headers=ours).status_code == 200
        assert ada.get("/v1/conversations/c1").json()["turns"] == [turn]
        assert [c["id"] for c in ada.get("/v1/conversations?q=mine").json()["data"]] == ["c1"]
        assert bob.get("/v1/conversations/c1").status_code == 404
        assert bob.delete("/v1/conversations/c1", headers=ours).status_code == 404
        assert bob.get("/v1/conversations").json()["data"] == []
        share = ada.post("/v1/shares", json={"turns": [turn]}, headers=ours).json()["id"]
        assert ada.get(f"/v1/shares/{share}").json()["turns"] == [turn]
        assert bob.get(f"/v1/shares/{share}").status_code == 404, "it cites what he may not read"
        assert bob.post("/v1/shares", json={"turns": [turn]}, headers=ours).status_code == 400
        readable = {**turn, "sources": [{"path": "open.md"}]}
        share = ada.post("/v1/shares", json={"turns": [readable]}, headers=ours).json()["id"]
        assert bob.get(f"/v1/shares/{share}").status_code == 200
        assert bob.delete(f"/v1/shares/{share}", headers=ours).status_code == 404
        assert plain_http.get(f"{server.url}/v1/shares/{share}").status_code == 401
        assert ada.delete(f"/v1/shares/{share}", headers=ours).status_code == 200
        assert bob.get(f"/v1/shares/{share}").status_code == 404


@needs_chromium
def test_staff_sign_in_on_the_page_and_paste_no_key(
    watched: Watched, context: BrowserContext, server: Serving
) -> None:
    page = watched.page
    page.goto(server.url)
    page.get_by_role("link", name="Sign in").click()
    page.get_by_text("ada", exact=False).first.click()
    expect(page.locator("#empty")).to_be_visible()
    ask(page, QUESTION)
    settled(page)
    expect(page.locator(".found")).to_contain_text("staff.md")
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("menuitem", name="Sign out Ada Lovelace").click()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    assert "slipway_session" not in {cookie["name"] for cookie in context.cookies()}
    strayed = {urlsplit(url).hostname for url in watched.strayed}
    assert strayed <= {"localhost", "cdn.jsdelivr.net"}  # the provider, and what its page loads
    watched.strayed.clear()
    assert [error for error in watched.errors if "Failed to load" not in error] == []
    watched.errors.clear()


# A trusted proxy


def test_the_proxys_header_names_the_person(proxied: Serving) -> None:
    ada = {"x-forwarded-user": "ada", "x-forwarded-groups": "staff, other"}
    session = plain_http.get(f"{proxied.url}/v1/session", headers=ada).json()
    assert (session["person"], session["logout"]) == ("ada", False)
    with plain_http.Client(base_url=proxied.url, headers=ada) as client:
        assert answered(client) == {"open.md", "staff.md"}
    with plain_http.Client(base_url=proxied.url, headers={"x-forwarded-user": "bob"}) as client:
        assert answered(client) == {"open.md"}
    assert plain_http.get(f"{proxied.url}/v1/session").status_code == 401
    key = {"authorization": "Bearer sw-a-key-beside", "x-forwarded-user": "bob"}
    with plain_http.Client(base_url=proxied.url, headers=key) as client:
        assert answered(client) == {"open.md", "staff.md"}, "a key that is sent counts"


def test_a_header_from_an_address_that_is_not_a_proxy_is_ignored(
    tmp_path: Path, folder: Path
) -> None:
    login = {"header": "X-Forwarded-User", "proxies": ["10.1.2.0/24"]}
    with serving(tmp_path, settings=settings(folder, login)) as server:
        forged = {"x-forwarded-user": "ada", "x-forwarded-for": "10.1.2.3"}
        assert plain_http.get(f"{server.url}/v1/session", headers=forged).status_code == 401
        assert plain_http.get(f"{server.url}/v1/models", headers=forged).status_code == 401


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ({"header": "X-User"}, "list the addresses of your proxy in `login.proxies`"),
        ({"header": "X-User", "proxies": ["10.0.0.0/99"]}, "login.proxies[0]"),
        ({}, "neither `header` nor `oidc`"),
        ({"oidc": {"issuer": "http://id.example.org", "client_id": "x"}}, "https://"),
        ({"header": "X-User", "proxies": ["::1"], "apps": ["dogs"]}, "did you mean `docs`?"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, folder: Path, login: dict[str, Any], said: str
) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text(json.dumps(settings(folder, login)))
    command = [sys.executable, "-c", "from slipway.cli import main; main()", "check"]
    found = subprocess.run([*command, "--config", str(file)], capture_output=True, text=True)
    assert found.returncode == 2, found.stdout
    assert said in found.stderr + found.stdout
