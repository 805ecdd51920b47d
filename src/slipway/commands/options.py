"""Options that several commands share."""

from pathlib import Path
from typing import Any

import click

from slipway.errors import SettingsError


class NonEmptyPath(click.Path):
    """A path as it was typed; an empty one is refused.

    An unset shell variable must not publish the current folder. Whether the path can be read is
    checked by the code that reads it.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            name = param.opts[0] if param else "path"
            raise SettingsError([f"{name}: it is empty; name a file or a folder, `.` for this one"])
        return super().convert(value, param, ctx)


class WorkerCount(click.ParamType[int]):
    """A number of worker processes."""

    name = "number"
    most = 64  # as `listen.workers` in the settings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            count = int(value)
        except ValueError:
            count = 0
        if 1 <= count <= self.most:
            return count
        raise SettingsError(
            [f"--workers: `{value}` is not a number of workers; write 1 to {self.most}"]
        )


CONFIG = click.option(
    "--config", type=NonEmptyPath(), help="Settings file [default: ./slipway.yaml if it exists]."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PORT = click.IntRange(0, 65535)


def settings_options(command: Any) -> Any:
    """Add the flags that say what to serve, for each command that needs the settings."""
    for option in (
        CONFIG,
        click.option(
            "--docs",
            "docs",
            type=NonEmptyPath(),
            multiple=True,
            help="Folder or file to answer from. Repeatable.",
        ),
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="MODEL",
            help="PROVIDER/MODEL, an address, weights to run here, or a model of the settings file."
            " Repeatable.",
        ),
    )[::-1]:
        command = option(command)
    return command


def counted(count: int, noun: str) -> str:
    """Return `1 vote` or `2 votes`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
