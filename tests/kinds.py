"""Sort tests by what they start: a browser, a child process, or neither.

A test's kind is read from its code: what the test, its fixtures and the helpers under tests/ name,
and what those name in turn. An audit hook watches the run, so that a wrong guess fails its test.
"""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from slipway import weights
from slipway.compress import quantising
from slipway.compress.runner import Runner
from slipway.knowledge import opened
from slipway.knowledge.attachments import Attachments
from slipway.knowledge.parsing import Parser
from watchdog import watched

TESTS = Path(__file__).parent
BROWSER, PROCESS = "browser", "process"
STARTERS: tuple[Any, ...] = (
    *(subprocess, Attachments, Parser, Runner, opened, weights.pull, watched),
    quantising.write_with_tool,
)
EVENTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec")


def kind_of(item: pytest.Function) -> str | None:
    """Return the mark of a test that starts a browser or a process, and None for a quick test."""
    fixtures = item._fixtureinfo.name2fixturedefs
    if "browser" in fixtures:
        return BROWSER
    functions = [item.obj, *(each.func for found in fixtures.values() for each in found)]
    seen = set[int]()
    return PROCESS if any(_starts(function, seen) for function in functions) else None


def group_of(item: pytest.Function, kind: str | None) -> str | None:
    """Return the group whose tests run in one worker, since they share what takes long to make.

    Those are the fixtures that a file makes once for its tests, and the embedder. A test that
    shares nothing runs in any worker.
    """
    fixtures = item._fixtureinfo.name2fixturedefs
    if kind is None and "embedder" in fixtures:
        return "embedder"
    shared = [
        name
        for name, found in sorted(fixtures.items())
        if found[-1].scope == "module" and found[-1].baseid == item.nodeid.split("::")[0]
    ]
    return "-".join([item.path.stem, *shared]) if shared else None


def _starts(thing: Any, seen: set[int]) -> bool:
    """Return whether this starts a process, or names something under tests/ that does."""
    if any(thing is each for each in STARTERS):
        return True
    if id(thing) in seen or not _is_ours(thing):
        return False
    seen.add(id(thing))
    return any(_starts(each, seen) for each in _named_by(thing))


def _is_ours(thing: Any) -> bool:
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    return TESTS in Path(getattr(module, "__file__", None) or "/").parents


def _named_by(thing: Any) -> Iterator[Any]:
    """Yield what the code of a function, or of each method of a class, refers to."""
    if isinstance(thing, type):
        yield from (getattr(each, "fget", each) for each in vars(thing).values())
        return
    if not callable(thing):
        return
    test = getattr(getattr(thing, "hypothesis", None), "inner_test", thing)
    function = inspect.unwrap(getattr(test, "__func__", test))
    if not (code := getattr(function, "__code__", None)):
        return
    names = set(_names(code))
    for known in (function.__globals__, sys.modules):
        for found in [known[name] for name in names if name in known]:
            yield found
            if isinstance(found, ModuleType):
                yield from (vars(found)[name] for name in names & vars(found).keys())


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class ProcessWatch:
    """Fails a test that starts a process although its code did not show that it would."""

    def __init__(self) -> None:
        self.quick_test: str | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: Any) -> None:
        if event in EVENTS and self.quick_test:
            name, self.quick_test = self.quick_test, None
            raise RuntimeError(
                f"{name} starts a process ({event}), and tests/kinds.py did not find that"
                " in its code: add what starts it to STARTERS"
            )
