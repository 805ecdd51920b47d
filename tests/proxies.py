"""Run nginx and haproxy on loopback, as they are installed from Debian."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import free_port
from waiting import PATIENCE_S, until

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextmanager
def running_nginx(folder: Path, servers: str) -> Iterator[None]:
    """Run nginx with these `server` blocks."""
    temporary = "".join(f"{name}_temp_path {folder}/{name}; " for name in TEMPORARY)
    # started by root, its workers could not write large bodies into this folder
    user = "user root; " if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} "
        f"http {{ access_log off; {temporary} {servers} }}"
    )
    program = shutil.which("nginx") or "nginx"
    process = subprocess.Popen(
        [program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]
    )
    try:
        until(lambda: is_running(process, folder / "start.log") and pid_in(folder / "pid"))
        yield
    finally:
        end(process)


@contextmanager
def plain_nginx(folder: Path, upstream: int) -> Iterator[int]:
    """nginx with nothing set but `proxy_pass`: buffering on, HTTP/1.0 to the upstream, as it comes."""
    port = free_port()
    location = f"location / {{ proxy_pass http://127.0.0.1:{upstream}; }}"
    with running_nginx(folder, f"server {{ listen 127.0.0.1:{port}; {location} }}"):
        yield port


@contextmanager
def running_haproxy(folder: Path, text: str) -> Iterator[None]:
    """Run haproxy with this configuration."""
    file, log = folder / "haproxy.cfg", folder / "haproxy.log"
    # the master's socket exists once the configuration was read and all ports are bound
    socket = folder / "haproxy.sock"
    file.write_text(f"global\n    stats socket {socket}\n\n{text}")
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with log.open("w") as out:
        process = subprocess.Popen([program, "-db", "-f", str(file)], stdout=out, stderr=out)
    try:
        until(lambda: is_running(process, log) and socket.exists())
        yield
    finally:
        end(process)


def is_running(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return True


def pid_in(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(PATIENCE_S)
