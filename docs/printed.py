"""Prints into the pages what code knows best: `python docs/printed.py`; with `--check` it names the
pages that are stale, and exits 1.

A part is between `<!-- printed: NAME -->` and `<!-- end printed -->`; `PARTS` says what NAME
prints.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import msgspec

from slipway import errors, types
from slipway.app.building import FAST, build
from slipway.catalogue import CATALOGUE, LANGUAGES, RETRY, SOON
from slipway.cli import main
from slipway.feedback import REASONS
from slipway.providers.endpoints import ENDPOINTS
from slipway.providers.mock import FAULTS
from slipway.settings import Endpoint, Settings
from slipway.settings.reading import bare_type, branches, fields_of, is_duration
from slipway.settings.values import UNITS, Branch
from slipway.telemetry.aliases import Alias
from slipway.telemetry.compatible import PRODUCTS
from slipway.telemetry.definitions import METRICS, MetricDefinition
from slipway.web.event_stream import EVENT_NAMES
from slipway.web.openapi import described

DOCS = Path(__file__).resolve().parent
LONGEST = 1400  # characters of a table
PART = re.compile(r"(<!-- printed: (\w+) -->\n).*?(<!-- end printed -->)", re.DOTALL)

UNLISTED = {"/favicon.ico", "/static/{name}", "/static/{name:path}"}  # the browser's business
MEANINGS = {  # of errors that the tree in errors.py draws without words, or that stand elsewhere
    "method_not_allowed": "this path does not take this method",
    "model_not_found": "no app, route or model of that name",
    "head_too_large": "the request's head is over the limit",
}
SETTINGS = {  # what each part of the file is about, as a sentence that introduces its fields
    "listen": "`listen` says where and to whom the server listens",
    "limits": "`limits` says how much one client may ask of the server",
    "cache": "`cache` limits what kept answers take, and keeps those of bare models",
    "log": "`log` says what is logged of each request",
    "otlp": "`otlp` sends spans to a collector",
    "metrics": "`metrics` says how much is measured",
    "traces": "`traces` says how long it is known what happened to each answer",
    "models.NAME.cache": "`cache` of a model says which of its answers are kept",
    "apps.NAME.cache": "`cache` of an app says which of its answers are kept",
    "apps.NAME.cache.semantic": "`semantic` of an app's `cache` serves the answers of similar questions, once they have earned it",
    "models.NAME.cache.semantic": "`semantic` is for apps only",
    "models.NAME": "`models` names the models, each with these fields",
    "models.NAME.price": "`price` gives prices in USD per million tokens",
    "models.NAME.price.tiers[]": "An entry of `tiers` gives the prices of calls with a long input",
    "models.NAME.connection": "`connection` sets the timeouts of a model, and how it is reached",
    "routes.NAME[]": "`routes` lists models in the order in which they are tried, each item with these fields",
    "login": "`login` lets people sign in instead of pasting keys",
    "login.oidc": "`login.oidc` names an OpenID Connect provider",
    "keys[]": "`keys` lists who may enter, each item with these fields",
    "keys[].limits": "`limits` of a key says how much it may use",
    "tenants.NAME": "`tenants` names the tenants whose keys share limits",
    "tenants.NAME.limits": "`limits` of a tenant says how much all its keys may use together",
    "apps.NAME.limits": "`limits` of an app says how much all who ask it may use together",
    "apps.NAME.rules": "`rules` answers what is fixed without a model",
    "apps.NAME.access[]": "`access` says who may read which documents, each item with these fields",
    "slo": "`slo` says what users should get ([alerts](alerts.md))",
    "alerts": "`alerts` says which alerts there are, and who is notified",
    "alerts.notify.NAME": "`notify` names who is notified, each with these fields",
    "alerts.spend": "`alerts.spend` sets the alerts about money",
    "apps.NAME": "`apps` names what is answered from documents, by a model, or both",
}
VALUES = "A duration is written as `250ms`, `2s`, `5m`, `1h` or `30d`, or as a number of seconds. A list of one may be written as its item."
HELP_SAYS = {  # a sentence that introduces the help of each command
    "serve": "`serve` starts the server; it runs until it is stopped",
    "ask": "`ask` asks a question in the terminal",
    "check": "`check` says whether a deployment is ready; [is this deployment ready?](check.md) explains each row",
    "ingest": "`ingest` reads the documents now, and lists those that cannot be read",
    "alerts": "`alerts` shows [alerts](alerts.md), writes them as rules for Prometheus, and tests who is notified",
    "alerts rules": "`alerts rules` writes the alerts as rules for Prometheus",
    "alerts list": "`alerts list` lists the alerts of the settings",
    "alerts test": "`alerts test` sends a test message to each notifier",
    "alerts status": "`alerts status` shows which alerts fire on the running server",
    "store": "`store` looks after the [store](store.md)",
    "store migrate": "`store migrate` brings the schema up to date",
    "store backup": "`store backup` saves all records in a file",
    "store restore": "`store restore` brings them back",
    "store prune": "`store prune` deletes what is old",
    "keys": "`keys` makes and manages the [keys](keys.md) in the store",
    "keys create": "`keys create` makes a key",
    "keys list": "`keys list` lists the keys",
    "keys show": "`keys show` shows one",
    "keys limit": "`keys limit` changes what a key may use",
    "keys rotate": "`keys rotate` replaces a key by another one",
    "keys revoke": "`keys revoke` ends a key",
    "weights": "`weights` manages the small models that Slipway runs itself",
    "weights list": "`weights list` shows which weights exist, and which of them are here",
    "weights pull": "`weights pull` fetches what is missing",
    "weights add": "`weights add` keeps a file of your own under a name",
    "weights verify": (
        "`weights verify` checks files against their hashes; the exit code is 1 if one is broken"
    ),
    "mock": "`mock` starts a provider to test against",
    "prompt": "`prompt` shows what a model reads",
    "prompt show": "`prompt show` prints it for a question, without calling a model",
    "prompt lint": (
        "`prompt lint` shows where the prompts of several questions differ; the exit code is 1 if "
        "they differ too early"
    ),
    "trace": "`trace` shows what happened to an answer",
    "cache": "`cache` shows, explains and removes kept answers",
    "cache report": "`cache report` shows what they saved",
    "cache explain": "`cache explain` shows whether a question would get the answer of a similar one",
    "cache invalidate": "`cache invalidate` removes those that match every option",
    "rules": "`rules` is about the rules that answer without a model",
    "rules test": "`rules test` runs the tests of the rules; the exit code is 1 if one fails",
    "rules explain": "`rules explain` says which rule answers a question, and why",
    "rules report": "`rules report` lists the rules, with how often each answered",
    "rules suggest": "`rules suggest` proposes rules from what is asked again and again",
    "feedback": "`feedback` shows what people said of answers",
    "feedback list": "`feedback list` shows the latest",
    "ledger": "`ledger` shows what was spent",
    "ledger report": "`ledger report` adds it up by key, tenant, app, model or day",
    "ledger reconcile": (
        "`ledger reconcile` compares it with an invoice; the exit code is 1 if they differ"
    ),
    "prices": "`prices` shows what models cost",
    "prices show": "`prices show` shows one model's prices and their source",
    "eval": "`eval` measures how good search and answers are",
    "eval knowledge": "`eval knowledge` measures how well the documents are searched",
    "eval answers": "`eval answers` compares the answers of apps and models",
    "eval run": "`eval run` asks candidates the items of an evaluation set",
    "eval report": "`eval report` makes a run's report again from its log",
    "eval compare": "`eval compare` tells which candidate of one or more logs is better",
    "eval judge": "`eval judge` measures how far a model that judges can be trusted",
    "eval sets": "`eval sets` manages evaluation sets",
    "eval sets list": "`eval sets list` lists the sets and the scorers",
    "eval sets show": "`eval sets show` prints what a model reads of a set",
    "eval sets add": "`eval sets add` keeps a file as a set of your own",
    "eval sets from-feedback": "`eval sets from-feedback` makes a set of helpful answers",
    "plan": "`plan` chooses a model and a deployment",
    "plan make": "`plan FILE` is short for `plan make FILE`, and takes these options",
    "plan init": "`plan init` asks what you need and writes the requirements file",
    "plan replay": "`plan replay` makes a decision again; the exit code is 1 if it has changed",
    "models": "`models` shows the catalogue of models",
    "models search": "`models search` lists models, the cheapest first",
    "models show": "`models show` prints every fact of one model with its source",
    "compress": "`compress` makes a model smaller and faster on this machine",
    "compress run": "`compress run`, or `compress` alone, compresses a model",
    "compress rollback": "`compress rollback` takes a registered result back",
    "compress convert": "`compress convert` converts between GGUF and Hugging Face's layout",
}
ERROR_GROUPS: dict[str, Callable[[type[errors.SlipwayError]], bool]] = {
    "Which errors mean that the request is wrong?": lambda e: (
        not provider(e) and not limit(e) and e.status < 499 and not missing(e)
    ),
    "Which errors mean that what was asked for cannot be had?": lambda e: missing(e),
    "Which errors come from the server itself?": lambda e: not provider(e) and e.status >= 499,
    "Which errors mean that a limit is reached?": lambda e: limit(e),
    "Which errors come from the model's provider?": lambda e: provider(e),
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def tables(head: list[str], rows: list[list[str]]) -> str:
    """One table, or several where one would be so long that a search would cut it."""
    parts = [rows[:1]]
    for row in rows[1:]:
        if len(table(head, [*parts[-1], row])) > LONGEST:
            parts.append([row])
        else:
            parts[-1].append(row)
    return "\n\nThere are also these:\n\n".join(table(head, part) for part in parts)


def code(text: object) -> str:
    return f"`{text}`"


# Providers


def listed(names: Iterable[str]) -> str:
    *most, last = map(code, names)
    return f"{', '.join(most)} and {last}"


def providers() -> str:
    def rows(known: dict[str, Endpoint]) -> list[list[str]]:
        return [
            [code(n), e.base_url, *([code(e.key_variable)] if e.key_variable else [])]
            for n, e in known.items()
        ]

    hosted = {name: e for name, e in ENDPOINTS.items() if e.key_variable}
    near = {name: e for name, e in ENDPOINTS.items() if not e.key_variable}
    return (
        f"The known providers are {listed(ENDPOINTS)}. Each has the environment variable that its key is read from:\n\n"
        + table(["provider", "address", "key"], rows(hosted))
        + "\n\nThese run on your own machine and need no key:\n\n"
        + table(["provider", "address"], rows(near))
    )


# Settings


def kind_words(kind: Any) -> str:
    """A field's type as a person who writes YAML says it."""
    if is_duration(kind):
        return "duration"
    plain = bare_type(kind)
    origin, args = get_origin(plain), get_args(plain)
    if isinstance(plain, type) and issubclass(plain, Branch):
        return "fields"
    if origin is Literal:
        return ", ".join(map(code, args))
    if origin is tuple:
        return f"list of {kind_words(args[0])}"
    if origin is dict:
        inner = bare_type(args[1])
        return (
            f"names with {kind_words(inner)}"
            if get_origin(inner) is not Any and inner is not Any
            else "mapping"
        )
    return {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` or `false`",
        "Decimal": "number",
    }[plain.__name__]


def default_words(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "needed"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if is_duration(field.type) and value is not None:
        return code(duration(value))
    if isinstance(value, Branch) or value in ((), {}, "", None):
        return ""
    return code(
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else value
    )


def duration(seconds: float) -> str:
    unit = max(
        (u for u, size in UNITS.items() if size <= seconds and seconds % size == 0 and u != "ms"),
        key=UNITS.__getitem__,
        default="s",
    )
    return f"{seconds / UNITS[unit]:g}{unit}"


def description(kind: Any) -> str:
    return next(
        (
            m.description
            for m in get_args(kind)[1:]
            if isinstance(m, msgspec.Meta) and m.description
        ),
        "",
    )


def settings() -> str:
    parts = []
    for path, branch in branches(Settings):
        rows = [
            [code(n), kind_words(f.type), default_words(f), description(f.type)]
            for n, f in fields_of(branch).items()
        ]
        heading = (
            f"### {path}\n\n{SETTINGS[path]}"
            if path
            else f"## Which settings are there?\n\nThe settings are {listed(fields_of(branch))}. Each is optional"
        )
        parts.append(f"{heading}:\n\n{tables(['field', 'type', 'default', 'meaning'], rows)}")
        if branch.shorthand:
            parts.append(f"An item may be written as its `{branch.shorthand}` alone.")
    return "\n\n".join([parts[0], VALUES, *parts[1:]])


# Commands


def commands() -> str:
    parts = []
    for name, command in all_commands(main):
        context = click.Context(
            command,
            info_name=f"slipway {name}",
            terminal_width=90,
            help_option_names=["-h", "--help"],
        )
        parts.append(
            f"## {name}\n\n{HELP_SAYS[name]}:\n\n```text\n{command.get_help(context).strip()}\n```"
        )
    return "\n\n".join(parts)


def all_commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{before}{name} ")


# Metrics, errors, routes, events, faults


def metrics() -> str:
    counts, histograms = list[list[str]](), list[list[str]]()
    for m in METRICS.values():
        kind = m.kind
        rows = histograms if m.buckets else counts
        rows.append(
            [
                code(m.name + "_total" * (kind == "counter")),
                kind,
                ", ".join(map(code, m.labels)),
                m.help,
            ]
        )
    head = ["metric", "kind", "labels", "meaning"]
    return f"These metrics count:\n\n{tables(head, counts)}\n\nThese measure times and tokens:\n\n{tables(head, histograms)}"


def provider(error: type[errors.SlipwayError]) -> bool:
    return issubclass(error, errors.ProviderError) and not issubclass(error, errors.LimitReached)


def limit(error: type[errors.SlipwayError]) -> bool:
    return issubclass(error, errors.LimitReached)


def all_errors(
    base: type[errors.SlipwayError] = errors.SlipwayError,
) -> list[type[errors.SlipwayError]]:
    """Those that reach a client: SettingsError and WeightsError end a command, and those that
    others derive from are never raised themselves.
    """
    found = [each for sub in base.__subclasses__() for each in (sub, *all_errors(sub))]
    return [
        e
        for e in found
        if e
        not in (
            *(errors.SettingsError, errors.WeightsError),
            *(errors.ProviderError, errors.LimitReached),
        )
    ]


def missing(error: type[errors.SlipwayError]) -> bool:
    return issubclass(error, errors.NotFound | errors.Conflict | errors.Gone)


def meaning(error: type[errors.SlipwayError]) -> str:
    """The words beside its name in the tree that errors.py begins with, or its nearest relative's."""
    if error.code in MEANINGS:
        return MEANINGS[error.code]
    found = re.search(rf"── {error.__name__}  +(\S.*?)  ", errors.__doc__ or "")
    return found[1] if found else meaning(error.__bases__[0])


def listed_errors() -> list[type[errors.SlipwayError]]:
    unique = {
        e.code: e for e in reversed(all_errors())
    }  # where two share a code, the first tells what it means
    return sorted(unique.values(), key=lambda e: e.status)


def error_tables() -> str:
    listed = listed_errors()
    parts = []
    for heading, belongs in ERROR_GROUPS.items():
        rows = [
            [
                code(e.code),
                "the provider's 4xx" if e is errors.ProviderRefused else str(e.status),
                "yes" if e.retryable else "no",
                meaning(e),
                e.next_step,
            ]
            for e in listed
            if belongs(e)
        ]
        said = heading.removeprefix("Which errors ").removesuffix("?")
        head = ["code", "status", "again?", "meaning", "what to do"]
        parts.append(f"## {heading}\n\nThese errors {said}:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def catalogue() -> str:
    parts = []
    for heading, belongs in ERROR_GROUPS.items():
        said = heading.removeprefix("Which errors ").removesuffix("?")
        rows = [
            [code(e.code), *(reader_words(e.code, language) for language in LANGUAGES)]
            for e in listed_errors()
            if belongs(e)
        ]
        parts.append(
            f"Of errors that {said}:\n\n{table(['code', 'in English', 'in Chinese'], rows)}"
        )
    return "\n\n".join(parts)


def reader_words(name: str, language: types.Language) -> str:
    what, then = CATALOGUE[name][language]
    return (" " if language == "en" else "").join((what, then.replace(RETRY, SOON[language])))


def routes() -> str:
    """Return the table of routes, as the descriptions beside them say."""
    guard = build(Settings())
    # The router, which the guard knows only as a handler
    there = [path for path in getattr(guard.rest, "routes") if path.path not in UNLISTED]  # noqa: B009
    rows = [
        [code(f"{method} {path}"), operation.about]
        for method, path, operation in described(FAST, there)
    ]
    return "There are these routes:\n\n" + tables(["route", "what it does"], rows)


def events() -> str:
    rows = [[code(name), ", ".join(data_of(kind))] for kind, name in EVENT_NAMES.items()]
    said = 'An answer with `"stream": true` sends these events, each with a number as its `id`:'
    return f"{said}\n\n" + table(["event", "data"], rows)


def data_of(kind: type[types.Event]) -> list[str]:
    """The fields of an event's data, as `web.event_stream.event_data` writes them."""
    if kind is types.SourceFound:
        return [*types.Source.__struct_fields__]
    if kind is types.UsageReport:
        return ["model", *types.Usage.__struct_fields__, "cost_usd"]
    return [*kind.__struct_fields__]


def reasons() -> str:
    rows = [[code(reason), said] for reason, said in REASONS.items()]
    return "The reasons are:\n\n" + table(["reason", "what it means"], rows)


def faults() -> str:
    items = [
        f"- {code(form)}: {said}."
        for form, said in (meaning.split(": ", 1) for meaning in FAULTS.values())
    ]
    return (
        f"The faults are {listed(FAULTS)}. A number that is left out has its default:\n\n"
        + "\n".join(items)
    )


def modules() -> str:
    """Return a list for each package: every module with the first sentence of its docstring."""
    package = DOCS.parent / "src" / "slipway"
    folders = sorted({file.parent for file in package.rglob("*.py")})
    parts = []
    for folder in folders:
        name = "slipway" if folder == package else str(folder.relative_to(package)) + "/"
        rows = [
            f"- {code(file.stem)}: {purpose(file)}"
            for file in sorted(folder.glob("*.py"))
            if file.name != "__init__.py"
        ]
        intro = purpose(folder / "__init__.py")
        parts.append("\n".join([f"### {name}", "", intro, "", *rows]).rstrip())
    return "\n\n".join(parts)


def purpose(file: Path) -> str:
    """Return the first sentence of a module's docstring."""
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first = " ".join(said.split("\n\n")[0].split())
    sentence = re.match(r"(.*?[.!?])(?: [A-Z`*\"]|$)", first)
    return sentence[1] if sentence else first


def compatible() -> str:
    """Return a table of the names for each product that metrics are compatible with."""
    return "\n\n".join(
        f"With `{product}`, these names are written:\n\n"
        + tables(
            ["name", "from", "meaning"],
            [
                [code(known_as(each)), code(ours(METRICS[each.source])), each.about]
                for each in names
            ],
        )
        for product, names in PRODUCTS.items()
    )


def ours(metric: MetricDefinition) -> str:
    return metric.name + ("_total" if metric.kind == "counter" else "")


def known_as(alias: Alias) -> str:
    return alias.name + ("_total" if alias.kind == "counter" else "")


PARTS: dict[str, Callable[[], str]] = {
    "compatible": compatible,
    "modules": modules,
    "providers": providers,
    "settings": settings,
    "commands": commands,
    "metrics": metrics,
    "errors": error_tables,
    "catalogue": catalogue,
    "routes": routes,
    "events": events,
    "faults": faults,
    "reasons": reasons,
}


def printed(text: str) -> str:
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


def run(check: bool) -> int:
    """How many pages are stale; without `check` they are written again."""
    stale = 0
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = printed(old)
        if new != old:
            stale += 1
            sys.stderr.write(
                f"docs/{page.name} {'is stale: run `make docs`' if check else 'is printed again'}\n"
            )
            if not check:
                page.write_text(new, encoding="utf-8")
    return stale


if __name__ == "__main__":
    checking = "--check" in sys.argv[1:]
    sys.exit(1 if run(checking) and checking else 0)
