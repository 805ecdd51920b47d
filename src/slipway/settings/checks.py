"""What must hold between the parts of the tree: one space of names, routes to known models, keys
for public addresses.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from slipway.settings.tree import GGUF, SQLITE, App, Login, Model, Oidc, Price, Settings

Needs = Literal["base_url", "weights"]  # the setting without which a kind of provider cannot be
Tell = Callable[[str, str], None]  # (dotted path of the field, what is wrong and the fix)
SENT = re.compile(r"[\t -~\xa0-\xff]*")  # what may stand in the head of a request


class Endpoint(msgspec.Struct, frozen=True):
    """A well-known provider: where it is, and the environment variable that people keep its key in
    (None: it needs no key).
    """

    base_url: str
    key_variable: str | None


def is_loopback(host: str) -> bool:
    if host.strip("[]").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parted(address: str) -> SplitResult | None:
    """None for what is no address of the web."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port that is none, or a bracket that is not closed
        return None
    return parts if good and address.isascii() and address.isprintable() else None


def near(word: str, known: Iterable[str]) -> str:
    known = list(known)
    found = difflib.get_close_matches(word, known, 1, 0.5)
    if found:
        return f"did you mean `{found[0]}`?"
    return f"known: {', '.join(sorted(known))}" if known else "none is defined"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What settings may name: kinds of providers with what each needs, well-known providers, and
    weights that a model can be run from.
    """

    kinds: Mapping[str, Needs]
    endpoints: Mapping[str, Endpoint]
    weights: Collection[str] = ()

    @property
    def runner(self) -> str:
        """The kind of provider that runs weights."""
        return next(kind for kind, needs in self.kinds.items() if needs == "weights")


def check(settings: Settings, known: Known, tell: Tell) -> None:
    check_names(settings, tell)
    for name, model in settings.models.items():
        check_model(f"models.{name}", model, known, tell)
    for name, route in settings.routes.items():
        if not route:
            tell(f"routes.{name}", "this route is empty; name at least one model")
        for i, entry in enumerate(route):
            if entry.model not in settings.models:
                tell(
                    f"routes.{name}[{i}]",
                    f"there is no model `{entry.model}`; {near(entry.model, settings.models)}",
                )
    for name, app in settings.apps.items():
        check_app(name, app, settings, tell)
    if not settings.store.startswith(SQLITE) or not settings.store.removeprefix(SQLITE).strip():
        tell(
            "store",
            f"`{settings.store}` is not a store; write `{SQLITE}PATH`, such as `{SQLITE}.slipway/slipway.db`",
        )
    check_keys(settings, tell)
    check_listen(settings, tell)
    if settings.login is not None:
        check_login(settings.login, {*settings.models, *settings.routes, *settings.apps}, tell)


def doubtful(settings: Settings) -> Iterator[str]:
    """What stands, and is probably not meant so."""
    if settings.login is not None:
        return  # groups come with those who sign in
    held = {group for key in settings.keys for group in key.groups}
    for name, app in settings.apps.items():
        asked = {group for rule in app.access for group in rule.groups} - {"*"}
        for group in sorted(asked - held):
            yield f"apps.{name}.access: no key is of the group `{group}`, so nobody reads what is kept for it"


def check_names(settings: Settings, tell: Tell) -> None:
    """Apps, routes and models share one space, since a client calls each of them as `model`."""
    seen: dict[str, str] = {}
    for kind, names in (
        ("models", settings.models),
        ("routes", settings.routes),
        ("apps", settings.apps),
    ):
        for name in names:
            if name in seen:
                tell(
                    f"{kind}.{name}",
                    f"`{name}` is already the name of one of the {seen[name]}; clients could not tell them apart: rename one",
                )
            seen[name] = kind
            if not name.strip() or any(c.isspace() for c in name):
                tell(f"{kind}.{name}", "a name must not be empty or hold white space")


def check_model(path: str, model: Model, known: Known, tell: Tell) -> None:
    providers = [*known.kinds, *known.endpoints]
    if model.price is not None:
        check_price(f"{path}.price", model.price, tell)
    if model.provider not in providers:
        tell(
            f"{path}.provider",
            f"there is no provider `{model.provider}`; {near(model.provider, providers)}",
        )
    elif known.kinds.get(model.provider) == "weights":
        check_weights(path, model, known, tell)
    else:
        check_endpoint(path, model, known, tell)


def check_price(path: str, price: Price, tell: Tell) -> None:
    for field, usd in (
        ("input", price.input),
        ("output", price.output),
        ("cached_input", price.cached_input),
    ):
        if usd is not None and not (usd.is_finite() and usd >= 0):
            tell(
                f"{path}.{field}",
                f"`{usd}` is no price; write USD per million tokens, such as `0.28`",
            )


def check_weights(path: str, model: Model, known: Known, tell: Tell) -> None:
    if not model.weights:
        tell(
            path,
            f"`weights` is missing; name what to run: {', '.join(known.weights)}, or a `.gguf` file",
        )
    elif model.weights not in known.weights and not model.weights.endswith(GGUF):
        what = f"there are no weights `{model.weights}` that a model can be run from; {near(model.weights, known.weights)}"
        tell(
            f"{path}.weights",
            f"{what}; a file of your own is named by its path, which ends in `{GGUF}`",
        )
    elif model.weights not in known.weights and not Path(model.weights).is_file():
        tell(f"{path}.weights", f"there is no file `{model.weights}`")
    if model.base_url:
        tell(f"{path}.base_url", "a model that runs here has no address; remove it")


def check_endpoint(path: str, model: Model, known: Known, tell: Tell) -> None:
    if model.weights:
        tell(
            f"{path}.weights",
            f"weights are run here only with `provider: {known.runner}`; add that, or remove `weights`",
        )
    url = parted(model.base_url)
    if not model.base_url:
        tell(
            path,
            "`base_url` is missing; add the API's address, such as `base_url: https://api.example.com/v1`",
        )
    elif url is None:
        tell(
            f"{path}.base_url",
            f"`{model.base_url}` is not an address; write `http://…` or `https://…`",
        )
    elif url.query or url.fragment:
        tell(f"{path}.base_url", "query parameters belong under `query:`")
    ca_file = model.connection.ca_file
    if ca_file and not Path(ca_file).is_file():
        tell(f"{path}.connection.ca_file", f"there is no file `{ca_file}`")
    for header, value in model.headers.items():
        if not SENT.fullmatch(header + value):
            tell(
                f"{path}.headers.{header}",
                "a header must not hold line breaks, nor letters beyond Latin-1",
            )
    if model.api_key and not SENT.fullmatch(model.api_key):
        tell(
            f"{path}.api_key",
            "a key must not hold line breaks, nor letters beyond Latin-1; copy it again",
        )


def check_app(name: str, app: App, settings: Settings, tell: Tell) -> None:
    known = [*settings.routes, *settings.models]
    for field, route in (("route", app.route), ("small", app.small)):
        if route is not None and route not in known:
            tell(
                f"apps.{name}.{field}",
                f"there is no route or model `{route}`; {near(route, known)}",
            )
    if app.small is not None and not app.knowledge:
        tell(
            f"apps.{name}.small",
            "without `knowledge` nothing is searched, and no small model is asked; add documents, or leave it out",
        )
    if app.route is None and not app.knowledge:
        tell(f"apps.{name}", "an app needs `knowledge`, a `route`, or both")
    for i, folder in enumerate(app.knowledge):
        if not Path(folder).exists():
            path = f"apps.{name}.knowledge"
            tell(
                f"{path}[{i}]" if len(app.knowledge) > 1 else path,
                f"there is no folder or file `{folder}`",
            )
    if app.prompt is not None:
        check_prompt(f"apps.{name}.prompt", Path(app.prompt), tell)


def check_prompt(path: str, file: Path, tell: Tell) -> None:
    try:
        if not file.read_text(encoding="utf-8").strip():
            tell(path, f"`{file}` is empty; leave `prompt` out for our own instructions")
    except UnicodeDecodeError:
        tell(path, f"`{file}` is not UTF-8 text; save it as that")
    except OSError as error:
        tell(path, f"`{file}` cannot be read: {(error.strerror or str(error)).lower()}")


def check_keys(settings: Settings, tell: Tell) -> None:
    callable_names = {*settings.models, *settings.routes, *settings.apps}
    seen: dict[str, int] = {}
    for i, key in enumerate(settings.keys):
        if key.key in seen:
            tell(f"keys[{i}]", f"this key is already the one of keys[{seen[key.key]}]; remove one")
        seen[key.key] = i
        for app in key.apps or ():
            if app not in callable_names:
                tell(
                    f"keys[{i}].apps",
                    f"there is no app, route or model `{app}`; {near(app, callable_names)}",
                )


def check_listen(settings: Settings, tell: Tell) -> None:
    host = settings.listen.host
    if not is_loopback(host) and not settings.keys and settings.login is None:
        tell(
            "listen.host",
            f"`{host}` can be reached from other machines, and no keys are set, so anybody could spend your money; "
            "add `keys:` to the settings (`slipway keys` makes one), or listen on 127.0.0.1",
        )
    for origin in settings.listen.allowed_origins:
        if (parts := parted(origin)) is None or parts.path:
            tell(
                "listen.allowed_origins",
                f"`{origin}` is not an origin; write `https://host` without a path",
            )


def check_login(login: Login, names: Collection[str], tell: Tell) -> None:
    if login.header is None and login.oidc is None:
        tell("login", "it says neither `header` nor `oidc`; set one, or leave `login` out")
    if login.header is not None and not login.proxies:
        what = "anybody could send this header; list the addresses of your proxy in"
        tell("login.header", f"{what} `login.proxies`")
    for n, proxy in enumerate(login.proxies):
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            fix = "write an address or a network, such as 10.0.0.5 or 10.0.0.0/24"
            tell(f"login.proxies[{n}]", f"{error}; {fix}")
    for app in login.apps or ():
        if app not in names:
            tell("login.apps", f"there is no app, route or model `{app}`; {near(app, names)}")
    if login.url:
        check_https("login.url", login.url, tell)
    if login.oidc is not None:
        check_oidc(login.oidc, tell)


def check_oidc(oidc: Oidc, tell: Tell) -> None:
    check_https("login.oidc.issuer", oidc.issuer, tell)
    if find_spec("authlib") is None:
        tell("login.oidc", "needs the extra `login`; run `pip install 'slipway[login]'`")
    if "openid" not in oidc.scopes:
        tell("login.oidc.scopes", "`openid` is missing; add it")


def check_https(field: str, address: str, tell: Tell) -> None:
    """Plain HTTP is for loopback only: cookies and codes must not be read on the way."""
    parts = parted(address)
    if parts is None or (parts.scheme == "http" and not is_loopback(parts.hostname or "")):
        tell(field, f"`{address}` is not an address that begins with https://")


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every provider key, so that it can be struck out wherever it might be echoed."""
    yield from {m.api_key for m in settings.models.values() if m.api_key}
    if settings.login and settings.login.oidc and settings.login.oidc.client_secret:
        yield settings.login.oidc.client_secret
