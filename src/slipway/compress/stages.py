"""The stages of a run: each begins with `stage(name, what it depends on, files, …)`."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway.compress import planning, pruning, quantising, rounding, texts
from slipway.compress.checkpoint import Checkpoint, read_gguf, stored_once, stores_twice
from slipway.compress.gate import paired, verdict_of
from slipway.compress.huggingface import digest
from slipway.compress.jobs import Hands, Job
from slipway.compress.judging import advice_of, checks_of, recovered
from slipway.compress.measuring import Reading, read_along, side_by_side
from slipway.compress.refusals import refused
from slipway.compress.results import (
    DISTILLED,
    DISTILLED_FILE,
    DOMAIN,
    ORIGINAL,
    ORIGINAL_FILE,
    OTHER,
    PRUNED,
    PRUNED_FILE,
    RESULT,
    Distilled,
    Gated,
    Ingested,
    Planned,
    Pruned,
    Registered,
    ResultFile,
    Texts,
)
from slipway.compress.runner import Runner
from slipway.compress.state import State

LENGTH = 256  # tokens of a window
_TEST_WINDOWS, _OTHER_WINDOWS, _CALIBRATION, _TRAINING = 16, 8, 8, 20_000
_ROUNDING = 16  # windows
_TEXTS = 2  # the form of texts.json; another one is made again
_SAMPLE_PROMPT, _SAMPLE_TOKENS = 32, 96
_GENERAL = Path(__file__).with_name("general.jsonl")


class Stages:
    """The stages. Each begins with `self.state.stage(name, what it depends on, files, …)`."""

    def __init__(self, job: Job, hands: Hands, state: State) -> None:
        self.job, self.hands, self.state = job, hands, state
        self.original = state.folder / ORIGINAL_FILE
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
        paths = (job.distil, job.calibrate, job.test, job.other)
        given = [texts.digest_of(p) if p else None for p in paths]

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
            cut["calibration"] = self._unread(cut["other"])
            prompts = [
                row[:_SAMPLE_PROMPT] for row in rows["training"] if len(row) > _SAMPLE_PROMPT
            ]
            self._put("texts.json", {**cut, "prompts": prompts[: job.samples]})
            counts = {name: len(cut[name]) for name in most}
            return Texts(length=LENGTH, split=how, **counts)

        depends = [_TEXTS, given, job.question_texts, job.samples]
        return self.state.stage("text", depends, ["texts.json"], Texts, do)

    def _unread(self, read: Sequence[Sequence[int]]) -> list[list[int]]:
        """Windows of general text to weigh and round by: none that the test reads."""
        end = self._end_of_text()
        with Runner(self.original) as runner:
            rows = [[*runner.tokens(t), end] for t in texts.documents_in(_GENERAL, "--other")]
        taken = {tuple(window) for window in read}
        found = texts.windows(rows, LENGTH, _TRAINING)
        return [window for window in found if tuple(window) not in taken][:_ROUNDING]

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
        self._quantise(model, path, form, distils=False)
        try:
            if targets.perplexity is not None:
                only = DOMAIN if self._texts()["test"] else OTHER  # as the gate reads
                lost = self._readings(path, f"trying {form}", only=only)[only].ratio - 1
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

    def baseline(self) -> ResultFile:
        def do() -> ResultFile:
            return self._file(self.original, "f16", "reading the test with the original")

        return self.state.stage("baseline", [], [self.original.name], ResultFile, do)

    # prune

    def prune(self, planned: Planned) -> Pruned:
        path = self.state.folder / PRUNED_FILE

        def do() -> Pruned:
            model = read_gguf(self.original)
            cut = pruning.cut_from(planned.cut or "", model)
            known = self._texts()
            windows = (known["training"] or known["calibration"])[:_CALIBRATION]
            found = pruning.scores(model, windows, self.hands.progress("weighing layers"))
            self._write(pruning.pruned(model, cut, found), path, "f16", "pruning")
            gone = tuple(pruning.dropped(cut, found)) if cut.kind == "depth" else ()
            file = self._file(path, "f16", "reading the test with the pruned")
            return Pruned(cut=str(cut), influence=found.influence, layers=gone, file=file)

        result = self.state.stage("prune", [planned.cut], [path.name], Pruned, do)
        self.latest = path
        return result

    # distil

    def distil(self, planned: Planned, original: ResultFile, pruned: Pruned | None) -> Distilled:
        from slipway.compress import distilling  # torch, only here

        path, begins = self.state.folder / DISTILLED_FILE, self.latest

        def do() -> Distilled:
            half = self.state.kept("lessons", ".pt")
            sampled = self._sampled()
            bar, losses = self.hands.progress("distilling"), list[tuple[int, float]]()
            last = distilling.DistilProgress(step=0, loss=0.0, cpu_s=0.0, share=0.0)

            def seen(now: distilling.DistilProgress) -> None:
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
                recovered=recovered(original, pruned.file, file) if pruned else {},
                file=file,
            )

        depends = [self.job.minutes, planned.form, self.job.samples]
        result = self.state.stage("distil", depends, [path.name], Distilled, do)
        self.latest = path
        return result

    def _sampled(self) -> list[list[int]]:
        """Answers that the original writes to the beginnings of training documents."""
        kept = self.state.kept("sampled", ".json")
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
            self._put(kept.name, found)
        return texts.windows(found, LENGTH, _TRAINING)

    # quantise

    def quantise(self, planned: Planned) -> ResultFile:
        path = self.state.folder / f"{self.job.name}.gguf"
        begins = self.latest

        def do() -> ResultFile:
            if not self._rounds(planned.form, distils=planned.distils) and (
                quantising.write_with_tool(begins, path, planned.form)
            ):
                return self._file(path, planned.form, "reading the test with the result")
            self._quantise(read_gguf(begins), path, planned.form, distils=planned.distils)
            return self._file(path, planned.form, "reading the test with the result")

        return self.state.stage("quantise", [planned.form, path.name], [path.name], ResultFile, do)

    def _quantise(self, model: Checkpoint, path: Path, form: str, *, distils: bool) -> None:
        if self._rounds(form, distils=distils):
            known = self._texts()
            windows = (known["training"] or known["calibration"])[:_ROUNDING]
            bar = self.hands.progress("rounding by what it does")
            model = rounding.rounded(model, quantising.types_of(model, form), windows, bar)
        self._write(model, path, form, f"quantising to {form}")

    def _rounds(self, form: str, *, distils: bool) -> bool:
        """Whether numbers are rounded by their effect; a student has learnt with plain rounding."""
        return form in quantising.ROUNDED and not distils

    def gate(self, planned: Planned, result: ResultFile) -> Gated:
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
            checks = tuple(checks_of(job.targets, result, paces, scores))
            verdict = verdict_of(checks)
            return Gated(
                paces=paces, answers=answers, checks=checks, verdict=verdict,
                advice=advice_of(checks, planned),
            )  # fmt: skip

        questions = digest(job.questions) if job.questions else None
        docs = [texts.digest_of(path) for path in job.docs]
        depends = [questions, docs, job.rounds, job.targets]
        return self.state.stage("gate", depends, [], Gated, do)

    def register(self, gated: Gated, result: ResultFile) -> Registered:
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

    def _file(self, path: Path, form: str, label: str) -> ResultFile:
        model = read_gguf(path)
        return ResultFile(
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
    source, flag = (job.distil, "--distil") if job.distil else (job.calibrate, "--calibrate")
    training = texts.documents_in(source, flag) if source else []
    if job.test:
        test, how = texts.documents_in(job.test, "--test"), "--test was given"
        texts.refuse_shared(training, test, "--test")
    elif training:
        training, test = texts.split(training, flag)
        how = f"{len(test)} of {len(test) + len(training)} documents were kept for the test"
    else:
        test, how = [], "no text of the domain was given"
    texts.refuse_shared(training, job.question_texts, "--questions")
    if job.other:
        texts.refuse_shared(training, texts.documents_in(job.other, "--other"), "--other")
    return training, test, how


def _check_windows(found: Mapping[str, Sequence[object]], job: Job) -> None:
    if (job.test or job.distil or job.calibrate) and len(found["test"]) < 2:
        flag = "--test" if job.test else "--distil" if job.distil else "--calibrate"
        raise refused(f"{flag}: the test has less than {2 * LENGTH} tokens; give more text")
    if job.other and len(found["other"]) < 2:
        raise refused(f"--other: it has less than {2 * LENGTH} tokens; give more text")


def _steps(planned: Planned) -> list[str]:
    steps = [f"prune {planned.cut}"] if planned.cut else []
    steps += ["distil"] if planned.distils else []
    return [*steps, f"quantise to {planned.form}"]
