"""What shows people how answers went: traces, spans for a collector, and the access log."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slipway.settings import OtlpSettings, Settings
from slipway.telemetry.access_log import AccessLog
from slipway.telemetry.otlp_export import OtlpExporter
from slipway.telemetry.redaction import redactor
from slipway.telemetry.traces import Traces
from slipway.types import AnswerDone

Keep = Callable[[Any], None]
Count = Callable[[str, tuple[str, ...], int], None]  # (metric, labels, by)


class Observing:
    """Owns the traces in `folder`, and what gets their records, as the settings in force want it."""

    def __init__(self, folder: Path, settings: Settings, count: Count) -> None:
        """`count` counts what was lost on the way."""
        self._count = count
        kept = settings.traces
        self.traces = Traces(folder, kept.keep, kept.at_most_bytes)
        self.traces.on_lost = lambda lost: count("traces_lost", (), lost)
        self._otlp: OtlpSettings | None = settings.otlp
        self._exporter = self._new_exporter()
        self._is_running = False
        self.access = self._new_log(settings)

    def _new_log(self, settings: Settings) -> AccessLog | None:
        if settings.log.format != "json":
            return None
        return AccessLog(
            content=settings.log.content,
            redact=redactor(secrets_of(settings)),
            on_lost=lambda lost: self._count("log_lost", (), lost),
        )

    def queues(self, kind: type) -> tuple[Keep, ...]:
        """Return what keeps traced records of a kind, with their time, until a thread writes them."""
        if kind is AnswerDone and self.access is not None:
            return (self.traces.keep, self.access.keep)
        return (self.traces.keep,)

    def apply(self, settings: Settings) -> None:
        """Go on as other settings want it. Blocks for a moment if the collector is another one."""
        self.traces.limit(settings.traces.keep, settings.traces.at_most_bytes)
        if settings.otlp != self._otlp:
            self._otlp, before = settings.otlp, self._exporter
            self._exporter = self._new_exporter()
            if self._is_running and self._exporter is not None:
                self._exporter.start()
            if before is not None:
                before.close()

    def _new_exporter(self) -> OtlpExporter | None:
        otlp = self._otlp
        if otlp is None:
            self.traces.takers = []
            return None
        exporter = OtlpExporter(
            otlp.endpoint,
            otlp.headers,
            lambda dropped: self._count("otlp_dropped", (), dropped),
        )
        self.traces.takers = [exporter.take]
        return exporter

    def start(self) -> None:
        self._is_running = True
        self.traces.start()
        if self.access is not None:
            self.access.start()
        if self._exporter is not None:
            self._exporter.start()

    def close(self) -> None:
        """Write and send what waits, for a moment. Blocks."""
        self.traces.close()
        if self.access is not None:
            self.access.close()
        if self._exporter is not None:
            self._exporter.close()


def secrets_of(settings: Settings) -> set[str]:
    """Return the keys and passwords of the settings, which no log may hold."""
    found = {model.api_key for model in settings.models.values()}
    found |= {key.key for key in settings.keys}
    if settings.login is not None and settings.login.oidc is not None:
        found.add(settings.login.oidc.client_secret)
    if settings.otlp is not None:
        found |= set(settings.otlp.headers.values())
    return {secret for secret in found if secret}
