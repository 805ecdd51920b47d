"""`slipway eval answers`: ask apps and models questions whose answers are known, and compare.

Each answer is saved as soon as it arrives.
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
from slipway.app.loading import load_settings, with_model_names
from slipway.app.offline import offline_pipeline
from slipway.commands.ask import EventData, ask_here, ask_server, folded
from slipway.commands.ingest import read_one
from slipway.errors import SettingsError, SlipwayError
from slipway.evals.answers import AnswersReport, At, Case, ColumnAnswer, report
from slipway.evals.kept import Kept, Todo
from slipway.evals.pages import html
from slipway.evals.questions import Gold, GoldQuestion, questions_in
from slipway.knowledge import Knowledge
from slipway.knowledge.access import Access
from slipway.knowledge.document_store import Doc
from slipway.knowledge.fusion import PlaceKey
from slipway.knowledge.keyword_table import DocumentFilter
from slipway.providers import encode_json
from slipway.routing import models_of
from slipway.settings import (
    AppSettings,
    ConnectionSettings,
    Flags,
    ModelSettings,
    RouteEntry,
    Settings,
)
from slipway.terminal import Bar
from slipway.types import AnswerDone, Asker, PipelineRecord, Record, Within

QUOTE = "quote"  # the column of the documents quoted, beside those where a model writes
SERVER = "server"  # the column of a server's only app


class Wanted(Record, frozen=True, kw_only=True):
    """What to ask, and whom: apps of `flags` in this process, or those of the server at `url`."""

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
    """One app or model to ask. `state` changes with its settings and documents; if `withholds`,
    pages can be withheld from it.
    """

    about: str
    state: str
    asks: Callable[[GoldQuestion, bool], AsyncIterator[EventData]]
    withholds: bool = False
    calls: str = "each at least one call of its model"


class Columns(Record, frozen=True, kw_only=True):
    """All columns by name; `places` that gold may name, if they are known; `dropped` citation
    markers by the answer's id.
    """

    columns: Mapping[str, Column]
    places: Sequence[PlaceKey] | None = None
    dropped: Mapping[str, int] = {}
    pipeline: Pipeline | None = None


def evaluate(wanted: Wanted, say: Callable[[str], None], *, shown: bool) -> AnswersReport:
    """Ask every column every question, and measure the answers.

    Raises SlipwayError; KeyboardInterrupt if it was stopped: `save` then holds what was answered.
    """
    questions_in(wanted.questions)  # before the documents are read, which may take long
    with contextlib.closing(Kept(wanted.save)) as kept:
        asked = _server_columns(wanted) if wanted.url else _local_columns(wanted, shown=shown)
        against = _against(wanted, asked)
        questions = questions_in(wanted.questions, asked.places)[: wanted.limit]
        todo = _todo(asked, questions, without_gold=wanted.without_gold)
        missing = [each for each in todo if kept.answer(each) is None]
        _announce(asked, todo, missing, kept, wanted, say)
        logging.getLogger("slipway").setLevel(logging.ERROR)  # failures are in the report
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


def how_to_continue(wanted: Wanted) -> str:
    """Return what to tell a person who stopped a run."""
    if wanted.save is None:
        return "Nothing was saved; with --save FILE, the same command could have continued."
    return f"The answers so far are in {wanted.save}; run the same command again to continue."


def _todo(asked: Columns, questions: Sequence[GoldQuestion], *, without_gold: bool) -> list[Todo]:
    """Interleave the columns, so that load spikes hit all of them equally; rotate which one comes
    first, so that cold caches do too.
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


def _case(
    question: GoldQuestion, answer: ColumnAnswer | None, without_gold: ColumnAnswer | None
) -> Case:
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
            f"{name} ({column.about}): {sum(each.column == name for each in missing)} questions "
            f"to ask, {column.calls}"
        )
    if wanted.save is not None:
        say(f"{len(todo) - len(missing)} of {len(todo)} answers are in {wanted.save} already")
        if kept.old(todo):
            say(
                f"{kept.old(todo)} saved answers are of other settings, documents or questions, "
                "and are not used"
            )
        if wanted.url and len(missing) < len(todo):
            say(
                "The settings and documents of a server may have changed since; if they have, "
                "name another file with --save"
            )


# The page


def page_at(file: Path | None) -> TextIO | None:
    """Open the report's file before anything is asked. Raises SettingsError if that fails."""
    try:
        return file.open("a", encoding="utf-8") if file is not None else None
    except OSError as error:
        raise SettingsError(
            [f"--html: {file} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None


def write_page(out: TextIO, report: AnswersReport) -> str:
    """Write the HTML report and return its name. Raises SettingsError."""
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


def _server_columns(wanted: Wanted) -> Columns:
    """Return a column for each app of a running server."""
    if wanted.flags.docs or wanted.flags.config or wanted.flags.models:
        raise SettingsError(
            [
                (
                    "--url: a running server has its own settings; leave out --docs, --config and "
                    "--model, and name apps with --app"
                )
            ]
        )
    if wanted.without_gold:
        raise SettingsError(
            [
                (
                    "--without-gold: a server cannot withhold pages; leave out --url, and name the "
                    "documents or the settings file"
                )
            ]
        )

    def column(name: str | None) -> Column:
        def asks(question: GoldQuestion, without_gold: bool) -> AsyncIterator[EventData]:
            return ask_server(wanted.url or "", wanted.key, name, question.question)

        return Column(
            about=f"{f'app {name}' if name else 'the app'} of {wanted.url}",
            state=f"{wanted.url} {name}",
            asks=asks,
        )

    return Columns(columns={name or SERVER: column(name) for name in wanted.apps or (None,)})


def _local_columns(wanted: Wanted, *, shown: bool) -> Columns:
    """Return a column for each app of these settings, and for each app with each model."""
    flags = with_model_names(wanted.flags)
    settings = load_settings(flags).settings
    names = [each.partition("#")[2] if "://" in each else each for each in flags.models]
    if len(set(names)) < len(names):
        raise SettingsError(
            ["--model: two have the same name; give them names of their own in the settings file"]
        )
    apps = _apps(settings, wanted.apps, names)
    settings = msgspec.structs.replace(
        settings, apps={name: app for name, (_, app) in apps.items()}
    )
    dropped: dict[str, int] = {}

    def emit(record: PipelineRecord) -> None:
        if isinstance(record, AnswerDone):
            dropped[record.id] = record.citations_dropped

    pipeline = offline_pipeline(
        settings, lambda synchronizer: read_one(synchronizer, shown=shown), emit
    )
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
) -> dict[str, tuple[str, AppSettings]]:
    """Return each column's app and that app's name; quotes come first if models write all others.

    Raises SettingsError.
    """
    if unknown := [name for name in names if name not in settings.apps]:
        raise SettingsError(
            [
                f"--app: there is no app `{unknown[0]}`; known: "
                + (", ".join(settings.apps) or "none; add --docs FOLDER")
            ]
        )
    chosen = {name: settings.apps[name] for name in names or settings.apps}
    if not chosen and not models:
        raise SettingsError(
            [
                (
                    "there is nothing to ask; add --docs FOLDER, --model MODEL, "
                    "or a settings file with apps by --config"
                )
            ]
        )
    chosen = chosen or {"": AppSettings()}
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


def _column(name: str, app: AppSettings, of: str, settings: Settings, pipeline: Pipeline) -> Column:
    knowledge = pipeline.apps[name].knowledge

    def asks(question: GoldQuestion, without_gold: bool) -> AsyncIterator[EventData]:
        asked = pipeline.apps[name]
        if without_gold and asked.knowledge is not None:
            asked = msgspec.structs.replace(
                asked, knowledge=asked.knowledge.with_access(Without(question.gold))
            )
        return ask_here(
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


def _calls(app: AppSettings) -> str:
    if app.route is None:
        return "without a model"
    most = f", a broad one up to {app.sections}" if app.sections > 1 and app.knowledge else ""
    return f"each a call of its model{most}; more where one fails"


def _state(app: AppSettings, standing: str, settings: Settings, knowledge: Knowledge | None) -> str:
    """Return a digest of everything that may change an answer.

    Left out are access rules, since the operator asks, and how a model is reached.
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


def _model_state(model: ModelSettings) -> ModelSettings:
    return msgspec.structs.replace(
        model,
        api_key=None,
        price=None,
        connection=ConnectionSettings(),
        headers={},
        parallel=1,
        threads=0,
    )


def _made(column: Column, question: GoldQuestion, without_gold: bool) -> str:
    """Return what a saved answer depends on; gold counts only if it names pages to withhold."""
    return _digest([column.state, question.question, question.gold if without_gold else ()])


def _digest(value: Any) -> str:
    return blake2b(encode_json(value), digest_size=12).hexdigest()


class Without(Access):
    """Access to what the operator may read, except the pages of this gold."""

    def __init__(self, gold: Sequence[Gold]) -> None:
        super().__init__()
        self._pages = [Gold(page=each.page) for each in gold]

    def document_filter(
        self, asker: Asker, within: Within | None, documents: Mapping[int, Doc], generation: object
    ) -> DocumentFilter | None:
        out = frozenset(
            n
            for n, doc in documents.items()
            if any(page.is_at((doc.path, "", None)) for page in self._pages)
        )
        return DocumentFilter(documents=out, excludes=True) if out else None


# Asking


async def _collect(
    asked: Columns, missing: Sequence[Todo], kept: Kept, concurrency: int, *, shown: bool
) -> None:
    waiting, done = iter(missing), 0

    async def work(bar: Bar) -> None:
        nonlocal done
        for each in waiting:
            kept.keep(await _answer(asked, each))
            done += 1
            bar.update(done, len(missing))

    try:
        with Bar("asking   ", shown) as bar:
            await asyncio.gather(*(work(bar) for _ in range(concurrency)))
    finally:
        for model in models_of(asked.pipeline.routes.values()) if asked.pipeline else ():
            await model.close()


async def _answer(asked: Columns, todo: Todo) -> ColumnAnswer:
    """Ask one question; a failure is returned as an answer with an `error`."""
    seen, error = list[EventData](), ""
    try:
        async for event in asked.columns[todo.column].asks(todo.question, todo.without_gold):
            seen.append(event)
    except SlipwayError as failure:
        error = f"{failure.what} {failure.next}".strip()
    last = dict(seen)  # the last event of each name
    if "error" in last:
        error = f"{last['error']['what']} {last['error']['next']}".strip()
    elif "done" not in last and not error:
        error = "The answer ended before its end."
    whole = folded(seen)
    return ColumnAnswer(
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
