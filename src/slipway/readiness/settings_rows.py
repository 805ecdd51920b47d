"""What the settings themselves say: keys, limits, routes, prices."""

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from slipway.app.stores import LazyRecords
from slipway.keys import end_state
from slipway.prices.catalogue import SNAPSHOT, entry_for
from slipway.readiness.deployment import DeploymentToCheck, in_thread
from slipway.readiness.rows import Check, CheckRow, counted
from slipway.settings import ModelSettings, Settings, is_loopback
from slipway.settings.checks import allowances
from slipway.store import SavedKey, StoreError

LIMIT_S = 10.0
OLD_PRICES_DAYS = 120
HASHED = "sha256:"
STANDBY = ("smaller", "local")


def checks(deployment: DeploymentToCheck) -> dict[str, tuple[Check, float]]:
    """Return the checks of the settings, each with its time limit."""
    return {
        "settings": (lambda: settings_read(deployment), LIMIT_S),
        "keys": (lambda: keys(deployment), LIMIT_S),
        "limits": (lambda: limits(deployment), LIMIT_S),
        "routes": (lambda: routes(deployment), LIMIT_S),
        "prices": (lambda: prices(deployment), LIMIT_S),
        "alerts": (lambda: alerts(deployment), LIMIT_S),
    }


async def settings_read(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Return what the settings come to, and a row for each warning."""
    settings, listen = deployment.settings, deployment.settings.listen
    counts = ", ".join(
        counted(len(names), kind)
        for kind, names in (
            ("model", settings.models),
            ("route", settings.routes),
            ("app", settings.apps),
            ("key", settings.keys),
        )
    )
    workers = f" with {listen.workers} workers" if listen.workers > 1 else ""
    running = f" a Slipway server already uses port {listen.port}." if deployment.is_served else ""
    rows = [
        CheckRow(
            name="settings",
            looked_at=deployment.name,
            state="green",
            says=f"The settings are fine. {counts}; would listen on "
            f"{listen.host}:{listen.port}{workers}.{running}",
        )
    ]
    rows += [
        CheckRow(
            name="settings", looked_at=deployment.name, state="amber", says=f"warning: {warning}"
        )
        for warning in deployment.found.warnings
    ]
    return rows


async def keys(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Say who may ask, and for how long."""
    settings = deployment.settings
    try:
        saved = await in_thread(lambda: saved_keys(settings))
    except StoreError:
        says = "The store cannot say which keys there are; see `store`."
        return [CheckRow(name="keys", looked_at="the store", state="skipped", says=says)]
    state, total = "green", len(settings.keys) + len(saved)
    problems, do = list[str](), list[str]()
    if not total and settings.login is None and not settings.key_required:
        return [no_keys(settings)]
    if not any(key.admin for key in settings.keys) and not any(key.admin for key in saved):
        problems.append("no key may manage keys or see `/ops` and the ledger")
        do.append("Make one: slipway keys create --name operator --admin --expires 365d")
    endless = [key for key in saved if key.expires_at is None]
    if endless or settings.keys:
        count = len(endless) + len(settings.keys)
        problems.append(f"{count} of {counted(total, 'key')} never expire{'s' * (count == 1)}")
        do.append(
            "Replace them by keys with an end: slipway keys create --expires 90d "
            "(keys of the settings file end only when they are removed)."
        )
    if not is_loopback(settings.listen.host):
        problems.append(f"it listens on {settings.listen.host} without TLS of its own")
        do.append(
            "Put a proxy with TLS in front, let only that reach this port, and run "
            "slipway check --url https://…"
        )
    if problems:
        state = "amber"
    said = "; ".join(problems) or f"{counted(total, 'key')}, all with an end"
    return [
        CheckRow(
            name="keys",
            looked_at="`keys` and the store",
            state="amber" if state == "amber" else "green",
            says=f"{said[0].upper()}{said[1:]}.",
            do=tuple(do),
            facts={"keys": total},
        )
    ]


def no_keys(settings: Settings) -> CheckRow:
    """Return the row of a server that everybody may use who reaches it."""
    return CheckRow(
        name="keys",
        looked_at="`keys` and the store",
        state="amber",
        says="There is no key: everybody who reaches this port may ask, and see everything. Behind a "
        "proxy, that is everybody.",
        do=("Set `key_required: true` and make keys: slipway keys create --name NAME",),
    )


def saved_keys(settings: Settings) -> list[SavedKey]:
    """Return the keys of the store that work now; none if there is no store yet. Raises StoreError."""
    records = LazyRecords(settings)
    if not records.is_there:
        return []
    try:
        _, found, _ = records().keys.load()
    finally:
        records.close()
    return [key for key in found if end_state(key, time.time()) is None]


async def limits(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Say whether anything limits what a key can spend."""
    settings = deployment.settings
    set_limits = [each for _, each in allowances(settings)]
    money = [each for each in set_limits if each.usd_per_day or each.usd_per_month]
    looked_at = "`limits` of keys, tenants and apps"
    if not settings.models:
        return []
    if not money:
        says = "No budget is set" if set_limits else "No limit is set"
        return [
            CheckRow(
                name="limits",
                looked_at=looked_at,
                state="amber",
                says=f"{says}: one key can spend without end.",
                do=("Add `limits: {usd_per_month: 200, rpm: 60}` to keys, tenants or apps.",),
            )
        ]
    others = counted(len(set_limits) - len(money), "other limit")
    says = f"Limits: {counted(len(money), 'budget')} and {others}."
    free = unlimited(settings)
    if not free:
        return [CheckRow(name="limits", looked_at=looked_at, state="green", says=says)]
    return [
        CheckRow(
            name="limits",
            looked_at=looked_at,
            state="amber",
            says=f"{says} Neither {', '.join(free)} nor a tenant of theirs has any.",
            do=("Add `limits` to these keys, or to their tenants.",),
        )
    ]


def unlimited(settings: Settings) -> list[str]:
    """Return the places of keys that nothing limits, if some app may be asked without a limit."""
    if settings.apps and all(app.limits is not None for app in settings.apps.values()):
        return []
    limited = {name for name, tenant in settings.tenants.items() if tenant.limits is not None}
    return [
        f"keys[{number}]"
        for number, key in enumerate(settings.keys)
        if key.limits is None and key.tenant not in limited
    ]


async def alerts(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Say whether somebody hears of what users notice."""
    return [objectives(deployment.settings), notifiers(deployment.settings)]


def objectives(settings: Settings) -> CheckRow:
    """Return whether the settings say what users should get."""
    found = [field for field in settings.slo.__struct_fields__ if getattr(settings.slo, field)]
    if found:
        says = f"Objectives are set: {', '.join(found)}."
        return CheckRow(name="objectives", looked_at="`slo`", state="green", says=says)
    return CheckRow(
        name="objectives",
        looked_at="`slo`",
        state="amber",
        says="No objective is set: no alert can say that users are not well served.",
        do=("Add `slo: {availability: 99.9%, ttft_p95: 2s}`.",),
    )


def notifiers(settings: Settings) -> CheckRow:
    """Return whether somebody is notified of alerts, and notices if there are none any more."""
    found, do = settings.alerts.notify, list[str]()
    if not settings.alerts.evaluate:
        says = "Prometheus evaluates the alerts (`evaluate: false`), not Slipway."
        return CheckRow(name="alerts", looked_at="`alerts`", state="green", says=says)
    says = f"Alerts go to {', '.join(found)}" if found else "Nobody is notified of alerts"
    if not found:
        do.append("Add a webhook, Slack, DingTalk, Feishu or mail to `alerts.notify`.")
    elif not any(each.heartbeat for each in found.values()):
        says += ", but nobody notices if Slipway itself is down"
        do.append("Set `heartbeat: 5m` of a notifier that leads to a dead man's switch.")
    return CheckRow(
        name="alerts",
        looked_at="`alerts`",
        state="amber" if do else "green",
        says=f"{says}.",
        do=tuple(do),
    )


async def routes(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Look for routes that one failure ends."""
    return [*zones(deployment.settings), *fallbacks(deployment.settings)]


def zones(settings: Settings) -> Iterator[CheckRow]:
    """Yield a row for each route whose models are all in one zone."""
    for name, entries in settings.routes.items():
        found = {settings.models[entry.model].zone for entry in entries}
        looked_at = f"zones of `{name}`"
        if len(found) > 1:
            says = f"The models of `{name}` are in {len(found)} zones: {', '.join(sorted(found))}."
            yield CheckRow(name="zones", looked_at=looked_at, state="green", says=says)
            continue
        zone = found.pop()
        yield CheckRow(
            name="zones",
            looked_at=looked_at,
            state="amber",
            says=f"All models of `{name}` are in the zone `{zone}`: they fail together."
            if len(entries) > 1
            else f"`{name}` has one model, in the zone `{zone}`.",
            do=("Add a `twin` of another provider or region, and set `zone` for each model.",),
        )


def fallbacks(settings: Settings) -> Iterator[CheckRow]:
    """Yield a row for each route, and for each app that asks one model only."""
    for name, entries in settings.routes.items():
        roles = [entry.role for entry in entries if entry.role in STANDBY]
        looked_at = f"roles of `{name}`"
        if roles:
            says = f"If the best models of `{name}` fail, a {roles[0]} one answers."
            yield CheckRow(name="fallback", looked_at=looked_at, state="green", says=says)
            continue
        yield CheckRow(
            name="fallback",
            looked_at=looked_at,
            state="amber",
            says=f"`{name}` has no `smaller` and no `local` model to answer in an outage.",
            do=("Add one at its end: {model: NAME, role: smaller}, or weights that run here.",),
        )
    for name, app in settings.apps.items():
        if app.route in settings.models:
            yield CheckRow(
                name="fallback",
                looked_at=f"apps.{name}.route",
                state="amber",
                says=f"The app `{name}` asks the model `{app.route}` only.",
                do=("Make a route of it and another model, and name that.",),
            )


async def prices(deployment: DeploymentToCheck) -> Iterable[CheckRow]:
    """Say of how many models the price is known, and how old the catalogue is."""
    models = {n: m for n, m in deployment.settings.models.items() if not m.weights}
    if not models:
        return []
    sources = await in_thread(lambda: {name: source_of(model) for name, model in models.items()})
    unknown = [name for name, source in sources.items() if source is None]
    by_catalogue = [name for name, source in sources.items() if source == "catalogue"]
    age_days = (
        datetime.now(UTC) - datetime.strptime(SNAPSHOT, "%Y-%m-%d").replace(tzinfo=UTC)
    ).days
    looked_at = "`price` of each model, and the catalogue"
    if unknown:
        return [
            CheckRow(
                name="prices",
                looked_at=looked_at,
                state="amber",
                says=f"The price of {', '.join(unknown)} is unknown: its cost is not counted.",
                do=("Set `price: {input: USD, output: USD}`, per million tokens.",),
            )
        ]
    if by_catalogue and age_days > OLD_PRICES_DAYS:
        return [
            CheckRow(
                name="prices",
                looked_at=looked_at,
                state="amber",
                says=f"The price of {', '.join(by_catalogue)} is from a list of {SNAPSHOT}, "
                f"{age_days} days ago.",
                do=("Compare it with the provider's page: slipway prices show MODEL",),
            )
        ]
    says = f"The prices of {counted(len(models), 'model')} are known"
    says += f"; {len(by_catalogue)} from a list of {SNAPSHOT}." if by_catalogue else "."
    return [CheckRow(name="prices", looked_at=looked_at, state="green", says=says)]


def source_of(model: ModelSettings) -> str | None:
    """Return where a model's price is from; None if it is unknown."""
    if model.price is not None:
        return "settings"
    entry = entry_for(model.base_url, model.name)
    return "catalogue" if entry is not None and entry.price is not None else None
