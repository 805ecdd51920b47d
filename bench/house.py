"""Print the shape of the code: python bench/house.py [CHECKOUT]...

Each checkout is a column; without one, this checkout is measured. A deferred import is one of our
own modules inside a function. A docstring counts as starting with a verb if its first word is not
an article, a question word or another word that no instruction starts with.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

NO_VERBS = frozenset(
    [
        "a",
        "all",
        "also",
        "an",
        "and",
        "any",
        "as",
        "at",
        "by",
        "each",
        "every",
        "for",
        "from",
        "how",
        "if",
        "in",
        "it",
        "its",
        "no",
        "nothing",
        "of",
        "on",
        "one",
        "only",
        "our",
        "that",
        "the",
        "their",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "true",
        "two",
        "what",
        "when",
        "where",
        "whether",
        "which",
        "who",
        "whose",
        "why",
        "with",
    ]
)
HOUSE_WORDS = re.compile(
    r"\b(road|roads|room|rooms|door|doors|rung|rungs|told|anew|stands|gone on with)\b",
    re.IGNORECASE,
)
LONG_LINE, LONG_FUNCTION, LONG_FILE = 100, 40, 500

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Code:
    """The Python files of a checkout's package, parsed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "src" / "slipway"
        self.files = {file: file.read_text(encoding="utf-8") for file in self.package.rglob("*.py")}
        self.trees = {file: ast.parse(text) for file, text in self.files.items()}

    def functions(self) -> Iterator[Function]:
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield node

    def lengths(self) -> list[int]:
        return [(f.end_lineno or f.lineno) - f.lineno + 1 for f in self.functions()]

    def classes(self) -> Counter[str]:
        return Counter(
            node.name
            for tree in self.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        )

    def deferred_imports(self) -> int:
        return sum(
            (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "slipway")
            or (
                isinstance(node, ast.Import)
                and any(name.name.split(".")[0] == "slipway" for name in node.names)
            )
            for function in self.functions()
            for node in ast.walk(function)
        )

    def docstrings(self) -> list[str]:
        """Return the docstrings of functions and methods."""
        return [text for f in self.functions() if (text := ast.get_docstring(f))]

    def starting_with_verb(self) -> float:
        texts = self.docstrings()
        first = [re.match(r"\w*", text) for text in texts]
        return sum(bool(m) and m[0].lower() not in NO_VERBS for m in first if m) / len(texts)

    def house_words(self) -> int:
        """Count house words in every tracked text but the changelog, this file and JSONL data.

        The data holds texts of other people and outputs of models.
        """
        names = subprocess.run(
            ["git", "ls-files"], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return sum(
            len(HOUSE_WORDS.findall(text_of(self.root / name)))
            for name in names
            if name not in ("CHANGELOG.md", "bench/house.py")
            and not name.startswith("lock/")
            and not name.endswith(".jsonl")
        )

    def import_cpu_s(self) -> float:
        """Return the median CPU seconds of `import slipway.cli`, out of eleven."""
        code = (
            "import time; t = time.process_time(); "
            "import slipway.cli; print(time.process_time() - t)"
        )
        return median(
            float(
                subprocess.run(
                    [sys.executable, "-c", code],
                    cwd=self.root,
                    env={"PYTHONPATH": str(self.root / "src")},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(11)
        )


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return ""


ROWS: dict[str, Callable[[Code], object]] = {
    "top-level entries": lambda c: sum(
        entry.suffix == ".py" or (entry / "__init__.py").exists() for entry in c.package.iterdir()
    ),
    "files": lambda c: len(c.files),
    "lines": lambda c: sum(text.count("\n") for text in c.files.values()),
    f"lines over {LONG_LINE} columns": lambda c: sum(
        len(line) > LONG_LINE for text in c.files.values() for line in text.splitlines()
    ),
    f"files over {LONG_FILE} lines": lambda c: sum(
        text.count("\n") > LONG_FILE for text in c.files.values()
    ),
    f"functions over {LONG_FUNCTION} lines": lambda c: sum(n > LONG_FUNCTION for n in c.lengths()),
    "median function lines": lambda c: median(c.lengths()),
    "class names used twice or more": lambda c: sum(n > 1 for n in c.classes().values()),
    "deferred imports of our own": Code.deferred_imports,
    "functions with a docstring": lambda c: f"{len(c.docstrings()) / len(c.lengths()):.0%}",
    "docstrings that start with a verb": lambda c: f"{c.starting_with_verb():.0%}",
    "house words": Code.house_words,
    "import slipway.cli, CPU s": lambda c: f"{c.import_cpu_s():.3f}",
}


def main() -> None:
    given = [Path(name).resolve() for name in sys.argv[1:]]
    columns = [Code(root) for root in given or [Path(__file__).resolve().parent.parent]]
    for name, measure in ROWS.items():
        print(f"{name:36}" + "".join(f"{measure(code)!s:>12}" for code in columns))


if __name__ == "__main__":
    main()
