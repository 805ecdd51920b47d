"""`slipway ingest`: the documents read now, with how far it is; by the server, where one uses the
same store.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from slipway.app import Opened, distinct, loaded, synchronizers_for
from slipway.errors import Conflict, InternalError, SettingsError
from slipway.knowledge import Knowledge
from slipway.knowledge.reading import failure
from slipway.knowledge.sync import Synchronizer
from slipway.knowledge.verification import misfits
from slipway.settings import Flags
from slipway.store import Holder, InUse, Store, file_of
from slipway.terminal import Bar
from slipway.types import Record

_LOOK_S = 0.2


class Report(Record, frozen=True, kw_only=True):
    """What came of it. `failed` are documents with the reason and what to do."""

    documents: int
    passages: int
    read: int
    unchanged: int
    dropped: int
    embedded: int
    dense: str
    seconds: float
    failed: Mapping[str, str]
    wrong: Sequence[str] | None = None  # what does not fit together, where that was looked for


def ingest(flags: Flags, *, shown: bool, verify: bool = False) -> dict[str, Report]:
    """Reads the documents of all apps, here or by the server that uses the store. Raises
    SlipwayError.
    """
    settings = loaded(flags).settings
    if not any(app.knowledge for app in settings.apps.values()):
        raise SettingsError(
            [
                "there are no documents to read; name a folder with --docs, or apps with `knowledge` in the settings"
            ]
        )
    logging.getLogger("slipway").setLevel(logging.ERROR)  # what failed is in the report
    try:
        store = Store(file_of(settings.store))
    except InUse as error:
        if error.holder is None:
            raise Conflict(
                "The store is in use by another process.", "Try again when it has ended."
            ) from None
        if verify:
            raise Conflict(
                f"The store is in use by process {error.holder.pid}.",
                "End it first: --verify needs the store for itself.",
            ) from None
        sources = [
            [str(Path(k).resolve()) for k in app.knowledge]
            for app in settings.apps.values()
            if app.knowledge
        ]
        return there(error.holder, sources, shown=shown)
    synchronizers = synchronizers_for(settings, lambda: store, {})
    names = {id(synchronizer): name for name, synchronizer in reversed(synchronizers.items())}
    reports = here(
        {names[id(synchronizer)]: synchronizer for synchronizer in distinct(synchronizers)},
        shown=shown,
        verify=verify,
    )
    store.close()
    return reports


def read_knowledge(docs: tuple[Path, ...], *, shown: bool) -> Knowledge:
    """These documents, read and embedded, with progress where that is `shown`; what the store has
    of them is not read again.
    """
    settings = loaded(Flags(docs=docs)).settings
    logging.getLogger("slipway").setLevel(logging.ERROR)
    synchronizer = synchronizers_for(
        msgspec.structs.replace(settings, apps={"docs": settings.apps["docs"]}),
        Opened(settings),
        {},
    )["docs"]
    here({"docs": synchronizer}, shown=shown)
    return Knowledge(synchronizer)


def here(
    synchronizers: Mapping[str, Synchronizer], *, shown: bool, verify: bool = False
) -> dict[str, Report]:
    """Reads and embeds in this process; with `verify`, looks whether all that is kept fits
    together.
    """
    return {
        name: one(synchronizer, shown=shown, verify=verify)
        for name, synchronizer in synchronizers.items()
    }


def one(synchronizer: Synchronizer, *, shown: bool, verify: bool = False) -> Report:
    started = time.monotonic()
    bar = Bar("reading  ", shown)
    done = synchronizer.build(lambda done: bar.tell(done.seen, done.total))
    bar.end()
    bar = Bar("embedding", shown)
    embedded = synchronizer.embed(bar.tell)
    bar.end()
    documents = synchronizer.collection.documents.values()
    return Report(
        documents=sum(doc.state == "done" for doc in documents),
        passages=sum(doc.passages for doc in documents),
        read=done.read,
        unchanged=done.unchanged,
        dropped=done.dropped,
        embedded=embedded,
        dense=synchronizer.dense_state(),
        seconds=time.monotonic() - started,
        failed={doc.path: failure(doc) for doc in documents if doc.state == "failed"},
        wrong=misfits(synchronizer.collection) if verify else None,
    )


def there(holder: Holder, sources: Collection[Sequence[str]], *, shown: bool) -> dict[str, Report]:
    """Has the server that uses the store do it, and follows it. Raises Conflict where that is no
    server, or one without these `sources`; InternalError where it went away.
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
) -> dict[str, Report]:
    started = time.monotonic()
    bars: dict[str, Bar] = {}
    states = server.post("/v1/documents/scan", json={}).raise_for_status().json()["data"]
    if others := [each for each in sources if each not in [state["sources"] for state in states]]:
        raise Conflict(
            f"The server at {server.base_url} uses the store, and does not serve {', '.join(others[0])}.",
            "Set another `store:`, or end it.",
        )
    while any(state["scanning"] for state in states):
        for state in states:
            bars.setdefault(state["app"], Bar(f"reading {state['app']}", shown)).tell(
                state["seen"], state["total"]
            )
        time.sleep(_LOOK_S)
        states = server.get("/v1/documents/scan").raise_for_status().json()["data"]
    for bar in bars.values():
        bar.end()
    return {state["app"]: _report(server, state, time.monotonic() - started) for state in states}


def _report(server: httpx.Client, state: Mapping[str, Any], seconds: float) -> Report:
    documents = (
        server.get("/v1/documents", params={"app": state["app"]}).raise_for_status().json()["data"]
    )
    return Report(
        documents=sum(doc["state"] == "done" for doc in documents),
        passages=sum(doc["passages"] for doc in documents),
        read=state["read"],
        unchanged=state["unchanged"],
        dropped=state["dropped"],
        embedded=0,
        dense=state["dense"],
        seconds=seconds,
        failed={doc["path"]: doc["error"] for doc in documents if doc["state"] == "failed"},
    )


def lines(reports: Mapping[str, Report], say: Callable[[str], None]) -> None:
    """The summary that a person reads."""
    for name, r in reports.items():
        say(
            f"{name}: {_counted(r.documents, 'document')} with {_counted(r.passages, 'passage')}, {r.seconds:.1f} s"
        )
        say(
            f"  {r.read} read, {r.unchanged} unchanged, {r.dropped} gone, {len(r.failed)} failed; by meaning: {r.dense}"
        )
        for path, reason in r.failed.items():
            say(f"  failed: {path}: {reason}")
        for each in r.wrong or ():
            say(f"  wrong: {each}")
        if r.wrong == []:
            say("  verified: documents, index and vectors fit together")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
