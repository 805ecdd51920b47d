"""Read what a business needs from a YAML file or from answers to questions. Every field is
optional; the defaults used are listed as assumed.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from slipway.errors import SettingsError
from slipway.planner.models import MODALITIES, TASKS
from slipway.settings.values import seconds

Unknown = Literal["languages", "context", "licence", "regions", "latency", "price", "quality"]
_DURATION = re.compile(r"^\s*\d")
RISKY = ("law", "medicine")  # tasks that must not be answered from a model's memory alone


class RequirementPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the requirements."""


class Context(RequirementPart, frozen=True, kw_only=True):
    input_p95: Annotated[int, Meta(ge=1, description="tokens of 95 of 100 prompts, at most")] = 2000
    output_p95: Annotated[int, Meta(ge=1, description="tokens of 95 of 100 answers, at most")] = 500


class Latency(RequirementPart, frozen=True, kw_only=True):
    ttft_p95: Annotated[
        float | None,
        Meta(description="time to the first token of 95 of 100 answers, such as `1.5s`"),
    ] = None
    tpot_p95: Annotated[
        float | None,
        Meta(description="time for each further token of 95 of 100 answers, such as `50ms`"),
    ] = None


class Traffic(RequirementPart, frozen=True, kw_only=True):
    mean_rps: Annotated[
        float, Meta(gt=0, description="requests a second, on average over a month")
    ] = 1.0
    peak_rps: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="requests a second in the busiest minute; three times the mean if left out",
        ),
    ] = None
    input_tokens: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="tokens of a prompt on average; half of `context.input_p95` if left out",
        ),
    ] = None
    output_tokens: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="tokens of an answer on average; half of `context.output_p95` if left out",
        ),
    ] = None
    trace: Annotated[
        str | None,
        Meta(
            description=(
                "CSV of real requests, with time, input and output tokens; its figures count "
                "before those above"
            )
        ),
    ] = None
    interruptible: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of the requests that may wait for minutes, such as batches",
        ),
    ] = 0.0


class Budget(RequirementPart, frozen=True, kw_only=True):
    month_usd: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="USD a month, at most")
    ] = None
    thousand_usd: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="USD for a thousand requests, at most"),
    ] = None


class Privacy(RequirementPart, frozen=True, kw_only=True):
    deployment: Annotated[
        Literal["any", "api", "own"],
        Meta(description="`own`: requests may not leave your machines; `api`: you run none"),
    ] = "any"
    regions: Annotated[
        tuple[str, ...],
        Meta(
            description="where requests may be answered: cn, sg, us, eu, jp; anywhere if left out"
        ),
    ] = ()


class Licence(RequirementPart, frozen=True, kw_only=True):
    open_weights: Annotated[bool, Meta(description="only models whose weights you could have")] = (
        False
    )
    commercial: Annotated[bool, Meta(description="only models that may be used for business")] = (
        True
    )


class Quality(RequirementPart, frozen=True, kw_only=True):
    set: Annotated[str | None, Meta(description="your evaluation set: slipway eval sets list")] = (
        None
    )
    least: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="the score on it that a model must reach"),
    ] = None


class Serving(RequirementPart, frozen=True, kw_only=True):
    """How one machine of your own serves a model: measured, by slipway eval run against it."""

    machine: Annotated[str, Meta(description="a machine of the catalogue")]
    ttft_p95: Annotated[float, Meta(description="time to the first token, measured")]
    tpot_p95: Annotated[float, Meta(description="time for each further token, measured")]
    service: Annotated[
        float, Meta(description="time that an average request holds a place, measured")
    ]
    at_once: Annotated[int, Meta(ge=1, description="requests at once, while these times hold")]


class Assumptions(RequirementPart, frozen=True, kw_only=True):
    """What nobody has measured. Change what you know better."""

    utilisation: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="share of the places that is filled at the peak; the rest takes bursts",
        ),
    ] = 0.7
    spot_discount: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description=(
                "how much less an interruptible machine costs, if the catalogue has no price"
            ),
        ),
    ] = 0.6
    spot_availability: Annotated[
        float, Meta(gt=0, le=1, description="share of the time that such a machine can be had")
    ] = 0.9
    zone_availability: Annotated[
        float, Meta(gt=0, lt=1, description="share of the time that one zone answers")
    ] = 0.995
    traffic_error: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="how far the month's traffic may be from what is planned, both ways",
        ),
    ] = 0.2
    at_once: Annotated[
        int, Meta(ge=1, description="requests at once on a machine that nobody has measured")
    ] = 16
    prompt_tokens_a_second: Annotated[
        float, Meta(gt=0, description="prompt tokens a second that such a machine reads")
    ] = 5000.0


class Requirements(RequirementPart, frozen=True, kw_only=True):
    name: Annotated[str, Meta(description="what the plan is called")] = "plan"
    task: Annotated[
        str | tuple[str, ...],
        Meta(description="what models are for; several must be met by one model"),
    ] = "qa"
    stakes: Annotated[
        Literal["normal", "high"],
        Meta(
            description=(
                "`high`: a wrong answer does harm; knowledge, rules and a person are then required"
            )
        ),
    ] = "normal"
    languages: Annotated[
        tuple[str, ...], Meta(description="languages that it must speak, such as zh, en")
    ] = ("en",)
    input: Annotated[
        tuple[str, ...], Meta(description="what people send beside text: image, audio, video")
    ] = ()
    output: Annotated[
        tuple[str, ...], Meta(description="what they get beside what the task gives")
    ] = ()
    context: Annotated[Context, Meta(description="how long prompts and answers are")] = Context()
    latency: Annotated[Latency, Meta(description="how long people wait")] = Latency()
    traffic: Annotated[Traffic, Meta(description="how many ask")] = Traffic()
    budget: Annotated[Budget, Meta(description="what it may cost")] = Budget()
    privacy: Annotated[Privacy, Meta(description="where requests may go")] = Privacy()
    licence: Annotated[Licence, Meta(description="what the models' licences must allow")] = (
        Licence()
    )
    availability: Annotated[
        float, Meta(gt=0, lt=1, description="share of the time that it must answer, such as 99.9%")
    ] = 0.99
    quality: Annotated[Quality, Meta(description="how good it must be, on your own set")] = (
        Quality()
    )
    knowledge: Annotated[tuple[str, ...], Meta(description="documents to answer from")] = ()
    rules: Annotated[
        str | None, Meta(description="file of fixed answers and of what must not be answered")
    ] = None
    candidates: Annotated[
        tuple[str, ...], Meta(description="models to look at, and no others, by their ids")
    ] = ()
    exclude: Annotated[tuple[str, ...], Meta(description="models not to look at")] = ()
    allow_unknown: Annotated[
        tuple[Unknown, ...],
        Meta(
            description=(
                "facts that may be unknown; a model of which one is not known fails otherwise"
            )
        ),
    ] = ("latency", "quality", "licence")
    serving: Annotated[
        dict[str, Serving],
        Meta(description="measured service of open weights on your machines, by the model's id"),
    ] = {}
    assumptions: Annotated[
        Assumptions, Meta(description="what is assumed, where nobody has measured")
    ] = Assumptions()

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else self.task

    @property
    def risky(self) -> bool:
        return self.stakes == "high" or any(task in RISKY for task in self.tasks)


DURATIONS = (
    "latency.ttft_p95",
    "latency.tpot_p95",
    "serving.*.ttft_p95",
    "serving.*.tpot_p95",
    "serving.*.service",
)
SHARES = ("availability", "quality.least", "traffic.interruptible", "assumptions.*")


def read(file: Path) -> Requirements:
    """Raises SettingsError that names the field and what it should be."""
    import yaml

    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError([f"{file} cannot be read: {why.lower()}"]) from None
    except yaml.YAMLError as error:
        raise SettingsError([f"{file} is no YAML: {' '.join(str(error).split())}"]) from None
    return parsed(raw or {}, str(file))


def parsed(raw: Any, where: str) -> Requirements:
    """Checked requirements of plain data. Raises SettingsError."""
    if not isinstance(raw, dict):
        raise SettingsError([f"{where}: it must be a table of fields, such as `task: rag`"])
    try:
        plain = _converted(raw, "", where)
        found = msgspec.convert(plain, Requirements)
    except msgspec.ValidationError as error:
        raise SettingsError([f"{where}: {_sentence(str(error))}"]) from None
    if problems := [f"{where}: {each}" for each in _problems(found)]:
        raise SettingsError(problems)
    return found


def _converted(raw: Any, path: str, where: str) -> Any:
    """Durations in seconds, percentages as shares, and one word for a list of one."""
    if isinstance(raw, Mapping):
        return {
            key: _converted(value, f"{path}.{key}".strip("."), where) for key, value in raw.items()
        }
    general = re.sub(r"^serving\.[^.]+(?:\.[^.]+)*\.", "serving.*.", path)
    if general in DURATIONS and isinstance(raw, str | int | float) and not isinstance(raw, bool):
        try:
            return seconds(raw)
        except ValueError as error:
            raise SettingsError([f"{where}: {path}: {error}"]) from None
    if (
        isinstance(raw, str)
        and raw.strip().endswith("%")
        and (path in SHARES or path.startswith("assumptions."))
    ):
        try:
            return float(raw.strip()[:-1]) / 100
        except ValueError:
            raise SettingsError(
                [f"{where}: {path}: `{raw}` is no percentage; write `99.9%`"]
            ) from None
    if isinstance(raw, str) and path in (
        "languages",
        "input",
        "output",
        "privacy.regions",
        "knowledge",
        "candidates",
        "exclude",
        "allow_unknown",
    ):
        return [each for each in re.split(r"[\s,]+", raw) if each]
    return raw


def _sentence(error: str) -> str:
    """msgspec's sentence with the field first."""
    what, _, at = error.partition(" - at `$")
    unknown = re.match(r"Object contains unknown field `(.+)`", what)
    if unknown:
        part = at.strip(".`")
        return (
            f"{part}{'.' if part else ''}{unknown[1]}: there is no such field; see: slipway plan "
            "--fields"
        )
    field = at.strip(".`")
    if what.startswith("Invalid enum value") and (known := _choices(field)):
        what = f"there is no {what.removeprefix('Invalid enum value ')}; known: {', '.join(known)}"
    return f"{field or 'file'}: {what[:1].lower()}{what[1:]}"


def _choices(path: str) -> tuple[str, ...]:
    """Return the words that a field takes, if it takes only some."""
    at: Any = Requirements
    for name in re.sub(r"\[.*?\]", "", path).split("."):
        field = next((f for f in msgspec.structs.fields(at) if f.name == name), None)
        if field is None:
            return ()
        at = getattr(field.type, "__origin__", field.type)
    inner = at.__args__[0] if getattr(at, "__origin__", None) is tuple else at
    return tuple(map(str, getattr(inner, "__args__", ())))


# beyond these, numbers are typing mistakes, and costs of them say nothing
_MOST = {
    "mean_rps": 1_000_000,
    "peak_rps": 1_000_000,
    "input_tokens": 10_000_000,
    "output_tokens": 10_000_000,
}


def _traffic_problems(traffic: Traffic) -> Iterator[str]:
    for name, most in _MOST.items():
        number = getattr(traffic, name)
        if number is not None and not number <= most:
            yield f"traffic.{name}: {number:g} is more than any service has; write at most {most:,}"
    if traffic.peak_rps is not None and traffic.peak_rps < traffic.mean_rps:
        yield (
            f"traffic.peak_rps: {traffic.peak_rps:g} is less than traffic.mean_rps, "
            f"{traffic.mean_rps:g}"
        )


def _problems(found: Requirements) -> Iterator[str]:
    for task in found.tasks:
        if task not in TASKS:
            yield f"task: there is no `{task}`; known: {', '.join(TASKS)}"
    if not found.tasks:
        yield f"task: it names none; known: {', '.join(TASKS)}"
    for field in ("input", "output"):
        if bad := [each for each in getattr(found, field) if each not in MODALITIES]:
            yield f"{field}: there is no `{bad[0]}`; known: {', '.join(MODALITIES)}"
    if bad := [each for each in found.languages if not re.fullmatch(r"[a-z]{2,3}", each)]:
        yield f"languages: `{bad[0]}` is no language code; write zh, en, de …"
    yield from _traffic_problems(found.traffic)
    if found.quality.least is not None and found.quality.set is None:
        yield "quality.least: it needs `quality.set`, the evaluation set on which it is measured"
    if both := set(found.candidates) & set(found.exclude):
        yield f"exclude: `{min(both)}` is among `candidates` too"


def fields(
    part: type[RequirementPart] = Requirements, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Return each field with its default and its meaning, for people and for the page."""
    for field in msgspec.structs.fields(part):
        meta = next(
            (m for m in getattr(field.type, "__metadata__", ()) if isinstance(m, Meta)), None
        )
        inner = getattr(field.type, "__origin__", field.type)
        if isinstance(inner, type) and issubclass(inner, RequirementPart):
            yield from fields(inner, f"{prefix}{field.name}.")
            continue
        default = "" if field.default is msgspec.NODEFAULT else field.default
        yield f"{prefix}{field.name}", _shown(default), (meta.description or "") if meta else ""


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ", ".join(map(str, default)) or "none"
    return "none" if default in (None, "", {}) else str(default)


def assumed(
    raw: Mapping[str, Any], part: type[RequirementPart] = Requirements, prefix: str = ""
) -> Iterator[str]:
    """Return the fields that a file leaves out, whose defaults count."""
    for field in msgspec.structs.fields(part):
        inner = getattr(field.type, "__origin__", field.type)
        if isinstance(inner, type) and issubclass(inner, RequirementPart):
            below = raw.get(field.name)
            yield from assumed(
                below if isinstance(below, Mapping) else {}, inner, f"{prefix}{field.name}."
            )
        elif field.name not in raw and field.default not in (None, (), {}, msgspec.NODEFAULT):
            yield f"{prefix}{field.name}: {_shown(field.default)}"
