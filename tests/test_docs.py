"""Test the docs: printed tables are fresh, everything is documented, and shown commands work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from processes import ROOT, run
from slipway.app.building import build
from slipway.cli import COMMANDS, main
from slipway.settings import Settings
from slipway.settings.reading import branches, fields_of
from slipway.telemetry.definitions import METRICS

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.glob("**/*.md")),
    *sorted((ROOT / "examples").glob("**/*.md")),
]
PRINTED = re.compile(r"<!-- printed: \w+ -->.*?<!-- end printed -->", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
COMMAND = re.compile(r"(?:ExecStart=)?(?:/\S+/)?slipway ((?!\d).+)")


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    return text(page).split(f"\n{heading}\n")[1].split("\n## ")[0]


def test_printed_parts_of_the_docs_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "printed.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def command_named(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_and_option_is_named(command: str) -> None:
    said = section("commands.md", f"## {command}")
    for param in command_named(command).params:
        assert all(name in said for name in param.opts if name.startswith("--"))


@pytest.mark.parametrize(
    ("path", "field"),
    [(path, field) for path, branch in branches(Settings) for field in fields_of(branch)],
)
def test_every_setting_is_named(path: str, field: str) -> None:
    said = (
        text("settings.md")
        .split(f"\n### {path}\n" if path else "\n## Which settings are there?\n")[1]
        .split("\n### ")[0]
    )
    assert f"| `{field}` |" in said


@pytest.mark.parametrize("name", [m.name for m in METRICS.values()])
def test_every_metric_is_named(name: str) -> None:
    assert f"| `{name}" in text("metrics.md")


def test_every_route_is_named() -> None:
    guard = build(Settings())
    said = text("api.md")
    paths = [
        *guard.fast,
        *(route.path.replace(":path", "") for route in getattr(guard.rest, "routes")),  # noqa: B009
    ]
    assert [
        p
        for p in paths
        if p.startswith(("/v1/", "/healthz", "/readyz", "/metrics")) and f" {p}`" not in said
    ] == []
    assert len(paths) > 10


def commands_shown() -> list[tuple[str, str]]:
    """(page, command line) of every `slipway …` in a fenced block that people type or copy; what
    code printed is right by itself.
    """
    fences = [
        (p.name, fence)
        for p in PAGES
        for _, fence in FENCE.findall(PRINTED.sub("", p.read_text(encoding="utf-8")))
    ]
    lines = [
        (name, line.strip())
        for name, fence in fences
        for line in fence.replace("\\\n", " ").splitlines()
    ]
    return [(name, found[1]) for name, line in lines if (found := COMMAND.match(line))]


@pytest.mark.parametrize(("page", "line"), commands_shown())
def test_every_command_line_shown_can_be_typed(page: str, line: str) -> None:
    name, *args = shlex.split(line.split(" > ")[0].removesuffix(" &"))
    if name.startswith("-"):
        assert name in ("--help", "-h", "--version")
        return
    try:
        command_named(name).make_context(name, [*args])
    except click.exceptions.Exit:
        assert {"--help", "-h"} & set(args)


def test_command_lines_are_found() -> None:
    assert len(commands_shown()) > 20


def yaml_blocks(page: str) -> list[str]:
    return [block for kind, block in FENCE.findall(text(page)) if kind == "yaml"]


def checked(folder: Path, yaml: str) -> str:
    """Run `slipway check` on settings, in a folder with everything that they name."""
    for name in ("docs", "handbook", "manuals"):
        (folder / name).mkdir()
        (folder / name / "page.md").write_text("# Page\n\nText.\n")
    (folder / "faq.md").write_text("# Questions\n\nAnswers.\n")
    (folder / "our-ca.pem").write_text("")
    (folder / "slipway.yaml").write_text(yaml)
    names = ("DASHSCOPE_API_KEY", "SUPPORT_KEY", "AZURE_OPENAI_API_KEY", "HR_KEY", "STAFF_KEY")
    secrets = {name: f"a-secret-of-{name}" for name in names}
    done = run("check", "--offline", cwd=folder, env=secrets)
    return done.stdout + done.stderr


def test_the_complete_example_passes_the_check(tmp_path: Path) -> None:
    said = checked(tmp_path, yaml_blocks("settings.md")[0])
    assert "The settings are fine." in said
    assert ".key is a literal key" not in said


SETTINGS_SHOWN = [
    (page, yaml)
    for page in ("models.md", "reliability.md", "documents.md", "deploy.md", "security.md")
    for yaml in yaml_blocks(page)
    if not yaml.startswith(("livenessProbe:", "scrape_configs:"))  # Kubernetes' and Prometheus' own
]


@pytest.mark.parametrize(("page", "yaml"), SETTINGS_SHOWN)
def test_every_piece_of_settings_passes_the_check(tmp_path: Path, page: str, yaml: str) -> None:
    if "apps: [support]" in yaml:
        yaml += "apps:\n  support: {knowledge: docs}\n"
    assert "The settings are fine." in checked(tmp_path, yaml)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == DOCS], ids=lambda page: page.name)
def test_pages_can_be_quoted_from(page: Path) -> None:
    """Each heading is unique on its page, and no table is so long that it would be cut."""
    said = page.read_text(encoding="utf-8")
    headings = HEADING.findall(FENCE.sub("", said))
    assert len(headings) == len(set(headings))
    assert all(len(found[0]) < 1500 for found in re.finditer(r"(?:^\|.*\n)+", said, re.MULTILINE))
