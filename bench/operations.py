"""Measure the operations page with a day of traffic behind it: first paint, its queries, and what
open pages cost.

    python bench/operations.py [--answers 52000] [--rounds 5] [--seconds 20] [--json]

A day of answers is written into a store as a server would have done, and a server is started on it.
Then: how long the page takes to its first paint and until all numbers are shown (the week is the
most work); how long `GET /v1/operations` takes when nothing of it is kept, and again; and how many
requests per CPU-second the server answers while no page, one page (in Chromium) or ten pages (as
ten pages ask) are open. The cases take turns in each round; a figure is the median, with its
spread. The server runs pinned to core 1, the rest to core 0. Needs Linux with two cores, Chromium
and the packages of the tests.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from gateway import bodies
from gateways import PEER, Target, cpu_s, free_port
from slipway.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsing import ARGUMENTS, CHROMIUM
from past_traffic import leave_past

KEY = "sk-bench-key"
WINDOWS = ("now", "hour", "day", "week")
EVERY_S = 5.0  # how often a page asks
PAINTS = 7
CONNECTIONS = 16


def started(folder: Path, up: int) -> Target:
    """Start a server on the store in this folder."""
    port, file = free_port(), folder / "slipway.yaml"
    model = {"base_url": f"http://127.0.0.1:{up}/v1", "name": "mock-model", "api_key": "sk-up"}
    (folder / "docs").mkdir()
    (folder / "docs" / "harbor.md").write_text("# Harbor\n\nA berth costs 34 euro a night.\n")
    settings = {
        "listen": {"port": port},
        "store": f"sqlite:///{folder / 'slipway.db'}",
        "keys": [{"key": KEY, "admin": True}],
        "models": {"mock-model": {**model, "price": {"input": 0.11, "output": 0.28}}},
        "apps": {"support": {"knowledge": ["./docs"], "route": "mock-model"}},
    }
    file.write_text(json.dumps(settings))
    serve = "from slipway.cli import main; main()"
    command = [sys.executable, "-c", serve, "serve", "--quiet", "--config", str(file)]
    target = Target("slipway", port, command)
    target.start(folder / "serve.log")
    return target


def asked(target: Target, window: str) -> tuple[float, dict[str, Any]]:
    """Return how many seconds `GET /v1/operations` took, and its reply."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{target.port}/v1/operations?window={window}",
        headers={"Authorization": f"Bearer {KEY}"},
    )
    began = time.monotonic()
    reply = urllib.request.urlopen(request, timeout=60).read()
    return time.monotonic() - began, json.loads(reply)


def queries(target: Target, answers: int) -> list[dict[str, Any]]:
    """Return how long each window takes at first, and when all of it is kept."""
    rows = []
    for window in WINDOWS:
        first_s, reply = asked(target, window)
        again_s, _ = asked(target, window)
        found = reply["totals"]["answers"]
        if window == "week" and found < answers:
            raise SystemExit(f"the server counted {found} of {answers} answers")
        size = len(json.dumps(reply))
        rows.append(
            {
                "window": window,
                "first_s": first_s,
                "again_s": again_s,
                "answers": found,
                "size": size,
            }
        )
    return rows


def paints(browser: Browser, target: Target, window: str) -> dict[str, list[float]]:
    """Return milliseconds to the first paint and until the numbers are shown, in fresh browsers."""
    found: dict[str, list[float]] = {"first_paint_ms": [], "shown_ms": []}
    for _ in range(PAINTS):
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.add_init_script(f"sessionStorage.setItem('slipway.key', '{KEY}')")
        page.goto(f"http://127.0.0.1:{target.port}/ops?window={window}")
        page.locator("#charts path").first.wait_for(state="attached")
        found["shown_ms"].append(page.evaluate("performance.now()"))
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found["first_paint_ms"].append(page.evaluate(paint))
        context.close()
    return found


@contextmanager
def one_page(browser: Browser, target: Target) -> Iterator[None]:
    """Have the page open in Chromium."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('slipway.key', '{KEY}')")
    page.goto(f"http://127.0.0.1:{target.port}/ops?window=day")
    page.locator("#board").wait_for()
    yield
    context.close()


@contextmanager
def ten_pages(target: Target) -> Iterator[None]:
    """Ask as ten pages would, with all windows among them."""
    ends = threading.Event()

    def ask(number: int) -> None:
        ends.wait(number * EVERY_S / 10)
        while not ends.is_set():
            asked(target, WINDOWS[number % len(WINDOWS)])
            ends.wait(EVERY_S)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for each in threads:
        each.start()
    yield
    ends.set()
    for each in threads:
        each.join()


@contextmanager
def no_page() -> Iterator[None]:
    yield


def loads(
    browser: Browser, target: Target, folder: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return the requests per CPU-second of each case, and its share of those without a page."""
    case = {"connections": CONNECTIONS, "bodies": "small"}
    files = bodies(folder, "small")
    target.load(case, files, 2.0)
    runs: dict[str, list[dict[str, float]]] = {"none": [], "one page": [], "ten pages": []}
    for number in range(rounds):
        cases = [
            ("none", no_page()),
            ("one page", one_page(browser, target)),
            ("ten pages", ten_pages(target)),
        ]
        for name, opened in cases[number % 3 :] + cases[: number % 3]:
            settle(target)
            with opened:
                runs[name].append(target.load(case, files, seconds))
    rows = []
    for name, found in runs.items():
        ratios = [
            run["per_cpu_s"] / alone["per_cpu_s"]
            for run, alone in zip(found, runs["none"], strict=True)
        ]
        rows.append(
            {
                "open": name,
                "per_cpu_s": statistics.median(run["per_cpu_s"] for run in found),
                "ratio": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
                "errors": sum(run["errors"] for run in found),
            }
        )
    return rows


def settle(target: Target) -> None:
    """Wait until what was booked before is in the store."""
    while asked(target, "now")[1]["now"]["store"]["waiting"]:
        time.sleep(0.2)


def idle(target: Target, seconds: float) -> float:
    """Return the share of a processor that one page takes of a server without other work."""
    before, began = cpu_s(target.pid), time.monotonic()
    while time.monotonic() - began < seconds:
        asked(target, "day")
        time.sleep(EVERY_S)
    return (cpu_s(target.pid) - before) / (time.monotonic() - began)


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.0f} {unit} ({min(values):.0f} to {max(values):.0f})"


def show(found: dict[str, Any]) -> None:
    print(f"{found['answers']} answers of a day, written in {found['written_s']:.1f} s of CPU")
    for window, times in found["paints"].items():
        first, shown = times["first_paint_ms"], times["shown_ms"]
        print(f"{window:5} first paint {spread(first, 'ms')}, numbers {spread(shown, 'ms')}")
    for row in found["queries"]:
        print(
            f"{row['window']:5} GET /v1/operations {row['first_s'] * 1000:.0f} ms, "
            f"again {row['again_s'] * 1000:.1f} ms, {row['answers']} answers, {row['size']} bytes"
        )
    print(f"one page at an idle server: {found['idle']:.2%} of a core")
    for row in found["loads"]:
        low, high = row["spread"]
        print(
            f"open: {row['open']:9} {row['per_cpu_s']:.0f} requests per CPU-second, "
            f"ratio {row['ratio']:.3f} ({low:.3f} to {high:.3f}), {row['errors']:.0f} errors"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=52_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, up = Path(name), free_port()
        began = time.process_time()
        store = Settings(store=f"sqlite:///{folder / 'slipway.db'}")
        leave_past(store, given.answers, time.time())
        found: dict[str, Any] = {
            "answers": given.answers,
            "written_s": time.process_time() - began,
        }
        upstream = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, PEER, "upstream", str(up)]
        )
        time.sleep(0.5)
        target = started(folder, up)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                time.sleep(5)  # the past is being loaded
                found["queries"] = queries(target, given.answers)
                found["paints"] = {each: paints(browser, target, each) for each in ("day", "week")}
                found["idle"] = idle(target, 2 * EVERY_S)
                found["loads"] = loads(browser, target, folder, given.rounds, given.seconds)
                browser.close()
        finally:
            target.stop()
            upstream.terminate()
    if given.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
