"""Test `slipway check --url` through real proxies: what is misconfigured is named with its fix."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from processes import ROOT, free_port, models, run, serving
from proxies import running_haproxy, running_nginx

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

    def __init__(self, *args: str) -> None:
        self.done = run("check", *args, "--json", env={"SLIPWAY_KEY": KEY})
        assert self.done.stdout, self.done.stderr
        self.found: dict[str, Any] = json.loads(self.done.stdout)
        self.rows: dict[str, Any] = {row["name"]: row for row in self.found["rows"]}

    @property
    def worse(self) -> dict[str, str]:
        """Return the rows that are not green, with their state."""
        return {n: r["state"] for n, r in self.rows.items() if r["state"] in ("amber", "red")}


def green(*args: str) -> Checked:
    """Return the first of three checks that is green: load only ever makes it worse."""
    for _ in range(3):
        checked = Checked(*args)
        if checked.found["state"] == "green":
            break
    return checked


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Checked]]:
    """Check one server through all proxies at the same time."""
    folder = tmp_path_factory.mktemp("proxies")
    settings = {**models("http://127.0.0.1:9/v1", "m"), "keys": [{"key": KEY}]}
    both = certificate(folder)
    for name in ("nginx", "haproxy"):
        (folder / name).mkdir()
    with serving(folder, settings=settings) as server:
        ports = {f"nginx {name}": free_port() for name in NGINX}
        ports |= {f"haproxy {name}": free_port() for name in HAPROXY}
        tls = {name: free_port() for name in ("nginx", "haproxy")}
        known = {
            "port": str(server.port),
            "first": str(ports["nginx first nginx"]),
            "inner": str(ports["haproxy inner"]),
        }
        servers = replaced(
            block_of("deploy.md", "nginx"),
            **{
                "443": str(tls["nginx"]),
                "answers.example.com": "localhost",
                "127.0.0.1:8080": f"127.0.0.1:{server.port}",
                "/etc/ssl/answers.pem": str(both),
                "/etc/ssl/answers.key": str(both),
            },
        )
        for name, inside in NGINX.items():
            for word, value in known.items():
                inside = inside.replace(f"{{{word}}}", value)
            servers += f"server {{ listen 127.0.0.1:{ports[f'nginx {name}']}; location / {{ {inside} }} }}\n"
        ours = replaced(
            block_of("deploy.md", "haproxy"),
            **{
                ":443": f"127.0.0.1:{tls['haproxy']}",
                "/etc/haproxy/answers.pem": str(both),
                "127.0.0.1:8080": f"127.0.0.1:{server.port}",
            },
        )
        for name, inside in HAPROXY.items():
            port = ports[f"haproxy {name}"]
            ours += f"\n{COMMON}listen proxy{port}\n bind 127.0.0.1:{port}\n {inside}\n".format(
                **known
            )
        with (
            running_nginx(folder / "nginx", servers),
            running_haproxy(folder / "haproxy", ours),
            ThreadPoolExecutor() as pool,
        ):
            running = {
                name: pool.submit(Checked, "--url", f"http://127.0.0.1:{port}", *QUICK)
                for name, port in ports.items()
            }
            running |= {
                f"{name} of the docs": pool.submit(
                    green, "--url", f"https://localhost:{port}", "--ca", str(folder / "cert.pem")
                )
                for name, port in tls.items()
            }
            yield {name: found.result() for name, found in running.items()}


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_the_files_of_the_docs_are_green(checks: dict[str, Checked], proxy: str) -> None:
    checked = checks[f"{proxy} of the docs"]
    assert not checked.worse, checked.found
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
        ("haproxy compresses", "compression", "amber", "out of `compression type`"),
        ("haproxy compresses", "stream headers", "amber", "`http-response del-header`"),
    ],
)
def test_a_misconfiguration_is_named_with_its_fix(
    checks: dict[str, Checked], proxy: str, row: str, state: str, do: str
) -> None:
    found = checks[proxy].rows[row]
    assert found["state"] == state, found
    assert do in " ".join(found["do"])
    assert checks[proxy].done.returncode == (1 if "red" in checks[proxy].worse.values() else 0)


def test_an_idle_timeout_is_measured(checks: dict[str, Checked]) -> None:
    for proxy in ("nginx impatient", "haproxy impatient"):
        assert 4 < checks[proxy].rows["idle timeout"]["facts"]["idle_timeout_s"] < 6
        assert checks[proxy].rows["heartbeat"]["state"] == "skipped"  # `--silence` is shorter
    assert checks["nginx impatient"].rows["body size"]["facts"]["bytes_arrive"] < 1024 * 1024


def test_no_output_holds_the_key(checks: dict[str, Checked]) -> None:
    assert not any(KEY in checked.done.stdout for checked in checks.values())
