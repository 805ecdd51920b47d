"""How the chat page behaves: `python bench/page.py` prints what a reader waits for.

Long frames and layout shifts while a 20 KB answer with code, tables and maths arrives at 100 tokens
a second, the first load and first paint on loopback, and how fast 500 conversations are listed.
Needs Chromium (/usr/bin/chromium) and the packages of the tests.
"""

import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, Response, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsing import ARGUMENTS, CHROMIUM, command, serving

SIZE = 20_000
TPOT_S = 0.01
RUNS = 5
LATE_MS = 50
BLOCK = """\
## Part {n}: how it is done

The harbor master assigns a **berth** [1], and the ~~old~~ new fee is $f_{n} = {n} \\cdot l^2$ for a boat of \
length $l$. It is paid once, see https://example.org/fees/{n} for all of them [1].

| Length | Fee a night | Berth |
|:---|---:|:---:|
| up to 10 m | {n}8 euro | A{n} |
| up to 20 m | {n}4 euro | B{n} |

```python
def fee(length: float, nights: int = {n}) -> float:
    \"\"\"Return the fee in euro.\"\"\"
    if length <= 0:
        raise ValueError("a boat has a length")
    return round(length * 1.8 * nights, 2)  # by the table above
```

$$\\int_0^{n} x^2\\,dx = \\frac{{{n}^3}}{{3}}$$

1. Call the harbor master on channel 12.
2. Moor with **two** lines, and *double* them in a storm.
   - Clear the deck.
   - Stay on board.

"""
WATCH = """() => {
    window.seen = { frames: [], shifts: [], tasks: [] };
    let last = performance.now();
    const tick = (now) => { seen.frames.push(now - last); last = now; requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
    const each = (type, take) => new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type });
    const text = ({ node }) => (node?.outerHTML ?? node?.data ?? "").slice(0, 80);
    each("layout-shift", ({ value, sources }) => seen.shifts.push({ value, what: sources.map(text) }));
    each("longtask", (entry) => seen.tasks.push(entry.duration));
}"""
FILL = """async () => {
    const { keepTurns, setCurrent } = await import("/static/conversations.js");
    for (let n = 0; n < 500; n++) {
        await keepTurns(`c-${n}`, [{ question: `Question ${n}`, state: "done", sections: [{ text: "word ".repeat(1000), state: "done" }] }]);
    }
    setCurrent(null);
}"""


OPEN = """async (id) => {
    const { fresh, restore } = await import("/static/talk.js");
    const began = performance.now();
    fresh();
    await restore(id);
    document.querySelector("#turns").getBoundingClientRect();
    return performance.now() - began;
}"""


def answer() -> str:
    text = ""
    while len(text) < SIZE:
        text += (
            BLOCK.replace("{{{n}^3}}{{3}}", "{@^3}{3}")
            .replace("{n}", str(len(text) // 900 + 1))
            .replace("@", "n")
        )
    return text


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "docs").mkdir()
        (folder / "docs" / "a.md").write_text(
            "# Harbor\n\n## Berths\n\nThe harbor master assigns a berth.\n"
        )
        mock = command(
            folder / "mock.log", "mock", "--port", "0", "--tpot", str(TPOT_S), "--text", answer()
        )
        with mock as url:
            text = f'models: {{m: {{base_url: "{url}/v1", name: mock-model}}}}\n'
            (folder / "slipway.yaml").write_text(
                text + "apps: {docs: {knowledge: [./docs], route: m}}\n"
            )
            with (
                serving(folder / "serve.log", "--config", "slipway.yaml") as server,
                sync_playwright() as playwright,
            ):
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                first_load(browser, server)
                conversations(browser, server)
                streaming(browser, server)
                browser.close()


def opened(browser: Browser, server: str) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(server)
    page.locator("#empty").wait_for()
    return page


def first_load(browser: Browser, server: str) -> None:
    paints, sizes = [], []
    for _ in range(RUNS):
        context = browser.new_context()
        page = context.new_page()
        paths: set[str] = set()
        page.on("response", partial(note, paths))
        page.goto(server)
        page.locator("#empty").wait_for()
        page.wait_for_load_state("networkidle")
        paints.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
        sizes.append(sum(sent_bytes(path) for path in paths))
        context.close()
    print(f"first paint      {spread(paints, 'ms')}")
    print(f"first load       {statistics.median(sizes) / 1000:.1f} KB compressed")


def note(paths: set[str], reply: Response) -> None:
    paths.add(reply.url)


def sent_bytes(url: str) -> int:
    with httpx.stream("GET", url, headers={"accept-encoding": "gzip"}) as reply:
        for _ in reply.iter_raw():
            pass
        return reply.num_bytes_downloaded


def conversations(browser: Browser, server: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(server)
    page.locator("#empty").wait_for()
    page.evaluate(FILL)
    times = []
    for _ in range(RUNS):
        page.reload()
        page.locator("#side-list li").nth(499).wait_for(state="attached")
        times.append(
            page.evaluate("""async () => {
            const { beginSidebar } = await import("/static/sidebar.js");
            const began = performance.now();
            document.querySelector("#side-list").replaceChildren();
            await beginSidebar(() => {});
            document.querySelector("#side-list").getBoundingClientRect();
            return performance.now() - began;
        }""")
        )
    print(f"list of 500      {spread(times, 'ms')}")
    opens = [page.evaluate(OPEN, f"c-{n * 50}") for n in range(RUNS)]
    print(f"open one of 500  {spread(opens, 'ms')}")
    context.close()


def streaming(browser: Browser, server: str) -> None:
    page = opened(browser, server)
    page.evaluate(WATCH)
    browser.start_tracing(
        page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"]
    )
    page.get_by_label("Your question").fill("How are berths assigned?")
    page.keyboard.press("Enter")
    page.locator(".turn .how").wait_for(timeout=180_000)
    cpu = task_times(browser.stop_tracing())
    seen: dict[str, Any] = page.evaluate("window.seen")
    frames = sorted(seen["frames"])
    print(
        f"answer           {page.evaluate('document.querySelector(`.answer`).textContent.length')} characters shown"
    )
    median, p99 = statistics.median(frames), frames[int(len(frames) * 0.99)]
    late = sum(frame > LATE_MS for frame in frames)
    print(f"frames           {len(frames)}, median {median:.1f} ms, p99 {p99:.1f} ms")
    print(f"                 longest {frames[-1]:.0f} ms, {late} over {LATE_MS} ms")
    print(f"long tasks       {len(seen['tasks'])}, longest {max(seen['tasks'], default=0):.0f} ms")
    print(
        f"processor time   longest tasks {', '.join(f'{ms:.0f}' for ms in cpu[-5:])} ms of {len(cpu)}"
    )
    print(
        f"layout shift     {sum(s['value'] for s in seen['shifts']):.4f} in {len(seen['shifts'])} shifts"
    )
    for shift in sorted(seen["shifts"], key=lambda s: -s["value"])[:5]:
        print(f"                 {shift['value']:.4f} {shift['what'][:2]}")


def task_times(trace: bytes) -> list[float]:
    """The processor time of each task of the page's main thread, in ms: other processes on this
    machine do not count, as they do for the frames.
    """
    events = json.loads(trace)["traceEvents"]
    mains = {
        (e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") == "CrRendererMain"
    }
    tasks = [e for e in events if e["name"].endswith("RunTask") and (e["pid"], e["tid"]) in mains]
    return sorted(e["tdur"] / 1000 for e in tasks if "tdur" in e)


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.0f} {unit} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    main()
