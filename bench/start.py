"""Measure what a start costs: seconds to the first answered chat and to /readyz over documents,
idle memory, CPU of the import.

    python bench/start.py [--docs DIR] [--rounds 5] [--json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from gateways import PEER, ROOT, free_port, rss_mib

SERVE = [sys.executable, "-c", "from slipway.cli import main; main()", "serve", "--quiet"]
IMPORT = (
    "import resource; b = resource.getrusage(0); import slipway.cli; a = resource.getrusage(0); "
    "print(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime)"
)
DOCS = ROOT.parent / "shared" / "data" / "rag" / "docs-qa" / "pages"
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def answered(url: str, body: bytes | None = None) -> bool:
    try:
        urllib.request.urlopen(
            urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=5
        ).read()
    except (urllib.error.URLError, OSError):
        return False
    return True


def started(
    command: list[str], ready: Callable[[], bool], wait_s: float = 0.0
) -> tuple[float, float]:
    """Return (seconds until `ready`, idle MiB after `wait_s` more)."""
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not ready():
            if time.monotonic() - began > 60 or process.poll() is not None:
                raise SystemExit(f"did not get ready: {' '.join(command)}")
            time.sleep(0.005)
        seconds = time.monotonic() - began
        time.sleep(wait_s)
        return seconds, rss_mib(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def measure(docs: Path, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {
        "first_chat_s": [],
        "idle_mib": [],
        "ready_with_docs_s": [],
        "docs_mib": [],
        "import_cpu_s": [],
    }
    up = free_port()
    upstream = subprocess.Popen([sys.executable, PEER, "upstream", str(up)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rounds):
                port = free_port()
                file = Path(folder) / "slipway.yaml"
                file.write_text(
                    json.dumps(
                        {
                            "listen": {"port": port},
                            "models": {"m": {"base_url": f"http://127.0.0.1:{up}/v1"}},
                        }
                    )
                )
                url = f"http://127.0.0.1:{port}"
                seconds, mib = started(
                    [*SERVE, "--config", str(file)],
                    lambda: answered(f"{url}/v1/chat/completions", CHAT),  # noqa: B023
                    0.5,
                )
                found["first_chat_s"].append(seconds)
                found["idle_mib"].append(mib)
                seconds, mib = started(
                    [*SERVE, "--docs", str(docs), "--port", str(port)],
                    lambda: answered(f"{url}/readyz"),  # noqa: B023
                    0.5,
                )
                found["ready_with_docs_s"].append(seconds)
                found["docs_mib"].append(mib)
                done = subprocess.run(
                    [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
                )
                found["import_cpu_s"].append(float(done.stdout))
    finally:
        upstream.terminate()
        upstream.wait(10)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=Path, default=DOCS if DOCS.is_dir() else ROOT / "docs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.docs, given.rounds)
    if given.json:
        print(json.dumps(rows))
        return
    for name, values in rows.items():
        print(
            f"{name:18} median {statistics.median(values):7.3f}   from {min(values):.3f} to "
            f"{max(values):.3f}   ({len(values)} rounds)"
        )


if __name__ == "__main__":
    main()
