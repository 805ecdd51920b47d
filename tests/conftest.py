"""Share fixtures between all tests, and mark each test by what it starts.

A test that starts a child process is marked `process`, one that opens a browser `browser`.
`make quick` runs those that are neither. With `--skips-fail`, as in CI, a test that skips fails
unless tests/skips.txt lists it.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browsing
from browsing import browser, context, page, watched  # noqa: F401 - fixtures
from groups import Groups, write_groups
from kinds import BROWSER, PROCESS, ProcessWatch, group_of, kind_of
from postgres import Postgres, program, running_postgres
from slipway import weights
from slipway.knowledge.embedding import Embedder

SKIPS = Path(__file__).with_name("skips.txt")
WORKERS_PER_CORE = 3  # most tests wait for others most of the time
watch = ProcessWatch()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skips-fail", action="store_true", help="fail if a test skips that tests/skips.txt omits"
    )
    parser.addoption(
        "--screenshots", action="store_true", help="keep pictures of the pages in tests/.out"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: takes minutes; run by `make soak`")
    config.addinivalue_line("markers", "browser: opens a browser (set by tests/conftest.py)")
    config.addinivalue_line("markers", "process: starts a process (set by tests/conftest.py)")
    if config.getoption("--screenshots"):
        browsing.OUT.mkdir(exist_ok=True)
        browsing.keeps_screenshots = True
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory()
        config.add_cleanup(folder.cleanup)
        config.pluginmanager.register(Groups(Path(folder.name) / "groups.json"))


def pytest_xdist_auto_num_workers() -> int:
    return WORKERS_PER_CORE * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Mark tests by kind, leave out the long ones, and let the slowest kinds start first."""
    if "soak" not in (config.option.markexpr or ""):
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    groups = dict[str, str]()
    for item in items:
        if isinstance(item, pytest.Function):
            kind = kind_of(item)
            if kind is not None:
                item.add_marker(kind)
            if group := group_of(item, kind):
                groups[item.nodeid] = group
    yield
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: turn(item, is_in_group=item.nodeid in groups))
        write_groups(config.workerinput, groups)


def turn(item: pytest.Item, *, is_in_group: bool) -> int:
    """Return when this test's turn comes if workers share the tests: quick ones fill the end."""
    if item.get_closest_marker(BROWSER):
        return 0
    if item.get_closest_marker(PROCESS):
        return 1 if is_in_group else 2
    return 3


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    is_quick = not item.get_closest_marker(PROCESS) and not item.get_closest_marker(BROWSER)
    watch.quick_test = item.nodeid if is_quick else None
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    may_fail = report.skipped and item.config.getoption("--skips-fail")
    if may_fail and item.nodeid not in listed_skips():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped, and tests/skips.txt omits it: {report.longrepr}"
    return report


def listed_skips() -> set[str]:
    """Return the tests that may skip in CI: the lines of tests/skips.txt are `TEST: REASON`."""
    lines = [line for line in SKIPS.read_text().splitlines() if line and not line.startswith("#")]
    return {line.rpartition(": ")[0] for line in lines}


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """Load the weights, which tests do not fetch: `slipway weights pull minilm` does."""
    files = weights.found("minilm")
    return Embedder(files) if files else pytest.skip("no weights: slipway weights pull minilm")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate of localhost and its key: both PEM files."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a real PostgreSQL, once for the tests of a worker."""
    if program("postgres") is None:
        pytest.skip("no PostgreSQL: install Debian's postgresql")
    with running_postgres() as server:
        yield server
