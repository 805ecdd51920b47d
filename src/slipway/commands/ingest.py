"""`slipway ingest`: read the documents now, here or by the server that uses the same store."""

import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec

from slipway.app.loading import load_settings, rule_warnings
from slipway.app.stores import LazyStore, distinct, synchronizers_for
from slipway.commands.options import JSON, counted, settings_options
from slipway.errors import Conflict, InternalError, SettingsError
from slipway.knowledge import Knowledge
from slipway.knowledge.reading import failure_text
from slipway.knowledge.sync import Synchronizer
from slipway.knowledge.verification import inconsistencies
from slipway.settings import Flags, Settings
from slipway.store import Holder, InUse, Store, file_of
from slipway.terminal import Bar, printable
from slipway.types import Record

_POLL_S = 0.2


class IngestReport(Record, frozen=True, kw_only=True):
    """What was read, by app. `partly` maps paths to what is missing, `failed` to the reason, each
    with what to do.
    """

    documents: int
    passages: int
    read: int
    unchanged: int
    dropped: int
    embedded: int
    dense: str
    seconds: float
    partly: Mapping[str, str]
    failed: Mapping[str, str]
    wrong: Sequence[str] | None = None  # mismatches that --verify found; None without it


@click.command("ingest")
@settings_options
@click.option(
    "--verify", is_flag=True, help="Check that documents, index and vectors match; reads all files."
)
@JSON
def command(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    verify: bool,
    as_json: bool,
) -> None:
    """Read the documents now, with progress, and list those that cannot be read and why.

    Only changed documents are read. If a server uses the same store, the server reads them. The
    exit code is 1 if a document failed, or if --verify found a mismatch.
    """
    flags = Flags(config=config, docs=docs, models=models)
    reports = ingest(flags, shown=not as_json, verify=verify)
    for warning in rule_warnings(load_settings(flags)):
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        found = {name: msgspec.to_builtins(report) for name, report in reports.items()}
        click.echo(json.dumps(found, indent=2))
    else:
        lines(reports, click.echo)
    sys.exit(int(any(report.failed or report.wrong for report in reports.values())))


def ingest(flags: Flags, *, shown: bool, verify: bool = False) -> dict[str, IngestReport]:
    """Read the documents of all apps, here or by the server that uses the store.

    Raises SlipwayError.
    """
    settings = load_settings(flags).settings
    if not any(app.knowledge for app in settings.apps.values()):
        raise SettingsError(
            [
                (
                    "there are no documents to read; name a folder with --docs, or add apps with "
                    "`knowledge` to the settings file"
                )
            ]
        )
    logging.getLogger("slipway").setLevel(logging.ERROR)  # what failed is in the report
    try:
        store = Store(file_of(settings))
    except InUse as error:
        return ingest_by_server(
            usable_holder(error, verify=verify), sources_of(settings), shown=shown
        )
    synchronizers = synchronizers_for(settings, lambda: store, {})
    names = {id(synchronizer): name for name, synchronizer in reversed(synchronizers.items())}
    reports = read_all(
        {names[id(synchronizer)]: synchronizer for synchronizer in distinct(synchronizers)},
        shown=shown,
        verify=verify,
    )
    store.close()
    return reports


def usable_holder(error: InUse, *, verify: bool) -> Holder:
    """Return the process that uses the store, if it may do the work. Raises Conflict."""
    if error.holder is None:
        raise Conflict(
            "The store is in use by another process.", "Try again when it has ended."
        ) from None
    if verify:
        raise Conflict(
            f"The store is in use by process {error.holder.pid}.",
            "End it first: --verify needs the store for itself.",
        ) from None
    return error.holder


def sources_of(settings: Settings) -> list[list[str]]:
    """Return the folders of each app with documents, as absolute paths."""
    return [
        [str(Path(folder).resolve()) for folder in app.knowledge]
        for app in settings.apps.values()
        if app.knowledge
    ]


def read_knowledge(docs: tuple[Path, ...], *, shown: bool) -> Knowledge:
    """Read and embed these documents, and return what answers from them.

    Documents that the store holds unchanged are not read again.
    """
    settings = load_settings(Flags(docs=docs)).settings
    logging.getLogger("slipway").setLevel(logging.ERROR)
    synchronizer = synchronizers_for(
        msgspec.structs.replace(settings, apps={"docs": settings.apps["docs"]}),
        LazyStore(settings),
        {},
    )["docs"]
    read_all({"docs": synchronizer}, shown=shown)
    return Knowledge(synchronizer)


def read_all(
    synchronizers: Mapping[str, Synchronizer], *, shown: bool, verify: bool = False
) -> dict[str, IngestReport]:
    """Read and embed in this process; with `verify`, check that all stored parts match."""
    return {
        name: read_one(synchronizer, shown=shown, verify=verify)
        for name, synchronizer in synchronizers.items()
    }


def read_one(synchronizer: Synchronizer, *, shown: bool, verify: bool = False) -> IngestReport:
    started = time.monotonic()
    with Bar("reading  ", shown) as bar:
        done = synchronizer.build(lambda done: bar.update(done.seen, done.total))
    with Bar("embedding", shown) as bar:
        embedded = synchronizer.embed(bar.update)
    documents = synchronizer.collection.documents.values()
    return IngestReport(
        documents=sum(doc.state != "failed" for doc in documents),
        passages=sum(doc.passages for doc in documents),
        read=done.read,
        unchanged=done.unchanged,
        dropped=done.dropped,
        embedded=embedded,
        dense=synchronizer.dense_state(),
        seconds=time.monotonic() - started,
        partly={doc.path: failure_text(doc) for doc in documents if doc.state == "partly"},
        failed={doc.path: failure_text(doc) for doc in documents if doc.state == "failed"},
        wrong=inconsistencies(synchronizer.collection) if verify else None,
    )


def ingest_by_server(
    holder: Holder, sources: Collection[Sequence[str]], *, shown: bool
) -> dict[str, IngestReport]:
    """Make the server that uses the store read the documents, and follow its progress.

    Raises Conflict if the store's user is no server, or one without these `sources`;
    InternalError if the server stopped answering.
    """
    if not holder.url:
        raise Conflict(
            f"The store is in use by process {holder.pid}.",
            "Try again when it has ended, or set another `store:`.",
        )
    with httpx.Client(
        base_url=holder.url,
        headers={"Authorization": f"Bearer {holder.token}"},
        timeout=30,
        trust_env=False,
    ) as server:
        try:
            return _followed(server, sources, shown)
        except (httpx.HTTPError, KeyError) as error:
            raise InternalError(
                f"The server at {holder.url} did not answer ({type(error).__name__}).",
                "Look at its log.",
            ) from None


def _followed(
    server: httpx.Client, sources: Collection[Sequence[str]], shown: bool
) -> dict[str, IngestReport]:
    started = time.monotonic()
    bars: dict[str, Bar] = {}
    states = server.post("/v1/documents/scan", json={}).raise_for_status().json()["data"]
    if others := [each for each in sources if each not in [state["sources"] for state in states]]:
        raise Conflict(
            f"The server at {server.base_url} uses the store, but does not serve "
            f"{', '.join(others[0])}.",
            "Set another `store:`, or stop that server.",
        )
    try:
        while any(state["scanning"] for state in states):
            for state in states:
                bar = bars.setdefault(state["app"], Bar(f"reading {state['app']}", shown))
                bar.update(state["seen"], state["total"])
            time.sleep(_POLL_S)
            states = server.get("/v1/documents/scan").raise_for_status().json()["data"]
    finally:
        for bar in bars.values():
            bar.end()
    return {state["app"]: _report(server, state, time.monotonic() - started) for state in states}


def _report(server: httpx.Client, state: Mapping[str, Any], seconds: float) -> IngestReport:
    documents = (
        server.get("/v1/documents", params={"app": state["app"]}).raise_for_status().json()["data"]
    )
    return IngestReport(
        documents=sum(doc["state"] in ("done", "partly") for doc in documents),
        passages=sum(doc["passages"] for doc in documents),
        read=state["read"],
        unchanged=state["unchanged"],
        dropped=state["dropped"],
        embedded=0,
        dense=state["dense"],
        seconds=seconds,
        partly={
            doc["path"]: f"{doc['reason']} {doc['next'] or ''}".rstrip()
            for doc in documents
            if doc["state"] == "partly"
        },
        failed={doc["path"]: doc["error"] for doc in documents if doc["state"] == "failed"},
    )


def lines(reports: Mapping[str, IngestReport], say: Callable[[str], None]) -> None:
    """Print the summary that a person reads."""
    for name, r in reports.items():
        say(
            f"{name}: {counted(r.documents, 'document')} with {counted(r.passages, 'passage')}, "
            f"{r.seconds:.1f} s"
        )
        say(
            f"  {r.read} read, {r.unchanged} unchanged, {r.dropped} removed, "
            f"{len(r.failed)} failed; search by meaning: {r.dense}"
        )
        for path, missing in r.partly.items():
            say(f"  read in part: {path}: {missing}")
        for path, reason in r.failed.items():
            say(f"  failed: {printable(f'{path}: {reason}', one_line=True)}")
        for each in r.wrong or ():
            say(f"  wrong: {printable(each, one_line=True)}")
        if r.wrong == []:
            say("  verified: documents, index and vectors match")
