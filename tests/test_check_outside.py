"""Test `slipway check --url` through real proxies: what is misconfigured is named with its fix."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from processes import ROOT, free_port, mocking, models, run, serving
from proxies import running_haproxy, running_nginx
from slipway.cli import main

KEY = "a-key-for-checks"
QUICK = ("--seconds", "1s", "--silence", "6s")
NEEDED = ("nginx", "haproxy", "openssl")
pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED),
    reason="`apt-get install nginx-light haproxy openssl` brings what is missing",
)

# each with what is wrong in it; `{port}` is Slipway's
NGINX = {
    "gzip": "proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Host "
    "$http_host; gzip on; gzip_types text/event-stream; gzip_proxied any; client_max_body_size 64m;",
    "gzip and buffers": "proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; "
    "proxy_set_header Host $http_host; gzip on; gzip_types text/event-stream; gzip_proxied any; "
    "proxy_ignore_headers X-Accel-Buffering; client_max_body_size 64m;",
    "impatient": "proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header "
    "Host $http_host; proxy_read_timeout 5s; client_max_body_size 1m; keepalive_timeout 0;",
    "second nginx": "proxy_pass http://127.0.0.1:{first}; proxy_buffering on; proxy_set_header "
    "Host $http_host; client_max_body_size 64m;",
    "first nginx": "proxy_pass http://127.0.0.1:{port}; proxy_set_header Connection ''; "
    f"proxy_set_header Authorization 'Bearer {KEY}'; client_max_body_size 64m;",
    "no server": "proxy_pass http://127.0.0.1:9;",
    "redirects": "return 301 https://localhost$request_uri;",
    "another name": "proxy_pass http://127.0.0.1:{port}; proxy_set_header Host evil.example;",
    "ignores clients that leave": "proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; "
    "proxy_set_header Host $http_host; proxy_ignore_client_abort on; client_max_body_size 64m;",
}
HAPROXY = {
    "impatient": "option http-no-delay\n timeout server 5s\n option http-buffer-request\n"
    " server slipway 127.0.0.1:{port}",
    "delays": " server slipway 127.0.0.1:{port}",
    "compresses": "option http-no-delay\n compression algo gzip\n compression type "
    "text/event-stream\n server slipway 127.0.0.1:{inner}",
    "inner": "option http-no-delay\n http-response del-header cache-control\n"
    " server slipway 127.0.0.1:{port}",
}
COMMON = "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\n"


def block_of(page: str, kind: str) -> str:
    """Return the one code block of this kind in a page of docs/."""
    text = (ROOT / "docs" / page).read_text()
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found)


def replaced(text: str, **by: str) -> str:
    """Return the text with each of these parts replaced; each must be there."""
    for old, new in by.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> Path:
    """Make a certificate of localhost with its key, both in one PEM file."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "90", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    both.write_text(cert.read_text() + key.read_text())
    return both


class Checked:
    """The rows of a check by name, and how the command ended."""

    def __init__(self, *args: str, key: str = KEY) -> None:
        self.done = run("check", *args, "--json", env={"SLIPWAY_KEY": key})
        assert self.done.stdout, self.done.stderr
        self.found: dict[str, Any] = json.loads(self.done.stdout)
        self.rows: dict[str, Any] = {row["name"]: row for row in self.found["rows"]}

    @property
    def worse(self) -> dict[str, str]:
        """Return the rows that are not green, with their state."""
        return {n: r["state"] for n, r in self.rows.items() if r["state"] in ("amber", "red")}


BY_LOAD = {"added time"}  # what a machine that is busy with other tests may make amber


def green(*args: str) -> Checked:
    """Return the first of three checks that is green: load only ever makes it worse."""
    for _ in range(3):
        checked = Checked(*args)
        if checked.worse.keys() <= BY_LOAD:
            break
    return checked


class Site:
    """Where the server listens, and each proxy in front of it."""

    def __init__(self, server: int, folder: Path) -> None:
        self.ports = {f"nginx {name}": free_port() for name in NGINX}
        self.ports |= {f"haproxy {name}": free_port() for name in HAPROXY}
        self.tls = {"nginx": free_port(), "haproxy": free_port()}
        self.server, self.both = server, str(certificate(folder))

    def filled(self, inside: str) -> str:
        """Return a piece of configuration with the ports that it names."""
        for word, port in (
            ("{port}", self.server),
            ("{first}", self.ports["nginx first nginx"]),
            ("{inner}", self.ports["haproxy inner"]),
        ):
            inside = inside.replace(word, str(port))
        return inside

    def nginx(self) -> str:
        """Return the server of the docs, and those with something wrong in them."""
        ours = replaced(
            block_of("deploy.md", "nginx"),
            **{
                "443": str(self.tls["nginx"]),
                "answers.example.com": "localhost",
                "127.0.0.1:8080": f"127.0.0.1:{self.server}",
                "/etc/ssl/answers.pem": self.both,
                "/etc/ssl/answers.key": self.both,
            },
        )
        for name, inside in NGINX.items():
            listen = f"listen 127.0.0.1:{self.ports[f'nginx {name}']};"
            ours += f"server {{ {listen} location / {{ {self.filled(inside)} }} }}\n"
        return ours

    def haproxy(self) -> str:
        """Return the proxy of the docs, and those with something wrong in them."""
        ours = replaced(
            block_of("deploy.md", "haproxy"),
            **{
                ":443": f"127.0.0.1:{self.tls['haproxy']}",
                "/etc/haproxy/answers.pem": self.both,
                "127.0.0.1:8080": f"127.0.0.1:{self.server}",
            },
        )
        for name, inside in HAPROXY.items():
            port = self.ports[f"haproxy {name}"]
            ours += (
                f"\n{COMMON}listen proxy{port}\n bind 127.0.0.1:{port}\n {self.filled(inside)}\n"
            )
        return ours


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Checked]]:
    """Check one server through all proxies at the same time."""
    folder = tmp_path_factory.mktemp("proxies")
    for name in ("nginx", "haproxy"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        mock = stack.enter_context(mocking(ttft_s=0.05))
        settings = {**models(f"{mock.url}/v1", "mock-model"), "keys": [{"key": KEY}]}
        server = stack.enter_context(serving(folder, settings=settings))
        site = Site(server.port, folder)
        stack.enter_context(running_nginx(folder / "nginx", site.nginx()))
        stack.enter_context(running_haproxy(folder / "haproxy", site.haproxy()))
        pool = stack.enter_context(ThreadPoolExecutor())

        def check(url: str, *args: str, key: str = KEY) -> Future[Checked]:
            return pool.submit(Checked, "--url", url, *args, key=key)

        running = {
            name: check(f"http://127.0.0.1:{port}", *QUICK) for name, port in site.ports.items()
        }
        for name, port in site.tls.items():
            args = ("--url", f"https://localhost:{port}", "--ca", str(folder / "cert.pem"))
            running[f"{name} of the docs"] = pool.submit(green, *args)
        running |= {
            "answer": check(server.url, "--model", "mock-model", *QUICK),
            "nothing listens": check("http://127.0.0.1:9"),
            "no slipway": check(mock.url),
            "untrusted": check(f"https://localhost:{site.tls['nginx']}"),
            "no TLS": check(f"https://127.0.0.1:{server.port}"),
            "wrong key": check(server.url, key="wrong-key-1"),
            "no key": check(f"{server.url}/v1", key=""),
        }
        yield {name: found.result() for name, found in running.items()}


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_the_files_of_the_docs_are_green(checks: dict[str, Checked], proxy: str) -> None:
    checked = checks[f"{proxy} of the docs"]
    assert checked.worse.keys() <= BY_LOAD, checked.found
    assert checked.done.returncode == 0
    assert proxy in checked.rows["server"]["says"]
    measured = {
        "buffering",
        "compression",
        "heartbeat",
        "idle timeout",
        "disconnect",
        "http2",
        "tls",
    }
    assert {n for n, r in checked.rows.items() if r["state"] == "green"} >= measured


@pytest.mark.parametrize(
    ("proxy", "row", "state", "do"),
    [
        ("nginx second nginx", "buffering", "red", "nginx: set `proxy_buffering off`"),
        ("nginx gzip", "compression", "amber", "out of `gzip_types`"),
        ("nginx gzip and buffers", "compression", "red", "out of `gzip_types`"),
        ("nginx impatient", "idle timeout", "red", "nginx: set `proxy_read_timeout 300s`"),
        ("nginx impatient", "body size", "amber", "nginx: set `client_max_body_size 64m`"),
        ("nginx impatient", "keep-alive", "amber", "nginx: remove `keepalive_timeout 0`"),
        ("nginx first nginx", "request", "amber", "nginx: set `proxy_set_header Host $http_host`"),
        ("nginx first nginx", "public", "amber", "set `keys`"),
        (
            "nginx ignores clients that leave",
            "disconnect",
            "amber",
            "nginx: remove `proxy_ignore_client_abort on`",
        ),
        ("haproxy impatient", "idle timeout", "red", "haproxy: set `timeout server 300s`"),
        ("haproxy impatient", "body held", "amber", "remove `option http-buffer-request`"),
        ("haproxy delays", "merging", "amber", "See `buffering`"),
        ("haproxy delays", "added time", "amber", "haproxy: set `option http-no-delay`"),
        ("haproxy compresses", "compression", "amber", "out of `compression type`"),
        ("haproxy compresses", "stream headers", "amber", "`http-response del-header`"),
    ],
)
def test_a_misconfiguration_is_named_with_its_fix(
    checks: dict[str, Checked], proxy: str, row: str, state: str, do: str
) -> None:
    found = checks[proxy].rows[row]
    # a compressor that is merely wasteful may be late on a busy machine
    states = ("amber", "red") if row == "compression" and state == "amber" else (state,)
    assert found["state"] in states, found
    assert do in " ".join(found["do"])
    assert checks[proxy].done.returncode == (1 if "red" in checks[proxy].worse.values() else 0)


@pytest.mark.parametrize(
    ("name", "says", "do"),
    [
        ("nothing listens", "nothing listens there", "Check host and port"),
        ("no slipway", "is not Slipway", "Check the address"),
        ("untrusted", "its certificate is not trusted", "--ca FILE"),
        ("no TLS", "TLS failed", "Check host and port"),
        ("wrong key", "does not accept this key", "Correct --key"),
        ("no key", "asks for a key", "--key KEY"),
        ("nginx no server", "The proxy answers 502 through nginx", "Check that Slipway runs"),
        ("nginx redirects", "It redirects to https://localhost/v1/check", "Check that address"),
        ("nginx another name", "`evil.example`", "nginx: set `proxy_set_header Host $http_host`"),
    ],
)
def test_what_cannot_be_checked_says_why(
    checks: dict[str, Checked], name: str, says: str, do: str
) -> None:
    (row,) = checks[name].found["rows"]
    assert (row["state"], checks[name].done.returncode) == ("red", 1)
    assert says in row["says"]
    assert do in " ".join(row["do"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--url", "ftp://example.com"], "--url: `ftp://example.com` is not an address"),
        (["--url", "example.com"], "write https://HOST"),
        (["--url", "http://a:99999"], "has no valid port"),
        (["--url", "https://münchen.example"], "write its ASCII form"),
        (["--url", "https://example.com", "--paid"], "--paid has no effect here"),
        (["--silence", "30s"], "--silence has no effect here, since --url is missing"),
        (["--url", "http://me:hush@example.com"], "without user"),
        (["--url", "https://example.com?key=1"], "the key is for --key"),
        (["--url", "https://example.com", "--ca", "nowhere.pem"], "there is no such file"),
        (["--url", "https://example.com", "--ca", __file__], "no PEM file"),
        (["--url", "https://example.com", "--key", "schlüssel"], "characters that no key has"),
        (["--url", "https://example.com", "--silence", "soon"], "--silence: `soon`"),
        (["--url", "https://example.com", "--seconds", "0s"], "write a time from 1s to 120s"),
        (["--url", "https://example.com", "--html", "no/such/x.html"], "there is no folder"),
        (["--url", "https://example.com", "--model", "a", "--model", "b"], "name one model"),
    ],
)
def test_a_wrong_option_is_named(args: list[str], says: str) -> None:
    done = CliRunner().invoke(main, ["check", *args])
    assert done.exit_code == 2
    assert says in done.output
    assert "hush" not in done.output


def test_an_idle_timeout_is_measured(checks: dict[str, Checked]) -> None:
    for proxy in ("nginx impatient", "haproxy impatient"):
        assert 4 < checks[proxy].rows["idle timeout"]["facts"]["idle_timeout_s"] < 6
        assert checks[proxy].rows["heartbeat"]["state"] == "skipped"  # `--silence` is shorter
    assert checks["nginx impatient"].rows["body size"]["facts"]["bytes_arrive"] < 1024 * 1024


def test_the_first_token_is_measured_from_outside(checks: dict[str, Checked]) -> None:
    row = checks["answer"].rows["answer"]
    assert 0.05 <= row["facts"]["server_ttft_s"] <= row["facts"]["ttft_s"], row
    assert "paid for" in checks["answer"].done.stderr
    assert "answer" not in checks["nginx gzip"].rows


def test_no_output_holds_the_key(checks: dict[str, Checked]) -> None:
    assert not any(KEY in checked.done.stdout for checked in checks.values())
