"""Test the command line as a newcomer meets it."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from processes import COMMAND, mocking, run, serving, started
from slipway.cli import COMMANDS, main
from waiting import until


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_a_module_for_each_command_and_its_line_is_whole(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    assert f"Usage: main {name}" in shown.output
    assert COMMANDS[name].endswith(".")
    assert COMMANDS[name] in CliRunner().invoke(main, ["--help"]).output


def test_the_help_imports_no_command() -> None:
    code = (
        "import sys; from slipway.cli import main; main(['--help'], standalone_mode=False); "
        "print([m for m in sys.modules if m.startswith('slipway.commands.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().endswith("[]")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slipway", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("slipway, version ")


@pytest.mark.parametrize("port", ["99999", "-1", "65536"])
@pytest.mark.parametrize("command", ["serve", "check", "mock"])
def test_a_port_out_of_range_is_refused(command: str, port: str) -> None:
    done = CliRunner().invoke(main, [command, "--port", port])
    assert done.exit_code == 2
    assert f"{port} is not in the range 0<=x<=65535" in done.output


def test_check_finds_a_port_that_another_program_uses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("check", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert "fine" not in done.stdout


def test_check_accepts_the_port_of_a_running_slipway(tmp_path: Path) -> None:
    with mocking() as mock, serving(tmp_path, "--model", f"{mock.url}/v1#mock-model") as server:
        done = run("check", "--port", str(server.port), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"a Slipway server already uses port {server.port}" in done.stdout


def test_check_finds_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    settings = tmp_path / "slipway.yaml"
    settings.write_text(json.dumps({"store": f"sqlite:///{tmp_path}/file/slipway.db"}))
    done = run("check", "--config", str(settings), "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("tenant", ['a: "b"', "yes", "it's", "[x]", "# no", "租户", "1e3", " x "])
def test_a_key_line_reads_back_whatever_the_tenant_is_called(tenant: str) -> None:
    done = CliRunner().invoke(
        main, ["keys", "create", "--line", "--tenant", tenant, "--app", tenant]
    )
    line = done.output.rstrip().splitlines()[-1]
    (entry,) = yaml.safe_load(f"keys:\n{line}")["keys"]
    assert (entry["tenant"], entry["apps"]) == (tenant, [tenant])


@pytest.mark.parametrize("option", ["--tenant", "--app"])
def test_an_empty_tenant_or_app_of_a_key_is_rejected(option: str) -> None:
    done = CliRunner().invoke(main, ["keys", "create", option, " "])
    assert done.exit_code == 2
    assert f"{option}: it is empty" in done.output


def test_a_server_with_nothing_to_serve_says_so_once(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with started(log, "serve", "--port", "0", cwd=tmp_path):
        until(lambda: "Nothing to serve yet" in log.read_text())
    assert "quoted from the documents" not in log.read_text()


def test_ctrl_c_in_ingest_leaves_the_cursor_visible(tmp_path: Path) -> None:
    """Runs ingest in a pseudo-terminal; many documents keep the progress bar busy."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(3000):
        (docs / f"{number}.md").write_text(f"# Page {number}\n\nText of page {number}.\n")
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "ingest", "--docs", str(docs)], cwd=tmp_path, stdout=inner, stderr=inner
    )
    os.close(inner)
    shown = b""
    while b"\x1b[?25l" not in shown:
        shown += os.read(outer, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while data := os.read(outer, 4096):
            shown += data
    except OSError:  # the other end of a pseudo-terminal was closed
        pass
    os.close(outer)
    assert process.wait(30) != 0
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def test_answers_beside_a_server_use_its_documents_without_reading_them(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "tea.md").write_text("# Tea\n\nTea is steeped for four minutes.\n")
    with serving(tmp_path, "--docs", str(docs)):
        asked = run("ask", "--docs", str(docs), "How long is tea steeped?", cwd=tmp_path)
    assert "four minutes" in asked.stdout
    assert "a temporary copy is used" in asked.stderr
