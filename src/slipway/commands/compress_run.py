"""`slipway compress`: a model made smaller, with proof and a way back."""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway import weights
from slipway.compress import registering
from slipway.compress.gate import targets_from
from slipway.compress.jobs import Job, Scores
from slipway.compress.pipeline import compress
from slipway.compress.quantising import check_form
from slipway.compress.recipes import write_recipe
from slipway.compress.refusals import refused
from slipway.compress.reports import lines, write_reports
from slipway.compress.results import FILES, ORIGINAL, RESULT, Outcome, Registered
from slipway.errors import SlipwayError
from slipway.settings import Flags, share
from slipway.settings.environment import thread_count
from slipway.settings.models import GGUF
from slipway.terminal import Bar
from slipway.types import Record

FEWEST_ROUNDS = 5
DELTA_WITHOUT = "answers are measured only with --docs: the pages that the questions are about"


class AskedColumns(Record, frozen=True, kw_only=True):
    """The command line."""

    model: str
    target: tuple[str, ...] = ()
    prune: str | None = None
    distil: Path | None = None
    calibrate: Path | None = None
    quant: str | None = None
    out: Path | None = None
    test: Path | None = None
    other: Path | None = None
    questions: Path | None = None
    docs: tuple[Path, ...] = ()
    minutes: float = 25.0
    rounds: int = 7
    price_hour: float | None = None
    name: str | None = None
    config: Path | None = None
    route: str | None = None
    canary: str = "5%"


def run(asked: AskedColumns, *, as_json: bool) -> int:
    """Compress; the exit code is 0 if the result may be kept."""
    _check_needs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end: its processes end too
    job = job_of(asked)
    terminal = Terminal(asked, shown=not as_json)
    try:
        outcome = compress(job, terminal)
        pages = write_reports(outcome, job.out)
    except KeyboardInterrupt:
        terminal.end()
        click.echo(f"\nStopped. What is done is in {job.out}; the same command goes on.", err=True)
        return 130
    except OSError as error:
        raise SlipwayError(
            f"A file could not be written: {error.strerror or error}.",
            f"Free some space on the disk of {job.out}; the same command goes on.",
        ) from error
    finally:
        terminal.end()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(outcome), indent=2))
    else:
        click.echo("\n".join([*lines(outcome), f"report: {pages['html']}"]))
    return 0 if outcome.gated.verdict == "keep" else 1


def job_of(asked: AskedColumns) -> Job:
    """Return what the command line asks for. Raises SettingsError for what cannot be understood."""
    path = found(asked.model)
    name = asked.name or registering.name_for(f"{path.name.removesuffix(GGUF)}-small")
    if asked.name and registering.name_for(asked.name) != asked.name:
        raise refused(
            f"--name: `{asked.name}` cannot be one; use small letters, digits, `.`, `-` and `_`"
        )
    if asked.quant:
        check_form(asked.quant)
    if not 0 < asked.minutes < math.inf:
        raise refused(f"--minutes: {asked.minutes:g} is not possible; give 1 or more")
    if asked.price_hour is not None and not math.isfinite(asked.price_hour):
        raise refused(f"--price-hour: {asked.price_hour:g} is not a price; write 0.5")
    if 0 < asked.rounds < FEWEST_ROUNDS:
        raise refused(
            f"--rounds: {asked.rounds} are too few to see noise; give {FEWEST_ROUNDS}, or 0"
        )
    targets = targets_from(asked.target)
    if targets.points is not None and asked.questions is None:
        raise refused(
            "--target: quality is measured on questions of yours; add --questions and --docs"
        )
    if targets.speed is not None and not asked.rounds:
        raise refused("--target: speed is measured in rounds; leave out --rounds 0")
    out = asked.out or Path(f"{name}.compress")
    _check_out(path, out, name)
    registering.check_name(name, str(path.resolve()))
    _check_canary(asked, name)
    return Job(
        model=path,
        out=out,
        name=name,
        command=" ".join(["slipway", *sys.argv[1:]]),
        targets=targets,
        quant=asked.quant,
        prune=asked.prune,
        distil=asked.distil,
        calibrate=asked.calibrate,
        test=asked.test,
        other=asked.other,
        questions=asked.questions,
        question_texts=_question_texts(asked),
        docs=asked.docs,
        minutes=asked.minutes,
        rounds=asked.rounds,
        price_hour=asked.price_hour,
    )


def found(model: str) -> Path:
    """Return the file or folder that MODEL means. Raises SettingsError."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model in weights.runnable():
        files = weights.found(model)
        if files is None:
            raise refused(f"MODEL: `{model}` is not here yet: slipway weights pull {model}")
        return next(iter(files.values()))
    known = ", ".join(weights.runnable())
    raise refused(
        f"MODEL: there is no file, folder or weights `{model}`; weights known here: {known}"
    )


def _check_needs() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("numpy", "gguf", "xllamacpp") if find_spec(name) is None]
    if missing:
        raise refused(f"{', '.join(missing)} not installed: pip install 'slipway[compress]'")


def _check_out(model: Path, out: Path, name: str) -> None:
    """Refuse what would write over a file that is still read."""
    if f"{name}{GGUF}" in FILES:
        raise refused(f"--name: `{name}` is a file of the run itself; choose another name")
    if out.exists() and not out.is_dir():
        raise refused(f"--out: {out} is a file; name a folder")
    written = {(out / file).resolve() for file in (*FILES, f"{name}{GGUF}")}
    if model.resolve() in written:
        raise refused(f"--out: {model} would be written over; name another folder")


def _check_canary(asked: AskedColumns, name: str) -> None:
    try:
        share(asked.canary)
    except ValueError as error:
        raise refused(f"--canary: {error}") from None
    if asked.route and not asked.config:
        raise refused("--route: name the settings file that has the route with --config")
    if asked.config and not asked.config.is_file():
        raise refused(f"--config: there is no file {asked.config}")
    if asked.config:
        registering.check_entry(asked.config, name, asked.route, asked.canary)


def _question_texts(asked: AskedColumns) -> tuple[str, ...]:
    if asked.questions is None:
        return ()
    if not asked.docs:
        raise refused(f"--questions: {DELTA_WITHOUT}")
    from slipway import knowledge
    from slipway.evals.questions import questions_in

    knowledge.check(asked.docs)  # now, and not when all else is done
    found = questions_in(asked.questions)
    if not any(each.answer or each.unanswerable for each in found):
        raise refused(
            "--questions: none of them has an `answer` or is `unanswerable`, so that no loss could "
            "be seen; write the right answers into the file"
        )
    whole = (f"{each.question} {each.answer}" for each in found if each.answer)
    return (*(each.question for each in found), *whole)


class Terminal:
    """What a person sees, and what the pipeline cannot do itself."""

    def __init__(self, asked: AskedColumns, *, shown: bool) -> None:
        self._asked, self._shown = asked, shown
        self._bar: Bar | None = None

    def progress(self, label: str) -> Callable[[int, int], None]:
        self.end()
        bar = self._bar = Bar(f"{label[:34]:34}", self._shown)
        return bar.update

    def end(self) -> None:
        if self._bar is not None:
            self._bar.end()
            self._bar = None

    def say(self, line: str) -> None:
        self.end()
        if self._shown:
            click.echo(line, err=True)

    def answers(self, models: Mapping[str, Path]) -> Scores | None:
        """Ask both models the operator's questions, as `slipway eval answers` does."""
        asked = self._asked
        if asked.questions is None:
            return None
        from slipway.commands.eval_answers import Wanted, evaluate

        self.end()
        folder = models[RESULT].parent
        settings = folder / "answers.yaml"
        settings.write_text(json.dumps(_settings(models, asked.docs)), encoding="utf-8")
        wanted = Wanted(
            questions=asked.questions,
            flags=Flags(config=settings, models=(ORIGINAL, RESULT)),
            save=folder / "answers.jsonl",
            concurrency=1,
        )
        report = evaluate(wanted, self.say, shown=self._shown)
        for name in (ORIGINAL, RESULT):
            failed = sum(_is_failed(case) for case in report.cases[name])
            if failed:
                self.say(f"{name}: the model gave no answer to {failed} of {report.n} questions")
        both = zip(report.cases[ORIGINAL], report.cases[RESULT], strict=True)
        pairs = [(old, new) for old, new in both if _tells(old)]
        if left := report.n - len(pairs):
            self.say(f"{left} questions are not counted: without an answer to compare with, or "
                     "none from the original, they show no loss")  # fmt: skip
        return [_score(old) for old, _ in pairs], [_score(new) for _, new in pairs]

    def register(self, job: Job, result: Path) -> Registered:
        from slipway.app.loading import load_settings

        asked = self._asked
        registering.keep(job.name, result, str(job.model.resolve()))
        if asked.config is None:
            return Registered(name=job.name)

        def check(path: Path) -> None:
            load_settings(Flags(config=path))

        return registering.enter(asked.config, job.name, asked.route, asked.canary, check)


def _settings(models: Mapping[str, Path], docs: Sequence[Path]) -> dict[str, Any]:
    run_here = {"provider": "local", "parallel": 1, "threads": thread_count()}
    return {
        "store": "sqlite:///answers.db",
        "models": {
            name: {**run_here, "weights": str(path.absolute())} for name, path in models.items()
        },
        "apps": {
            "docs": {
                "knowledge": [os.path.abspath(d) for d in docs],  # noqa: PTH100
                "route": ORIGINAL,
            }
        },
    }


def _is_failed(case: Any) -> bool:
    return bool(case.answer.error or case.answer.degraded)


def _tells(original: Any) -> bool:
    """Whether a loss could be seen: two scores of 0 are no proof that nothing was lost."""
    if _is_failed(original):
        return False
    return bool(original.question.unanswerable) or original.covered is not None


def _score(case: Any) -> float:
    """Return the share of the gold answer's facts; without a gold answer, whether it abstains.

    An answer that was quoted because the model gave none is the model's failure.
    """
    if _is_failed(case):
        return 0.0
    if case.question.unanswerable:
        return float(case.answer.abstained)
    return float(case.covered or 0.0)


def rollback(name: str, config: Path | None) -> list[str]:
    from slipway.app.loading import load_settings

    def check(path: Path) -> None:
        load_settings(Flags(config=path))

    return registering.rollback(name, config, check)


def convert(model: str, out: Path, *, shown: bool) -> str:
    """Between GGUF and Hugging Face's layout, in float16."""
    from slipway.compress.checkpoint import read_gguf
    from slipway.compress.huggingface import read_folder, write_folder
    from slipway.compress.quantising import write

    _check_needs()
    path = found(model)
    bar = Bar("converting", shown)
    try:
        if path.is_dir():
            if out.suffix != GGUF:
                raise refused(f"OUT: {out} is to be a GGUF file; end its name in {GGUF}")
            write(read_folder(path), out, "f16", bar.update)
        else:
            if out.suffix == GGUF or out.is_file():
                raise refused(f"OUT: {out} is to be a folder; MODEL is a GGUF file already")
            write_folder(read_gguf(path), out, bar.update)
    except OSError as error:
        raise refused(f"OUT: {out} cannot be written: {error.strerror or error}") from None
    finally:
        bar.end()
    return str(out)


def recipe(kind: str, model: str, out: Path | None) -> list[str]:
    if model.endswith(GGUF):
        raise refused(
            "MODEL: llm-compressor reads no GGUF files; give the name or folder that "
            "Hugging Face's library loads, such as Qwen/Qwen2.5-7B-Instruct"
        )
    return write_recipe(kind, model, out or Path(f"{Path(model).name}-{kind}"))


__all__ = ["AskedColumns", "Outcome", "convert", "recipe", "rollback", "run"]
