"""Test keys made at run time: by command and over HTTP, used by a running server at once."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import plain_http
from processes import Serving, mocking, models, serving
from slipway.cli import main
from waiting import PATIENCE_S, until

ADMIN = {"authorization": "Bearer sw-admin-of-tests"}
WITHIN_S = 1.0  # after a change, in every process


class Site:
    """Two servers over one store, as two processes of a deployment are."""

    def __init__(self, folder: Path, servers: list[Serving]) -> None:
        self.folder, self.servers = folder, servers

    @property
    def server(self) -> Serving:
        return self.servers[0]

    def command(self, *args: str) -> Any:
        done = CliRunner().invoke(
            main, ["keys", *args, "--json", "--config", str(self.folder / "slipway.yaml")]
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def refused(self, *args: str) -> str:
        """Return what a command says that fails."""
        done = CliRunner().invoke(
            main, ["keys", *args, "--config", str(self.folder / "slipway.yaml")]
        )
        assert done.exit_code != 0, done.output
        return done.stderr

    def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return plain_http.request(
            method, self.server.url + path, json=body, headers=ADMIN, timeout=PATIENCE_S
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("keys")
    with mocking(tpot_s=0.05) as mock, ExitStack() as stack:
        settings = {
            **models(mock.url, "mock-model", "other-model"),
            "routes": {"main": ["mock-model"]},
            "keys": [{"key": "sw-admin-of-tests", "tenant": "ops", "admin": True}],
        }
        (folder / "slipway.yaml").write_text(json.dumps(settings))
        yield Site(folder, [stack.enter_context(serving(folder)) for _ in range(2)])


def ask(server: Serving, key: str, model: str = "mock-model") -> httpx.Response:
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    return server.post("/v1/chat/completions", body, headers={"authorization": f"Bearer {key}"})


def status(server: Serving, key: str, model: str = "mock-model") -> int:
    return ask(server, key, model).status_code


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def settle(site: Site, key: str, expected: int) -> float:
    """Wait until all servers answer a key like this; return how long it took."""
    began_at = time.monotonic()
    for server in site.servers:
        until(lambda server=server: status(server, key) == expected)  # type: ignore[misc]
    return time.monotonic() - began_at


def test_a_key_is_used_and_a_revoked_one_refused_by_all_servers_within_a_second(
    site: Site,
) -> None:
    made = site.command("create", "--name", "ci", "--tenant", "ops")
    assert settle(site, made["key"], 200) < WITHIN_S + site.server.at_once_s()
    site.command("revoke", made["id"])
    assert settle(site, made["key"], 401) < WITHIN_S + site.server.at_once_s()
    refused = ask(site.server, made["key"])
    assert "was revoked on 20" in error(refused)["message"]


def test_an_admin_key_manages_keys_over_http(site: Site) -> None:
    sent = {"name": "page", "tenant": "acme", "new_tenant": True, "groups": ["staff"]}
    made = site.admin("POST", "/v1/keys", {**sent, "expires": "1h"}).raise_for_status().json()
    assert status(site.server, made["key"]) == 200  # at once in the process that made it
    shown = site.admin("GET", f"/v1/keys/{made['id']}").raise_for_status().json()
    assert "key" not in shown
    assert (shown["tenant"], shown["groups"], shown["hint"]) == ("acme", ["staff"], made["key"][:7])
    assert 0 < shown["expires_at"] - shown["created_at"] <= 3600
    listed = site.admin("GET", "/v1/keys").raise_for_status().json()["data"]
    assert shown in listed
    assert made["key"] not in json.dumps(listed)
    site.admin("DELETE", f"/v1/keys/{made['id']}").raise_for_status()
    assert status(site.server, made["key"]) == 401


def test_only_the_hash_of_a_key_is_saved(site: Site) -> None:
    made = site.command("create", "--tenant", "ops")
    saved = b"".join(file.read_bytes() for file in (site.folder / ".slipway").glob("slipway.db*"))
    assert made["key"].encode() not in saved
    assert made["id"].encode() in saved


def test_a_replaced_key_is_accepted_for_its_grace_and_stays_the_same_owner(site: Site) -> None:
    made = site.admin("POST", "/v1/keys", {"tenant": "ops"}).raise_for_status().json()
    path = f"/v1/keys/{made['id']}/rotate"
    second = site.admin("POST", path, {"grace": "1h"}).raise_for_status().json()
    assert (second["id"], second["tenant"]) == (made["id"], "ops")
    assert [status(site.server, each["key"]) for each in (made, second)] == [200, 200]
    third = site.admin("POST", path, {"grace": "0s"}).raise_for_status().json()
    assert [status(site.server, each["key"]) for each in (made, second, third)] == [401, 401, 200]
    refused = ask(site.server, made["key"])
    assert "was replaced by another one" in error(refused)["message"]
    site.command("revoke", made["id"])  # with all its secrets
    settle(site, third["key"], 401)


def test_a_key_calls_only_what_it_may(site: Site) -> None:
    sent = {"tenant": "ops", "apps": ["main"], "models": ["other-model"]}
    made = site.admin("POST", "/v1/keys", sent).raise_for_status().json()
    names = ("main", "other-model", "mock-model")
    assert [status(site.server, made["key"], name) for name in names] == [200, 200, 404]
    other = {"authorization": f"Bearer {made['key']}"}
    refused = plain_http.get(f"{site.server.url}/v1/keys", headers=other, timeout=PATIENCE_S)
    assert refused.status_code == 403
    assert "slipway keys create --admin" in error(refused)["message"] + str(refused.json())


def test_a_key_that_has_expired_is_refused_with_the_reason(site: Site) -> None:
    made = site.admin("POST", "/v1/keys", {"tenant": "ops", "expires": "250ms"}).json()
    until(lambda: status(site.server, made["key"]) == 401)
    refused = ask(site.server, made["key"])
    assert "This key expired on 20" in error(refused)["message"]
    assert "has expired" in site.refused("rotate", made["id"])
    assert made["id"] not in [key["id"] for key in site.command("list")]
    assert made["id"] in [key["id"] for key in site.command("list", "--all")]


def test_a_stream_is_finished_although_its_key_is_revoked_meanwhile(site: Site) -> None:
    made = site.admin("POST", "/v1/keys", {"tenant": "ops"}).raise_for_status().json()
    body = {
        "model": "mock-model",
        "stream": True,
        "max_tokens": 30,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    headers = {"authorization": f"Bearer {made['key']}"}
    url = f"{site.server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data:")
        site.admin("DELETE", f"/v1/keys/{made['id']}").raise_for_status()
        assert status(site.server, made["key"]) == 401
        assert [line for line in lines if line][-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("tenant", "acne", "no key has the tenant `acne` so far"),
        ("tenant", " ", "`tenant` is empty"),
        ("apps", ["mian"], "there is no app, route or model `mian`. There are: `main`"),
        ("models", ["gpt"], "there is no model or route `gpt`"),
        ("groups", [""], "`groups[0]` is empty"),
        ("expires", "-3d", "is in the past"),
        ("expires", "0s", "is in the past"),
        ("expires", "2020-01-31", "is in the past"),
        ("expires", "2027-02-30", "neither a duration nor a day"),
        ("expires", "soon", "neither a duration nor a day"),
        ("expires", "90", "neither a duration nor a day"),
        ("expires", "99999999999d", "more than 100 years ahead"),
        ("name", "x" * 201, "at most 200 printable characters"),
        ("scope", "all", "`scope`"),
    ],
)
def test_a_mistake_in_a_new_key_is_named(site: Site, field: str, value: Any, says: str) -> None:
    sent = {"tenant": "ops", field: value}
    refused = site.admin("POST", "/v1/keys", sent)
    assert refused.status_code == 400
    assert says in " ".join((error(refused)["message"], json.dumps(refused.json()["error"])))


def test_a_mistake_on_the_command_line_is_named(site: Site) -> None:
    assert "no key has the tenant `acne` so far" in site.refused("create", "--tenant", "acne")
    assert "there is no key `key-1`" in site.refused("revoke", "key-1").lower()
    assert "is not a duration" in site.refused("rotate", "key-1", "--grace", "-1h")
    assert "`24` has no unit" in site.refused("rotate", "key-1", "--grace", "24")
    assert "do not expire" in site.refused("create", "--line", "--expires", "90d")
    assert "leave out one of them" in site.refused("create", "--line", "--json")
    assert "longer than 90 days" in site.refused("rotate", "key-1", "--grace", "91d")


def test_the_first_key_closes_a_server_without_keys(tmp_path: Path) -> None:
    """The server stays closed after its last key was revoked."""
    with mocking() as mock:
        settings = models(mock.url, "mock-model")
        (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
        with serving(tmp_path) as server:
            site = Site(tmp_path, [server])
            assert server.chat("mock-model").status_code == 200
            made = site.command("create")
            until(lambda: server.chat("mock-model").status_code == 401)
            assert status(server, made["key"]) == 200
            site.command("revoke", made["id"])
            settle(site, made["key"], 401)
            assert server.chat("mock-model").status_code == 401
            config = str(tmp_path / "slipway.yaml")
            prune = ["store", "prune", "--keys", "0s", "--config", config]
            assert "1 row deleted" in CliRunner().invoke(main, prune).output
            auth = {"authorization": f"Bearer {made['key']}"}
            until(lambda: "revoked" not in server.get("/v1/models", headers=auth).text)
            assert server.chat("mock-model").status_code == 401


def test_a_public_address_is_served_with_keys_of_the_store_alone(tmp_path: Path) -> None:
    with mocking() as mock:
        settings = {**models(mock.url, "m"), "listen": {"host": "0.0.0.0"}, "key_required": True}
        (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
        with serving(tmp_path) as server:
            assert server.chat("m").status_code == 401
            made = Site(tmp_path, [server]).command("create")
            until(lambda: status(server, made["key"], "m") == 200)


def test_a_tenant_must_be_one_of_the_settings_if_they_list_any(tmp_path: Path) -> None:
    settings = {"tenants": {"acme": {}}, "models": {"m": {"base_url": "http://127.0.0.1:1/v1"}}}
    (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
    site = Site(tmp_path, [])
    said = site.refused("create", "--tenant", "acne", "--new-tenant")
    assert "the settings list no tenant `acne`; known: `acme`, `default`" in said
    assert site.command("create", "--tenant", "acme")["tenant"] == "acme"
