"""Live reload: compile changed settings beside the pipeline in force, then replace it.

A thread of its own watches, reads and compiles the file. What did not change is taken over: models
with their connections or process, documents with their index. A question keeps the pipeline that it
began with; what only such questions use is retired, and closed when they end.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

import msgspec

from slipway.answer import Pipeline
from slipway.knowledge.sync import Synchronizer
from slipway.providers import Provider
from slipway.routing import Health
from slipway.settings import ModelSettings, Settings
from slipway.settings.live import LiveSettings, problems_of
from slipway.settings.loading import Loaded
from slipway.types import Asker, Record

log = logging.getLogger("slipway")
POLL_S = 0.25  # between two checks of the file
RETRY_S = 2.0  # an invalid file is read again: what it names may exist by then
_STOP_S = 5.0  # how long a stopping server waits for a compilation
_LISTED = 5  # changes of one kind that the log names

Thing = TypeVar("Thing")
Folders = tuple[str, ...]


class ModelHandle:
    """One model: its settings, the provider that calls it, and its health."""

    def __init__(self, settings: ModelSettings, provider: Provider, health: Health) -> None:
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
    """Compiled settings, with what the next ones may take over: models by name, documents by
    folders.
    """

    settings: Settings
    pipeline: Pipeline
    models: dict[str, ModelHandle]
    synchronizers: dict[Folders, Synchronizer]


Compile = Callable[[Settings, Compiled], Compiled]


class Reloading:
    """Watch the settings file and apply what is valid; `compiled` is what is in force."""

    def __init__(
        self,
        live: LiveSettings,
        compiled: Compiled,
        compile_beside: Compile,
        apply: Callable[[Compiled], None],
        count: Callable[[str], None],
    ) -> None:
        """Take the parts to call.

        `compile_beside` compiles settings beside those in force (SettingsError if that fails),
        `apply` makes them the ones that the next question meets, `count` counts outcomes
        (`applied`, `refused`). `after_apply`, if set, is called last. `agree`, if set, is called in
        the thread with settings that could be compiled here; the problems that it returns refuse
        them. `committed` is awaited once they are in force.
        """
        self.live, self.compiled = live, compiled
        self.after_apply: Callable[[], None] | None = None
        self.agree: Callable[[Loaded], tuple[str, ...]] = lambda _: ()
        self.committed: Callable[[], Awaitable[None]] | None = None
        self.applied_at = time.time()
        self.refused: tuple[str, ...] = ()
        self._compile, self._apply, self._count = compile_beside, apply, count
        self._seen, self._warned = live.last, live.found.warnings
        self._retry_at = 0.0
        self._pipelines = [compiled.pipeline]  # those that questions may still use
        # documents to close once no question uses these pipelines
        self._leaving: dict[Folders, tuple[Synchronizer, Sequence[Pipeline]]] = {}
        self._retired: WeakSet[ModelHandle] = WeakSet()
        self._wake, self._stopped = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._terminal = os.isatty(0)

    # on the loop

    def start(self) -> None:
        for model in self.compiled.models.values():
            model.start()
        for synchronizer in self.compiled.synchronizers.values():
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
        """Read the file again on SIGHUP; if SIGHUP means that our terminal was closed, end."""
        if self._terminal and not os.isatty(0):
            signal.raise_signal(signal.SIGTERM)
        else:
            self._wake.set()

    async def stop(self) -> None:
        """Apply no more changes from now on."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _STOP_S)

    async def close(self) -> None:
        for model in [*self._retired, *self.compiled.models.values()]:
            await model.close()
        for synchronizer in [
            *(synchronizer for synchronizer, _ in self._leaving.values()),
            *self.compiled.synchronizers.values(),
        ]:
            await asyncio.to_thread(synchronizer.close)

    def status(self, asker: Asker) -> dict[str, Any]:
        """Return when the settings were applied, and why newer ones were refused.

        The reasons quote the file, so others than the operator get only their number.
        """
        if not self.live.watched:
            return {}
        problems = list(self.refused)
        if problems and not (asker.everything or self.compiled.pipeline.admission.open):
            noun = "problem" if len(problems) == 1 else "problems"
            problems = [f"{len(problems)} {noun}: see the server's log"]
        return {"applied_at": round(self.applied_at, 3), "refused": problems}

    def check_now(self) -> None:
        """Read the file again now."""
        self._wake.set()

    async def put(self, compiled: Compiled) -> None:
        """Make these settings the ones that the next question meets."""
        before, self.compiled = self.compiled, compiled
        self._apply(compiled)
        for model in _only(compiled.models, before.models):
            model.start()
        for model in _only(before.models, compiled.models):
            self._retired.add(model)
            model.retire()
        self._count("applied")
        if self.after_apply is not None:
            self.after_apply()
        if self.committed is not None:
            await self.committed()

    # in the thread

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            asked = self._wake.wait(POLL_S)
            self._wake.clear()
            if self._stopped:
                return
            try:
                if not asked:
                    # first, so that a request that has just taken a pipeline is counted by then
                    self._close_unused()
                self._poll(loop, asked=asked)
            except Exception:  # the thread must go on: the next poll may succeed
                log.exception("the settings file could not be checked")

    def _poll(self, loop: asyncio.AbstractEventLoop, *, asked: bool) -> None:
        reading = self.live.current(force=asked)
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
        """Apply valid settings; return the problems if they cannot be compiled."""
        before = self.compiled
        existing = {
            **{folders: synchronizer for folders, (synchronizer, _) in self._leaving.items()},
            **before.synchronizers,
        }
        try:
            compiled = self._compile(
                found.settings, msgspec.structs.replace(before, synchronizers=existing)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the previous settings stay
            problems = problems_of(error)
        else:
            problems = self.agree(found)
        if problems:
            if problems != self.refused:
                log.warning(
                    "Settings not applied (%d %s); the previous ones stay active: %s",
                    len(problems),
                    "error" if len(problems) == 1 else "errors",
                    "; ".join(problems),
                )
            return problems
        if self._stopped:
            return ()
        asyncio.run_coroutine_threadsafe(self.put(compiled), loop).result()
        self.applied_at = time.time()
        self._start_documents(compiled, before, existing)
        for warning in found.warnings:
            if warning not in self._warned:
                log.warning("%s", warning)
        self._warned = found.warnings
        log.info("settings applied: %s", changes(before, compiled))
        return ()

    def _start_documents(
        self, compiled: Compiled, before: Compiled, existing: Mapping[Folders, Synchronizer]
    ) -> None:
        """Start new documents, and note which ones no app uses any more."""
        for synchronizer in _only(compiled.synchronizers, existing):
            synchronizer.start()
        for synchronizer in compiled.synchronizers.values():
            synchronizer.collection.reader.set_size_limit(compiled.settings.limits.document_mb)
        self._pipelines = [
            pipeline
            for pipeline in self._pipelines
            if pipeline.admission.in_flight or pipeline is before.pipeline
        ]
        gone = {
            folders: (synchronizer, self._pipelines)
            for folders, synchronizer in before.synchronizers.items()
            if folders not in compiled.synchronizers
        }
        self._leaving = {
            folders: leaving
            for folders, leaving in {**self._leaving, **gone}.items()
            if folders not in compiled.synchronizers
        }
        self._pipelines = [*self._pipelines, compiled.pipeline]

    def _close_unused(self) -> None:
        """Close the documents of removed apps once no question uses their pipelines and no upload
        of theirs is being read.
        """
        for folders, (synchronizer, pipelines) in list(self._leaving.items()):
            if not synchronizer.collection.uploads.waiting and not any(
                pipeline.admission.in_flight for pipeline in pipelines
            ):
                del self._leaving[folders]
                synchronizer.close()


def _only(some: Mapping[Any, Thing], others: Mapping[Any, Thing]) -> list[Thing]:
    """Return the values of `some` that `others` does not hold under the same name."""
    return [thing for name, thing in some.items() if others.get(name) is not thing]


def changes(before: Compiled, after: Compiled) -> str:
    """Return what changed, in a few words for the log."""
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
    """Return True if the app's prompt file has another content now."""
    return before.pipeline.apps[app].prompt.version(passages=True) != after.pipeline.apps[
        app
    ].prompt.version(passages=True)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
