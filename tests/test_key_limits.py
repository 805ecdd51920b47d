"""Test limits of keys made at run time: by command and over HTTP, in force in every worker."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import plain_http
from processes import Serving, mocking, serving
from slipway.cli import main
from slipway.providers.mock import MockServer
from waiting import PATIENCE_S, until

ADMIN = {"authorization": "Bearer sw-admin-of-tests"}
PRICE = {"input": 1000, "output": 1000}  # 1 prompt token and 9 written ones cost 0.01 USD
WATCH_S = 1.0  # within this time every worker knows of a change
SAYS = "one two three four five six seven eight nine"


class Site:
    """A server with two workers, and the commands beside it."""

    def __init__(self, folder: Path, server: Serving, slow: MockServer) -> None:
        self.folder, self.server, self.slow = folder, server, slow

    def command(self, *args: str) -> Any:
        done = self.invoke(*args, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def invoke(self, *args: str) -> Any:
        config = str(self.folder / "slipway.yaml")
        return CliRunner().invoke(main, ["keys", *args, "--config", config])

    def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        url = self.server.url + path
        return plain_http.request(method, url, json=body, headers=ADMIN, timeout=PATIENCE_S)

    def ask(self, key: str, model: str = "m") -> httpx.Response:
        """Ask over a connection of its own, which any worker may take."""
        sent = {
            "model": model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 9,
        }
        return self.server.post(
            "/v1/chat/completions", sent, headers={"Authorization": f"Bearer {key}"}
        )

    def usage(self, key: str) -> Any:
        return self.server.get("/v1/usage", headers={"Authorization": f"Bearer {key}"}).json()

    def until_all_know(self, key: str, limit: str) -> None:
        """Wait until every worker knows a key's budget. They look once a second, and the one that
        takes most of the connections may not be the last to know.
        """
        until(lambda: [each["limit_usd"] for each in self.usage(key).get("budgets", ())] == [limit])
        time.sleep(WATCH_S + self.server.at_once_s())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("limits")
    with mocking(text=SAYS) as mock, mocking(text=SAYS, ttft_s=2) as slow:
        settings = {
            "store": f"sqlite:///{folder}/slipway.db",
            "keys": [{"key": "sw-admin-of-tests", "admin": True}],
            "models": {
                "m": {"base_url": mock.url, "price": PRICE},
                "slow": {"base_url": slow.url, "price": PRICE},
            },
        }
        (folder / "slipway.yaml").write_text(json.dumps(settings))
        with serving(folder, "--workers", "2", settings=settings) as server:
            yield Site(folder, server, slow)


def test_a_key_is_made_with_limits_that_hold_in_every_worker(site: Site) -> None:
    made = site.command("create", "--rpm", "5", "--usd-per-day", "0.50", "--at-limit", "cheaper")
    assert made["limits"]["rpm"] == 5
    assert made["limits"]["usd_per_day"] == "0.50"
    key = made["key"]
    site.until_all_know(key, "0.5")
    replies = [site.ask(key) for _ in range(8)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429] * 3
    assert replies[0].headers["x-ratelimit-limit-requests"] == "5"
    budget = site.usage(key)["budgets"][0]
    assert (budget["limit_usd"], budget["spent_usd"]) == ("0.5", "0.05")


def test_limits_change_while_the_key_is_used_and_begin_with_what_was_spent(site: Site) -> None:
    made = site.admin("POST", "/v1/keys", {"name": "grows"}).json()
    assert made["limits"] is None
    assert [site.ask(made["key"]).status_code for _ in range(3)] == [200] * 3
    path = f"/v1/keys/{made['id']}"
    until(lambda: site.usage(made["key"])["cost_usd"] == "0.03")
    changed = site.admin("PATCH", path, {"limits": {"usd_per_day": 0.04, "answers": 2}}).json()
    assert changed["limits"]["usd_per_day"] == "0.04"
    site.until_all_know(made["key"], "0.04")
    assert [site.ask(made["key"]).status_code for _ in range(2)] == [200, 402]
    changed = site.command("limit", made["id"], "--usd-per-day", "0.05", "--answers", "none")
    assert changed["limits"]["answers"] is None
    site.until_all_know(made["key"], "0.05")
    assert [site.ask(made["key"]).status_code for _ in range(2)] == [200, 402]
    assert site.admin("PATCH", path, {"limits": None}).json()["limits"] is None
    until(lambda: site.ask(made["key"]).status_code == 200)


def test_a_new_budget_counts_the_calls_that_run_in_every_worker(site: Site) -> None:
    made = site.command("create", "--name", "runs")
    time.sleep(WATCH_S + site.server.at_once_s())
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(site.ask, made["key"], "slow") for _ in range(8)]
        until(lambda: len(site.slow.requests) == 8)
        site.command("limit", made["id"], "--usd-per-day", "0.09")
        until(lambda: len(site.usage(made["key"])["budgets"]) == 1)
        assert site.usage(made["key"])["budgets"][0]["spent_usd"] == "0"
        assert {each.result().status_code for each in running} == {200}
    until(lambda: site.usage(made["key"])["budgets"][0]["spent_usd"] == "0.08")
    site.until_all_know(made["key"], "0.09")
    assert [site.ask(made["key"]).status_code for _ in range(2)] == [200, 402]


def test_commands_show_the_limits(site: Site) -> None:
    made = site.command("create", "--name", "shown", "--tpm", "1000", "--usd-per-month", "2")
    assert "limits:       tpm 1000, usd_per_month 2\n" in site.invoke("show", made["id"]).stdout
    assert "  tpm 1000, usd_per_month 2  " in site.invoke("list").stdout
    assert site.command("limit", made["id"], "--no-limits")["limits"] is None
    line = site.invoke("create", "--line", "--rpm", "7", "--usd-per-day", "0.5").stdout
    assert "limits: {rpm: 7, usd_per_day: '0.5'}" in line


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"rpm": "1,000"}, "`limits.rpm`: `1,000` has a comma. Write `1000`, not `1,000`"),
        ({"usd_per_day": "0,5"}, "`limits.usd_per_day`: `0,5` has a comma"),
        ({"rpm": -1}, "`limits.rpm`: `-1` is not a whole number from 1 to 10000000"),
        ({"rpm": 0}, "`limits.rpm`: `0` is not a whole number"),
        ({"tpm": 10**40}, "`limits.tpm`: `1000000"),
        ({"answers": 2.5}, "`limits.answers`: `2.5` is not a whole number"),
        ({"answers": True}, "`limits.answers`: `True` is not a whole number"),
        ({"usd_per_day": -5}, "`limits.usd_per_day`: `-5` is not a budget"),
        ({"usd_per_day": "0.0000001"}, "`limits.usd_per_day`: `0.0000001` is not a budget"),
        ({"usd_per_day": "a lot"}, "`limits.usd_per_day`: `a lot` is not a budget"),
        ({"usd_per_month": 10**12}, "`limits.usd_per_month`: `1000000000000` is not a budget"),
        ({"usd_per_day": 9, "usd_per_month": 5}, "`limits.usd_per_day`: `9` is more than"),
        ({"at_limit": "explode"}, "`limits.at_limit`: `explode` is unknown. Write refuse, cheap"),
        ({"rpd": 1}, "`limits.rpd`: there is no limit of this name; there are `rpm`, `tpm`"),
    ],
)
def test_a_bad_limit_names_the_field_and_the_fix(
    site: Site, limits: dict[str, Any], says: str
) -> None:
    refused = site.admin("POST", "/v1/keys", {"limits": limits})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert says in f"{error['message']} {error['slipway']['next']}"
    assert error["param"] == says.split("`")[1]


def test_the_command_says_what_is_wrong_with_a_limit(site: Site) -> None:
    refused = site.invoke("create", "--rpm", "1,000")
    assert refused.exit_code == 1
    assert "`limits.rpm`: `1,000` has a comma. Write `1000`, not `1,000`" in refused.stderr
    made = site.command("create")
    assert "name at least one limit" in site.invoke("limit", made["id"]).stderr
    site.command("revoke", made["id"])
    assert "has been revoked" in site.invoke("limit", made["id"], "--rpm", "3").stderr
