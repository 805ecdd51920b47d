"""Test `slipway alerts`, and who may see the alerts of a server."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from alert_cases import SETTINGS
from processes import ROOT, Serving, serving
from slipway.cli import main
from slipway.telemetry.alerts.definitions import DEFINITIONS, NAMES, rules_of

SLO = {"availability": "99.9%", "ttft_p95": "2s", "answered_with_source": "90%"}
MODELS = {"m": {"base_url": "http://127.0.0.1:9/v1", "zone": "a"}}


def alerts(folder: Path, settings: dict[str, Any], *args: str) -> Result:
    file = folder / "slipway.yaml"
    file.write_text(json.dumps(settings))
    return CliRunner().invoke(main, ["alerts", *args, "--config", str(file)])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_are_what_prometheus_reads(tmp_path: Path) -> None:
    out = tmp_path / "rules.yml"
    done = alerts(tmp_path, {"slo": SLO, "models": MODELS}, "rules", "--out", str(out))
    assert done.exit_code == 0, done.output
    checked = subprocess.run(
        ["promtool", "check", "rules", str(out)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    printed = alerts(tmp_path, {"slo": SLO, "models": MODELS}, "rules")
    assert printed.output == out.read_text()
    rules = yaml.safe_load(printed.output)["groups"][0]["rules"]
    for rule in rules:
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
        assert (ROOT / rule["annotations"]["runbook_url"]).is_file()
    zone = next(rule for rule in rules if rule["alert"] == "ZoneDown")
    assert zone["labels"] == {"severity": "page", "zone": "a"}
    assert "#   equal:\n#   - zone\n" in printed.output, "for Alertmanager"


def test_the_list_has_what_the_settings_ask_for(tmp_path: Path) -> None:
    few = json.loads(alerts(tmp_path, {}, "list", "--json").output)
    names = {row["name"] for row in few}
    assert "AvailabilityBurnFast" not in names
    assert "UnpricedTraffic" in names
    more = {"slo": SLO, "models": MODELS, "alerts": {"off": ["UnpricedTraffic"]}}
    names = {row["name"] for row in json.loads(alerts(tmp_path, more, "list", "--json").output)}
    assert {"AvailabilityBurnFast", "ZoneDown"} <= names
    assert "UnpricedTraffic" not in names
    said = alerts(tmp_path, more, "list").output
    assert (
        "Too many requests fail: the error budget burns 14.4 times too fast. (more than 1.44 %)"
        in said
    )


@pytest.mark.parametrize("definition", DEFINITIONS, ids=NAMES)
def test_every_alert_has_a_runbook_that_answers_four_questions(definition: Any) -> None:
    page = (ROOT / "docs" / "runbooks" / f"{definition.page}.md").read_text()
    for question in ("does it mean", "do I see it", "do I do", "do I cause it on purpose"):
        assert question in page
    assert "slipway mock" in page
    assert definition.inhibited_by == tuple(n for n in definition.inhibited_by if n in NAMES)
    assert any(rule.name == definition.name for rule in rules_of(SETTINGS))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    keys = [{"key": "operator-key", "admin": True}, {"key": "reader-key"}]
    settings = {"models": MODELS, "keys": keys, "listen": {"workers": 2}}
    with serving(tmp_path_factory.mktemp("alerts"), settings=settings) as running:
        yield running


def asked(server: Serving, key: str) -> httpx.Response:
    reply: httpx.Response = server.get("/v1/alerts", headers={"Authorization": f"Bearer {key}"})
    return reply


def test_only_admins_see_the_alerts_whichever_worker_is_asked(server: Serving) -> None:
    for _ in range(6):
        found = asked(server, "operator-key")
        assert found.status_code == 200, found.text
        assert {row["name"] for row in found.json()["data"]} >= {"UnpricedTraffic", "AnswersLost"}
    refused = asked(server, "reader-key")
    assert refused.status_code == 403
    assert "This key may not see the alerts." in refused.text


def test_the_status_says_what_fires(server: Serving) -> None:
    args = ["alerts", "status", "--url", str(server.url), "--key", "operator-key"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert "No alert fires." in done.output
