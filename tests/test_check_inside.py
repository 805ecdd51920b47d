"""Test `slipway check`: whether a deployment is ready, row by row."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import mocking, run, serving
from slipway.providers.mock import MockServer
from waiting import until

SECRET = "sk-a-secret-that-nobody-shows"
CLIENT = "client-key-that-nobody-shows"


class Found:
    """The rows of `slipway check --json` by name, and how the command ended."""

    def __init__(self, folder: Path, settings: dict[str, Any], *args: str) -> None:
        (folder / "slipway.yaml").write_text(json.dumps({"listen": {"port": 0}, **settings}))
        env = {"PROVIDER_KEY": SECRET, "CLIENT_KEY": CLIENT}
        self.done = run("check", "--json", *args, cwd=folder, env=env)
        assert "Traceback" not in self.done.stderr
        assert SECRET not in self.done.stdout + self.done.stderr
        assert CLIENT not in self.done.stdout + self.done.stderr
        self.whole: dict[str, Any] = json.loads(self.done.stdout) if self.done.stdout else {}

    def all(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.whole["rows"] if row["name"] == name]

    def one(self, name: str) -> dict[str, Any]:
        (found,) = self.all(name)
        return found


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with mocking() as server:
        yield server


def settings_of(mock: MockServer, **more: Any) -> dict[str, Any]:
    """Settings of a deployment that lacks nothing but a backup."""
    model = {
        "base_url": f"{mock.url}/v1",
        "name": "mock-model",
        "api_key": "${PROVIDER_KEY}",
        "price": {"input": 1, "output": 2},
    }
    return {
        "models": {"best": {**model, "zone": "a"}, "small": {**model, "zone": "b"}},
        "routes": {"main": ["best", {"model": "small", "role": "smaller"}]},
        "keys": [{"key": "${CLIENT_KEY}", "admin": True, "limits": {"usd_per_day": 5}}],
        **more,
    }


def test_a_deployment_is_looked_at_row_by_row(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock))
    assert (found.done.returncode, found.whole["state"]) == (0, "amber")
    assert [row["state"] for row in found.all("model")] == ["green", "green"]
    for name in ("limits", "zones", "fallback", "prices", "disk", "open files", "memory", "cores"):
        assert found.one(name)["state"] == "green", found.one(name)
    assert found.one("settings")["says"].startswith("The settings are fine. 2 models, 1 route,")
    assert found.one("store")["state"] == "skipped"
    assert not mock.requests or all(r.path != "/v1/chat/completions" for r in mock.requests)


def test_somebody_must_hear_of_what_goes_wrong(tmp_path: Path, mock: MockServer) -> None:
    alone = Found(tmp_path, settings_of(mock), "--offline")
    assert alone.one("objectives")["state"] == alone.one("alerts")["state"] == "amber"
    notify = {"kind": "webhook", "url": "https://hooks.example.com/a", "heartbeat": "5m"}
    heard = {"slo": {"availability": "99.9%"}, "alerts": {"notify": {"night": notify}}}
    found = Found(tmp_path, settings_of(mock, **heard), "--offline")
    assert found.one("objectives")["state"] == found.one("alerts")["state"] == "green"
    assert "night" in found.one("alerts")["says"]
    silent = {"alerts": {"notify": {"night": {**notify, "heartbeat": None}}}}
    assert (
        "dead man's switch"
        in Found(tmp_path, settings_of(mock, **silent), "--offline").one("alerts")["do"][0]
    )


def test_what_is_amber_fails_if_it_is_strict(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock, keys=[]), "--strict")
    assert found.done.returncode == 1
    assert "There is no key" in found.one("keys")["says"]


def test_a_model_that_fails_is_red_unless_another_answers(tmp_path: Path, mock: MockServer) -> None:
    settings = settings_of(mock)
    settings["models"]["best"]["base_url"] = "http://127.0.0.1:9/v1"
    found = Found(tmp_path, settings)
    assert [row["state"] for row in found.all("model")] == ["amber", "green"]
    assert "nothing listens there" in found.all("model")[0]["says"]
    settings["routes"]["main"] = ["best"]
    alone = Found(tmp_path, settings)
    assert (alone.done.returncode, alone.all("model")[0]["state"]) == (1, "red")
    assert "Nothing answers in its place on `main`" in alone.all("model")[0]["says"]
    assert alone.one("fallback")["state"] == alone.one("zones")["state"] == "amber"
    offline = Found(tmp_path, settings, "--offline")
    assert (offline.done.returncode, offline.one("models")["state"]) == (0, "skipped")


def test_each_model_is_called_once_if_that_is_paid_for(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock), "--paid")
    assert re.match(r"--paid: 2 calls, which cost at most 0\.000\d+ USD\.", found.done.stderr)
    for row in found.all("model"):
        assert row["state"] == "green"
        assert row["facts"]["ttft_s"] < 30
        assert float(row["facts"]["cost_usd"]) > 0


def test_paid_and_offline_exclude_each_other(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock), "--paid", "--offline")
    assert found.done.returncode == 2
    assert "leave one out" in found.done.stderr


def test_documents_that_were_not_read_or_changed_are_named(
    tmp_path: Path, mock: MockServer
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# A\n\nText.\n")
    (docs / "b.pdf").write_bytes(b"%PDF-1.4 no document")
    settings = settings_of(mock, apps={"docs": {"knowledge": "docs"}}, embedding="none")
    before = Found(tmp_path, settings)
    assert "No document was read yet" in before.one("knowledge")["says"]
    run("ingest", cwd=tmp_path, env={"PROVIDER_KEY": SECRET, "CLIENT_KEY": CLIENT})
    row = Found(tmp_path, settings).one("knowledge")
    assert (row["state"], row["facts"]["failed"], row["facts"]["stale"]) == ("amber", 1, 0)
    assert "b.pdf" in row["says"]
    (docs / "b.pdf").unlink()
    (docs / "a.md").write_text("# A\n\nMore text.\n")
    row = Found(tmp_path, settings).one("knowledge")
    assert row["facts"]["stale"] == 2  # one changed, one is gone
    env = dict.fromkeys(("PROVIDER_KEY", "CLIENT_KEY"), SECRET)
    with serving(tmp_path, "--config", "slipway.yaml", env=env):  # it reads what has changed
        found = until(lambda: green(Found(tmp_path, settings).one("knowledge")))
    assert found is not None
    assert found["facts"]["documents"] == 1


def green(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if row["state"] == "green" else None


def test_the_age_of_the_last_backup_is_known(tmp_path: Path, mock: MockServer) -> None:
    settings = settings_of(mock)
    env = {"PROVIDER_KEY": SECRET, "CLIENT_KEY": CLIENT}
    (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
    run("keys", "create", "--name", "ci", "--expires", "90d", cwd=tmp_path, env=env)
    found = Found(tmp_path, settings)
    assert (found.one("store")["state"], found.one("backup")["state"]) == ("green", "amber")
    assert "No backup" in found.one("backup")["says"]
    assert run("store", "backup", "b.gz", cwd=tmp_path, env=env).returncode == 0
    assert Found(tmp_path, settings).one("backup")["state"] == "green"
    with sqlite3.connect(tmp_path / ".slipway" / "slipway.db") as db:
        long_ago = repr(time.time() - 20 * 86_400).encode()
        db.execute("UPDATE meta SET value = ? WHERE key = 'backup_at'", (long_ago,))
    db.close()
    old = Found(tmp_path, settings).one("backup")
    assert (old["state"], "20.0 days" in old["says"]) == ("red", True)
    assert run("store", "restore", "b.gz", "--replace", cwd=tmp_path, env=env).returncode == 0


def test_the_page_is_one_file_without_scripts(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock), "--html", "ready.html")
    page = (tmp_path / "ready.html").read_text()
    assert page.count('class="card ') == len(found.whole["rows"])
    assert "<script" not in page
    assert "Ready, with reservations" in page
    assert SECRET not in page
    missing = Found(tmp_path, settings_of(mock), "--html", "nowhere/ready.html")
    assert (missing.done.returncode, "there is no folder" in missing.done.stderr) == (2, True)


def test_a_person_reads_what_to_do(tmp_path: Path, mock: MockServer) -> None:
    (tmp_path / "slipway.yaml").write_text(json.dumps(settings_of(mock, keys=[])))
    done = run("check", "--port", "0", cwd=tmp_path, env={"PROVIDER_KEY": SECRET})
    assert "Amber: know this, and change it if you can" in done.stdout
    assert "-> Set `key_required: true` and make keys" in done.stdout
    assert re.search(r"slipway\.yaml: ready, with what is amber above \(\d+ amber", done.stdout)
