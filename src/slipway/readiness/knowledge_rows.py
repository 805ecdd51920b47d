"""Whether documents are read and fresh, and what rules say of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from slipway.app.loading import rule_warnings
from slipway.app.rulebooks import rulebook
from slipway.app.stores import distinct, has_knowledge, synchronizers_for
from slipway.knowledge import files
from slipway.knowledge.uploads import Uploads
from slipway.readiness.deployment import DeploymentToCheck, in_thread
from slipway.readiness.rows import Check, CheckRow
from slipway.settings import Settings
from slipway.store import Holder, InUse, Store, file_of
from slipway.types import Record

LIMIT_S = 60.0
SERVER_S = 10.0
SHOWN = 3  # documents that a sentence names


def checks(deployment: DeploymentToCheck) -> dict[str, tuple[Check, float]]:
    """Return the checks of documents and rules, each with its time limit."""
    return {
        "knowledge": (lambda: knowledge(deployment), LIMIT_S),
        "access": (lambda: access(deployment), LIMIT_S),
        "rules": (lambda: rules(deployment), LIMIT_S),
    }


class DocumentFacts(Record, frozen=True, kw_only=True):
    """The documents of one app: how many, which failed, were read in part, or changed since."""

    documents: int
    failed: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    scanning: bool = False


async def knowledge(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Look at the documents of each app, here or by the server that uses the store."""
    settings = deployment.settings
    if not has_knowledge(settings):
        return []
    file = file_of(settings)
    if not file.exists():
        return [unread("No document was read yet.")]
    try:
        found = await in_thread(lambda: documents_here(settings))
    except InUse as error:
        if error.holder is None or not error.holder.url:
            says = f"The documents are {error}: they cannot be looked at now."
            return [unread(says)]
        holder = error.holder
        try:
            found = await in_thread(lambda: documents_there(holder))
        except (httpx.HTTPError, KeyError):
            return [unread(f"The server at {holder.url} does not say how its documents are.")]
    return [row_of(name, facts) for name, facts in found.items()]


def unread(says: str) -> CheckRow:
    return CheckRow(
        name="knowledge",
        looked_at="documents",
        state="amber",
        says=says,
        do=("Read them before users ask: slipway ingest",),
    )


def documents_here(settings: Settings) -> dict[str, DocumentFacts]:
    """Compare the documents in the store with the files; read none. Raises InUse."""
    store = Store(file_of(settings))
    try:
        synchronizers = synchronizers_for(settings, lambda: store, {})
        names = {id(each): name for name, each in reversed(synchronizers.items())}
        found = dict[str, DocumentFacts]()
        for synchronizer in distinct(synchronizers):
            documents = list(synchronizer.collection.documents.values())
            known = {doc.file: (doc.stamp, doc.size) for doc in documents}
            there = files.find(synchronizer.collection.sources)
            stale = [
                each.path
                for each in there
                if not each.refused and known.get(each.file) != (each.stamp, each.size)
            ]
            gone = known.keys() - {each.file for each in there}
            uploads = synchronizer.collection.uploads
            stale += [doc.path for doc in documents if doc.file in gone - uploaded(uploads, gone)]
            found[names[id(synchronizer)]] = DocumentFacts(
                documents=len(documents),
                failed=tuple(doc.path for doc in documents if doc.state == "failed"),
                partly=tuple(doc.path for doc in documents if doc.state == "partly"),
                stale=tuple(stale),
            )
        return found
    finally:
        store.close()


def uploaded(uploads: Uploads, names: Iterable[str]) -> set[str]:
    """Return the files that were uploaded, so that no folder of the settings has them."""
    return {name for name in names if uploads.holds(name)}


def documents_there(holder: Holder) -> dict[str, DocumentFacts]:
    """Ask the server that uses the store. Raises httpx.HTTPError, KeyError."""
    with httpx.Client(
        base_url=holder.url,
        headers={"Authorization": f"Bearer {holder.token}"},
        timeout=SERVER_S,
        trust_env=False,
    ) as server:
        states = server.get("/v1/documents/scan").raise_for_status().json()["data"]
        return {state["app"]: facts_of(server, state) for state in states}


def facts_of(server: httpx.Client, state: Mapping[str, Any]) -> DocumentFacts:
    listed = server.get("/v1/documents", params={"app": state["app"]}).raise_for_status()
    documents: list[dict[str, Any]] = listed.json()["data"]
    return DocumentFacts(
        documents=len(documents),
        failed=tuple(doc["path"] for doc in documents if doc["state"] == "failed"),
        partly=tuple(doc["path"] for doc in documents if doc["state"] == "partly"),
        scanning=bool(state["scanning"]),
    )


def row_of(name: str, facts: DocumentFacts) -> CheckRow:
    """Return the row of one app's documents."""
    problems, do = list[str](), list[str]()
    if facts.failed:
        problems.append(f"{len(facts.failed)} cannot be read ({named(facts.failed)})")
        do.append("Their reasons: slipway ingest")
    if facts.partly:
        problems.append(f"{len(facts.partly)} were read in part ({named(facts.partly)})")
        do = do or ["What is missing of them: slipway ingest"]
    if facts.stale:
        problems.append(f"{len(facts.stale)} changed since ({named(facts.stale)})")
        do.append("Read them again: slipway ingest (a running server does it by itself).")
    if facts.scanning:
        problems.append("a server is reading them now")
    says = f"Documents of `{name}`: {facts.documents:,}"
    says += f"; {'; '.join(problems)}." if problems else "; all are read and unchanged."
    empty = not facts.documents or len(facts.failed) == facts.documents
    return CheckRow(
        name="knowledge",
        looked_at=f"documents of `{name}`",
        state="red" if empty else "amber" if problems else "green",
        says=says,
        do=tuple(do) or (("Read them: slipway ingest",) if empty else ()),
        facts={
            "documents": facts.documents,
            "failed": len(facts.failed),
            "partly": len(facts.partly),
            "stale": len(facts.stale),
        },
    )


def named(paths: Sequence[str]) -> str:
    """Return the first of these paths, and how many more there are."""
    more = len(paths) - SHOWN
    return ", ".join(paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")


async def access(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Say that every rule of access matches a document; the settings row warns of those that do
    not.
    """
    count = sum(len(app.access) for app in deployment.settings.apps.values())
    if not count:
        return []
    unmatched = await in_thread(lambda: list(rule_warnings(deployment.found)))
    return [
        CheckRow(
            name="access",
            looked_at="`access` of apps",
            state="amber" if unmatched else "green",
            says=f"{len(unmatched)} of {count} rules of access match no document."
            if unmatched
            else f"Each of the {count} rules of access matches a document.",
            do=("See the warnings of `settings`.",) if unmatched else (),
        )
    ]


async def rules(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Count the rules' tests, which ran before: if one fails, a server would not start."""
    apps = {name: app for name, app in deployment.settings.apps.items() if app.rules is not None}
    rows = list[CheckRow]()
    for name, app in apps.items():
        book = await in_thread(lambda app=app: rulebook(app))  # type: ignore[misc]
        if book is None:
            continue
        found = book.read.content.rules
        untested = [rule.name for rule in found if not rule.tests]
        says = f"{len(found)} rules of `{name}`; all their tests pass."
        if not untested:
            rows.append(
                CheckRow(name="rules", looked_at=f"apps.{name}.rules", state="green", says=says)
            )
            continue
        rows.append(
            CheckRow(
                name="rules",
                looked_at=f"apps.{name}.rules",
                state="amber",
                says=f"{says} {len(untested)} have none: {named(untested)}.",
                do=("Add `tests:` with questions that each rule must and must not answer.",),
            )
        )
    return rows
