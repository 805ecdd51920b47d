"""Test that a document which an asker may not read does not exist for that asker anywhere."""

import asyncio
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import plain_http
from knowledge_base import KnowledgeBase
from processes import Serving, serving
from slipway.knowledge.access import Access
from slipway.knowledge.document_store import Doc
from slipway.knowledge.patterns import glob
from slipway.settings import AccessRule
from slipway.settings.keys import KeySettings
from slipway.types import Asker, Within
from waiting import PATIENCE_S

# Rules by path


@pytest.mark.parametrize(
    ("pattern", "path", "means"),
    [
        ("hr/**", "hr/a/b.md", True),
        ("hr", "hr/a.md", True),
        ("/hr/", "hr/a.md", True),
        ("./hr/*.md", "hr/a.md", True),
        ("hr", "hrx/a.md", False),
        ("hr", "x/hr/a.md", False),
        ("*.pdf", "a.pdf", True),
        ("*.pdf", "x/a.pdf", False),
        ("**.pdf", "x/y/a.pdf", True),
        ("**/a.md", "a.md", True),
        ("**/a.md", "x/y/a.md", True),
        ("a/*/c.md", "a/b/c.md", True),
        ("a/*/c.md", "a/b/b/c.md", False),
        ("a/**/c.md", "a/c.md", True),
        ("a?.md", "ab.md", True),
        ("a?b", "a/b", False),
        ("a*a", "a", False),
        ("*a*b*", "xaxbx", True),
        ("ab*ba", "aba", False),
        ("**", "x/y", True),
        ("[a].md", "[a].md", True),
        ("[a].md", "a.md", False),
        ("a.md", "axmd", False),
        ("a\nb", "a\nb", True),
        ("cafe\u0301/*", "caf\u00e9/a.md", True),
        ("caf\u00e9", "cafe\u0301/a.md", True),
        ("HR", "hr/a.md", False),
        ("", "a.md", True),
    ],
)
def test_a_pattern_means_these_paths(pattern: str, path: str, means: bool) -> None:
    assert glob(pattern).match(path) is means


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 100,
        "**/" * 500 + "x",
        "**a" * 200,
        "a**/" * 300,
        ("*" * 50 + "?") * 20,
        "**a*" * 6 + "!",
    ],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    started = time.process_time()
    glob(pattern).match("/".join(["a" * 100] * 20) + "!!")
    assert time.process_time() - started < 10  # it would take years


DOC = Doc(
    id=1, public="", path="a.md", file="", state="done", stamp=1, size=0, version="", format=1
)


def test_rules_and_reaches_are_asked_for_by_many_threads_at_once() -> None:
    access = Access(lambda: RULES)
    documents = {n: replace_doc(n) for n in range(50)}

    def ask(n: int) -> bool:
        asker = Asker(owner="x", groups=frozenset({f"g{n % 7}"}))
        reach = access.document_filter(asker, Within(path=f"{n % 40}*"), documents, n // 50)
        return reach is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(3_000)))


RULES = (AccessRule(path="1*", groups=("g1",)), AccessRule(path="**", groups=("*",)))


def replace_doc(n: int) -> Doc:
    return msgspec.structs.replace(DOC, id=n, path=f"{n}.md")


STAFF, BOARD = (
    Asker(owner="s", groups=frozenset({"staff"})),
    Asker(owner="b", groups=frozenset({"board"})),
)


def known(
    tmp_path: Path,
    files: dict[str, str],
    rules: tuple[AccessRule, ...] = (),
    sources: Sequence[str] = ("docs",),
) -> KnowledgeBase:
    for path, text in files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    made = KnowledgeBase([tmp_path / source for source in sources], rules=rules)
    made.build()
    return made


@pytest.mark.parametrize(
    ("front", "staff", "board"),
    [
        ("access: [board]", False, True),
        ("ACCESS: board", False, True),
        ("Groups: [staff, board]", True, True),
        ("access: ['*']", True, True),
        ("access: []", False, False),
        ("access: ''", False, False),
        ("access: {groups: [board]}", False, True),
        ("access: ['*']\ngroups: [board]", False, True),
        ("access: [staff]\nAccess: [board]", False, False),
        ("access: [Board]", False, False),
        ("access: null", False, False),
        ("access: 7", False, False),
        ("access: {roles: [staff]}", False, False),
        ("access: [staff", False, False),
    ],
)
def test_front_matter_sets_access(tmp_path: Path, front: str, staff: bool, board: bool) -> None:
    base = known(
        tmp_path,
        {
            "docs/a.md": f"---\n{front}\n---\n# Tariff\n\nThe tariff is high.\n",
            "docs/b.md": "# B\n\nOther words.",
        },
    )
    assert [bool(base.search("tariff", asker=asker)) for asker in (STAFF, BOARD)] == [staff, board]


def test_the_first_rule_that_matches_counts_and_a_document_can_only_narrow_it(
    tmp_path: Path,
) -> None:
    files = {
        "docs/hr/open.md": "# Tariff open",
        "docs/hr/pay.md": "---\naccess: [staff]\n---\n# Tariff pay",
        "docs/none.md": "# Tariff none",
        "docs/all.md": "# Tariff all",
    }
    rules = (
        AccessRule(path="hr/open.md", groups=("*",)),
        AccessRule(path="hr", groups=("board",)),
        AccessRule(path="none.md", groups=()),
        AccessRule(path="none.md", groups=("*",)),
    )
    base = known(tmp_path, files, rules)
    paths = [
        {hit.passage.path for hit in base.search("tariff", asker=asker)} for asker in (STAFF, BOARD)
    ]
    assert paths == [{"hr/open.md", "all.md"}, {"hr/open.md", "all.md"}]


def test_a_rule_holds_whatever_other_folders_hold(tmp_path: Path) -> None:
    """If two folders have the same path, it is prefixed with the folder's name; that must not lift
    a rule.
    """
    rules = (AccessRule(path="pay.md", groups=("board",)), AccessRule(path="y", groups=("board",)))
    files = {"x/pay.md": "# Tariff one", "x/a.md": "# Other", "y/b.md": "# Tariff two"}
    base = known(tmp_path, files, rules, ("x", "y"))
    assert base.search("tariff", asker=STAFF) == []
    (tmp_path / "y" / "pay.md").write_text("# Tariff three")
    base.build()
    assert {doc.path for doc in base.reports} == {"x/pay.md", "y/pay.md", "a.md", "b.md"}
    assert base.search("tariff", asker=STAFF) == []
    (tmp_path / "y").rename(tmp_path / "gone")
    base.build()
    assert {doc.path for doc in base.reports} == {"x/pay.md", "y/pay.md", "a.md", "b.md"}, (
        "names stay while a folder is away"
    )
    assert base.search("tariff", asker=STAFF) == []


def test_a_changed_front_matter_counts_from_the_next_question_on(tmp_path: Path) -> None:
    base = known(tmp_path, {"docs/a.md": "# Tariff\n\nThe tariff is high."})
    (hit,) = base.search("tariff", asker=STAFF)
    (tmp_path / "docs" / "a.md").write_text(
        "---\naccess: [board]\n---\n# Tariff\n\nThe tariff is high."
    )
    assert base.passage(hit.passage.id, STAFF) is None
    assert base.search("tariff", asker=STAFF) == []
    assert base.search("tariff", asker=BOARD) != []


def test_a_folder_that_becomes_a_link_shows_nothing_from_outside(tmp_path: Path) -> None:
    """Between two scans, too: a question reads a changed file again."""
    base = known(
        tmp_path,
        {
            "docs/sub/a.md": "# Tariff\n\nThe tariff is high.",
            "outside/a.md": "# Tariff\n\nThe tariff is secret.",
        },
    )
    (tmp_path / "docs" / "sub").rename(tmp_path / "docs" / ".away")
    (tmp_path / "docs" / "sub").symlink_to(tmp_path / "outside")
    assert base.search("tariff") == []
    base.build()
    assert "secret" not in "".join(hit.passage.text for hit in base.search("tariff"))
    assert {doc.path: doc.state for doc in base.reports} == {"sub": "failed"}


def test_access_given_by_an_upload_applies_to_that_version_only(tmp_path: Path) -> None:
    """It does not apply to another version: after a crash before the file was written, or after a
    concurrent upload under the same name.
    """
    base = known(tmp_path, {"docs/a.md": "# Other"})
    manager = replace_asker(BOARD, documents=True)
    _, path = base.knowledge.add(
        "plan.md",
        io.BytesIO(b"# Tariff\n\nThe tariff is secret."),
        manager,
        frozenset(),
        frozenset({"board"}),
    )
    assert base.search("tariff", asker=BOARD) == []
    assert [
        doc.path for doc in base.knowledge.pending_uploads(replace_asker(STAFF, documents=True))
    ] == []
    base.knowledge.read(path)
    base.knowledge.synchronizer.collection.document_store.put_upload(
        "plan.md", "0" * 16, frozenset(), None, "killed now"
    )
    file = base.knowledge.synchronizer.collection.uploads.folder / "plan.md"
    file.touch()
    base.build()
    assert base.search("tariff", asker=STAFF) == []
    assert len(base.search("tariff", asker=BOARD)) == 1

    def add(n: int) -> None:
        text = b"# Tariff\n\nThe tariff is %s." % (b"secret" if n % 2 else b"public")
        _, path = base.knowledge.add(
            "same.md",
            io.BytesIO(text),
            manager,
            frozenset(),
            frozenset({"board"}) if n % 2 else None,
        )
        base.knowledge.read(path)

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(4)))
        base.build()
        found = base.search("tariff", asker=STAFF)
        assert [hit.passage.text for hit in found] in ([], ["The tariff is public."])


def replace_asker(asker: Asker, **fields: Any) -> Asker:
    return msgspec.structs.replace(asker, **fields)


# Everywhere, at random

GROUPS = ("red", "green", "blue")
WORDS = ("harbour", "ferry", "tariff", "crane", "anchor")
FOLDERS = ("", "hr/", "hr/pay/", "pub/", "x y/")
PATTERNS = (
    "hr/**",
    "hr",
    "pub/*",
    "**/pay/**",
    "*.md",
    "**.txt",
    "uploads/**",
    "uploads/*.txt",
    "**",
    "x*/",
    "/hr/pay",
    "?r/*",
)


@dataclass(frozen=True)
class Page:
    """A document as the oracle knows it. `own` is what its front matter says, None where it says
    nothing; `sent` the same of its sender.
    """

    path: str
    token: str
    own: frozenset[str] | None = None
    sent: frozenset[str] | None = None
    tags: frozenset[str] = frozenset()
    day: str = ""
    broken: bool = False


@dataclass
class World:
    """Keys, rules and documents at random; and what each key may see of them, by a plain predicate."""

    folder: Path
    draw: random.Random
    keys: list[KeySettings] = field(default_factory=list)
    rules: tuple[AccessRule, ...] = ()
    pages: dict[str, Page] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    passages: dict[str, list[str]] = field(default_factory=dict)

    def may_read(self, key: KeySettings, page: Page) -> bool:
        """Apply the rules; the front matter of an unreadable document is unknown."""
        rule = next((rule.groups for rule in self.rules if matches(rule.path, page.path)), None)
        return all(
            said is None or "*" in said or bool(set(said) & set(key.groups))
            for said in (rule, None if page.broken else page.own, page.sent)
        )

    def sees(self, key: KeySettings, page: Page) -> bool:
        """Return what a list shows: failed documents only to those who may change them."""
        return self.may_read(key, page) and (key.documents or not page.broken)

    def hidden(self, key: KeySettings) -> list[Page]:
        return [page for page in self.pages.values() if not self.sees(key, page)]


def matches(pattern: str, path: str) -> bool:
    """Slow and plain: letter by letter."""
    pattern = pattern.removeprefix("./").strip("/")
    return plain(pattern, path) or plain(pattern + "/**", path)


def plain(p: str, t: str) -> bool:
    if p.startswith("**/"):
        return plain(p[3:], t) or any(
            plain(p, t[n + 1 :]) for n, sign in enumerate(t) if sign == "/"
        )
    if p.startswith("**"):
        return any(plain(p[2:], t[n:]) for n in range(len(t) + 1))
    if p.startswith("*"):
        return plain(p[1:], t) or (t[:1] not in ("", "/") and plain(p, t[1:]))
    return (
        (not t)
        if not p
        else bool(t) and (p[0] == t[0] or (p[0] == "?" and t[0] != "/")) and plain(p[1:], t[1:])
    )


def some(draw: random.Random, names: Sequence[str]) -> frozenset[str]:
    return frozenset(draw.sample(names, draw.choice([0, 1, 1, 1, 2])))


def content(draw: random.Random, page: Page) -> bytes:
    front = {"tags": sorted(page.tags), "date": page.day} if page.tags or page.day else {}
    if page.own is not None:
        front[draw.choice(["access", "groups", "Access", "GROUPS"])] = sorted(page.own)
    head = f"---\n{json.dumps(front)}\n---\n" if front else ""
    body = " ".join(draw.choices(WORDS, k=8))
    text = (
        f"{head}# What about {page.token}?\n\n{body} {page.token}.\n\n## The {page.token} "
        f"{draw.choice(WORDS)}\n\n{body} {page.token}.\n"
    )
    return bytes(range(1, 32)) + b"\xff" + text.encode() if page.broken else text.encode()


def made(draw: random.Random, folder: str = "", sent: frozenset[str] | None = None) -> Page:
    token = f"zq{draw.getrandbits(40):010x}"
    kind = draw.choice(["md", "md", "txt"])
    own = None if kind == "txt" or draw.random() < 0.5 else some(draw, (*GROUPS, "*"))
    tags = (
        frozenset(draw.sample(("one", "two"), draw.choice([0, 1])))
        if kind == "md"
        else frozenset[str]()
    )
    day = draw.choice(["", "2026-01-10", "2026-02-10"]) if kind == "md" else ""
    return Page(
        path=f"{folder}{token}.{kind}",
        token=token,
        own=own,
        sent=sent,
        tags=tags,
        day=day,
        broken=draw.random() < 0.1,
    )


def world(folder: Path, draw: random.Random) -> World:
    made_up = World(folder, draw)
    made_up.keys = [
        KeySettings(
            key=f"key-{n}-{draw.getrandbits(32)}",
            groups=tuple(some(draw, GROUPS)),
            documents=draw.random() < 0.5,
        )
        for n in range(4)
    ]
    made_up.rules = tuple(
        AccessRule(path=draw.choice(PATTERNS), groups=tuple(some(draw, (*GROUPS, "*"))))
        for _ in range(draw.choice([0, 1, 2, 3]))
    )
    for _ in range(14):
        page = made(draw, draw.choice(FOLDERS))
        file = folder / "docs" / page.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(draw, page))
        made_up.pages[page.path] = page
    return made_up


class Prober:
    """Asks as somebody, and looks for what he may not see in every byte that comes back."""

    def __init__(self, made_up: World, client: httpx.AsyncClient, token: str) -> None:
        self.world, self.client, self.draw = made_up, client, made_up.draw
        self.operator = {"Authorization": f"Bearer {token}"}

    async def call(self, key: KeySettings, method: str, path: str, **more: Any) -> httpx.Response:
        hidden = self.world.hidden(key)
        reply = await self.client.request(
            method, path, headers={"Authorization": f"Bearer {key.key}"}, **more
        )
        text = reply.text + json.dumps(dict(reply.headers))
        leaks = [
            page
            for page in hidden
            if page.token in text
            or self.world.ids.get(page.path, "-none-") in text.replace(path, "")
        ]
        assert leaks == [], (method, path, more, key, reply.text)
        return reply

    async def scan(self) -> None:
        states = (
            await self.client.post("/v1/documents/scan", json={}, headers=self.operator)
        ).json()["data"]
        while states[0]["scanning"] or not states[0]["ready"]:
            await asyncio.sleep(0.01)
            states = (await self.client.get("/v1/documents/scan", headers=self.operator)).json()[
                "data"
            ]
        listed = (await self.client.get("/v1/documents", headers=self.operator)).json()["data"]
        self.world.ids = {each["path"]: each["id"] for each in listed}
        assert self.world.ids.keys() == self.world.pages.keys()
        for page in self.world.pages.values():
            if page.path not in self.world.passages and not page.broken:
                found = (
                    await self.client.post(
                        "/v1/answers", json={"question": page.token}, headers=self.operator
                    )
                ).json()
                self.world.passages[page.path] = [
                    source["id"] for source in found["sources"] if source["path"] == page.path
                ]

    async def upload(self) -> None:
        key = self.draw.choice([key for key in self.world.keys if key.documents])
        groups = some(self.draw, key.groups) if len(key.groups) > 1 else frozenset(key.groups)
        page = made(self.draw, "uploads/", groups or None)
        files, data = (
            {"file": (page.path.removeprefix("uploads/"), content(self.draw, page))},
            {"groups": ",".join(sorted(groups))},
        )
        reply = await self.client.post(
            "/v1/documents", files=files, data=data, headers={"Authorization": f"Bearer {key.key}"}
        )
        assert reply.status_code == 201, reply.text
        page = replace(page, path=reply.json()["data"][0]["path"])
        self.world.pages[page.path] = page

    async def edit(self) -> None:
        """Another access from now on: the next question must know, before any scan."""
        page = self.draw.choice(
            [
                page
                for page in self.world.pages.values()
                if page.path.endswith(".md") and page.sent is None
            ]
        )
        if page.path.startswith("uploads/"):
            return
        page = replace(page, own=some(self.draw, (*GROUPS, "*")), broken=False)
        self.world.pages[page.path] = page
        self.world.ids.pop(page.path, None)  # a list may still have it, for a second
        self.world.passages.pop(page.path, None)
        (self.world.folder / "docs" / page.path).write_bytes(content(self.draw, page))
        for key in self.world.keys:
            found = await self.call(
                key, "POST", "/v1/answers", json={"question": f"What about {page.token}?"}
            )
            assert self.world.may_read(key, page) or page.token not in found.text
        await self.scan()

    async def probe(self) -> None:
        key = self.draw.choice(self.world.keys)
        await self.draw.choice(
            [
                self.ask,
                self.ask,
                self.ask,
                self.list,
                self.one,
                self.passage,
                self.counts,
                self.chat,
            ]
        )(key)

    def question(self) -> tuple[str, Page | None]:
        page = self.draw.choice(list(self.world.pages.values()))
        return self.draw.choice(
            [
                (" ".join(self.draw.choices(WORDS, k=2)), None),
                (f"What about {page.token}?", page),
                ("mistletoe quasar", None),
            ]
        )

    def limited(self) -> tuple[dict[str, Any], Callable[[Page], bool]]:
        path = self.draw.choice(["", "", *PATTERNS])
        tags = self.draw.choice([(), (), ("one",)])
        since = self.draw.choice(["", "", "2026-02-01"])
        within = {
            name: said
            for name, said in (("path", path), ("tags", list(tags)), ("since", since))
            if said
        }

        def wanted(page: Page) -> bool:
            return (
                (not path or matches(path, page.path))
                and set(tags) <= page.tags
                and (not since or page.day >= since)
            )

        return within, wanted

    async def ask(self, key: KeySettings) -> None:
        (question, page), (within, wanted) = self.question(), self.limited()
        stream = self.draw.random() < 0.3
        body = {"question": question, "stream": stream, **({"within": within} if within else {})}
        reply = await self.call(key, "POST", "/v1/answers", json=body)
        assert reply.status_code == 200, reply.text
        if stream:
            return
        paths = {source["path"] for source in reply.json()["sources"]}
        assert all(
            self.world.may_read(key, self.world.pages[path]) and wanted(self.world.pages[path])
            for path in paths
        )
        if page is not None and not page.broken and self.world.may_read(key, page) and wanted(page):
            assert page.path in paths, "what may be read is found"

    async def chat(self, key: KeySettings) -> None:
        message = {"role": "user", "content": self.question()[0]}
        body = {
            "model": "docs",
            "messages": [message],
            "stream": True,
            "stream_options": {"include_progress": True},
        }
        assert (await self.call(key, "POST", "/v1/chat/completions", json=body)).status_code == 200

    async def list(self, key: KeySettings) -> None:
        data = (await self.call(key, "GET", "/v1/documents")).json()["data"]
        assert {each["path"] for each in data} == {
            page.path for page in self.world.pages.values() if self.world.sees(key, page)
        }

    async def one(self, key: KeySettings) -> None:
        page = self.draw.choice(list(self.world.pages.values()))
        reply = await self.call(key, "GET", f"/v1/documents/{self.world.ids[page.path]}")
        if self.world.sees(key, page):
            assert reply.json()["path"] == page.path
            return
        missing = await self.call(
            key, self.draw.choice(["GET", "DELETE"]), "/v1/documents/doc-" + "0" * 32
        )
        assert (
            (reply.status_code, error_of(reply))
            == (missing.status_code, error_of(missing))
            == (404, error_of(missing))
        )
        deleted = await self.call(key, "DELETE", f"/v1/documents/{self.world.ids[page.path]}")
        assert (deleted.status_code, error_of(deleted)) == (404, error_of(missing))

    async def passage(self, key: KeySettings) -> None:
        page = self.draw.choice(
            [page for page in self.world.pages.values() if self.world.passages.get(page.path)]
        )
        reply = await self.call(
            key, "GET", f"/v1/passages/{self.draw.choice(self.world.passages[page.path])}"
        )
        if self.world.may_read(key, page):
            assert reply.json()["path"] == page.path
            return
        missing = await self.call(key, "GET", "/v1/passages/psg-" + "0" * 32)
        assert (
            (reply.status_code, error_of(reply))
            == (missing.status_code, error_of(missing))
            == (404, error_of(missing))
        )

    async def counts(self, key: KeySettings) -> None:
        seen = [page for page in self.world.pages.values() if self.world.sees(key, page)]
        ready = (await self.call(key, "GET", "/readyz")).json()["knowledge"]["docs"]
        assert (ready["documents"], ready["failed"]) == (
            sum(not p.broken for p in seen),
            sum(p.broken for p in seen),
        )
        assert ready["passages"] == sum(
            0 if page.broken else 2 for page in seen if page.path.endswith(".md")
        ) + sum(1 for page in seen if page.path.endswith(".txt") and not page.broken)
        await self.call(key, "GET", "/v1/models")
        status = await self.call(key, "GET", "/v1/documents/scan")
        if (
            key.documents
            and len(seen) < len(self.world.pages)
            and any(not self.world.may_read(key, p) for p in self.world.pages.values())
        ):
            assert status.json()["data"][0].keys() == {
                "app",
                "ready",
                "scanning",
                "dense",
                "total",
                "seen",
            }
            assert status.json()["data"][0]["total"] == 100


def error_of(reply: httpx.Response) -> tuple[str, str]:
    error = reply.json()["error"]
    return error["message"].split(" (ref")[0], error["code"]


async def probed(made_up: World, server: Serving, cases: int) -> int:
    token = json.loads((made_up.folder / ".slipway" / "lock").read_text())["token"]
    async with plain_http.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        prober = Prober(made_up, client, token)
        if any(key.documents for key in made_up.keys):
            for _ in range(3):
                await prober.upload()
        await prober.scan()
        for case in range(cases):
            if case % 25 == 20:
                await prober.edit()
            await prober.probe()
    return cases


def live(folder: Path, seed: int, cases: int) -> int:
    made_up = world(folder, random.Random(seed))
    app = {
        "knowledge": [str(folder / "docs")],
        "access": [msgspec.to_builtins(rule) for rule in made_up.rules],
    }
    keys = [msgspec.to_builtins(key) for key in made_up.keys]
    for key in keys:
        del key["apps"]
    with serving(
        folder, settings={"keys": keys, "apps": {"docs": app}, "embedding": "none"}
    ) as server:
        done = asyncio.run(probed(made_up, server, cases))
        assert "Traceback" not in server.log
    return done


def lives(tmp_path: Path, worlds: range, cases: int, seed: int) -> int:
    done = 0
    for number in worlds:
        folder = tmp_path / f"world-{number}"
        folder.mkdir()
        done += live(folder, seed * 10_000 + number, cases)
    return done


@pytest.mark.parametrize("first", range(0, 20, 2))
def test_forbidden_documents_never_appear_in_any_response(tmp_path: Path, first: int) -> None:
    assert lives(tmp_path, range(first, first + 2), cases=150, seed=1) == 300


@pytest.mark.soak
def test_forbidden_documents_never_appear_in_100_000_cases(tmp_path: Path) -> None:
    assert lives(tmp_path, range(200), cases=500, seed=2) == 100_000
