"""Ask the questions of `slipway plan init`, in the terminal or on the page, and write the file."""

from collections.abc import Callable, Mapping
from typing import Any

from slipway.errors import SettingsError
from slipway.planner.models import TASKS
from slipway.planner.requirements import Requirements, parsed
from slipway.types import Record


class Asking(Record, frozen=True, kw_only=True):
    """One question. `field` is where its answer goes; `choices` are the allowed answers."""

    field: str
    question: str
    default: str = ""
    choices: tuple[str, ...] = ()
    hint: str = ""


ASKINGS: tuple[Asking, ...] = (
    Asking(field="name", question="What is it called?", default="my-app"),
    Asking(
        field="task",
        question="What is the model for?",
        default="rag",
        choices=tuple(TASKS),
        hint="several, separated by commas, must be met by one model",
    ),
    Asking(
        field="stakes",
        question="Does a wrong answer do harm?",
        default="normal",
        choices=("normal", "high"),
        hint="high: knowledge, rules and a person are then required",
    ),
    Asking(
        field="languages",
        question="Which languages must it speak?",
        default="en",
        hint="codes, such as zh, en",
    ),
    Asking(
        field="input",
        question="What do people send beside text?",
        hint="image, audio, video; empty for text alone",
    ),
    Asking(
        field="context.input_p95",
        question="How many tokens has a long prompt?",
        default="4000",
        hint="95 of 100 have fewer; a page has about 500",
    ),
    Asking(
        field="context.output_p95", question="How many tokens has a long answer?", default="500"
    ),
    Asking(
        field="latency.ttft_p95",
        question="How long may people wait for the first words?",
        default="2s",
        hint="95 of 100 wait less",
    ),
    Asking(
        field="traffic.mean_rps",
        question="How many requests come in a second, on average?",
        default="0.5",
    ),
    Asking(
        field="traffic.peak_rps",
        question="And in the busiest minute?",
        hint="three times as many if left empty",
    ),
    Asking(
        field="budget.month_usd",
        question="How many USD may it cost in a month?",
        hint="empty for no limit",
    ),
    Asking(
        field="privacy.deployment",
        question="Where may requests go?",
        default="any",
        choices=("any", "api", "own"),
        hint="own: only your machines; api: you run none",
    ),
    Asking(
        field="privacy.regions",
        question="In which regions may they be answered?",
        hint="cn, sg, us, eu, jp; empty for anywhere",
    ),
    Asking(field="availability", question="How often must it answer?", default="99.9%"),
    Asking(
        field="knowledge",
        question="Which documents are answers from?",
        hint="folders; empty for none",
    ),
    Asking(
        field="rules",
        question="Which file has fixed answers and what must not be answered?",
        hint="empty for none",
    ),
    Asking(
        field="quality.set",
        question="Which evaluation set are your own questions?",
        hint="a file or a name: slipway eval sets list; empty for none",
    ),
)
_LISTS = ("languages", "input", "privacy.regions", "knowledge", "task")
_NUMBERS = (
    "context.input_p95",
    "context.output_p95",
    "traffic.mean_rps",
    "traffic.peak_rps",
    "budget.month_usd",
)


def tree(answers: Mapping[str, str]) -> dict[str, Any]:
    """Return the answers as the file has them; those that are empty are left out."""
    found: dict[str, Any] = {}
    for asking in ASKINGS:
        text = answers.get(asking.field, "").strip()
        if not text:
            continue
        at, *path = asking.field.split(".")[::-1]
        below = found
        for name in path[::-1]:
            below = below.setdefault(name, {})
        below[at] = _value(asking.field, text)
    return found


def _value(field: str, text: str) -> Any:
    if field in _LISTS:
        words = [word for word in text.replace(",", " ").split() if word]
        return words[0] if field == "task" and len(words) == 1 else words
    if field in _NUMBERS:
        try:
            number = float(text.replace(",", "").replace("$", ""))
        except ValueError:
            return text  # the check names it
        return int(number) if number.is_integer() else number
    return text


def check(answers: Mapping[str, str]) -> str | None:
    """Return what is wrong with these answers, taken together; None if nothing is."""
    try:
        parsed(tree(answers), "")
    except SettingsError as error:
        return error.problems[0].removeprefix(": ")
    return None


def asked(ask: Callable[[Asking], str], complain: Callable[[str], None]) -> dict[str, Any]:
    """Asks each question until its answer fits, by itself and with those before."""
    answers: dict[str, str] = {}
    for asking in ASKINGS:
        while True:
            text = ask(asking)
            problem = check({**answers, asking.field: text}) if text.strip() else None
            if problem is None:
                answers[asking.field] = text
                break
            complain(problem)
    return tree(answers)


def written(raw: Mapping[str, Any]) -> str:
    """Return the requirements as YAML."""
    import yaml

    return yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True)


def complete(answers: Mapping[str, str]) -> tuple[dict[str, Any], Requirements]:
    """Return the tree of all answers, and what it means. Raises SettingsError."""
    raw = tree(answers)
    return raw, parsed(raw, "requirements")


def problems(answers: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with which answer, each taken with those before that can be used."""
    found: dict[str, str] = {}
    good: dict[str, str] = {}
    for asking in ASKINGS:
        text = answers.get(asking.field, "")
        if text.strip() and (problem := check({**good, asking.field: text})) is not None:
            found[asking.field] = problem
        else:
            good[asking.field] = text
    return found
