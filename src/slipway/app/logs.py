"""The server's log: lines of text for people, or of JSON for programs."""

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from slipway.settings import Settings
from slipway.telemetry.redaction import redacted

TEXT_FORMAT = "%(asctime)s %(levelname).1s %(message)s"
WORKER_FORMAT = "%(asctime)s %(levelname).1s worker {}: %(message)s"
CLOCK = "%H:%M:%S"


class JsonLines(logging.Formatter):
    """Writes a message as a line of JSON; keys and addresses in it are removed."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "kind": "message",
            "level": record.levelname.lower(),
            "message": redacted(record.getMessage()),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def begin_log(*, quiet: bool) -> None:
    """Log to the standard error output; `quiet` leaves out what is no warning."""
    logging.basicConfig(
        format=TEXT_FORMAT, datefmt=CLOCK, level=logging.WARNING if quiet else logging.INFO
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def use_format(settings: Settings, worker: int | None = None) -> None:
    """Write the log as the settings want it; `worker` is the number of this process, if there are
    several.
    """
    formatter: logging.Formatter
    if settings.log.format == "json":
        formatter = JsonLines(worker)
    elif worker is not None:
        formatter = logging.Formatter(WORKER_FORMAT.format(worker), CLOCK)
    else:
        return
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
