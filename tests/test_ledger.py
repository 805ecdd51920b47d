"""Test the ledger: each call of a model is a row that is tied to its answer, and reports add up."""

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from processes import Serving, mocking, run, serving
from slipway.providers.mock import MockServer
from slipway.settings import Settings
from slipway.store import open_records
from waiting import until

PRICE = {"input": 0.5, "output": 1.25}
KEYS = ("sk-of-acme-1", "sk-of-globex")


class Books(Serving):
    """A server whose ledger the tests read."""

    folder: Path
    config: str

    def report(self, *args: str) -> list[dict[str, Any]]:
        done = run("ledger", "report", "--config", self.config, "--json", *args, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def ask(self, model: str, key: str = KEYS[0], **more: Any) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
        headers = {"Authorization": f"Bearer {key}"}
        return self.post("/v1/chat/completions", body, headers=headers)


def settings(mock: MockServer, folder: Path) -> dict[str, Any]:
    names = ("plain", "cut", "hang", "refused")
    models: dict[str, Any] = {name: {"base_url": mock.url, "price": PRICE} for name in names}
    models["cut"]["name"] = "fault-cut-3"
    models["refused"]["name"] = "fault-status-500"
    models["refused"]["retries"] = 0
    models["unpriced"] = {"base_url": mock.url}
    return {
        "store": f"sqlite:///{folder}/slipway.db",
        "keys": [
            {"key": KEYS[0], "tenant": "acme"},
            {"key": KEYS[1], "tenant": "globex"},
            {"key": "sk-of-the-admin", "admin": True},
        ],
        "tenants": {"acme": {}, "globex": {"limits": {"usd_per_month": 100}}},
        "models": models,
        "routes": {"both": ["cut", {"model": "plain", "role": "twin"}]},
    }


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("ledger")
    with mocking(tokens=10) as mock, serving(folder, settings=settings(mock, folder)) as server:
        found = Books(server.process, server.port, server.log_file)
        found.folder = folder
        found.config = str(next(folder.glob("settings-*.yaml")))
        yield found


def test_each_call_is_booked_once_and_reports_add_up(books: Books) -> None:
    for key in KEYS:
        for stream in (False, True):
            assert books.ask("plain", key, stream=stream).status_code == 200
    assert books.ask("both", stream=True).status_code == 200  # cut, then continued
    assert books.ask("refused").status_code == 502
    assert books.ask("unpriced").status_code == 200

    def settled() -> list[dict[str, Any]] | None:
        rows = books.report("--by", "model")
        return rows if sum(row["calls"] for row in rows) == 8 else None

    rows = {row["model"]: row for row in until(settled) or []}
    plain, cut = rows["plain"], rows["cut"]
    assert (plain["calls"], plain["failed"], plain["estimated"]) == (5, 0, 0)
    assert (cut["calls"], cut["failed"], cut["estimated"]) == (1, 1, 1)
    assert (cut["input_tokens"], cut["output_tokens"]) == (2, 3)  # `Hello`, and three words
    assert (rows["refused"]["failed"], rows["refused"]["cost_usd"]) == (1, "0")
    assert (rows["unpriced"]["unknown"], rows["unpriced"]["cost_usd"]) == (1, "0")
    for row in (plain, cut):
        expected = row["input_tokens"] * Decimal("0.5") + row["output_tokens"] * Decimal("1.25")
        assert Decimal(row["cost_usd"]) == expected / 1_000_000

    total = sum(Decimal(row["cost_usd"]) for row in rows.values())
    for by in ("key", "tenant", "app", "day"):
        grouped = books.report("--by", by)
        assert sum(Decimal(row["cost_usd"]) for row in grouped) == total
        assert sum(row["calls"] for row in grouped) == 8
    assert {row["tenant"]: row["calls"] for row in books.report("--by", "tenant")} == {
        "acme": 6,
        "globex": 2,
    }
    assert {row["app"] for row in books.report("--by", "app")} == {
        *("both", "plain", "refused", "unpriced")
    }
    assert books.report("--by", "day", "--tenant", "globex")[0]["calls"] == 2
    assert books.report("--since", "2099-01-01") == []
    assert books.report("--until", "2026-01-01") == []

    metrics = books.get("/metrics", headers={"Authorization": f"Bearer {KEYS[0]}"}).text
    costs = [
        line.split()[-1]
        for line in metrics.splitlines()
        if line.startswith("slipway_cost_usd_total{")
    ]
    assert sum(map(float, costs)) == pytest.approx(float(total))
    assert 'slipway_unpriced_calls_total{app="unpriced",model="unpriced"} 1.0' in metrics

    text = run("ledger", "report", "--config", books.config, cwd=books.folder).stdout
    assert "unknown" in text
    assert "set `price` of the model" in text
    listed = run("ledger", "report", "--by", "tenant", "--csv", "--config", books.config)
    table = list(csv.DictReader(io.StringIO(listed.stdout)))
    assert sum(Decimal(row["cost_usd"]) for row in table) == total


def test_a_time_that_cannot_be_understood_is_refused_with_the_fix(books: Books) -> None:
    refused = run("ledger", "report", "--config", books.config, "--since", "last week")
    assert refused.returncode == 2
    assert "--since: `last week` is neither a duration nor a day; write `7d`" in refused.stderr
    refused = run("ledger", "report", "--config", books.config, "--since", "7")
    assert "--since: `7` has no unit; write `7d` if it means days" in refused.stderr
    empty = run("ledger", "report", "--config", books.config, "--tenant", "acne")
    assert "Nothing is in the ledger of the tenant `acne` for this time." in empty.stdout


def test_a_key_sees_its_own_spending_and_an_admin_key_all(books: Books) -> None:
    answer = books.ask("both", stream=True)
    assert answer.status_code == 200
    own = [
        books.get("/v1/usage", headers={"Authorization": f"Bearer {key}"}).json() for key in KEYS
    ]
    admin = {"Authorization": "Bearer sk-of-the-admin"}
    everything = books.get("/v1/ledger?by=key", headers=admin).json()
    assert own[0]["calls"] > own[1]["calls"] > 0
    by_key = {row["key"]: row["cost_usd"] for row in everything["data"]}
    assert by_key == {each["key"]: each["cost_usd"] for each in own}
    (budget,) = own[1]["budgets"]
    assert (budget["of"], budget["period"], budget["limit_usd"]) == ("tenant", "month", "100")
    assert Decimal(budget["spent_usd"]) == Decimal(own[1]["cost_usd"])
    assert Decimal(budget["left_usd"]) == 100 - Decimal(own[1]["cost_usd"])

    answer_id = answer.headers["x-slipway-answer-id"]
    calls = books.get(f"/v1/ledger?answer={answer_id}", headers=admin).json()["data"]
    assert [(call["model"], call["kind"], call["error"]) for call in calls] == [
        ("cut", "first", "provider_cut"),
        ("plain", "continue", None),
    ]
    assert all(call["answer"] == answer_id and call["price_source"] == "settings" for call in calls)
    pages = books.get("/v1/ledger?rows=true&limit=1", headers=admin).json()
    assert pages["has_more"]
    after = books.get(f"/v1/ledger?rows=true&limit=1&after={pages['data'][0]['id']}", headers=admin)
    assert after.json()["data"][0]["id"] != pages["data"][0]["id"]

    before = books.get("/v1/ledger?until=2026-01-01", headers=admin).json()
    assert (before["calls"], before["cost_usd"]) == (0, "0")
    misspelt = books.get("/v1/usage?form=2026-01-01", headers=admin)
    assert "There is no parameter `form`" in misspelt.json()["error"]["message"]

    refused = books.get("/v1/ledger", headers={"Authorization": f"Bearer {KEYS[0]}"})
    assert refused.status_code == 403
    assert "Use GET /v1/usage" in refused.json()["error"]["message"]
    for query, says in (
        ("by=colour", "`by` cannot be `colour`"),
        ("since=soon", "`soon` is neither a duration nor a day"),
        ("rows=true&limit=0", "`limit` must be a whole number from 1 to 1000"),
        ("rows=1", "`rows` must be `true` or `false`"),
        ("tenants=acme", "There is no parameter `tenants`. Use some of: by, since, until, key"),
        ("until=7", "`until`: `7` has no unit"),
    ):
        wrong = books.get(f"/v1/ledger?{query}", headers=admin)
        assert (wrong.status_code, says in wrong.json()["error"]["message"]) == (400, True), query


def test_calls_of_commands_are_booked_too(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/slipway.db"
    open_records(Settings(store=store)).close()
    with mocking(tokens=10) as mock:
        model = {"base_url": mock.url, "price": PRICE}
        file = tmp_path / "settings.yaml"
        file.write_text(
            json.dumps({"store": store, "models": {"m": model}, "apps": {"chat": {"route": "m"}}})
        )
        asked = run("ask", "Hello", "--config", str(file), cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    report = run("ledger", "report", "--by", "app", "--config", str(file), "--json", cwd=tmp_path)
    (row,) = json.loads(report.stdout)
    assert (row["app"], row["calls"], row["output_tokens"]) == ("chat", 1, 10)
    assert Decimal(row["cost_usd"]) > 0
