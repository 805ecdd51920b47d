"""Test uploads over HTTP: known at once, read a few at a time, visible only to their readers."""

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import hostile
import plain_http
from processes import Serving, serving
from waiting import PATIENCE_S, until

KEYS = {
    "hr": "sw-of-the-people-office",
    "clerk": "sw-of-the-clerks",
    "reader": "sw-of-those-who-read",
}
TEXT = b"<h1>Tortoises</h1><p>The tortoise is paid 77 crowns.</p>"
SLOW = TEXT + b"<div>" * 20_000 + b"x"  # the parser is quadratic in the depth: half a second
SLOWER = TEXT + b"<div>" * 60_000 + b"x"  # and more than the two that an upload waits


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "docs").mkdir()
    (folder / "docs" / "harbor.md").write_text("# Harbor\n\nThe harbor master assigns a berth.\n")
    settings: dict[str, Any] = {
        "keys": [
            {"key": KEYS["hr"], "groups": ["hr"], "documents": True},
            {"key": KEYS["clerk"], "documents": True},
            {"key": KEYS["reader"]},
        ],
        "apps": {
            "docs": {
                "knowledge": ["./docs"],
                "access": [{"path": "uploads/pay-list.md", "groups": ["hr"]}],
            }
        },
        "limits": {"head_timeout": "2s"},
        "embedding": "none",
    }
    with serving(folder, settings=settings) as server:
        yield server


def of(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[who]}"}


def sent(server: Serving, who: str, *files: tuple[str, bytes], **fields: str) -> httpx.Response:
    return plain_http.post(
        f"{server.url}/v1/documents",
        headers=of(who),
        files=[("file", each) for each in files],
        data=fields,
        timeout=60,
    )


def one(server: Serving, who: str, id_: str) -> httpx.Response:
    return server.get(f"/v1/documents/{id_}", headers=of(who))


def documents(server: Serving, who: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/documents", headers=of(who)).json()["data"]
    return found


def paths(server: Serving, who: str) -> list[str]:
    return [each["path"] for each in documents(server, who)]


def read(server: Serving, who: str, id_: str) -> dict[str, Any]:
    """Wait until it is done or has failed, and return it."""

    def found() -> dict[str, Any] | None:
        document = one(server, who, id_).raise_for_status().json()
        return None if document["state"] == "reading" else dict(document)

    return until(found) or {}


def test_of_many_uploads_each_is_known_at_once_and_questions_go_on(server: Serving) -> None:
    added = sent(server, "clerk", *[(f"slow-{n}.html", SLOW) for n in range(20)])
    assert added.status_code == 201
    documents = added.json()["data"]
    assert "reading" in {each["state"] for each in documents}
    assert [one(server, "clerk", each["id"]).status_code for each in documents] == [200] * 20
    answer = server.post(
        "/v1/answers",
        {"app": "docs", "question": "Who assigns a berth?", "stream": False},
        headers=of("reader"),
    ).json()
    assert "harbor master" in answer["text"]
    states = [one(server, "clerk", each["id"]).json()["state"] for each in documents]
    assert "reading" in states, "the answer did not wait until all were read"
    assert {read(server, "clerk", each["id"])["state"] for each in documents} == {"done"}


def test_a_new_version_is_shown_as_being_read_until_it_is(server: Serving) -> None:
    before = sent(
        server, "clerk", ("pay.html", b"<h1>Pay</h1><p>The tortoise is paid 5 crowns.</p>")
    ).json()["data"][0]
    assert before["state"] == "done"
    after = sent(server, "clerk", ("pay.html", SLOWER)).json()["data"][0]
    assert after["id"] == before["id"]
    assert after["state"] == one(server, "clerk", before["id"]).json()["state"] == "reading"
    refused = plain_http.delete(f"{server.url}/v1/documents/{before['id']}", headers=of("clerk"))
    assert refused.status_code == 409
    assert one(server, "reader", before["id"]).json()["state"] == "done"
    assert read(server, "clerk", before["id"])["version"] != before["version"]


def test_a_groups_upload_is_hidden_from_others_while_it_is_read_and_if_it_fails(
    server: Serving,
) -> None:
    slow = sent(server, "hr", ("salaries.html", SLOWER), groups="hr").json()["data"][0]
    assert slow["state"] == "reading"
    assert slow["path"] in paths(server, "hr")
    assert slow["path"] not in paths(server, "clerk")
    assert one(server, "clerk", slow["id"]).status_code == 404

    broken = sent(server, "hr", ("dismissals.pdf", hostile.damaged_page()), groups="hr").json()[
        "data"
    ][0]
    assert read(server, "hr", broken["id"])["state"] == "failed"
    assert broken["path"] in paths(server, "hr")
    assert broken["path"] not in paths(server, "clerk")
    assert one(server, "clerk", broken["id"]).status_code == 404
    assert read(server, "hr", slow["id"])["state"] == "done"


MARK = re.compile(r"~[0-9a-f]{8}(?=\.md$)")


def test_an_uploads_name_never_tells_whether_there_is_a_hidden_one_of_that_name(
    server: Serving,
) -> None:
    """The clerk sees the same with and without a hidden upload of that name, and nothing of it."""
    for name in ("secret", "free"):
        plan = (f"{name}.md", b"# Plan\n\nWe buy the quarry.")
        if name == "secret":
            hidden = sent(server, "hr", plan, groups="hr").json()["data"][0]
        (own,) = sent(server, "clerk", plan).json()["data"]
        assert MARK.sub("", own["path"]) == f"uploads/{name}.md" != own["path"]
        assert own["title"] == "Plan"
        (again,) = sent(server, "clerk", plan).json()["data"]
        assert (again["path"], again["id"]) == (own["path"], own["id"])
        mine = [each for each in paths(server, "clerk") if name in each]
        assert mine == [own["path"]]
        assert f"tenant default added {own['path']} to docs" in server.log  # for the operator
    assert one(server, "hr", hidden["id"]).json()["state"] == "done"


def test_a_rule_holds_for_every_upload_of_that_name(server: Serving) -> None:
    """Whoever sends it, and whatever name it is stored under."""
    page = ("pay-list.md", b"# Pay list\n\nThe otter is paid 88 crowns.")
    ids = [sent(server, key, page).json()["data"][0]["id"] for key in ("hr", "clerk", "clerk")]
    assert len(set(ids)) == 3  # the clerk may not read, and so not replace, any of them
    for id_ in ids:
        assert read(server, "hr", id_)["state"] == "done"
        assert (
            one(server, "clerk", id_).status_code == one(server, "reader", id_).status_code == 404
        )
    asked = {"app": "docs", "question": "What is the otter paid?", "stream": False}
    for key, sources in (("hr", 3), ("clerk", 0), ("reader", 0)):
        answer = server.post("/v1/answers", asked, headers=of(key)).json()
        assert sum("Pay list" in each["heading"] for each in answer["sources"]) == sources


def test_an_upload_takes_the_place_of_one_that_its_sender_may_read(server: Serving) -> None:
    """Its own, or the only one; of several others none."""
    menu = ("menu.md", b"# Menu\n\nSoup.")
    (of_clerk,) = sent(server, "clerk", menu).json()["data"]
    (of_hr,) = sent(server, "hr", menu, groups="hr").json()["data"]
    assert of_hr["id"] == of_clerk["id"]
    (other,) = sent(server, "clerk", menu).json()["data"]
    assert other["id"] != of_hr["id"]
    for key in ("hr", "clerk"):
        before = sorted(paths(server, "hr"))
        (again,) = sent(server, key, menu, groups="").json()["data"]
        assert again["id"] == {"hr": of_hr, "clerk": other}[key]["id"]
        assert sorted(paths(server, "hr")) == before
    sent_back = other["path"].removeprefix("uploads/")
    (returned,) = sent(server, "clerk", (sent_back, b"# Menu\n\nStew.")).json()["data"]
    assert returned["id"] == other["id"]


FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\ncontent-disposition: form-data; name="file"; filename="half.md"\r\n\r\n# Half\n'
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "text": (
        {"files": [("file", (None, b"report.md"))]},
        "`file` must be a file, not text. With curl, write an @",
    ),
    "nameless": (
        {"content": PART.replace(b"half.md", b" ") + b"\r\n--b--\r\n", "headers": FORM},
        "A file has no name.",
    ),
    "cut": ({"content": PART, "headers": FORM}, "The form ends in the middle of a part."),
    "cut behind the first": (
        {"content": PART + b"\r\n" + PART, "headers": FORM},
        "The form ends in the middle of a part.",
    ),
    "tags": (
        {"files": [("file", ("a.md", TEXT))], "data": {"tags": "x" * 101}},
        "`tags` has more than 50 tags, or one has over 100 characters.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_form_that_is_wrong_is_refused_as_a_whole(server: Serving, mistake: str) -> None:
    sends, says = MISTAKES[mistake]
    before = paths(server, "clerk")
    reply = plain_http.post(
        f"{server.url}/v1/documents", **{**sends, "headers": of("clerk") | sends.get("headers", {})}
    )
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]
    assert paths(server, "clerk") == before


def test_an_unknown_filter_of_the_list_is_named(server: Serving) -> None:
    error = server.get("/v1/documents?stat=failed", headers=of("clerk")).json()["error"]
    assert (error["message"], error["param"]) == (
        "There is no query parameter `stat`. Known: app, state.",
        "stat",
    )


def test_a_wrong_method_gets_the_list_of_allowed_ones(server: Serving) -> None:
    said = [
        httpx.request("PUT", f"{server.url}/v1/documents{rest}", headers=of("clerk")).json()[
            "error"
        ]["message"]
        for rest in ("", "/x")
    ]
    assert [each.rpartition(". ")[2] for each in said] == ["Use GET or POST.", "Use DELETE or GET."]


def test_an_upload_over_a_slow_line_may_take_longer_than_a_request_may(server: Serving) -> None:
    """`limits.head_timeout` is 2 s here."""
    head = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="patience.md"\r\n\r\n# '
        b"Patience\n\n"
    )
    parts = [head, *[b"It takes its time. "] * 6, b"\r\n--b--\r\n"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        line.sendall(
            "POST /v1/documents HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer "
            f"{KEYS['clerk']}\r\nconnection: close\r\n"
            f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {sum(map(len, parts))}\r\n\r\n".encode()
        )
        for part in parts:
            time.sleep(0.7)
            line.sendall(part)
        reply = b"".join(iter(lambda: line.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 201")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["data"][0]["state"] == "done"


def test_an_upload_that_stops_on_its_way_is_cut(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as line:
        line.sendall(
            "POST /v1/documents HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer "
            f"{KEYS['clerk']}\r\n"
            "content-type: multipart/form-data; boundary=b\r\ncontent-length: 1000\r\n\r\n--b".encode()
        )
        began = time.monotonic()
        assert line.recv(65536) == b""
    assert time.monotonic() - began < PATIENCE_S
