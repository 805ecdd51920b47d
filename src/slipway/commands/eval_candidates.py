"""Whom an evaluation asks: apps and models of the settings, through the production pipeline in this
process. A model may be any OpenAI endpoint, such as a server that runs elsewhere.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from slipway.answer import App, Pipeline, answer
from slipway.answer.draft import Draft, Say
from slipway.app.loading import load_settings, with_model_names
from slipway.app.offline import offline_pipeline
from slipway.commands.ask import folded
from slipway.commands.eval_answers import _state as state_of
from slipway.commands.ingest import read_one
from slipway.errors import SettingsError, SlipwayError
from slipway.evals.judging import Judge
from slipway.evals.runlog import Reply
from slipway.evals.running import EvalCandidate
from slipway.evals.scoring import Cited
from slipway.prompt import HISTORY_CHARS
from slipway.routing import models_of
from slipway.settings import AppSettings, Flags, RouteEntry, Settings
from slipway.types import Asker, Message, Question, new_answer_id
from slipway.web.event_stream import EVENT_NAMES, event_data
from slipway.web.runs import Run


class AskedCandidates(msgspec.Struct, frozen=True):
    """The candidates, and the judge if one was named."""

    candidates: tuple[EvalCandidate, ...]
    judge: Judge | None
    pipeline: Pipeline

    async def close(self) -> None:
        """Ends connections, and models that run here."""
        for model in models_of(self.pipeline.routes.values()):
            await model.close()


@contextmanager
def asked(
    flags: Flags, apps: tuple[str, ...], judge: str | None, *, shown: bool
) -> Iterator[AskedCandidates]:
    """Return the apps and models that are named; all apps if none are, or all models if there are
    no apps. Raises SettingsError.
    """
    flags = with_model_names(
        msgspec.structs.replace(flags, models=(*flags.models, *((judge,) if judge else ())))
    )
    settings = load_settings(flags).settings
    models = [name_of(each) for each in flags.models]
    if len(set(models)) < len(models):
        raise SettingsError(
            ["--model: two have the same name; give them names of their own in the settings file"]
        )
    judging = models.pop() if judge else None
    if unknown := [name for name in apps if name not in settings.apps]:
        known = ", ".join(settings.apps) or "none; add --docs FOLDER"
        raise SettingsError([f"--app: there is no app `{unknown[0]}`; known: {known}"])
    names = (
        [*apps, *models]
        or list(settings.apps)
        or [each for each in settings.models if each != judging]
    )
    if not names and judging is None:
        raise SettingsError(
            [
                (
                    "there is nobody to ask; add --model MODEL, --docs FOLDER, or a settings file "
                    "by --config"
                )
            ]
        )
    wanted = {name: settings.apps[name] for name in names if name in settings.apps}
    pipeline = offline_pipeline(
        msgspec.structs.replace(settings, apps=wanted),
        lambda synchronizer: read_one(synchronizer, shown=shown),
    )
    yield AskedCandidates(
        candidates=tuple(_candidate(name, pipeline, settings) for name in names),
        judge=Judge(name=judging, ask=_asks(pipeline, judging)) if judging is not None else None,
        pipeline=pipeline,
    )


def name_of(model: str) -> str:
    return model.partition("#")[2] if "://" in model else model


def _candidate(name: str, pipeline: Pipeline, settings: Settings) -> EvalCandidate:
    app = settings.apps.get(name)
    route = app.route if app is not None else name
    entries = settings.routes.get(route or "", (RouteEntry(model=route),) if route else ())
    models = [settings.models[entry.model] for entry in entries]
    chain = " > ".join(entry.model for entry in entries)
    by = chain or "quoted without a model"
    knowledge = pipeline.apps[name].knowledge if app is not None else None
    standing = pipeline.apps[name].prompt.standing if app is not None else ""
    compiled = app or AppSettings(route=route)
    return EvalCandidate(
        name=name,
        about=f"app, {'documents, ' if knowledge else ''}{by}"
        if app is not None
        else _where(settings, name, by),
        state=state_of(compiled, standing, settings, knowledge),
        ask=_asks(pipeline, name),
        priced=all(model.price is not None for model in models),
    )


def _where(settings: Settings, name: str, by: str) -> str:
    model = settings.models.get(name)
    if model is None:
        return f"route {by}"
    return (
        f"{model.weights}, run here"
        if model.weights
        else f"{model.name or name} at {model.base_url}"
    )


def _asks(pipeline: Pipeline, name: str) -> Any:
    found = pipeline.app(name)
    if found is None:
        raise SettingsError([f"--model: there is no `{name}`; known: {', '.join(pipeline.names)}"])
    app: App = found

    async def ask(messages: list[dict[str, Any]], parameters: dict[str, Any]) -> Reply:
        text = str(messages[-1]["content"])
        if len(text) > HISTORY_CHARS and app.knowledge is None:
            return Reply(
                error=(
                    f"The item has {len(text):,} characters; the pipeline passes on "
                    f"{HISTORY_CHARS:,}."
                )
            )
        question = Question(
            id=new_answer_id(),
            app=app.name,
            text=text,
            messages=tuple(
                Message(role=each["role"], content=each["content"]) for each in messages
            ),
            asker=Asker(owner="local", everything=True),
            asked_at=time.monotonic(),
            options=parameters,
        )
        return await _reply(pipeline, app, question)

    return ask


async def _reply(pipeline: Pipeline, app: App, question: Question) -> Reply:
    """Ask, and turn a failure into a reply too: it counts as wrong, and is shown."""

    async def work(question: Question, draft: Draft, say: Say) -> None:
        await answer(pipeline, app, question, draft, "eval", say)

    run = Run(question)
    run.begin(work)
    seen, error = list[tuple[str, dict[str, Any]]](), ""
    try:
        async for _, event in run.follow():
            if event is not None:
                seen.append((EVENT_NAMES[type(event)], msgspec.to_builtins(event_data(event))))
    except SlipwayError as failure:
        error = f"{failure.what} {failure.next}".strip()
    said = dict(seen)
    if "error" in said:
        error = f"{said['error']['what']} {said['error']['next']}".strip()
    elif "done" not in said and not error:
        error = "The answer ended before its end."
    return _folded(seen, error)


def _folded(seen: list[tuple[str, dict[str, Any]]], error: str) -> Reply:
    whole = folded(seen)
    numbers = {citation.n for citation in whole["citations"]}
    usage = whole["usage"]
    return Reply(
        text=whole["text"],
        error=error,
        served_by=whole["served_by"],
        model=whole["model"],
        cited=tuple(
            Cited(path=s.path, heading=s.heading) for s in whole["sources"] if s.n in numbers
        ),
        ttft_s=whole["ttft_s"],
        duration_s=whole["duration_s"],
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        cost_usd=whole["cost_usd"],
    )
