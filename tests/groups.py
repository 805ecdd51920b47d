"""Give tests that share a server, or anything else that takes long to start, to one worker.

pytest-xdist has `--dist loadgroup` for that, but the version that we use does not see the groups
with this version of pytest. The first worker writes the groups to a file, which the scheduler in
the main process reads once all workers have collected their tests.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

FILE = "file_of_groups"


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hand out groups of tests, and tests without a group one by one, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any, file: Path) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)
        self._file = file

    @cached_property
    def _groups(self) -> dict[str, str]:
        return dict(json.loads(self._file.read_text()))

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


class Groups:
    """The plugin of the main process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[FILE] = str(self._file)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> GroupScheduling:
        return GroupScheduling(config, log, self._file)


def write_groups(workerinput: dict[str, Any], groups: dict[str, str]) -> None:
    """Write the groups of the tests by their ids, in the worker that comes first."""
    if workerinput["workerid"] == "gw0":
        Path(workerinput[FILE]).write_text(json.dumps(groups))
