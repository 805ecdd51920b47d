"""Other settings while the server runs: a new pipeline is made beside the old one, and takes its place
between two events of the loop.

The file is looked at, read and compiled in a thread of its own. What did not change is taken over
as it is: models with their connections or process, documents with their index. A question keeps the
pipeline that it began with; what only such questions use is retired, and ends with them.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

import msgspec

from slipway.answer import Pipeline
from slipway.knowledge.sync import Synchronizer
from slipway.providers import Provider
from slipway.routing import Health
from slipway.settings import Model, Settings
from slipway.settings.live import Live, problems_of
from slipway.settings.loading import Loaded
from slipway.types import Asker, Record

log = logging.getLogger("slipway")
LOOK_S = 0.25  # between two looks at the file
RETRY_S = 2.0  # a file that did not stand is read again: what it names may be there now
_STOP_S = 5.0  # what is being compiled when the server stops is not waited for longer
_NAMED = 5  # changes of one kind that the log names

Thing = TypeVar("Thing")
Folders = tuple[str, ...]
Take = Callable[[Settings, Pipeline], None]


class ModelHandle:
    """A model with its settings, who calls it, and what was learnt of it."""

    def __init__(self, settings: Model, provider: Provider, health: Health) -> None:
        self.settings, self.provider, self.health = settings, provider, health

    def start(self) -> None:
        self.provider.start()
        self.health.start()

    def retire(self) -> None:
        self.provider.retire()
        self.health.retire()

    async def close(self) -> None:
        await self.health.close()
        await self.provider.close()


class Compiled(Record, frozen=True, kw_only=True):
    """Settings, compiled; with what the next ones take over where it did not change: models by
    their names, documents by their folders.
    """

    settings: Settings
    pipeline: Pipeline
    models: dict[str, ModelHandle]
    synchronizers: dict[Folders, Synchronizer]


Make = Callable[[Settings, Compiled], Compiled]


class Reloading:
    """`made` is what counts now; `subscribers` are told what counts next."""

    def __init__(
        self, live: Live, made: Compiled, make: Make, count: Callable[[str], None]
    ) -> None:
        """`make` compiles settings beside those that count, and raises SettingsError; `count`
        counts what is `applied` and `refused`.
        """
        self.live, self.made = live, made
        self.subscribers: list[Take] = []
        self.applied_at = time.time()
        self.refused: tuple[str, ...] = ()
        self._make, self._count = make, count
        self._seen, self._warned = live.last, live.found.warnings
        self._retry_at = 0.0
        self._pipelines = [made.pipeline]  # those that a question may be on
        self._leaving: dict[
            Folders, tuple[Synchronizer, Sequence[Pipeline]]
        ] = {}  # documents that are closed when nobody is on these pipelines
        self._retired: WeakSet[ModelHandle] = WeakSet()
        self._wake, self._stopped = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._terminal = os.isatty(0)

    # on the loop

    def start(self) -> None:
        for model in self.made.models.values():
            model.start()
        for synchronizer in self.made.synchronizers.values():
            synchronizer.start()
        if not self.live.watched:
            return
        loop = asyncio.get_running_loop()
        with suppress(
            NotImplementedError, RuntimeError, ValueError, AttributeError
        ):  # Windows, or not the main thread
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        self._thread = threading.Thread(
            target=self._watch, args=[loop], name="slipway settings", daemon=True
        )
        self._thread.start()

    def _hung_up(self) -> None:
        """SIGHUP asks for the file to be read; where it tells that our terminal was closed, it ends
        us, as without a file.
        """
        if self._terminal and not os.isatty(0):
            signal.raise_signal(signal.SIGTERM)
        else:
            self._wake.set()

    async def stop(self) -> None:
        """Nothing changes from now on."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _STOP_S)

    async def close(self) -> None:
        for model in [*self._retired, *self.made.models.values()]:
            await model.close()
        for synchronizer in [
            *(synchronizer for synchronizer, _ in self._leaving.values()),
            *self.made.synchronizers.values(),
        ]:
            await asyncio.to_thread(synchronizer.close)

    def status(self, asker: Asker) -> dict[str, Any]:
        """When the settings were applied, and why newer ones are not. That quotes the file, which
        is the operator's.
        """
        if not self.live.watched:
            return {}
        problems = list(self.refused)
        if problems and not (asker.everything or self.made.pipeline.admission.open):
            problems = [
                f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}: see the server's log"
            ]
        return {"applied_at": round(self.applied_at, 3), "refused": problems}

    async def _put(self, made: Compiled) -> None:
        before, self.made = self.made, made
        for take in self.subscribers:
            take(made.settings, made.pipeline)
        for model in _only(made.models, before.models):
            model.start()
        for model in _only(before.models, made.models):
            self._retired.add(model)
            model.retire()
        self._count("applied")

    # in the thread

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            asked = self._wake.wait(LOOK_S)
            self._wake.clear()
            if self._stopped:
                return
            try:
                if not asked:
                    # before the look: a request that has just taken a pipeline is on it by the next
                    # time
                    self._let_go()
                self._look(loop, asked=asked)
            except Exception:  # the thread must live: it looks again
                log.exception("the settings could not be looked at")

    def _look(self, loop: asyncio.AbstractEventLoop, *, asked: bool) -> None:
        reading = self.live.look(asked=asked)
        due = bool(self.refused) and time.monotonic() >= self._retry_at
        if due and reading is self._seen:
            reading = self.live.retry()
        if reading is self._seen and not due:
            return
        problems = reading.problems if reading.found is None else self._applied(loop, reading.found)
        if problems and (reading is not self._seen or problems != self.refused):
            loop.call_soon_threadsafe(self._count, "refused")
        self._seen, self.refused, self._retry_at = reading, problems, time.monotonic() + RETRY_S

    def _applied(self, loop: asyncio.AbstractEventLoop, found: Loaded) -> tuple[str, ...]:
        """Nothing; or the problems, where these settings stand and cannot be compiled all the same."""
        before, there = (
            self.made,
            {
                **{folders: synchronizer for folders, (synchronizer, _) in self._leaving.items()},
                **self.made.synchronizers,
            },
        )
        try:
            made = self._make(found.settings, msgspec.structs.replace(before, synchronizers=there))
        # What the store says, and whatever else: those from before count
        except Exception as error:  # noqa: BLE001
            problems = problems_of(error)
            if problems != self.refused:
                log.warning(
                    "the changed settings cannot be applied, and those from before count: %s",
                    "; ".join(problems),
                )
            return problems
        if self._stopped:
            return ()
        asyncio.run_coroutine_threadsafe(self._put(made), loop).result()
        self.applied_at = time.time()
        self._bring_documents(made, before, there)
        for warning in found.warnings:
            if warning not in self._warned:
                log.warning("%s", warning)
        self._warned = found.warnings
        log.info("settings applied: %s", changes(before, made))
        return ()

    def _bring_documents(
        self, made: Compiled, before: Compiled, there: Mapping[Folders, Synchronizer]
    ) -> None:
        for synchronizer in _only(made.synchronizers, there):
            synchronizer.start()
        for synchronizer in made.synchronizers.values():
            synchronizer.collection.reader.allow(made.settings.limits.document_mb)
        self._pipelines = [
            pipeline
            for pipeline in self._pipelines
            if pipeline.admission.in_flight or pipeline is before.pipeline
        ]
        gone = {
            folders: (synchronizer, self._pipelines)
            for folders, synchronizer in before.synchronizers.items()
            if folders not in made.synchronizers
        }
        self._leaving = {
            folders: leaving
            for folders, leaving in {**self._leaving, **gone}.items()
            if folders not in made.synchronizers
        }
        self._pipelines = [*self._pipelines, made.pipeline]

    def _let_go(self) -> None:
        """Closes documents of apps that are gone, once no question is on their pipelines any more, and
        no upload of theirs is being read.
        """
        for folders, (synchronizer, pipelines) in list(self._leaving.items()):
            if not synchronizer.collection.uploads.waiting and not any(
                pipeline.admission.in_flight for pipeline in pipelines
            ):
                del self._leaving[folders]
                synchronizer.close()


def _only(some: Mapping[Any, Thing], others: Mapping[Any, Thing]) -> list[Thing]:
    """What stands in these under its name, and not in the others."""
    return [thing for name, thing in some.items() if others.get(name) is not thing]


def changes(before: Compiled, after: Compiled) -> str:
    """What is another than before, in a few words."""
    old, new, said = before.settings, after.settings, list[str]()
    for kind in ("model", "route", "app"):
        was, now = getattr(old, f"{kind}s"), getattr(new, f"{kind}s")
        both = [name for name in now if name in was]
        differing = [
            name
            for name in both
            if now[name] != was[name] or (kind == "app" and _reworded(name, before, after))
        ]
        for how, names in (
            ("added", [name for name in now if name not in was]),
            ("changed", differing),
            ("removed", [name for name in was if name not in now]),
        ):
            said += (
                [f"{kind if len(names) == 1 else f'{kind}s'} {_listed(names)} {how}"]
                if names
                else []
            )
    said += [
        f"{part} changed"
        for part in ("listen", "limits", "keys")
        if getattr(old, part) != getattr(new, part)
    ]
    return "; ".join(said) or "nothing changed"


def _reworded(app: str, before: Compiled, after: Compiled) -> bool:
    """Whether the file that it names as its prompt says something else now."""
    return before.pipeline.apps[app].prompt.version(passages=True) != after.pipeline.apps[
        app
    ].prompt.version(passages=True)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
