"""A file that says who may read it is kept to them, however that is written; or it is left out, and
named with its reason.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge_base import KnowledgeBase
from slipway.knowledge.parsing import Parser
from slipway.types import Asker

STAFF, HR = Asker(owner="s"), Asker(owner="h", groups=frozenset({"hr"}))
SECRET = "# Salaries\n\nThe tariff is 4,711 EUR.\n"
PAGE = "<html><body><h1>Salaries</h1><p>The tariff is 4,711 EUR.</p></body></html>"

UNDERSTOOD = {
    "yaml.md": f"---\naccess: [hr]\n---\n{SECRET}",
    "toml.md": f'+++\naccess = ["hr"]\n+++\n{SECRET}',
    "json.md": f'{{"title": "Pay", "access": ["hr"]}}\n\n{SECRET}',
    "json-marks.md": f';;;\n"access": ["hr"]\n;;;\n{SECRET}'.replace(
        '"access"', '{"access"'
    ).replace("]\n;", "]}\n;"),
    "comment-behind.md": f"--- # ours\naccess: [hr]\n--- # end\n{SECRET}",
    "kind-behind.md": f"---yaml\naccess: [hr]\n---\n{SECRET}",
    "equals-toml.md": f'---\naccess = ["hr"]\n---\n{SECRET}',
    "comment-before.md": f"<!-- Copyright 2026 -->\n\n---\naccess: [hr]\n---\n{SECRET}",
    "blank-before.md": f"\n\n---\naccess: [hr]\n---\n{SECRET}",
    "bom.md": f"\ufeff---\naccess: [hr]\n---\n{SECRET}",
    "crlf.md": f"---\naccess: [hr]\n---\n{SECRET}".replace("\n", "\r\n"),
    "dots.md": f"---\naccess: [hr]\n...\n{SECRET}",
    "longer-marks.md": f"-----\naccess: [hr]\n-----\n{SECRET}",
    "nested.md": f"---\npage:\n  access: [hr]\n---\n{SECRET}",
    "deep.md": f"---\na: {{b: [{{access: [hr]}}]}}\n---\n{SECRET}",
    "nested-toml.md": f'+++\n[extra]\naccess = ["hr"]\n+++\n{SECRET}',
    "dotted.md": f'+++\nextra.access = ["hr"]\n+++\n{SECRET}',
    "nested-and-open.md": f"---\naccess: ['*']\npage: {{access: [hr]}}\n---\n{SECRET}",
    "two-spellings.md": f"---\nAccess: [hr]\naccess: ['*']\n---\n{SECRET}",
    "both-names.md": f"---\naccess: ['*']\ngroups: [hr]\n---\n{SECRET}",
    "list.md": f"---\naccess:\n  - hr\n---\n{SECRET}",
    "words.md": f"---\naccess: hr\n---\n{SECRET}",
    "mdx-comment.mdx": f"{{/* ours */}}\n---\naccess: [hr]\n---\n{SECRET}",
    "a.mdx": f"---\naccess: [hr]\n---\nimport A from 'b';\n\n{SECRET}",
    "a.txt": f"---\naccess: [hr]\n---\n{SECRET}",
    "toml.txt": f'+++\naccess = ["hr"]\n+++\n{SECRET}',
    "a.rst": f"---\naccess: [hr]\n---\n{SECRET}",
    "fields.rst": ":author: us\n:access: hr\n\nSalaries\n========\n\nThe tariff is 4,711 EUR.\n",
    "a.html": f"---\naccess: [hr]\n---\n{PAGE}",
    "comment.html": f"<!-- ours -->\n---\naccess: [hr]\n---\n{PAGE}",
    "meta.html": f'<head><meta name="access" content="hr, board"></head>{PAGE}',
    "meta-order.htm": f"<head><META CONTENT=hr NAME=Access></head>{PAGE}",
}

LEFT_OUT = {
    "twice.md": f"---\naccess: [hr]\naccess: ['*']\n---\n{SECRET}",
    "twice-toml.md": f'+++\naccess = ["hr"]\naccess = ["*"]\n+++\n{SECRET}',
    "twice-json.md": f'{{"access": ["hr"], "access": ["*"]}}\n\n{SECRET}',
    "two-blocks.md": f"---\ntitle: Pay\n---\n---\naccess: [hr]\n---\n{SECRET}",
    "equals.md": f"---\naccess = hr\n---\n{SECRET}",
    "mixed.md": f"---\ntitle: Pay\n  access = [hr]\n---\n{SECRET}",
    "in-a-text.md": f"---\ntitle: |\n  Pay\n  access: [hr]\n---\n{SECRET}",
    "full-width.md": f"---\naccess：[hr]\n---\n{SECRET}",
    "open.md": f"---\naccess: [hr]\n\n{SECRET}",
    "open-toml.md": f'+++\naccess = ["hr"]\n\n{SECRET}',
    "bad-yaml.md": f"---\naccess: [hr\n---\n{SECRET}",
    "bad-toml.md": f"+++\naccess = [hr]\n+++\n{SECRET}",
    "tagged.md": f"---\naccess: !ours [hr]\n---\n{SECRET}",
    "unfenced.md": f"title: Pay\naccess: [hr]\n\n{SECRET}",
    "behind-text.md": f"# Pay\n\n---\naccess: [hr]\n---\n{SECRET}",
    "in-comment.md": f"<!--\naccess: [hr]\n-->\n{SECRET}",
    "roles.md": f"---\naccess: {{roles: [hr]}}\n---\n{SECRET}",
    "null.md": f"---\naccess:\n---\n{SECRET}",
    "many.md": "---\naccess: [hr]\nx: [" + "1, " * 20_000 + f"1]\n---\n{SECRET}",
    "deep.md": "---\naccess: [hr]\nx: " + "[" * 2_000 + "]" * 2_000 + f"\n---\n{SECRET}",
    "open.txt": f"---\naccess: [hr]\n\n{SECRET}",
    "unfenced.txt": f"access: [hr]\n\n{SECRET}",
    "open.html": f"---\naccess: [hr]\n\n{PAGE}",
    "comment.html": f"<!--\naccess: [hr]\n-->\n{PAGE}",
    "open.mdx": f"---\naccess: [hr]\n\n{SECRET}",
}

OPEN = {
    "none.md": SECRET,
    "title.md": f"---\ntitle: Pay\n---\n{SECRET}",
    "commented.md": f"---\ntitle: Pay\n# access: [hr]\n---\n{SECRET}",
    "fence.md": f"# Pay\n\n```yaml\n---\naccess: [hr]\n---\n```\n\n{SECRET}",
    "prose.md": f"Access to the canteen: by the main gate.\n\n{SECRET}",
    "ruler.txt": f"---\nTwo groups: ours and theirs.\n---\n{SECRET}",
    "speaks.html": PAGE.replace("tariff", "access: free; tariff"),
    "code.rst": f"Pay\n===\n\n::\n\n    ---\n    access: [hr]\n    ---\n\n{SECRET}",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    folder = tmp_path_factory.mktemp("docs")
    for kind, files in (("understood", UNDERSTOOD), ("left-out", LEFT_OUT), ("open", OPEN)):
        (folder / kind).mkdir()
        for name, text in files.items():
            (folder / kind / name).write_bytes(text.encode())
    found = KnowledgeBase([folder])
    found.build()
    yield found
    found.knowledge.synchronizer.collection.release()


def reads(base: KnowledgeBase, asker: Asker) -> set[str]:
    return {doc.path for doc in base.knowledge.documents(asker)}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_front_matter_that_says_who_may_read_is_understood(base: KnowledgeBase, name: str) -> None:
    path = f"understood/{name}"
    assert path not in base.reasons
    assert path not in reads(base, STAFF)
    assert path in reads(base, HR)
    found = {hit.passage.path: hit.passage.text for hit in base.search("tariff", 100, HR)}
    assert "4,711" in found[path]
    assert "hr" not in found[path].split()


@pytest.mark.parametrize("name", LEFT_OUT)
def test_front_matter_that_is_not_understood_leaves_the_file_out_and_names_it(
    base: KnowledgeBase, name: str
) -> None:
    path = f"left-out/{name}"
    assert path not in reads(base, STAFF)
    assert path not in reads(base, HR)
    assert "read" in base.reasons[path] or "`access`" in base.reasons[path]


@pytest.mark.parametrize("name", OPEN)
def test_what_only_speaks_of_access_is_read_by_all(base: KnowledgeBase, name: str) -> None:
    assert f"open/{name}" in reads(base, STAFF), base.reasons


def test_nothing_of_those_files_is_found_by_others(base: KnowledgeBase) -> None:
    found = {hit.passage.path.split("/")[0] for hit in base.search("tariff 4,711", 200, STAFF)}
    assert found == {"open"}


def test_a_notebook_is_kept_to_those_that_its_first_cell_names(tmp_path: Path) -> None:
    cell = '{"cell_type": "raw", "metadata": {}, "source": ["---\\n", "access: [hr]\\n", "---"]}'
    text = '{"cell_type": "markdown", "metadata": {}, "source": "# Pay\\n\\nThe tariff."}'
    book = f'{{"cells": [{cell}, {text}], "metadata": {{}}, "nbformat": 4, "nbformat_minor": 5}}'
    assert Parser(30.0).parse(book.encode(), "a.ipynb").meta == {"access": ["hr"]}
