"""Make a plan: read requirements, catalogue and evidence, decide, and write the files."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from slipway.app.loading import load_settings
from slipway.commands.eval_run import RUNS, check_numpy, run_set
from slipway.errors import SettingsError
from slipway.evals import sets
from slipway.evals.summary import summary_of
from slipway.planner import decisions, reports, requirements, settings_file
from slipway.planner.candidacy import LEVELS
from slipway.planner.catalogue import load
from slipway.planner.constraints import Evidence
from slipway.planner.deciding import SHORTLIST, Decision, decide
from slipway.planner.models import Catalogue
from slipway.planner.pages import html
from slipway.settings import Flags
from slipway.types import Record


class Made(Record, frozen=True, kw_only=True):
    """A decision with what it was made of."""

    decision: Decision
    raw: Mapping[str, Any]
    evidence: Mapping[str, Evidence]
    catalogue: Catalogue
    folder: Path

    @property
    def assumed(self) -> list[str]:
        return list(requirements.assumed(self.raw))


def make(file: Path, o: Mapping[str, Any]) -> Made:
    """Raises SettingsError."""
    raw = _raw(file)
    needs = requirements.read(file)
    catalogue = load(o["catalogues"])
    for field, ids in (
        ("candidates", needs.candidates),
        ("exclude", needs.exclude),
        ("serving", tuple(needs.serving)),
    ):
        if unknown := [id_ for id_ in ids if id_ not in catalogue.models]:
            raise SettingsError(
                [
                    (
                        f"{file}: {field}: there is no model `{unknown[0]}`; look for it: slipway "
                        "models search"
                    )
                ]
            )
    for id_, serving in needs.serving.items():
        if serving.machine not in catalogue.machines:
            raise SettingsError(
                [
                    (
                        f"{file}: serving.{id_}.machine: there is no machine `{serving.machine}`; "
                        f"known: {', '.join(catalogue.machines)}"
                    )
                ]
            )
    today = _day(o["today"])
    evidence = evidence_of(o["logs"], catalogue)
    decision = decide(needs, catalogue, today, evidence, file.parent)
    if o["evaluate"]:
        log = _evaluate(decision, needs, o)
        evidence = {**evidence, **evidence_of([log], catalogue)}
        decision = decide(needs, catalogue, today, evidence, file.parent)
    return Made(
        decision=decision, raw=raw, evidence=evidence, catalogue=catalogue, folder=file.parent
    )


def _raw(file: Path) -> dict[str, Any]:
    import yaml

    requirements.read(file)  # what is wrong with it is said there
    raw = yaml.safe_load(file.read_text(encoding="utf-8-sig")) or {}
    return {str(key): _plain(value) for key, value in raw.items()}


def _plain(value: Any) -> Any:
    """Without what JSON does not have."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date | datetime) else value


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError([f"--today: `{text}` is no date; write 2026-11-28"]) from None


def evidence_of(logs: Sequence[Path], catalogue: Catalogue) -> dict[str, Evidence]:
    """Return what the candidates of these logs say of models of the catalogue: those that have
    their id or their name. Raises SettingsError if a log says nothing of any.
    """
    found: dict[str, Evidence] = {}
    if logs:
        check_numpy()
    for log in logs:
        summary = summary_of([log])
        ids = {name: _ids(name, catalogue) for name in summary.candidates}
        if not any(ids.values()):
            raise SettingsError(
                [
                    (
                        f"--evidence: {log}: none of {', '.join(ids)} is a model of the "
                        "catalogue; call candidates by their catalogue names"
                    )
                ]
            )
        for name, each in summary.candidates.items():
            beaten = [
                c.better
                for c in summary.comparisons
                if name in (c.one, c.other) and c.better not in (None, name)
            ]
            evidence = Evidence(
                set=summary.run.set,
                n=each.n,
                score=each.flexible.value,
                low=_number(each.flexible.low, 0.0),
                high=_number(each.flexible.high, 1.0),
                ttft_p95_s=_known(each.ttft_p95.value),
                tpot_p95_s=_known(each.tpot_p95.value),
                request_usd=_known(each.cost.value),
                log=str(log),
                beaten_by=tuple(id_ for better in beaten if better for id_ in ids[better]),
            )
            found |= dict.fromkeys(ids[name], evidence)
    return found


def _ids(name: str, catalogue: Catalogue) -> list[str]:
    if name in catalogue.models:
        return [name]
    return [id_ for id_, model in catalogue.models.items() if model.name.lower() == name.lower()]


def _number(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


# Measuring


def _evaluate(decision: Decision, needs: requirements.Requirements, o: Mapping[str, Any]) -> Path:
    """Runs the operator's set against those who pass and are set up; the log of it."""
    if needs.quality.set is None:
        raise SettingsError(["--evaluate: name your evaluation set under `quality.set`"])
    found = sets.named(needs.quality.set)
    names = _set_up(decision, o["config"])
    if not names:
        wanted = ", ".join(each.model.id for each in decision.accepted[:SHORTLIST])
        raise SettingsError(
            [
                (
                    "--evaluate: none of the models that pass is set up; give some of these an "
                    f"entry under `models:` of the settings: {wanted}"
                )
            ]
        )
    log = RUNS / f"plan-{decision.name}-{decision.today}.jsonl".replace(" ", "-")
    run_set(
        found,
        log,
        models=tuple(names),
        config=o["config"],
        limit=o["limit"],
        budget_usd=o["budget_usd"],
        stop=len(names) > 1,
    )
    return log


def _set_up(decision: Decision, config: Path | None) -> list[str]:
    """Return the models of the settings that pass, by their own name or the provider's."""
    settings = load_settings(Flags(config=config)).settings
    passing = {each.model.id.lower() for each in decision.accepted} | {
        each.model.name.lower() for each in decision.accepted
    }
    return [
        name
        for name, model in settings.models.items()
        if {name.lower(), (model.name or name).lower()} & passing
    ][:SHORTLIST]


# What comes out


def lines(made: Made) -> Iterator[str]:
    return reports.as_text(made.decision, made.assumed)


def write(made: Made, folder: Path) -> dict[str, Path]:
    """Return the report, the decision and, once it is ready, the settings; their paths by what they
    are.
    """
    files = {
        "report": (folder / "report.html", html(made.decision, made.assumed).encode()),
        "decision": (
            folder / "decision.json",
            decisions.written(decisions.recorded(made.decision, made.raw, made.evidence)),
        ),
    }

    def moved(path: str) -> str:
        return Path(os.path.relpath(made.folder / path, folder)).as_posix()

    settings = settings_file.settings_of(made.decision, moved)
    if settings is not None:
        files["settings"] = (folder / "slipway.yaml", settings.encode())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in files.values():
            path.write_bytes(data)
        if settings is None:
            (folder / "slipway.yaml").unlink(
                missing_ok=True
            )  # one of an earlier plan no longer holds
    except OSError as error:
        raise SettingsError(
            [f"--out: {folder} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None
    return {name: path for name, (path, _) in files.items()}


def why(made: Made, id_: str) -> Iterator[str]:
    """Return all of what speaks for or against one model."""
    if id_ not in made.catalogue.models:
        raise SettingsError(
            [f"--why: there is no model `{id_}`; look for it: slipway models search"]
        )
    violation = made.decision.rejected.get(id_)
    if violation is not None:
        yield f"{id_} is rejected. {violation.sentence}"
        return
    each = next(c for c in made.decision.accepted if c.model.id == id_)
    yield (
        f"{id_} passes, and is number {each.rank} of {len(made.decision.accepted)}: "
        f"{LEVELS[each.level]}; quality: {reports.quality(each)}"
    )


def field_lines() -> Iterator[str]:
    for name, default, meaning in requirements.fields():
        yield f"{name:36} {default:28} {meaning}"
