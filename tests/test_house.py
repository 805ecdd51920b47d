"""The shape of the code: what a reader relies on everywhere in the tree."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

from processes import ROOT

PACKAGE = ROOT / "src" / "slipway"
# metaphors of earlier days, in pieces so that this file does not hold them
HOUSE_WORDS = re.compile(
    r"\b(" + "|".join(["roads?", "rooms?", "doors?", "rungs?", "told", "anew"]) + r")\b",
    re.IGNORECASE,
)
PROSE = (".py", ".md", ".js", ".css", ".html", ".toml", ".yaml", ".yml")
NOT_OURS = ["CHANGELOG.md", "bench/house.py", "tests/test_house.py"]  # history, and the lists
NOT_OURS += ["tests/case_documents.py", "tests/test_document_cases.py"]  # a table of offices
VENDORED = ("/vendor/", "tests/data/")


def tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_text_uses_the_metaphors_of_earlier_days() -> None:
    found = []
    for file in tracked():
        name = str(file.relative_to(ROOT))
        if file.suffix not in PROSE or name in NOT_OURS or any(v in name for v in VENDORED):
            continue
        found += [
            f"{name}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
            if HOUSE_WORDS.search(line)
        ]
    assert not found, "\n".join(found)


def test_a_class_name_is_unique_in_the_package() -> None:
    places = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(file.relative_to(PACKAGE)))
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_every_module_is_on_the_map() -> None:
    """The lists are printed from the code; a module without a sentence would leave a gap."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    for file in PACKAGE.rglob("*.py"):
        if file.name == "__init__.py":
            continue
        folder = file.parent.relative_to(PACKAGE)
        heading = "### slipway\n" if folder == Path() else f"### {folder}/\n"
        section = text.split(heading)[1].split("\n### ")[0]
        line = re.search(rf"^- `{file.stem}`: (.+)$", section, re.MULTILINE)
        assert line, f"{folder}/{file.name} is not on the map"


LAYERS = (  # a module may import from its own layer and those behind it
    ("cli", "__main__"),
    ("commands",),
    ("readiness",),
    ("app",),
    ("web",),
    ("answer", "evals", "planner", "compress"),
    (
        *(
            "admission",
            "keys",
            "key_limits",
            "rules",
            "cache",
            "followups",
            "prompt",
            "knowledge",
            "routing",
        ),
        *("login", "telemetry"),
    ),
    ("providers", "feedback"),
    ("ledger", "prices", "store", "weights"),
    ("settings", "terminal"),
    ("catalogue", "lifeline", "workers"),
    ("errors", "types", "tracing", "bounded"),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def test_imports_point_one_way() -> None:
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slipway."):
                to = (node.module or "").split(".")[1]
                if LAYER[to] < LAYER[parts[0]]:
                    wrong.append(f"{'/'.join(parts)} imports {node.module}")
    assert not wrong, "\n".join(wrong)


def test_only_settings_reads_the_environment() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        if file.parent != PACKAGE / "settings"
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\benviron\b|\bgetenv\b", line)
    ]
    assert not found, "\n".join(found)
