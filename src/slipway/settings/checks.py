"""Check what the types cannot: unique names, routes to known models, keys for public addresses."""

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from slipway.settings.alert_checks import check_alerting
from slipway.settings.apps import AppSettings, RulesSettings
from slipway.settings.caching import CacheSettings
from slipway.settings.keys import Allowance, Login, Oidc
from slipway.settings.known_names import (
    AddProblem,
    KnownNames,
    is_loopback,
    parse_url,
    suggest,
    without_login,
)
from slipway.settings.model_checks import HEADER_TEXT, check_model
from slipway.settings.observing import OtlpSettings
from slipway.settings.tree import POSTGRES, SQLITE, Settings, without_password
from slipway.settings.values import share

LARGEST_ERROR = 0.2  # share of wrong answers that `semantic` may be set to
NO_LIFETIME = "0 keeps nothing; write how long, such as `1h`, or remove it"
REDIS_SCHEMES = ("redis", "rediss", "unix")
MOST_BUDGET = Decimal(1_000_000_000)
LEAST_BUDGET = Decimal("0.000001")


def check(settings: Settings, known: KnownNames, problem: AddProblem) -> None:
    """Report every problem of the settings by calling `problem(path, sentence)`."""
    check_names(settings, problem)
    for name, model in settings.models.items():
        check_model(f"models.{name}", model, known, problem)
    for name, route in settings.routes.items():
        if not route:
            problem(f"routes.{name}", "this route is empty; name at least one model")
        for i, entry in enumerate(route):
            if entry.model not in settings.models:
                problem(
                    f"routes.{name}[{i}]",
                    f"there is no model `{entry.model}`; {suggest(entry.model, settings.models)}",
                )
            check_canary(f"routes.{name}[{i}].canary", entry.canary, problem)
        check_shares(f"routes.{name}", [each.canary for each in route if each.canary], problem)
    for name, app in settings.apps.items():
        check_app(name, app, settings, problem)
    check_store(settings.store, problem)
    check_keys(settings, problem)
    check_limits(settings, problem)
    check_caches(settings, problem)
    check_listen(settings, problem)
    if settings.otlp is not None:
        check_otlp(settings.otlp, problem)
    check_alerting(settings.slo, settings.alerts, known.notifiers, known.alerts, problem)
    if settings.login is not None:
        names = {*settings.models, *settings.routes, *settings.apps}
        check_login(settings.login, names, problem)


def check_store(store: str, problem: AddProblem) -> None:
    if store.startswith(POSTGRES):
        parts = urlsplit(store)
        if not parts.hostname and not parts.query:
            problem("store", "it names no host; write `postgresql://USER:PASSWORD@HOST/DATABASE`")
        return
    if not store.startswith(SQLITE) or not store.removeprefix(SQLITE).strip():
        problem(
            "store",
            f"`{without_password(store)}` is not a store; write `{SQLITE}PATH`, such as "
            f"`{SQLITE}.slipway/slipway.db`, or `postgresql://USER:PASSWORD@HOST/DATABASE`",
        )


def check_caches(settings: Settings, problem: AddProblem) -> None:
    """Check how long answers are kept, and the address of the Redis that servers share."""
    if settings.cache.exact == 0:
        problem("cache.exact", NO_LIFETIME)
    for kind, owners in (("models", settings.models), ("apps", settings.apps)):
        for name, owner in owners.items():
            if owner.cache is not None:
                check_cache(f"{kind}.{name}.cache", owner.cache, problem)
                check_semantic(kind, name, settings, problem)
    if settings.shared is not None and (why := redis_problem(settings.shared)):
        problem("shared", why)


def check_cache(path: str, cache: CacheSettings, problem: AddProblem) -> None:
    if cache.exact == 0:
        problem(f"{path}.exact", NO_LIFETIME)
    elif cache.exact is None:
        for field in ("stale_while_refresh", "stale_on_error"):
            if getattr(cache, field):
                problem(f"{path}.{field}", f"it has no effect without `exact`; add it to `{path}`")
    if cache.semantic is not None and cache.exact is None:
        problem(f"{path}.semantic", f"answers must be kept for it; add `exact: 1h` to `{path}`")
    for tag in cache.tags:
        if not tag.strip() or "," in tag:
            problem(f"{path}.tags", f"`{tag}` is not a tag; write a name without commas")


def check_semantic(kind: str, name: str, settings: Settings, problem: AddProblem) -> None:
    """Check how similar questions are answered for an app."""
    owner = settings.apps[name] if kind == "apps" else settings.models[name]
    semantic = owner.cache.semantic if owner.cache is not None else None
    if semantic is None:
        return
    path = f"{kind}.{name}.cache.semantic"
    if kind != "apps":
        problem(path, "only apps have it; make an app with `route:` and put it there")
    if settings.embedding == "none":
        problem(path, "it needs an embedding; write `embedding: minilm` at the top of the file")
    try:
        if share(semantic.max_error) > LARGEST_ERROR:
            why = f"`{semantic.max_error}` is too much; write `20%` or less, such as `1%`"
            problem(f"{path}.max_error", why)
    except ValueError as error:
        problem(f"{path}.max_error", str(error))
    if (semantic.compare == "judge") != (semantic.judge is not None):
        problem(f"{path}.judge", "`compare: judge` and `judge: MODEL` belong together")
    callable_names = {*settings.models, *settings.routes}
    if semantic.judge is not None and semantic.judge not in callable_names:
        hint = suggest(semantic.judge, callable_names)
        problem(f"{path}.judge", f"there is no model or route `{semantic.judge}`; {hint}")


def redis_problem(address: str) -> str | None:
    """Return what is wrong with the address of a Redis server; None if nothing is."""
    shown = without_login(address)
    example = "write `redis://HOST:6379/0`, `rediss://…` for TLS, or `unix:///path/to/socket`"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return f"`{shown}` is not an address; {example}"
    if parts.scheme not in REDIS_SCHEMES:
        return f"`{shown}` is not the address of a Redis server; {example}"
    if parts.scheme == "unix":
        return None if parts.path else f"`{shown}` names no socket; {example}"
    if not parts.hostname or port == 0:
        return f"`{shown}` names no host; {example}"
    database = parts.path.strip("/")
    if database and not database.isdigit():
        return f"`{database}` is not the number of a database; {example}"
    return None


def check_canary(path: str, canary: str | None, problem: AddProblem) -> None:
    try:
        share(canary or "1%")
    except ValueError as error:
        problem(path, str(error))


def check_shares(path: str, canaries: Sequence[str], problem: AddProblem) -> None:
    """Report shares that no chance can give: the last ones would get less than they say."""
    with suppress(ValueError):  # reported for its own entry
        total = sum(share(each) for each in canaries)
        if total > 1 + 1e-9:
            problem(path, f"its canaries take {total:.0%} of the questions; make it 100% at most")


def check_otlp(otlp: OtlpSettings, problem: AddProblem) -> None:
    if parse_url(otlp.endpoint) is None:
        problem(
            "otlp.endpoint",
            f"`{without_login(otlp.endpoint)}` is not an address; write `http://…` or `https://…`",
        )
    for name, value in otlp.headers.items():
        if not HEADER_TEXT.fullmatch(name + value):
            problem(f"otlp.headers.{name}", "line breaks and control characters cannot be sent")
    try:
        share(otlp.sample)
    except ValueError as error:
        problem("otlp.sample", str(error))


def find_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning for settings that are valid but probably a mistake."""
    for name, app in settings.apps.items():
        if app.stakes == "high" and app.cache is not None and app.cache.semantic is not None:
            yield f"apps.{name}.cache.semantic: it is off, since the app has `stakes: high`"
    if settings.login is not None:
        return  # groups come with those who sign in
    held = {group for key in settings.keys for group in key.groups}
    for name, app in settings.apps.items():
        asked = {group for rule in app.access for group in rule.groups} - {"*"}
        for group in sorted(asked - held):
            yield (
                f"apps.{name}.access: no key is in the group `{group}`, "
                "so nobody can read its documents"
            )


def check_names(settings: Settings, problem: AddProblem) -> None:
    """Check that names are unique: a client calls apps, routes and models alike as `model`."""
    seen: dict[str, str] = {}
    for kind, names in (
        ("models", settings.models),
        ("routes", settings.routes),
        ("apps", settings.apps),
    ):
        for name in names:
            if name in seen:
                problem(
                    f"{kind}.{name}",
                    f"`{name}` is already a name under `{seen[name]}`, "
                    "and clients call both as `model`; rename one",
                )
            seen[name] = kind
            if not name.strip() or any(c.isspace() for c in name):
                problem(f"{kind}.{name}", "a name must not be empty or contain spaces")


def check_app(name: str, app: AppSettings, settings: Settings, problem: AddProblem) -> None:
    known = [*settings.routes, *settings.models]
    for field, route in (("route", app.route), ("small", app.small)):
        if route is not None and route not in known:
            problem(
                f"apps.{name}.{field}",
                f"there is no route or model `{route}`; {suggest(route, known)}",
            )
    if app.small is not None and not app.knowledge:
        problem(
            f"apps.{name}.small",
            "`small` has no effect without `knowledge`; add documents, or remove `small`",
        )
    if app.route is None and not app.knowledge and app.rules is None:
        problem(f"apps.{name}", "an app needs `knowledge`, a `route` or `rules`")
    if app.rules is not None:
        check_rules(f"apps.{name}.rules", app.rules, problem)
    for i, folder in enumerate(app.knowledge):
        if not Path(folder).exists():
            path = f"apps.{name}.knowledge"
            problem(
                f"{path}[{i}]" if len(app.knowledge) > 1 else path,
                f"there is no folder or file `{folder}`",
            )
    if app.prompt is not None:
        check_prompt(f"apps.{name}.prompt", Path(app.prompt), problem)


def check_rules(path: str, rules: RulesSettings, problem: AddProblem) -> None:
    if not Path(rules.file).is_file():
        problem(path, f"there is no file `{rules.file}`")
    try:
        share(rules.precision)
    except ValueError as error:
        problem(f"{path}.precision", str(error))


def check_prompt(path: str, file: Path, problem: AddProblem) -> None:
    try:
        if not file.read_text(encoding="utf-8").strip():
            problem(path, f"`{file}` is empty; remove `prompt` to use the built-in instructions")
    except UnicodeDecodeError:
        problem(path, f"`{file}` is not UTF-8 text; save it as UTF-8")
    except OSError as error:
        problem(path, f"`{file}` cannot be read: {(error.strerror or str(error)).lower()}")


def check_keys(settings: Settings, problem: AddProblem) -> None:
    callable_names = {*settings.models, *settings.routes, *settings.apps}
    seen: dict[str, int] = {}
    for i, key in enumerate(settings.keys):
        if key.key in seen:
            problem(f"keys[{i}]", f"this key is the same as keys[{seen[key.key]}]; remove one")
        seen[key.key] = i
        for app in key.apps or ():
            if app not in callable_names:
                problem(
                    f"keys[{i}].apps",
                    f"there is no app, route or model `{app}`; {suggest(app, callable_names)}",
                )


def check_limits(settings: Settings, problem: AddProblem) -> None:
    """Check limits of keys, tenants and apps, and that keys name tenants that exist."""
    tenants = {*settings.tenants, "default"}
    for i, key in enumerate(settings.keys):
        if settings.tenants and key.tenant not in tenants:
            problem(
                f"keys[{i}].tenant",
                f"there is no tenant `{key.tenant}`; {suggest(key.tenant, tenants)}",
            )
    for path, allowance in allowances(settings):
        amounts = ("usd_per_day", allowance.usd_per_day), ("usd_per_month", allowance.usd_per_month)
        for field, usd in amounts:
            if usd is not None and not (usd.is_finite() and LEAST_BUDGET <= usd <= MOST_BUDGET):
                problem(
                    f"{path}.{field}",
                    f"`{usd}` is not a budget from {LEAST_BUDGET:f} to {MOST_BUDGET} USD; write such "
                    "as `5` or `0.50`, or leave it out",
                )
        day, month = allowance.usd_per_day, allowance.usd_per_month
        if day is not None and month is not None and day > month:
            problem(
                f"{path}.usd_per_day",
                f"`{day}` is more than `usd_per_month` ({month}), so it limits nothing; lower it",
            )


def allowances(settings: Settings) -> Iterator[tuple[str, Allowance]]:
    """Yield (path, limits) of each key, tenant and app that has limits."""
    for i, key in enumerate(settings.keys):
        if key.limits is not None:
            yield f"keys[{i}].limits", key.limits
    for name, tenant in settings.tenants.items():
        if tenant.limits is not None:
            yield f"tenants.{name}.limits", tenant.limits
    for name, app in settings.apps.items():
        if app.limits is not None:
            yield f"apps.{name}.limits", app.limits


def check_listen(settings: Settings, problem: AddProblem) -> None:
    host = settings.listen.host
    closed = settings.keys or settings.key_required or settings.login is not None
    if not is_loopback(host) and not closed:
        problem(
            "listen.host",
            f"`{host}` can be reached from other machines, and without keys anybody could spend "
            "your money; make a key with `slipway keys create` and set `key_required: true`, add "
            "`keys:` to the settings, or listen on 127.0.0.1",
        )
    for origin in settings.listen.allowed_origins:
        if (parts := parse_url(origin)) is None or parts.path:
            problem(
                "listen.allowed_origins",
                f"`{origin}` is not an origin; write `https://host` without a path",
            )


def check_login(login: Login, names: Collection[str], problem: AddProblem) -> None:
    if login.header is None and login.oidc is None:
        problem("login", "it says neither `header` nor `oidc`; set one, or leave `login` out")
    if login.header is not None and not login.proxies:
        what = "anybody could send this header; list the addresses of your proxy in"
        problem("login.header", f"{what} `login.proxies`")
    for n, proxy in enumerate(login.proxies):
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            fix = "write an address or a network, such as 10.0.0.5 or 10.0.0.0/24"
            problem(f"login.proxies[{n}]", f"{error}; {fix}")
    for app in login.apps or ():
        if app not in names:
            problem("login.apps", f"there is no app, route or model `{app}`; {suggest(app, names)}")
    if login.url:
        check_https("login.url", login.url, problem)
    if login.oidc is not None:
        check_oidc(login.oidc, problem)


def check_oidc(oidc: Oidc, problem: AddProblem) -> None:
    check_https("login.oidc.issuer", oidc.issuer, problem)
    if find_spec("authlib") is None:
        problem("login.oidc", "needs the extra `login`; run `pip install 'slipway[login]'`")
    if "openid" not in oidc.scopes:
        problem("login.oidc.scopes", "`openid` is missing; add it")


def check_https(field: str, address: str, problem: AddProblem) -> None:
    """Plain HTTP is for loopback only: cookies and codes must not be read on the way."""
    parts = parse_url(address)
    if parts is None or (parts.scheme == "http" and not is_loopback(parts.hostname or "")):
        problem(field, f"`{address}` is not an address that begins with https://")


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield every provider key, so that it can be removed from error messages and logs."""
    yield from {m.api_key for m in settings.models.values() if m.api_key}
    if settings.login and settings.login.oidc and settings.login.oidc.client_secret:
        yield settings.login.oidc.client_secret
