"""Test over HTTP: questions limited to some documents, custom rerankers, access rules."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import Serving, run, serving

PAGES = {
    "products/kettle.md": "---\ntags: [kitchen, 2026]\ndate: 2026-03-01\n---\n# Kettle\n\n## Warranty\n\nThe warranty of the kettle lasts three years.\n",
    "products/drill.md": "---\ntags: tools\ndate: 2024-05-01\n---\n# Drill\n\n## Warranty\n\nThe warranty of the drill lasts five years.\n",
    "old/lamp.md": "# Lamp\n\n## Warranty\n\nThe warranty of the lamp lasts one year.\n",
}
QUESTION = "How long does the warranty last?"
STAFF, HR = {"authorization": "Bearer sw-staff-key"}, {"authorization": "Bearer sw-hr-key"}


def written(folder: Path) -> Path:
    for path, text in PAGES.items():
        (folder / "docs" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "docs" / path).write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = written(tmp_path_factory.mktemp("within"))
    with serving(folder, "--docs", "docs", settings={"embedding": "none"}) as server:
        yield server


def paths(server: Serving, within: Any) -> set[str]:
    reply = server.post("/v1/answers", {"question": QUESTION, "within": within})
    assert reply.status_code == 200, reply.text
    return {source["path"] for source in reply.json()["sources"]}


@pytest.mark.parametrize(
    ("within", "found"),
    [
        (None, set(PAGES)),
        ({}, set(PAGES)),
        ({"path": "products/**"}, {"products/kettle.md", "products/drill.md"}),
        ({"path": "products"}, {"products/kettle.md", "products/drill.md"}),
        ({"path": "*/k*.md"}, {"products/kettle.md"}),
        ({"path": "*.md"}, set()),
        ({"tags": ["Tools"]}, {"products/drill.md"}),
        ({"tags": ["kitchen", "2026"]}, {"products/kettle.md"}),
        ({"tags": ["kitchen", "tools"]}, set()),
        ({"since": "2025-01-01"}, {"products/kettle.md"}),
        ({"until": "2024-05-01"}, {"products/drill.md"}),
        (
            {"since": "2024-05-01", "until": "2026-03-01", "path": "products/d*"},
            {"products/drill.md"},
        ),
    ],
)
def test_a_question_is_limited_to_a_path_to_tags_and_to_days(
    server: Serving, within: Any, found: set[str]
) -> None:
    assert paths(server, within) == found


@pytest.mark.parametrize(
    ("within", "param"),
    [
        ({"since": "May"}, "within.since"),
        ({"until": "2026-02-30"}, "within.until"),
        ({"paths": "x"}, "within.paths"),
        ({"tags": "kitchen"}, "within.tags"),
        ("products", "within"),
    ],
)
def test_a_limit_that_cannot_be_understood_is_refused_with_its_field(
    server: Serving, within: Any, param: str
) -> None:
    for path, body in (
        ("/v1/answers", {"question": QUESTION, "within": within}),
        (
            "/v1/chat/completions",
            {
                "model": "docs",
                "messages": [{"role": "user", "content": QUESTION}],
                "within": within,
            },
        ),
    ):
        reply = server.post(path, body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


def test_an_openai_client_limits_its_question_too(server: Serving) -> None:
    body = {
        "model": "docs",
        "messages": [{"role": "user", "content": QUESTION}],
        "within": {"path": "old/**"},
    }
    message = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    assert "one year" in message["content"]
    assert "three years" not in message["content"]


RERANKERS = """
import time

def shortest(question, texts):
    assert "warranty" in question
    return [-len(text) for text in texts]

def broken(question, texts):
    raise RuntimeError("no")

def short(question, texts):
    return [1.0]

def slow(question, texts):
    time.sleep(3)
    return [1.0] * len(texts)
"""


def test_a_reranker_reorders_the_hits_and_may_fail(tmp_path: Path) -> None:
    (written(tmp_path) / "mine.py").write_text(RERANKERS)
    app = {"knowledge": str(tmp_path / "docs"), "passages": 3}
    apps = {
        name: {**app, "rerank": f"mine:{name}"} for name in ("shortest", "broken", "short", "slow")
    }
    with serving(
        tmp_path,
        settings={"embedding": "none", "apps": {"plain": app, **apps}},
        env={"PYTHONPATH": str(tmp_path)},
    ) as server:
        orders = {}
        for name in ("plain", *apps):
            sources = server.post("/v1/answers", {"question": QUESTION, "app": name}).json()[
                "sources"
            ]
            orders[name] = [source["path"] for source in sources]
        assert orders["shortest"] == ["old/lamp.md", "products/drill.md", "products/kettle.md"]
        assert orders["broken"] == orders["short"] == orders["slow"] == orders["plain"]
        assert server.log.count("The reranker failed") == 3


def test_a_reranker_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    (written(tmp_path) / "slipway.yaml").write_text(
        json.dumps({"apps": {"docs": {"knowledge": "docs", "rerank": "no.such:thing"}}})
    )
    done = run("serve", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "apps.docs.rerank: `no.such:thing` cannot be loaded" in done.stderr


def test_access_rules_count_from_the_next_question_on(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "own.yaml"

    def settings(rules: list[dict[str, Any]]) -> str:
        keys = [
            {"key": "sw-staff-key", "groups": ["staff"]},
            {"key": "sw-hr-key", "groups": ["hr"]},
        ]
        return json.dumps(
            {
                "embedding": "none",
                "keys": keys,
                "apps": {"docs": {"knowledge": "docs", "access": rules}},
            }
        )

    def readable(server: Serving, key: dict[str, str]) -> set[str]:
        reply = server.post("/v1/answers", {"question": QUESTION}, headers=key)
        return {source["path"] for source in reply.json()["sources"]}

    file.write_text(settings([]))
    with serving(tmp_path, "--config", str(file)) as server:
        assert readable(server, STAFF) == readable(server, HR) == set(PAGES)
        file.write_text(
            settings(
                [{"path": "old/**", "groups": ["hr"]}, {"path": "products/drill.md", "groups": []}]
            )
        )
        assert readable(server, STAFF) == {"products/kettle.md"}
        assert readable(server, HR) == {"products/kettle.md", "old/lamp.md"}
        file.write_text("apps: [")
        assert readable(server, STAFF) == {"products/kettle.md"}
        assert "the previous ones stay active" in server.log
        file.write_text(settings([{"path": "old/**", "groups": ["staff"]}]))
        assert readable(server, STAFF) == set(PAGES)
        (tmp_path / "docs" / "old" / "lamp.md").write_text(
            "---\naccess: [hr]\n---\n" + PAGES["old/lamp.md"]
        )
        assert readable(server, STAFF) == {"products/kettle.md", "products/drill.md"}
        file.replace(tmp_path / "gone.yaml")
        assert readable(server, HR) == {"products/kettle.md", "products/drill.md"}
