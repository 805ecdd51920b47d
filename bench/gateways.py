"""The gateways that `gateway.py` measures: how each is started, loaded and watched."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER, BARE = str(ROOT / "bench" / "peer.py"), str(ROOT / "bench" / "bare.py")
TICKS = os.sysconf("SC_CLK_TCK")
LITELLM = """model_list:
  - model_name: mock-model
    litellm_params:
      {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{up}/v1", api_key: sk-up}}
  - model_name: mock-slow
    litellm_params:
      {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{up}/slow/v1", api_key: sk-up}}
"""
LITELLM_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_MASTER_KEY": "sk-bench-key",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def tree(pid: int) -> list[int]:
    found, todo = list[int](), [pid]
    while todo:
        found.append(p := todo.pop())
        for children in Path(f"/proc/{p}/task").glob("*/children"):
            try:
                todo += map(int, children.read_text().split())
            except OSError:  # it ended meanwhile
                continue
    return found


def cpu_s(pid: int) -> float:
    ticks = 0
    for p in tree(pid):
        try:
            fields = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def rss_mib(pid: int) -> float:
    kib = 0
    for p in tree(pid):
        try:
            lines = Path(f"/proc/{p}/status").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return kib / 1024


class Target:
    """A gateway, or the upstream itself (without a command)."""

    def __init__(
        self,
        name: str,
        port: int,
        command: list[str] | None,
        env: dict[str, str] | None = None,
        home: Path | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.name, self.port, self.command, self.env = name, port, command, env or {}
        self.home, self.headers = home, headers or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, log: Path, patience_s: float = 120) -> None:
        if self.command is None:
            return
        began = time.monotonic()
        with log.open("w") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", "1", *self.command],
                stdout=out,
                stderr=out,
                env={**os.environ, **self.env},
                cwd=self.home,
            )
        body = json.dumps(
            {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}
        ).encode()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench-key"}
        headers |= self.headers
        while time.monotonic() - began < patience_s and self.process.poll() is None:
            try:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{self.port}/v1/chat/completions", body, headers
                )
                urllib.request.urlopen(request, timeout=10).read()
            except OSError:
                time.sleep(0.02)
                continue
            self.ready_s = time.monotonic() - began
            return
        raise SystemExit(f"{self.name} did not answer:\n{log.read_text()[-2000:]}")

    def load(self, case: dict[str, Any], files: list[str], seconds: float) -> dict[str, float]:
        path = (
            "/slow/v1/chat/completions"
            if self.name in ("direct", "nginx") and case["bodies"] == "stream"
            else "/v1/chat/completions"
        )
        plan = {
            "port": self.port,
            "path": path,
            "connections": case["connections"],
            "seconds": seconds,
            "bodies": files,
            "key": "sk-bench-key",
            "headers": self.headers_for(case),
        }
        before = cpu_s(self.pid)
        done = subprocess.run(
            ["taskset", "-c", "0", sys.executable, PEER, "load", json.dumps(plan)],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        row: dict[str, float] = json.loads(done.stdout)
        spent = max(cpu_s(self.pid) - before, 1 / TICKS)
        return {
            **row,
            "per_cpu_s": row["requests"] / spent,
            "chunks_per_cpu_s": row["chunks"] / spent,
            "rss_mib": rss_mib(self.pid),
        }

    def headers_for(self, case: dict[str, Any]) -> dict[str, str]:
        """Return the gateway's own headers; Portkey's name the upstream, which has slow streams at
        another path.
        """
        if case["bodies"] != "stream":
            return self.headers
        return {k: v.replace("/v1", "/slow/v1") for k, v in self.headers.items()}

    def stop(self) -> None:
        if self.process is None:
            return
        for p in tree(self.pid):
            try:
                os.kill(p, signal.SIGTERM)
            except ProcessLookupError:
                continue
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def targets(
    folder: Path, up: int, litellm: str | None, portkey: str | None, beside: list[str]
) -> list[Target]:
    """Return the upstream itself, and the gateways in front of it that are installed here."""
    found = [Target("direct", up, None), slipway("slipway", folder, up, ROOT)]
    for each in beside:
        name, _, checkout = each.partition("=")
        found.append(slipway(name, folder, up, Path(checkout).resolve()))
    port = free_port()
    found.append(Target("bare", port, [sys.executable, BARE, str(port), str(up)]))
    if nginx := shutil.which("nginx"):
        found.append(nginx_proxy(nginx, folder, up))
    if litellm:
        found.append(litellm_proxy(litellm, folder, up))
    if portkey:
        found.append(portkey_gateway(portkey, up))
    return found


def slipway(name: str, folder: Path, up: int, checkout: Path) -> Target:
    """Return the gateway of a checkout, with its key check, metrics and ledger on."""
    port, home = free_port(), folder / name
    home.mkdir()
    settings = {
        "listen": {"port": port},
        "keys": [{"key": "sk-bench-key"}],
        "models": {
            "mock-model": {"base_url": f"http://127.0.0.1:{up}/v1", "api_key": "sk-up"},
            "mock-slow": {
                "base_url": f"http://127.0.0.1:{up}/slow/v1",
                "name": "mock-model",
                "api_key": "sk-up",
            },
            "mock-idle": {
                "base_url": f"http://127.0.0.1:{up}/idle/v1",
                "connection": {"max": 2000},
            },
        },
    }
    (home / "slipway.yaml").write_text(json.dumps(settings))
    start = "from slipway.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", "--quiet", "--config"]
    env = {"PYTHONPATH": str(checkout / "src")}
    return Target(name, port, [*command, str(home / "slipway.yaml")], env, home)


NGINX = """daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 16m; client_body_buffer_size 64k;
  keepalive_requests 1000000;
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  upstream up {{ server 127.0.0.1:{up}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def nginx_proxy(nginx: str, folder: Path, up: int) -> Target:
    """Return nginx as it forwards bytes; it reads no JSON. Its streams are asked for at /slow."""
    port, home = free_port(), folder / "nginx"
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(NGINX.format(home=home, up=up, port=port))
    command = [nginx, "-c", str(config), "-e", str(home / "start.log")]
    return Target("nginx", port, command)


def litellm_proxy(litellm: str, folder: Path, up: int) -> Target:
    port, config = free_port(), folder / "litellm.yaml"
    config.write_text(LITELLM.format(up=up))
    command = [litellm, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    more = ["--num_workers", "1", "--telemetry", "False"]
    return Target("litellm", port, [*command, *more], LITELLM_ENV)


def portkey_gateway(script: str, up: int) -> Target:
    """Return Portkey's gateway (npm `@portkey-ai/gateway`), which headers tell where to call."""
    port = free_port()
    command = ["node", script, f"--port={port}", "--headless"]
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{up}/v1",
    }
    return Target("portkey", port, command, headers=headers)
