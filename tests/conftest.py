"""What all tests share. One option: `--skips-fail`, with which CI makes a hole of every skipped
test that is not listed here with its reason.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from browsing import browser, context, page, watched  # noqa: F401 - fixtures
from slipway import weights
from slipway.knowledge.embedding import Embedder

MAY_SKIP: dict[str, str] = {}  # test id -> why it may skip in CI


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skips-fail",
        action="store_true",
        help="fail when a test skips that tests/conftest.py does not list",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: takes minutes; run by `make soak`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in (config.option.markexpr or ""):
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if report.skipped and item.config.getoption("--skips-fail") and item.nodeid not in MAY_SKIP:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} skipped, and tests/conftest.py does not list it: {report.longrepr}"
        )
    return report


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """Needs the weights, which tests do not fetch: `slipway weights pull minilm` does, as `.ci/run`
    and `make run` do.
    """
    files = weights.found("minilm")
    return (
        Embedder(files)
        if files
        else pytest.skip("the weights are not here: slipway weights pull minilm")
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of localhost, and its key: both PEM files."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            cert,
            *names,
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
