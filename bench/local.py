"""Measure how a model that runs here answers questions over documents, through a real `slipway
serve`: what it says, how fast, and how much of the prompt is cached.

    slipway weights pull qwen2.5-coder-0.5b
    nice python bench/local.py --show    # 20 questions of docs-qa, each asked twice, beside quotes

- first: a question is asked for the first time; the passages of its prompt are new, its standing
  instructions are cached
- again: the same question at once again; the whole prompt is cached
- ttft_s, tpot_s: seconds to the first words at the client, including the search; seconds for each
  token after them
- facts: the mean share of the gold answer's content words and numbers, without those of the
  question, that the answer has
- cited: the share of answers that name a source; abstained: the share that say that the documents
  do not answer
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from gateways import free_port
from quotes import DATA
from slipway.evals.facts import covered


class Heard(NamedTuple):
    text: str
    ttft_s: float
    tpot_s: float
    usage: dict[str, Any]
    cited: bool
    served_by: str
    abstained: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with questions.jsonl and pages/"
    )
    parser.add_argument(
        "--weights", default="qwen2.5-coder-0.5b", help="name of weights, or a .gguf file"
    )
    parser.add_argument("--questions", type=int, default=20, help="how many")
    parser.add_argument(
        "--passages",
        type=int,
        help="places that an answer may use; the default of an app if left out",
    )
    parser.add_argument("--prompt", help="file with other standing instructions")
    parser.add_argument(
        "--defaults",
        type=json.loads,
        default={},
        help="model parameters, such as '{\"temperature\": 0}'",
    )
    parser.add_argument("--show", action="store_true", help="print every answer")
    options = parser.parse_args()
    rows = [
        json.loads(line) for line in (options.data / "questions.jsonl").read_text().splitlines()
    ][: options.questions]
    with serving(options) as url:
        heard = {
            row["question"]: [ask(url, "local", row["question"]) for _ in range(2)] for row in rows
        }
        quoted = {row["question"]: ask(url, "quotes", row["question"]) for row in rows}
    for row in rows if options.show else ():
        print(
            f"Q: {row['question']}\nGOLD: {row['answer']}\nLOCAL: "
            f"{heard[row['question']][0].text}\n"
        )
    for name, answers in {
        "first": [each[0] for each in heard.values()],
        "again": [each[1] for each in heard.values()],
        "quotes": list(quoted.values()),
    }.items():
        print(f"{name:8}", "  ".join(f"{k} {v}" for k, v in summary(rows, answers).items()))


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[str]:
    """Start a server, and wait until the model is loaded and the pages are read."""
    app: dict[str, Any] = {
        "knowledge": str(options.data / "pages"),
        **({"passages": options.passages} if options.passages else {}),
    }
    written = {
        **app,
        "route": "model",
        "defaults": options.defaults,
        **({"prompt": str(Path(options.prompt).resolve())} if options.prompt else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        port, file = free_port(), Path(folder) / "slipway.yaml"
        models = {"model": {"provider": "local", "weights": options.weights}}
        file.write_text(
            json.dumps(
                {
                    "listen": {"port": port},
                    "models": models,
                    "apps": {"local": written, "quotes": app},
                }
            )
        )
        command = [
            sys.executable,
            "-c",
            "from slipway.cli import main; main()",
            "serve",
            "--quiet",
            "--config",
            str(file),
        ]
        process = subprocess.Popen(command)
        try:
            wait(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def wait(url: str) -> None:
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=20)) as client:
        while True:
            state = client.get("/readyz").json()
            knowledge = state["knowledge"].get("local", {})
            counts = str(knowledge.get("dense", "")).split("/")
            if (
                state.get("local", {}).get("model") == "ready"
                and knowledge.get("ready")
                and counts[0] == counts[-1]
            ):
                return
            if "waiting" in (said := state.get("local", {}).get("model", "")) or "failed" in said:
                raise SystemExit(said)
            time.sleep(0.5)


def ask(url: str, app: str, question: str) -> Heard:
    started, words, text, seen = time.monotonic(), list[float](), "", dict[str, dict[str, Any]]()
    with httpx.stream(
        "POST",
        f"{url}/v1/answers",
        json={"question": question, "app": app, "stream": True},
        timeout=300,
    ) as reply:
        name = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                seen[name] = data = json.loads(line[6:])
                if name == "delta":
                    words.append(time.monotonic() - started)
                    text += data["text"]
    usage = seen.get("usage", {})
    tpot_s = (words[-1] - words[0]) / max(1, usage.get("output_tokens", 2) - 1)
    return Heard(
        text,
        words[0],
        tpot_s,
        usage,
        "citation" in seen,
        seen["done"]["served_by"],
        seen["done"]["abstained"],
    )


def summary(rows: Sequence[dict[str, Any]], heard: Sequence[Heard]) -> dict[str, str]:
    facts = [
        covered(each.text, row["answer"], row["question"]) or 0.0
        for row, each in zip(rows, heard, strict=True)
    ]
    measured = [each for each in heard if each.usage]
    written = [each for each in measured if not each.abstained]
    shares: dict[str, Sequence[float]] = {
        "facts": facts,
        "cited": [each.cited for each in heard],
        "abstained": [each.abstained for each in heard],
    }
    times = {"ttft_s": [each.ttft_s for each in heard], "tpot_s": [each.tpot_s for each in written]}
    tokens = {
        name: [each.usage[name] for each in measured]
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    }
    return {
        "n": str(len(heard)),
        **{name: f"{statistics.fmean(found):.2f}" for name, found in shares.items()},
        **{name: f"{statistics.median(found):.3f}" for name, found in times.items() if found},
        **{name: f"{statistics.median(found):.0f}" for name, found in tokens.items() if found},
    }


if __name__ == "__main__":
    main()
