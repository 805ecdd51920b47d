"""Access rules match a path as a person writes it, in every layout of folders; and a rule that
matches no document is named, and closes rather than opens.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from knowledge_base import KnowledgeBase
from processes import run, serving
from slipway.knowledge.access import Access
from slipway.settings import AccessRule
from slipway.types import Asker
from test_reload import Edited

STAFF, HR = Asker(owner="s"), Asker(owner="h", groups=frozenset({"hr"}))
STAFF_KEY, HR_KEY = {"authorization": "Bearer sw-staff-key"}, {"authorization": "Bearer sw-hr-key"}
PAGES = {
    "team/handbook/salaries.md": "# Salaries\n\nThe tariff is 4,711 EUR.",
    "team/handbook/hr/pay.md": "# Pay\n\nThe tariff is 815 EUR.",
    "team/handbook/leave.md": "# Leave\n\nLeave has 30 days.",
    "other/menu.md": "# Menu\n\nSoup on Monday.",
}


def write(folder: Path, pages: dict[str, str]) -> None:
    for path, text in pages.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


class Estate:
    """The pages on disk, read once for each layout of folders and then asked under any rules."""

    def __init__(self, folder: Path, pages: dict[str, str]) -> None:
        self.folder, self._rooms = folder, dict[str, KnowledgeBase]()
        write(folder, pages)
        (folder / "link").symlink_to(folder / "team" / "handbook")

    def reads(
        self, sources: list[str], rules: list[tuple[str, list[str]]], asker: Asker = STAFF
    ) -> set[str]:
        """Return the names of the files that the asker may read."""
        paths, name = [self.folder / each for each in sources], " ".join(sources)
        if name not in self._rooms:
            self._rooms[name] = KnowledgeBase(paths)
            self._rooms[name].build()
        made = tuple(AccessRule(path=path, groups=tuple(groups)) for path, groups in rules)
        filtered = self._rooms[name].knowledge.with_access(Access(lambda: made, paths, self.folder))
        return {Path(doc.path).name for doc in filtered.documents(asker)}


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Estate:
    return Estate(tmp_path_factory.mktemp("estate"), PAGES)


LAYOUTS = [
    ["team/handbook"],
    ["./team/handbook/"],
    ["team/handbook", "other"],
    ["team/handbook/salaries.md", "team/handbook/leave.md"],
    ["other/../team/handbook"],
    ["link"],
]


@pytest.mark.parametrize("sources", LAYOUTS, ids=" ".join)
@pytest.mark.parametrize(
    "path",
    [
        "salaries.md",
        "handbook/salaries.md",
        "./handbook/salaries.md",
        "/handbook/salaries.md",
        "handbook//salaries.md",
        "handbook\\salaries.md",
        "handbook/hr/../salaries.md",
        "team/handbook/salaries.md",
        "./team/handbook/salaries.md",
        "{}/team/handbook/salaries.md",
        "**/salaries.md",
        "handbook/salaries*",
        "team/**/salaries.md",
    ],
)
def test_a_rule_matches_the_path_as_a_person_writes_it(
    estate: Estate, sources: list[str], path: str
) -> None:
    rules = [(path.format(estate.folder), ["hr"])]
    assert {"salaries.md", "leave.md"} <= estate.reads(sources, rules, HR)
    found = estate.reads(sources, rules)
    assert "salaries.md" not in found
    assert "leave.md" in found


def test_a_folder_rule_matches_by_the_source_folder_as_well(estate: Estate) -> None:
    for path in ("handbook/hr", "hr/**", "handbook/hr/**", "team/handbook/hr"):
        assert estate.reads(["team/handbook"], [(path, ["hr"])]) == {"salaries.md", "leave.md"}
    for path in ("handbook", "handbook/**", "team", "../{}/team/**"):
        rules = [(path.format(estate.folder.name), ["hr"])]
        assert estate.reads(["team/handbook", "other"], rules) == {"menu.md"}


def test_the_first_rule_that_matches_opens_by_any_name_too(estate: Estate) -> None:
    rules = [("handbook/leave.md", ["*"]), ("**", ["hr"])]
    for sources in (["team/handbook"], ["team/handbook", "other"]):
        assert estate.reads(sources, rules) == {"leave.md"}


def test_a_name_that_may_mean_a_folder_inside_never_opens_the_whole(tmp_path: Path) -> None:
    """`handbook/**` is all of `handbook`, or the folder `handbook` in it: it opens the inner one."""
    estate = Estate(tmp_path, {**PAGES, "team/handbook/handbook/open.md": "# Open\n\nRead me."})
    rules = [("handbook/**", ["*"]), ("**", ["hr"])]
    assert estate.reads(["team/handbook"], rules) == {"open.md"}
    closing = [("handbook/**", ["hr"])]
    assert estate.reads(["team/handbook"], closing) == set()


@pytest.mark.parametrize(
    ("path", "closed"),
    [
        ("hanbook/salaries.md", {"salaries.md"}),
        ("handbook/Salaries.md", {"salaries.md"}),
        ("handbook/salary.md", {"salaries.md"}),
        ("salaries.pdf", {"salaries.md"}),
        ("finance/salaries.md", {"salaries.md"}),
        ("HR/**", {"pay.md"}),
        ("wages.md", {"salaries.md", "pay.md", "leave.md"}),  # it may mean any of them
        ("drafts/**", set()),  # a folder may be empty
        ("*.pdf", set()),
        ("uploads/plan.md", set()),  # it may be sent yet
    ],
)
def test_a_rule_that_matches_nothing_closes_rather_than_opens(
    estate: Estate, path: str, closed: set[str]
) -> None:
    everything = {"salaries.md", "pay.md", "leave.md"}
    assert estate.reads(["team/handbook"], [(path, ["hr"])]) == everything - closed
    assert estate.reads(["team/handbook"], [(path, ["hr"])], HR) == everything
    later = [(path, ["hr"]), ("**", ["*"])]
    assert estate.reads(["team/handbook"], later) == everything - closed


def test_a_rule_for_a_file_that_is_no_document_closes_nothing(tmp_path: Path) -> None:
    estate = Estate(tmp_path, {**PAGES, "team/handbook/logo.svg": "<svg/>"})
    for path in ("logo.svg", "handbook/logo.svg"):
        assert len(estate.reads(["team/handbook"], [(path, ["hr"])])) == 3


def settings(*sources: str, **more: Any) -> dict[str, Any]:
    app = {
        "knowledge": list(sources),
        "access": [
            {"path": "handbook/salaries.md", "groups": ["hr"]},
            {"path": "handbook/salary-bands.md", "groups": ["hr"]},
            {"path": "drafts/**", "groups": []},
        ],
    }
    keys = [{"key": "sw-staff-key"}, {"key": "sw-hr-key", "groups": ["hr"]}]
    return {"apps": {"docs": app}, "keys": keys, "embedding": "none", **more}


def test_check_ingest_and_the_start_name_each_rule_that_matches_no_document(
    tmp_path: Path,
) -> None:
    write(tmp_path, PAGES)
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(settings("team/handbook")))
    expected = "apps.docs.access: `handbook/salary-bands.md` matches no document; until it does"
    with serving(tmp_path, "--config", str(file)) as server:
        assert expected in server.log
        assert "apps.docs.access: `drafts/**` matches no document" in server.log
        assert "`handbook/salaries.md`" not in server.log
        said = run("ingest", "--config", str(file), cwd=tmp_path)
        assert expected in said.stderr
    said = run("check", "--config", str(file), cwd=tmp_path)
    assert expected in said.stdout
    assert "`drafts/**`" in said.stdout


def test_a_rule_holds_when_a_folder_is_dropped_by_a_reload(tmp_path: Path) -> None:
    write(tmp_path, PAGES)
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(settings("team/handbook", "other")))
    with serving(tmp_path, "--config", str(file)) as server:
        edited = Edited(server, file)
        for _ in range(2):
            for key, may_read in ((STAFF_KEY, False), (HR_KEY, True)):
                reply = server.post("/v1/answers", {"question": "tariff of salaries"}, headers=key)
                assert ("4,711" in reply.text) is may_read
                listed = server.get("/v1/documents", headers=key).text
                assert ("salaries.md" in listed) is may_read
            edited.apply(settings("team/handbook"))
