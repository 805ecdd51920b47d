"""`slipway eval answers`: questions whose answers are known, asked of apps and models side by side.
An answer is kept as soon as it is there.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

import msgspec

import slipway
from slipway.admission import OPERATOR
from slipway.answer import Pipeline
from slipway.app import loaded, named, offline_pipeline
from slipway.commands import ask as asking
from slipway.commands.ask import Told
from slipway.commands.ingest import one
from slipway.errors import SettingsError, SlipwayError
from slipway.evals.answers import Answered, At, Case, Report, report
from slipway.evals.kept import Kept, Todo
from slipway.evals.questions import Gold, Question, questions_in
from slipway.knowledge import Knowledge
from slipway.knowledge.access import Access
from slipway.knowledge.document_store import Doc
from slipway.knowledge.fusion import Place
from slipway.knowledge.index import Reach
from slipway.providers import encode_json
from slipway.routing import models_of
from slipway.settings import App, Connection, Flags, Model, RouteEntry, Settings
from slipway.terminal import Bar
from slipway.types import AnswerDone, Asker, AttemptDone, Record, Within

QUOTE = "quote"  # the column of the documents quoted, beside those where a model writes
SERVER = "server"  # the column of a server's only app


class Wanted(Record, frozen=True, kw_only=True):
    """What to ask, of whom. `models` and `flags` hold here, `url` and `key` for a running server."""

    questions: Path
    flags: Flags = Flags()
    apps: tuple[str, ...] = ()
    url: str | None = None
    key: str | None = None
    against: str | None = None
    limit: int | None = None
    without_gold: bool = False
    concurrency: int = 4
    save: Path | None = None


class Column(Record, frozen=True, kw_only=True):
    """Somebody to ask. `state` is another one after each change of settings or documents; `pages`
    may be withheld from one that `withholds`.
    """

    about: str
    state: str
    asks: Callable[[Question, bool], AsyncIterator[Told]]
    withholds: bool = False
    calls: str = "each at least a call of its model"


class Columns(Record, frozen=True, kw_only=True):
    """All that are asked, by their names; `places` that gold may name, where they are known;
    `dropped` markers by the answer's id.
    """

    columns: Mapping[str, Column]
    places: Sequence[Place] | None = None
    dropped: Mapping[str, int] = {}
    pipeline: Pipeline | None = None


def evaluate(wanted: Wanted, say: Callable[[str], None], *, shown: bool) -> Report:
    """Raises SlipwayError; KeyboardInterrupt where it was stopped, and then `save` has what is
    there.
    """
    questions_in(
        wanted.questions
    )  # what is wrong with them is told before the documents are read, which may take long
    with contextlib.closing(Kept(wanted.save)) as kept:
        asked = _there(wanted) if wanted.url else _here(wanted, shown=shown)
        against = _against(wanted, asked)
        questions = questions_in(wanted.questions, asked.places)[: wanted.limit]
        todo = _todo(asked, questions, without_gold=wanted.without_gold)
        missing = [each for each in todo if kept.answer(each) is None]
        _announce(asked, todo, missing, kept, wanted, say)
        logging.getLogger("slipway").setLevel(logging.ERROR)  # what failed is in the report
        asyncio.run(_collect(asked, missing, kept, wanted.concurrency, shown=shown))
        found = {
            (each.column, each.question.id, each.without_gold): kept.answer(each, failed=True)
            for each in todo
        }
    cases = {
        name: [
            _case(question, found[name, question.id, False], found.get((name, question.id, True)))
            for question in questions
        ]
        for name in asked.columns
    }
    return report({name: column.about for name, column in asked.columns.items()}, cases, against)


def stopped(wanted: Wanted) -> str:
    """What to tell who stopped a run."""
    if wanted.save is None:
        return "Nothing is kept; with --save FILE, the same command would go on from here."
    return f"What was answered is in {wanted.save}; the same command goes on from there."


def _todo(asked: Columns, questions: Sequence[Question], *, without_gold: bool) -> list[Todo]:
    """Side by side also in time, so that one minute's weather is everybody's; and who is first, and
    finds nothing warm, takes turns.
    """
    columns = deque(asked.columns.items())
    found = list[Todo]()
    for question in questions:
        found += [
            Todo(
                column=name,
                question=question,
                without_gold=without,
                made=_made(column, question, without),
            )
            for name, column in columns
            for without in (False, True)[
                : 1 + (without_gold and column.withholds and not question.unanswerable)
            ]
        ]
        columns.rotate(-1)
    return found


def _case(question: Question, answer: Answered | None, without_gold: Answered | None) -> Case:
    if answer is None:
        raise AssertionError("every question was asked")
    return Case(question=question, answer=answer, without_gold=without_gold)


def _against(wanted: Wanted, asked: Columns) -> str:
    against = wanted.against or next(iter(asked.columns))
    if against not in asked.columns:
        raise SettingsError(
            [f"--against: there is no column `{against}`; there are {', '.join(asked.columns)}"]
        )
    return against


def _announce(
    asked: Columns,
    todo: Sequence[Todo],
    missing: Sequence[Todo],
    kept: Kept,
    wanted: Wanted,
    say: Callable[[str], None],
) -> None:
    for name, column in asked.columns.items():
        say(
            f"{name} ({column.about}): {sum(each.column == name for each in missing)} questions to ask, {column.calls}"
        )
    if wanted.save is not None:
        say(f"{len(todo) - len(missing)} of {len(todo)} answers are in {wanted.save} already")
        if kept.old(todo):
            say(
                f"{kept.old(todo)} answers there are of other settings, documents or questions, and do not count"
            )
        if wanted.url and len(missing) < len(todo):
            say(
                "A server does not tell whether its settings or documents have changed since; where they have, name another file by --save"
            )


# The page


def page_at(file: Path | None) -> TextIO | None:
    """Opened before anything is asked: that it cannot be written would be learnt too late. Raises
    SettingsError.
    """
    try:
        return file.open("a", encoding="utf-8") if file is not None else None
    except OSError as error:
        raise SettingsError(
            [f"--html: {file} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None


def write_page(out: TextIO, report: Report) -> str:
    """Raises SettingsError."""
    from slipway.evals.pages import html  # only where one is wanted

    page = html(report, datetime.now().astimezone())
    try:
        with out:
            out.truncate(0)
            out.write(page)
    except OSError as error:
        raise SettingsError(
            [f"--html: {out.name} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None
    return out.name


# Whom to ask


def _there(wanted: Wanted) -> Columns:
    """The apps of a running server."""
    if wanted.flags.docs or wanted.flags.config or wanted.flags.models:
        raise SettingsError(
            [
                "--url: a running server has settings of its own; leave out --docs, --config and --model, and name apps by --app"
            ]
        )
    if wanted.without_gold:
        raise SettingsError(
            [
                "--without-gold: pages can be withheld here only; leave out --url, and name the documents or the settings file"
            ]
        )

    def column(name: str | None) -> Column:
        def asks(question: Question, without_gold: bool) -> AsyncIterator[Told]:
            return asking.there(wanted.url or "", wanted.key, name, question.question)

        return Column(
            about=f"{f'app {name}' if name else 'the app'} of {wanted.url}",
            state=f"{wanted.url} {name}",
            asks=asks,
        )

    return Columns(columns={name or SERVER: column(name) for name in wanted.apps or (None,)})


def _here(wanted: Wanted, *, shown: bool) -> Columns:
    """Apps of these settings, each also with other models, in this process."""
    models = tuple(
        named(each) if "://" in each and "#" not in each else each for each in wanted.flags.models
    )
    settings = loaded(msgspec.structs.replace(wanted.flags, models=models)).settings
    names = [each.partition("#")[2] if "://" in each else each for each in models]
    if len(set(names)) < len(names):
        raise SettingsError(
            ["--model: two have the same name; give them names of their own in the settings file"]
        )
    apps = _apps(settings, wanted.apps, names)
    settings = msgspec.structs.replace(
        settings, apps={name: app for name, (_, app) in apps.items()}
    )
    dropped: dict[str, int] = {}

    def emit(record: AnswerDone | AttemptDone) -> None:
        if isinstance(record, AnswerDone):
            dropped[record.id] = record.citations_dropped

    pipeline = offline_pipeline(settings, lambda synchronizer: one(synchronizer, shown=shown), emit)
    known = [app.knowledge for app in pipeline.apps.values() if app.knowledge is not None]
    return Columns(
        columns={
            name: _column(name, app, of, settings, pipeline) for name, (of, app) in apps.items()
        },
        places=[place for each in known for place in each.places(OPERATOR)] if known else None,
        dropped=dropped,
        pipeline=pipeline,
    )


def _apps(
    settings: Settings, names: Sequence[str], models: Sequence[str]
) -> dict[str, tuple[str, App]]:
    """The app of each column, and whose it is; with the quotes first, where a model writes in all
    others. Raises SettingsError.
    """
    if unknown := [name for name in names if name not in settings.apps]:
        raise SettingsError(
            [
                f"--app: there is no app `{unknown[0]}`; known: {', '.join(settings.apps) or 'none; add --docs FOLDER'}"
            ]
        )
    chosen = {name: settings.apps[name] for name in names or settings.apps}
    if not chosen and not models:
        raise SettingsError(
            [
                "there is nothing to ask; add --docs FOLDER, --model MODEL, or a settings file with apps by --config"
            ]
        )
    chosen = chosen or {"": App()}
    found = {
        (model if len(chosen) == 1 else f"{name}/{model}"): (
            name,
            msgspec.structs.replace(app, route=model),
        )
        for name, app in chosen.items()
        for model in models
    } or {name: (name, app) for name, app in chosen.items()}
    first, app = next(iter(chosen.items()))
    if app.knowledge and all(each.route is not None for _, each in found.values()):
        found = {
            QUOTE if QUOTE not in found else f"{first}/{QUOTE}": (
                first,
                msgspec.structs.replace(app, route=None),
            ),
            **found,
        }
    return found


def _column(name: str, app: App, of: str, settings: Settings, pipeline: Pipeline) -> Column:
    knowledge = pipeline.apps[name].knowledge

    def asks(question: Question, without_gold: bool) -> AsyncIterator[Told]:
        asked = pipeline.apps[name]
        if without_gold and asked.knowledge is not None:
            asked = msgspec.structs.replace(
                asked, knowledge=asked.knowledge.under(Without(question.gold))
            )
        return asking.here(
            msgspec.structs.replace(pipeline, apps={name: asked}), name, question.question
        )

    writes = (
        f"written by {_written_by(settings, app.route)}" if app.route else "quoted without a model"
    )
    return Column(
        about=f"app {of}, {writes}" if of else writes,
        state=_state(app, pipeline.apps[name].prompt.standing, settings, knowledge),
        asks=asks,
        withholds=knowledge is not None,
        calls=_calls(app),
    )


def _written_by(settings: Settings, route: str) -> str:
    return (
        " > ".join(entry.model for entry in settings.routes[route])
        if route in settings.routes
        else route
    )


def _calls(app: App) -> str:
    if app.route is None:
        return "without a model"
    most = f", a broad one up to {app.sections}" if app.sections > 1 and app.knowledge else ""
    return f"each a call of its model{most}; more where one fails"


def _state(app: App, standing: str, settings: Settings, knowledge: Knowledge | None) -> str:
    """Another one for each change that may change an answer: all but who may read, since the
    operator asks, and how a model is reached.
    """
    own = msgspec.structs.replace(app, knowledge=(), access=(), prompt=None)
    names = {
        entry.model
        for route in (app.route, app.small)
        if route
        for entry in settings.routes.get(route, (RouteEntry(model=route),))
    }
    models = {name: _model_state(settings.models[name]) for name in sorted(names)}
    documents = (
        sorted((doc.path, doc.version) for doc in knowledge.documents(OPERATOR))
        if knowledge
        else []
    )
    return _digest(
        [
            slipway.__version__,
            standing,
            own,
            settings.routes.get(app.route or ""),
            models,
            documents,
            settings.embedding,
        ]
    )


def _model_state(model: Model) -> Model:
    return msgspec.structs.replace(
        model, api_key=None, price=None, connection=Connection(), headers={}, parallel=1, threads=0
    )


def _made(column: Column, question: Question, without_gold: bool) -> str:
    """Gold may change without a new answer, unless it says which pages are withheld."""
    return _digest([column.state, question.question, question.gold if without_gold else ()])


def _digest(told: Any) -> str:
    return blake2b(encode_json(told), digest_size=12).hexdigest()


class Without(Access):
    """What the operator may read, but for the pages of this gold."""

    def __init__(self, gold: Sequence[Gold]) -> None:
        super().__init__()
        self._pages = [Gold(page=each.page) for each in gold]

    def reach(
        self, asker: Asker, within: Within | None, documents: Mapping[int, Doc], generation: object
    ) -> Reach | None:
        out = frozenset(
            n
            for n, doc in documents.items()
            if any(page.is_at((doc.path, "", None)) for page in self._pages)
        )
        return Reach(documents=out, others=True) if out else None


# Asking


async def _collect(
    asked: Columns, missing: Sequence[Todo], kept: Kept, concurrency: int, *, shown: bool
) -> None:
    bar, waiting, done = Bar("asking   ", shown), iter(missing), 0

    async def work() -> None:
        nonlocal done
        for each in waiting:
            kept.keep(await _answer(asked, each))
            done += 1
            bar.tell(done, len(missing))

    try:
        await asyncio.gather(*(work() for _ in range(concurrency)))
    finally:
        bar.end()
        for model in models_of(asked.pipeline.routes.values()) if asked.pipeline else ():
            await model.close()


async def _answer(asked: Columns, todo: Todo) -> Answered:
    """A failure is an answer too: it counts as none, and is shown."""
    seen, error = list[Told](), ""
    try:
        async for told in asked.columns[todo.column].asks(todo.question, todo.without_gold):
            seen.append(told)
    except SlipwayError as failure:
        error = f"{failure.what} {failure.next}".strip()
    said = dict(seen)
    if "error" in said:
        error = f"{said['error']['what']} {said['error']['next']}".strip()
    elif "done" not in said and not error:
        error = "The answer ended before its end."
    whole = asking.folded(seen)
    return Answered(
        column=todo.column,
        made=todo.made,
        question=todo.question.id,
        without_gold=todo.without_gold,
        text=whole["text"],
        error=error,
        abstained=whole["abstained"],
        degraded=any(notice.code == "degraded" for notice in whole["notices"]),
        served_by=whole["served_by"],
        model=whole["model"],
        sources=tuple(At(n=s.n, path=s.path, heading=s.heading) for s in whole["sources"]),
        citations=tuple(whole["citations"]),
        dangling=asked.dropped.get(whole["id"]),
        ttft_s=whole["ttft_s"],
        duration_s=whole["duration_s"],
        usage=whole["usage"],
        cost_usd=whole["cost_usd"],
    )
