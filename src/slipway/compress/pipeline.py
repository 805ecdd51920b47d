"""The way from a model to a smaller one, stage by stage: read it top to bottom in `compress`.

Every stage leaves its file and its result in the folder, so that a run that was stopped goes on.
Between stages there are files only, of weights in float16; no two large models are in memory at once
except while one teaches the other.
"""

import json
import resource
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from slipway.compress import measuring, planning, pruning, quantising, texts
from slipway.compress.checkpoint import (
    Checkpoint,
    check_magic,
    read_gguf,
    stored_once,
    stores_twice,
)
from slipway.compress.gate import DELTA, Check, Targets, at_most, not_worse, paired, verdict_of
from slipway.compress.huggingface import digest, read_folder
from slipway.compress.measuring import Paces, Reading, read_along, side_by_side
from slipway.compress.refusals import refused
from slipway.compress.results import (
    DISTILLED,
    DOMAIN,
    ORIGINAL,
    OTHER,
    PRUNED,
    RESULT,
    Distilled,
    File,
    Gated,
    Ingested,
    Outcome,
    Planned,
    Pruned,
    Registered,
    Texts,
)
from slipway.compress.runner import Runner, peak_memory
from slipway.compress.state import State, held
from slipway.types import Record

LENGTH = 256  # tokens of a window
_TEST_WINDOWS, _OTHER_WINDOWS, _CALIBRATION, _TRAINING = 16, 8, 8, 20_000
_SAMPLE_PROMPT, _SAMPLE_TOKENS = 32, 96
_GENERAL = Path(__file__).with_name("general.jsonl")

Scores = tuple[Sequence[float], Sequence[float]]  # of the original and the result, item by item


class Job(Record, frozen=True, kw_only=True):
    """What was asked for. `model` is a path; `minutes` of processor time for distilling."""

    model: Path
    out: Path
    name: str
    command: str = ""
    targets: Targets = Targets()
    quant: str | None = None
    prune: str | None = None
    distil: Path | None = None
    test: Path | None = None
    other: Path | None = None
    questions: Path | None = None
    question_texts: tuple[str, ...] = ()
    minutes: float = 25.0
    samples: int = 24
    rounds: int = measuring.ROUNDS
    price_hour: float | None = None


class Hands(Protocol):
    """What a command does for the pipeline."""

    def progress(self, label: str) -> Callable[[int, int], None]:
        """A bar with this label: (done, total)."""

    def say(self, line: str) -> None:
        """Tell the person who waits."""

    def answers(self, models: Mapping[str, Path]) -> Scores | None:
        """Score both models on the operator's questions; None if there are none."""

    def register(self, job: Job, result: Path) -> Registered:
        """Make the result a model of its own."""


def compress(job: Job, hands: Hands) -> Outcome:
    """Raises SettingsError for what cannot be done as asked, KeyboardInterrupt if it is stopped."""
    source = _opened(job.model)  # what is no model is said before anything is made
    _check_needs(job, source)
    with held(job.out) as state:
        run = _Run(job, hands, state)
        ingested = run.ingest(source)
        found = run.prepare()
        planned = run.plan()
        original = run.baseline()
        pruned = run.prune(planned) if planned.cut else None
        distilled = run.distil(planned, original, pruned) if planned.distils else None
        result = run.quantise(planned)
        gated = run.gate(planned, result)
        registered = run.register(gated, result)
    return Outcome(
        command=job.command,
        ingested=ingested,
        texts=found,
        planned=planned,
        original=original,
        pruned=pruned,
        distilled=distilled,
        result=result,
        gated=gated,
        registered=registered,
        price_hour=job.price_hour,
        seconds=state.seconds,
        memory=_peak(),
    )


def _check_needs(job: Job, source: Checkpoint) -> None:
    """Whatever would stop the run later, said now."""
    if job.prune:
        pruning.cut_from(job.prune, source)
    for flag, path in (("--distil", job.distil), ("--test", job.test), ("--other", job.other)):
        if path is not None:
            found = texts.documents_in(path, flag)
            if flag == "--distil":
                texts.check_enough(found, flag)
    if job.distil is not None and find_spec("torch") is None:
        raise refused("--distil: torch is not installed; pip install 'slipway[distil]'")
    planning.check_room(
        source, job.out, prunes=job.prune is not None, distils=job.distil is not None
    )


def _opened(path: Path) -> Checkpoint:
    if path.is_dir():
        return read_folder(path)
    check_magic(path)
    return read_gguf(path)


def _peak() -> int:
    """The larger of our own most memory and that of the largest child."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return max(peak_memory(), children)


class _Run:
    """The stages. Each begins with `self.state.stage(name, what it depends on, files, …)`."""

    def __init__(self, job: Job, hands: Hands, state: State) -> None:
        self.job, self.hands, self.state = job, hands, state
        self.original = state.folder / "original.f16.gguf"
        self.latest = self.original  # the file in float16 that the next stage begins with

    # ingest

    def ingest(self, source: Checkpoint) -> Ingested:
        sha256 = digest(self.job.model)

        def do() -> Ingested:
            twice = stores_twice(source)
            model = stored_once(source) if twice else source
            self._write(model, self.original, "f16", "reading the model")
            return Ingested(
                twice=twice,
                source=str(self.job.model),
                sha256=sha256,
                bytes=_size(self.job.model),
                name=source.name,
                licence=source.licence,
                architecture=source.architecture.name,
                parameters=source.parameters,
                layers=source.layers,
                kinds=Counter(tensor.kind for tensor in source.tensors.values()),
            )

        return self.state.stage("ingest", [sha256], [self.original.name], Ingested, do)

    # the text

    def prepare(self) -> Texts:
        job = self.job
        given = [
            digest(p) if p and p.is_file() else str(p) for p in (job.distil, job.test, job.other)
        ]

        def do() -> Texts:
            training, test, how = _documents(job)
            other = texts.documents_in(job.other or _GENERAL, "--other")
            with Runner(self.original) as runner:
                rows = {
                    "training": [runner.tokens(text) for text in training],
                    "test": [runner.tokens(text) for text in test],
                    "other": [runner.tokens(text) for text in other],
                }
            end = self._end_of_text()
            most = {"training": _TRAINING, "test": _TEST_WINDOWS, "other": _OTHER_WINDOWS}
            cut = {
                name: texts.windows(
                    [[*row, end] for row in found],
                    LENGTH,
                    most[name],
                )
                for name, found in rows.items()
            }
            _check_windows(cut, job)
            prompts = [
                row[:_SAMPLE_PROMPT] for row in rows["training"] if len(row) > _SAMPLE_PROMPT
            ]
            self._put("texts.json", {**cut, "prompts": prompts[: job.samples]})
            counts = {name: len(found) for name, found in cut.items()}
            return Texts(length=LENGTH, split=how, **counts)

        depends = [given, job.question_texts, job.samples]
        return self.state.stage("text", depends, ["texts.json"], Texts, do)

    def _end_of_text(self) -> int:
        field = read_gguf(self.original).fields.get("tokenizer.ggml.eos_token_id")
        return int(field.value) if field else 0

    # baseline

    def plan(self) -> Planned:
        job, model = self.job, read_gguf(self.original)

        def do() -> Planned:
            return planning.plan(
                model,
                quantising.head_of(self.original, model),
                job.targets,
                quant=job.quant,
                prune=job.prune,
                distils=job.distil is not None,
                meets=lambda form: self._misses(model, form),
            )

        depends = [job.targets, job.quant, job.prune]
        planned = self.state.stage("plan", depends, [], Planned, do)
        self.hands.say(f"plan: {' then '.join(_steps(planned))}; {planned.why}")
        return planned

    def _misses(self, model: Checkpoint, form: str) -> str:
        """Try a form on the original itself: which target it misses, if any."""
        targets, path = self.job.targets, self.state.folder / f".try.{form}.gguf"
        if targets.perplexity is None and targets.speed is None:
            return ""
        self._write(model, path, form, f"trying {form}")
        try:
            if targets.perplexity is not None:
                lost = self._readings(path, f"trying {form}", only=DOMAIN)[DOMAIN].ratio - 1
                if lost > targets.perplexity:
                    return f"perplexity {lost:+.1%}"
            if targets.speed is not None:
                bar = self.hands.progress(f"timing {form}")
                paces = side_by_side({ORIGINAL: self.original, form: path}, bar, self.job.rounds)
                if not paces.why and paces.models[form].speed_ratio < targets.speed:
                    return f"speed {paces.models[form].speed_ratio:.2f}x"
            return ""
        finally:
            path.unlink(missing_ok=True)

    def baseline(self) -> File:
        def do() -> File:
            return self._file(self.original, "f16", "reading the test with the original")

        return self.state.stage("baseline", [], [self.original.name], File, do)

    # prune

    def prune(self, planned: Planned) -> Pruned:
        path = self.state.folder / "pruned.f16.gguf"

        def do() -> Pruned:
            model = read_gguf(self.original)
            cut = pruning.cut_from(planned.cut or "", model)
            known = self._texts()
            windows = (known["training"] or known["other"])[:_CALIBRATION]
            found = pruning.scores(model, windows, self.hands.progress("weighing layers"))
            self._write(pruning.pruned(model, cut, found), path, "f16", "pruning")
            gone = tuple(pruning.dropped(cut, found)) if cut.kind == "depth" else ()
            file = self._file(path, "f16", "reading the test with the pruned")
            return Pruned(cut=str(cut), influence=found.influence, layers=gone, file=file)

        result = self.state.stage("prune", [planned.cut], [path.name], Pruned, do)
        self.latest = path
        return result

    # distil

    def distil(self, planned: Planned, original: File, pruned: Pruned | None) -> Distilled:
        from slipway.compress import distilling  # torch, only here

        path, half = self.state.folder / "distilled.f16.gguf", self.state.folder / "lessons.pt"
        begins = self.latest

        def do() -> Distilled:
            sampled = self._sampled()
            bar, losses = self.hands.progress("distilling"), list[tuple[int, float]]()
            last = distilling.Progress(step=0, loss=0.0, cpu_s=0.0, share=0.0)

            def seen(now: distilling.Progress) -> None:
                nonlocal last
                last = now
                losses.append((now.step, round(now.loss, 4)))
                bar(round(1000 * now.share), 1000)

            lesson = distilling.Lesson(
                windows=[*self._texts()["training"], *sampled],
                form=planned.form,
                cpu_s=60 * self.job.minutes,
            )
            teacher, student = read_gguf(self.original), read_gguf(begins)
            taught = distilling.distil(teacher, student, lesson, half, seen)
            self._write(taught, path, "f16", "keeping what was learnt")
            file = self._file(path, "f16", "reading the test with the distilled")
            half.unlink(missing_ok=True)
            return Distilled(
                steps=last.step,
                cpu_s=last.cpu_s,
                loss=last.loss,
                sampled=len(sampled),
                losses=tuple(losses),
                recovered=_recovered(original, pruned.file, file) if pruned else {},
                file=file,
            )

        depends = [self.job.minutes, planned.form, self.job.samples]
        result = self.state.stage("distil", depends, [path.name], Distilled, do)
        self.latest = path
        return result

    def _sampled(self) -> list[list[int]]:
        """Answers that the original writes to the beginnings of training documents."""
        kept = self.state.folder / "sampled.json"
        prompts = self._texts()["prompts"]
        if kept.is_file():
            found = list[list[int]](json.loads(kept.read_text()))
        else:
            bar, found = self.hands.progress("sampling answers"), []
            with Runner(self.original) as runner:
                for n, prompt in enumerate(prompts):
                    wrote = runner.sample(prompt, _SAMPLE_TOKENS, seed=n, temperature=0.8)
                    found.append([*prompt, *wrote])
                    bar(n + 1, len(prompts))
            self._put("sampled.json", found)
        return texts.windows(found, LENGTH, _TRAINING)

    # quantise

    def quantise(self, planned: Planned) -> File:
        path = self.state.folder / f"{self.job.name}.gguf"
        begins = self.latest

        def do() -> File:
            model = read_gguf(begins)
            if not quantising.write_with_tool(begins, path, planned.form):
                self._write(model, path, planned.form, f"quantising to {planned.form}")
            return self._file(path, planned.form, "reading the test with the result")

        return self.state.stage("quantise", [planned.form, path.name], [path.name], File, do)

    # gate

    def gate(self, planned: Planned, result: File) -> Gated:
        job = self.job

        def do() -> Gated:
            models = {ORIGINAL: self.original}
            if self.latest != self.original:
                models[DISTILLED if planned.distils else PRUNED] = self.latest
            models[RESULT] = Path(result.path)
            bar = self.hands.progress("timing, in turns") if job.rounds else None
            paces = side_by_side(models, bar, job.rounds) if bar else None
            before = job.model if job.model.is_file() else self.original  # as it is run today
            scores = self.hands.answers({ORIGINAL: before, RESULT: models[RESULT]})
            answers = paired(*scores) if scores else None
            checks = tuple(_checks(job.targets, result, paces, scores))
            verdict = verdict_of(checks)
            return Gated(
                paces=paces, answers=answers, checks=checks, verdict=verdict,
                advice=_advice(checks, planned),
            )  # fmt: skip

        questions = digest(job.questions) if job.questions else None
        depends = [questions, job.rounds, job.targets]
        return self.state.stage("gate", depends, [], Gated, do)

    def register(self, gated: Gated, result: File) -> Registered:
        def do() -> Registered:
            if gated.verdict != "keep":
                return Registered(why=f"the verdict is {gated.verdict}")
            return self.hands.register(self.job, Path(result.path))

        return do()  # cheap, and what it did may have been taken back since

    # what stages share

    def _texts(self) -> dict[str, list[list[int]]]:
        return dict(json.loads((self.state.folder / "texts.json").read_text()))

    def _put(self, name: str, value: object) -> None:
        half = self.state.folder / f".{name}.part"
        half.write_text(json.dumps(value))
        half.replace(self.state.folder / name)

    def _write(self, model: Checkpoint, path: Path, form: str, label: str) -> None:
        quantising.write(model, path, form, self.hands.progress(label))

    def _file(self, path: Path, form: str, label: str) -> File:
        model = read_gguf(path)
        return File(
            path=str(path),
            form=form,
            bytes=path.stat().st_size,
            bits=8 * path.stat().st_size / model.parameters,
            parameters=model.parameters,
            readings=self._readings(path, label),
            kinds=Counter(tensor.kind for tensor in model.tensors.values()),
        )

    def _readings(self, path: Path, label: str, only: str | None = None) -> dict[str, Reading]:
        known = self._texts()
        windows = {DOMAIN: known["test"], OTHER: known["other"]}
        windows = {k: v for k, v in windows.items() if v and only in (None, k)}
        bar, done = self.hands.progress(label), 0
        total = sum(len(each) for each in windows.values())

        def seen() -> None:
            nonlocal done
            done += 1
            bar(done, total)

        with Runner(path, original=self.original) as runner:
            return {name: read_along(runner, each, seen) for name, each in windows.items()}


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def _documents(job: Job) -> tuple[list[str], list[str], str]:
    """Training and test documents, and how they were split. Raises SettingsError for overlap."""
    training = texts.documents_in(job.distil, "--distil") if job.distil else []
    if job.distil:
        texts.check_enough(training, "--distil")
    if job.test:
        test, how = texts.documents_in(job.test, "--test"), "--test was given"
        texts.refuse_shared(training, test, "--test")
    elif training:
        training, test = texts.split(training)
        how = f"{len(test)} of {len(test) + len(training)} documents were kept for the test"
    else:
        test, how = [], "no text of the domain was given"
    texts.refuse_shared(training, job.question_texts, "--questions")
    return training, test, how


def _check_windows(found: Mapping[str, Sequence[object]], job: Job) -> None:
    if (job.test or job.distil) and len(found["test"]) < 2:
        flag = "--test" if job.test else "--distil"
        raise refused(f"{flag}: the test has less than {2 * LENGTH} tokens; give more text")
    if job.other and len(found["other"]) < 2:
        raise refused(f"--other: it has less than {2 * LENGTH} tokens; give more text")


def _steps(planned: Planned) -> list[str]:
    steps = [f"prune {planned.cut}"] if planned.cut else []
    steps += ["distil"] if planned.distils else []
    return [*steps, f"quantise to {planned.form}"]


def _recovered(original: File, pruned: File, distilled: File) -> dict[str, float]:
    """By how much of what pruning lost in log-perplexity the distilled model is better again."""
    from math import log

    found = dict[str, float]()
    for name in original.readings:
        lost, left = log(pruned.readings[name].ratio), log(distilled.readings[name].ratio)
        if lost > 0:
            found[name] = 1 - left / lost
    return found


def _checks(
    targets: Targets, result: File, paces: Paces | None, scores: Scores | None
) -> list[Check]:
    found = list[Check]()
    if targets.size is not None:
        fits = result.bytes <= targets.size
        wanted, size = f"at most {targets.size / 1e6:.1f} MB", f"{result.bytes / 1e6:.1f} MB"
        found.append(
            Check(name="size", wanted=wanted, found=size, verdict="keep" if fits else "reject")
        )
    if targets.speed is not None:
        found.append(_fast_enough(targets.speed, paces))
    if targets.perplexity is not None:
        found.append(_close_enough(targets.perplexity, result))
    if scores:
        delta = DELTA if targets.points is None else targets.points
        found.append(not_worse(paired(*scores), delta))
    elif targets.points is not None:
        what = "not measured: give --questions and --docs"
        found.append(
            Check(name="answers", wanted=f"no more than {targets.points:.1%} lost", found=what,
                  verdict="undecided")
        )  # fmt: skip
    return found


def _fast_enough(wanted: float, paces: Paces | None) -> Check:
    name, words = "speed", f"at least {wanted:.2f}x the original's tokens a second"
    if paces is None or paces.why:
        why = paces.why if paces else "timing was left out"
        return Check(name=name, wanted=words, found=why, verdict="undecided")
    got = paces.models[RESULT].speed_ratio
    verdict = "keep" if got >= wanted else "reject"
    return Check(name=name, wanted=words, found=f"{got:.2f}x", verdict=verdict)  # type: ignore[arg-type]


def _close_enough(wanted: float, result: File) -> Check:
    reading = result.readings.get(DOMAIN) or result.readings[OTHER]
    shares = (reading.ratio - 1, reading.low - 1, reading.high - 1)
    return at_most("perplexity", wanted, *shares, form="+.1%")


def _advice(checks: Sequence[Check], planned: Planned) -> str:
    missed = {check.name for check in checks if check.verdict == "reject"}
    if "perplexity" in missed or "answers" in missed:
        return (
            "give text by --distil, or more --minutes"
            if not planned.distils
            else ("give more --minutes or more text, or choose a form of more bits")
        )
    if "speed" in missed:
        return f"the nearest is this one; with --distil TEXT, --prune depth:N is faster than {planned.form}"
    return ""
