"""Ask natural questions over real document sets without a model, and count right and false answers.

    python bench/asking.py handbook=DIR flask=DIR vue=DIR           # the documents are not in the tree
    python bench/asking.py … --slipway OTHER/bin/slipway --show     # another version, with answers

The questions are in asking.jsonl, a third of them without an answer; they were written before the
answers were looked at. The sets are: `handbook`, `pages/` of github.com/18F/handbook (commit
1e49556); `flask`, the `.rst` files in `docs/` of Flask 3.1.3's source archive on PyPI; `vue`, the
Markdown of `src/` of github.com/vuejs-translations/docs-zh-cn (commit c2715ff) without `examples`,
`tutorial`, `partners`, `translations` and `sponsor`.

- right: the quote has one of the texts that answer (regular expressions in `answers`)
- beside: a quote that has none of them
- false refusal: refused although the documents answer
- false answer: quoted although they do not
"""

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

QUESTIONS = Path(__file__).with_suffix(".jsonl")
_REFUSED = re.compile(
    r"The documents do not say|文档中没有说明|The document does not say", re.IGNORECASE
)
_START_S = 600.0
KINDS = ("right", "beside", "false refusal", "right refusal", "false answer")


class Asked(NamedTuple):
    """A question with the texts that answer it; none if nothing in its set does."""

    set: str
    question: str
    answers: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask natural questions over real documents.")
    parser.add_argument("sets", nargs="+", metavar="NAME=DIR", help="folders of the document sets")
    parser.add_argument("--slipway", default=f"{Path(sys.executable).parent}/slipway")
    parser.add_argument(
        "--embedding", default="none", help="`minilm` for search by meaning as well"
    )
    parser.add_argument("--show", action="store_true", help="print what is not right")
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    options = parser.parse_args()
    folders = dict(each.split("=", 1) for each in options.sets)
    asked = [Asked(**json.loads(line)) for line in options.questions.read_text().splitlines()]
    counts: dict[str, Counter[str]] = {name: Counter() for name in folders}
    with served(options.slipway, folders, options.embedding) as url:
        for each in asked:
            if each.set in folders:
                text = answer(url, each)
                kind = kind_of(each, text)
                counts[each.set][kind] += 1
                if options.show and not kind.startswith("right"):
                    print(f"{kind}: {each.question} ({each.set})\n{text[:600]}\n")
    print(f"{'':12}{''.join(f'{kind:>15}' for kind in KINDS)}")
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{name:12}{''.join(f'{count[kind]:15}' for kind in KINDS)}")


def kind_of(asked: Asked, text: str) -> str:
    """Return which of `KINDS` an answer is."""
    refused = bool(_REFUSED.search(text))
    if not asked.answers:
        return "right refusal" if refused else "false answer"
    if refused:
        return "false refusal"
    plain = " ".join(text.split())
    return "right" if any(re.search(each, plain) for each in asked.answers) else "beside"


def answer(url: str, asked: Asked) -> str:
    body = {"model": asked.set, "messages": [{"role": "user", "content": asked.question}]}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["message"]["content"])


@contextmanager
def served(slipway: str, folders: dict[str, str], embedding: str) -> Iterator[str]:
    """Serve the sets as apps until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        apps = {name: {"knowledge": [str(Path(path).resolve())]} for name, path in folders.items()}
        settings = Path(home) / "settings.yaml"
        settings.write_text(json.dumps({"apps": apps, "embedding": embedding}))
        command = [slipway, "serve", "--config", str(settings), "--port", str(port)]
        with (Path(home) / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process, Path(home) / "log", embedding)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(
    url: str, process: "subprocess.Popen[bytes]", log: Path, embedding: str
) -> None:
    """Wait until all documents are read, and embedded if that is asked for."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        try:
            ready = httpx.get(f"{url}/readyz", timeout=10)
        except httpx.TransportError:
            ready = None
        is_read = ready is not None and ready.status_code == 200
        if is_read and (embedding == "none" or has_vectors(ready)):
            return
        time.sleep(0.5)
    raise SystemExit(f"The documents were not read in {_START_S:.0f} s.")


def has_vectors(ready: httpx.Response | None) -> bool:
    """Tell whether each set of documents can be searched by meaning."""
    states = re.findall(r'"dense":\s*"(\w+)', ready.text if ready else "")
    return bool(states) and set(states) == {"ready"}


if __name__ == "__main__":
    main()
