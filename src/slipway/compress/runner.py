"""A child process that runs models for measuring, and the handle that its parent holds.

One process for each model whose speed or memory is measured, so that neither shares with another.
Requests and replies are lines of JSON; logits stay in the child, and only sums leave it. It ends
when its parent does.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from slipway.compress.checkpoint import Floats
from slipway.compress.quantising import library_path
from slipway.errors import SlipwayError
from slipway.settings.environment import for_child, thread_count
from slipway.types import Record

WARM = 32  # tokens of a window that are read and not scored: their context is too short to judge by


Clock = Literal["wall", "processor"]
CLOCKS: dict[Clock, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}


class Speed(Record, frozen=True, kw_only=True):
    """Seconds until the first token after a prompt, and for each token after that."""

    ttft_s: float
    tpot_s: float


class Window(Record, frozen=True, kw_only=True):
    """Sums over the scored tokens of one piece of text; the last two beside the original model."""

    tokens: int
    nll: float
    nll_original: float
    kl: float
    same_top: int


class Runner:
    """A model in a child process. Close it, or use it in `with`."""

    def __init__(
        self,
        path: Path,
        *,
        original: Path | None = None,
        context: int = 512,
        threads: int | None = None,
    ) -> None:
        library = library_path()
        if library is None:
            raise SlipwayError(
                "Models cannot be measured: xllamacpp is not installed.",
                "pip install 'slipway[compress]'",
            )
        command = [sys.executable, "-P", "-m", "slipway.compress.runner"]
        self._child = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=for_child(),
        )  # fmt: skip
        self._path = path
        self._ask("load", library=str(library), path=str(path), context=context,
                  original=str(original) if original else None, threads=threads or thread_count())  # fmt: skip

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._ask("tokens", text=text, special=special))

    def score(self, window: Sequence[int]) -> Window:
        """How well it predicts these tokens, beside the original. Needs `original`."""
        return Window(**self._ask("score", window=list(window)))

    def speed(self, prompt: int, answer: int, clock: Clock = "wall") -> Speed:
        """`processor` counts only the time in which the child ran; right for one thread alone."""
        return Speed(**self._ask("speed", prompt=prompt, answer=answer, clock=clock))

    def sample(self, prompt: Sequence[int], most: int, seed: int, temperature: float) -> list[int]:
        """Tokens that it writes after these."""
        asked = {"prompt": list(prompt), "most": most, "seed": seed, "temperature": temperature}
        return list(self._ask("sample", **asked))

    def memory(self) -> int:
        """The most bytes of memory that the child has had, the file's pages included."""
        return int(self._ask("memory"))

    def _ask(self, what: str, **given: Any) -> Any:
        if self._child.stdin is None or self._child.stdout is None:
            raise AssertionError("both are pipes")
        try:
            self._child.stdin.write(json.dumps({"do": what, **given}).encode() + b"\n")
            self._child.stdin.flush()
            said = self._child.stdout.readline()
        except BrokenPipeError:
            said = b""
        if not said:
            code = self._child.wait()
            how = f"signal {-code}" if code < 0 else f"exit {code}"
            raise SlipwayError(
                f"The process that runs {self._path.name} ended ({how}).",
                "If memory was short, close other programs; else try another version of xllamacpp.",
            )
        reply = json.loads(said)
        if "error" in reply:
            raise SlipwayError(f"{self._path.name}: {reply['error']}", "Check the file.")
        return reply["ok"]

    def close(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def peak_memory() -> int:
    """The most bytes that this process has had. Linux's rusage would count what the parent had at
    the moment of the fork, too."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def most_memory() -> int:
    """The most bytes that this process had, or the largest of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return max(peak_memory(), children)


# In the child


class Bench:
    """What the parent can ask for; the models are loaded first."""

    def __init__(self) -> None:
        self._models: list[Any] = []

    def load(
        self, library: str, path: str, original: str | None, context: int, threads: int
    ) -> dict[str, int]:
        from slipway.compress.llama import Llama

        paths = [path] if original in (None, path) else [path, str(original)]
        self._models = [Llama(Path(library), Path(each), context, threads) for each in paths]
        sizes = {model.vocabulary for model in self._models}
        if len(sizes) > 1:
            raise ValueError(f"the two models have different vocabularies ({sorted(sizes)})")
        return {"vocabulary": self._models[0].vocabulary}

    def tokens(self, text: str, special: bool) -> list[int]:
        return list(self._models[0].tokens(text, special=special))

    def score(self, window: list[int]) -> dict[str, float]:
        model, original = self._models[0], self._models[-1]
        mine = _log_probabilities(model, window)
        its = mine if original is model else _log_probabilities(original, window)
        wanted = np.asarray(window[WARM + 1 :])
        rows = np.arange(len(wanted))
        kl = (np.exp(its) * (its - mine)).sum(1, dtype=np.float64)
        return {
            "tokens": len(wanted),
            "nll": float(-mine[rows, wanted].sum(dtype=np.float64)),
            "nll_original": float(-its[rows, wanted].sum(dtype=np.float64)),
            "kl": float(kl.sum()),
            "same_top": int((mine.argmax(1) == its.argmax(1)).sum()),
        }

    def speed(self, prompt: int, answer: int, clock: Clock) -> dict[str, float]:
        model, now = self._models[0], CLOCKS[clock]
        tokens = [(7 * n + 11) % model.vocabulary for n in range(prompt)]
        model.clear()
        start = now()
        model.decode(tokens)
        first = now()
        for n in range(answer):
            model.decode([tokens[n % prompt]])
        return {"ttft_s": first - start, "tpot_s": (now() - first) / answer}

    def sample(self, prompt: list[int], most: int, seed: int, temperature: float) -> list[int]:
        model, chance = self._models[0], np.random.default_rng(seed)
        model.clear()
        logits, found = model.decode(prompt)[0], list[int]()
        while len(found) < most:
            token = int(np.argmax(logits / temperature + chance.gumbel(size=logits.shape)))
            if model.ends(token):
                break
            found.append(token)
            logits = model.decode([token])[0]
        return found

    def memory(self) -> int:
        return peak_memory()


def _log_probabilities(model: Any, window: list[int]) -> Floats:
    """Of every token after those that warm up."""
    model.clear()
    logits: Floats = model.decode(window, every=True)[WARM:-1]
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return logits


def main() -> None:
    bench = Bench()
    does: Mapping[str, Callable[..., Any]] = {
        name: getattr(bench, name)
        for name in ("load", "tokens", "score", "speed", "sample", "memory")
    }
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            reply = {"ok": does[asked.pop("do")](**asked)}
        except ValueError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
