"""Build the settings from the file, the flags and the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from slipway.errors import SettingsError
from slipway.settings.apps import AppSettings, RulesSettings
from slipway.settings.checks import check, find_warnings
from slipway.settings.known_names import (
    Endpoint,
    KnownNames,
    is_loopback,
    parse_url,
    without_login,
)
from slipway.settings.models import GGUF, ConnectionSettings, ModelSettings, RouteEntry
from slipway.settings.tree import SQLITE, Settings, without_password

DEFAULT_FILE = "slipway.yaml"


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags of the command line that replace or extend the file.

    `models` are references such as `dashscope/qwen-plus`.
    """

    config: Path | None = None
    docs: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log: str | None = None


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Valid settings, the file they come from (None: no file), and warnings about them."""

    settings: Settings
    file: Path | None
    warnings: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()  # other files whose change changes what the settings mean

    @property
    def folder(self) -> Path:
        """Return the folder to which paths in the settings are relative."""
        return self.file.parent if self.file is not None else Path()


def load(
    flags: Flags,
    known: KnownNames,
    environ: Mapping[str, str] | None = None,
    running: Settings | None = None,
) -> Loaded:
    """Return the settings to start with. Raise SettingsError with every problem found.

    Without `flags.config`, `slipway.yaml` in the working folder is read if it exists. If settings
    are already `running`, fields that need a restart keep their running value, with a warning.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    lines: dict[str, int] = {}
    settings, warnings = Settings(), tuple[str, ...]()
    file = flags.config or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None)
    if file is not None:
        settings, warnings, lines = _read(file, environ, problems, reread=running is not None)
    settings = _apply_flags(settings, flags, known, environ, problems)
    settings = _apply_endpoints(settings, known.endpoints, environ, problems, file, lines)

    def format_problem(path: str, what: str) -> str:
        line = next((lines[p] for p in _parent_paths(path) if p in lines), None)
        place = f"{file}:{line}: " if line is not None and file is not None else ""
        return f"{place}{path}: {what}"

    def add_problem(path: str, what: str) -> None:
        problems.append(format_problem(path, what))

    if running is not None:
        settings, waits = _keep_until_restart(settings, running)
        warnings = (*warnings, *(format_problem(path, what) for path, what in waits))
    if not problems:
        check(settings, known, add_problem)
    if problems:
        raise SettingsError(problems)
    return Loaded(settings=settings, file=file, warnings=(*warnings, *find_warnings(settings)))


def _parent_paths(path: str) -> list[str]:
    """Return `a.b[0]`, `a.b`, `a`: the fields whose line a problem may point to, nearest first.

    Names may contain dots and slashes.
    """
    found = [path]
    while path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
        if path:
            found.append(path)
    return found


def _keep_until_restart(
    settings: Settings, running: Settings
) -> tuple[Settings, list[tuple[str, str]]]:
    """Return the settings with the running values of fields that need a restart.

    The second item lists (field, sentence) for each of them that changed.
    """
    rows = (
        ("listen.host", settings.listen.host, running.listen.host),
        ("listen.port", settings.listen.port, running.listen.port),
        ("listen.workers", settings.listen.workers, running.listen.workers),
        ("limits.document_time", settings.limits.document_time, running.limits.document_time),
        ("store", without_password(settings.store), without_password(running.store)),
        ("data", settings.data, running.data),
        ("embedding", settings.embedding, running.embedding),
        ("ocr", settings.ocr, running.ocr),
        ("metrics.gpu", settings.metrics.gpu, running.metrics.gpu),
        ("shared", without_login(settings.shared or ""), without_login(running.shared or "")),
        ("log.format", settings.log.format, running.log.format),
        ("log.content", settings.log.content, running.log.content),
    )
    waits = [
        (path, f"`{new}` takes effect after a restart; until then it is `{old}`")
        for path, new, old in rows
        if new != old
    ]
    listen = msgspec.structs.replace(
        settings.listen,
        host=running.listen.host,
        port=running.listen.port,
        workers=running.listen.workers,
    )
    limits = msgspec.structs.replace(settings.limits, document_time=running.limits.document_time)
    metrics = msgspec.structs.replace(settings.metrics, gpu=running.metrics.gpu)
    return msgspec.structs.replace(
        settings,
        listen=listen,
        limits=limits,
        store=running.store,
        data=running.data,
        embedding=running.embedding,
        ocr=running.ocr,
        metrics=metrics,
        shared=running.shared,
        log=running.log,
    ), waits


def _read(
    file: Path, environ: Mapping[str, str], problems: list[str], *, reread: bool
) -> tuple[Settings, tuple[str, ...], dict[str, int]]:
    """Return (settings, warnings, lines by field) of the file, and add its problems to `problems`.

    While the server runs (`reread`), an empty file is a problem: it would remove everything.
    """
    from slipway.settings.reading import (
        Reader,
        fill_extends,
        parse,
    )  # YAML is imported only if there is a file

    reader = Reader(str(file), environ)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            "it is not UTF-8 text"
            if isinstance(error, UnicodeDecodeError)
            else (error.strerror or str(error)).lower()
        )
        raise SettingsError(
            [f"{file}: the settings file cannot be read: {reason}; check --config"]
        ) from None
    root = parse(text, str(file), reader)
    if reread and root is None and not reader.problems:
        reader.problems.append(
            f"{file}: the file is empty; write `models: {{}}` if you want no models"
        )
    fill_extends(root, reader)
    settings = reader.read(root)
    problems += reader.problems
    warnings = tuple(
        f"{file}:{reader.lines.get(p, 1)}: {p} "
        f"{'holds a literal password' if p == 'store' else 'is a literal key'}; "
        "write `${NAME}` to read it from the environment"
        for p in reader.literal_secrets
    )
    return _resolve_paths(settings, file.parent), warnings, reader.lines


def _resolve_paths(settings: Settings, folder: Path) -> Settings:
    """Make the paths in the file relative to its folder."""
    apps = {
        name: msgspec.structs.replace(
            app,
            knowledge=tuple(str(folder / _expand_home(k)) for k in app.knowledge),
            prompt=str(folder / _expand_home(app.prompt)) if app.prompt else app.prompt,
            rules=_resolve_rules(folder, app.rules),
        )
        for name, app in settings.apps.items()
    }
    models = {name: _resolve_model(folder, model) for name, model in settings.models.items()}
    return msgspec.structs.replace(
        settings,
        apps=apps,
        models=models,
        store=_resolve_store(settings.store, folder),
        data=str(folder / _expand_home(settings.data)),
    )


def _resolve_rules(folder: Path, rules: RulesSettings | None) -> RulesSettings | None:
    if rules is None:
        return None
    return msgspec.structs.replace(rules, file=str(folder / _expand_home(rules.file)))


def _resolve_model(folder: Path, model: ModelSettings) -> ModelSettings:
    if model.connection.ca_file:
        connection = msgspec.structs.replace(
            model.connection, ca_file=str(folder / model.connection.ca_file)
        )
        model = msgspec.structs.replace(model, connection=connection)
    if model.weights.endswith(GGUF):
        model = msgspec.structs.replace(model, weights=str(folder / _expand_home(model.weights)))
    return model


def _resolve_store(store: str, folder: Path) -> str:
    path = store.removeprefix(SQLITE)
    return (
        store if path == store or _expand_home(path).is_absolute() else f"{SQLITE}{folder / path}"
    )


def _expand_home(path: str) -> Path:
    """Replace a leading `~`; if there is no such user, the path stays as it is."""
    # Path.expanduser raises for an unknown user
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _apply_flags(
    settings: Settings,
    flags: Flags,
    known: KnownNames,
    environ: Mapping[str, str],
    problems: list[str],
) -> Settings:
    listen = msgspec.structs.replace(
        settings.listen,
        host=flags.host if flags.host is not None else settings.listen.host,
        port=flags.port if flags.port is not None else settings.listen.port,
        workers=flags.workers if flags.workers is not None else settings.listen.workers,
    )
    log = settings.log
    if flags.log is not None:
        log = msgspec.structs.replace(log, format=flags.log)
    models, routes, apps = dict(settings.models), dict(settings.routes), dict(settings.apps)
    names = []
    for reference in flags.models:
        if reference in models or reference in routes:
            names.append(reference)
        elif model := _model_from_reference(reference, known, environ, problems):
            names.append(model.name if "://" in reference or model.weights else reference)
            models[names[-1]] = model
    route = names[0] if names else None
    if len(names) > 1 and "main" not in {*models, *routes, *apps}:
        route, routes["main"] = "main", tuple(RouteEntry(model=n) for n in names)
    if flags.docs:
        if "docs" in {*models, *routes, *apps}:
            problems.append(
                f"--docs: {flags.config or DEFAULT_FILE} already uses the name `docs`; "
                "rename it there, or remove --docs"
            )
        problems += [
            f"--docs: there is no folder or file `{folder}`"
            for folder in flags.docs
            if not folder.exists()
        ]
        apps["docs"] = AppSettings(
            knowledge=tuple(map(str, flags.docs)), route=route or _only_route(settings)
        )
    return msgspec.structs.replace(
        settings, listen=listen, log=log, models=models, routes=routes, apps=apps
    )


def _only_route(settings: Settings) -> str | None:
    """Return the only route, or else the only model, for the app of `--docs`."""
    for names in (list(settings.routes), list(settings.models)):
        if len(names) == 1:
            return names[0]
    return None


def _model_from_reference(
    reference: str, known: KnownNames, environ: Mapping[str, str], problems: list[str]
) -> ModelSettings | None:
    """Return the model that `--model` names, or None after adding a problem.

    A reference is `provider/model`, weights (a name or a file), or an OpenAI-compatible address
    followed by `#` and the model's name.
    """
    if "://" in reference:
        url, _, name = reference.partition("#")
        if without_login(url) != url:
            problems.append(
                f"--model {without_login(reference)}: the address must not contain a user name or "
                "password; set SLIPWAY_MODEL_KEY instead"
            )
            return None
        if not name:
            problems.append(f"--model {reference}: the model's name is missing; write {url}#NAME")
            return None
        return ModelSettings(
            base_url=url.rstrip("/"), name=name, api_key=environ.get("SLIPWAY_MODEL_KEY")
        )
    if reference in known.weights or reference.endswith(GGUF):
        name = reference if reference in known.weights else Path(reference).stem
        return ModelSettings(provider=known.runner, weights=reference, name=name)
    provider, _, name = reference.partition("/")
    if not name or provider not in known.endpoints:
        providers = ", ".join(f"{e}/…" for e in known.endpoints)
        weights = ", ".join(known.weights)
        problems.append(
            f"--model {reference}: write PROVIDER/MODEL ({providers}), "
            "an address such as http://host:port/v1#MODEL, weights of a local model "
            f"({weights}, or a {GGUF} file), or a model of the settings"
        )
        return None
    return ModelSettings(provider=provider, name=name)


def _apply_endpoints(
    settings: Settings,
    endpoints: Mapping[str, Endpoint],
    environ: Mapping[str, str],
    problems: list[str],
    file: Path | None,
    lines: dict[str, int],
) -> Settings:
    """Fills in what a well-known provider brings, each model's upstream name, and the proxy of the
    environment.
    """
    models = {}
    for name, model in settings.models.items():
        known = endpoints.get(model.provider)
        base_url = model.base_url or (known.base_url if known else "")
        api_key = model.api_key
        if (
            api_key is None
            and known is not None
            and known.key_variable is not None
            and base_url == known.base_url
        ):
            api_key = environ.get(known.key_variable)
            if not api_key:
                place = f"{file}:{lines[f'models.{name}']}: " if f"models.{name}" in lines else ""
                problems.append(
                    f"{place}model {name} needs a key: `export {known.key_variable}=…` before "
                    "starting, or set `api_key`"
                )
        connection = _apply_proxy(model.connection, base_url, environ)
        models[name] = msgspec.structs.replace(
            model,
            base_url=base_url.rstrip("/"),
            api_key=api_key,
            name=model.name or name,
            connection=connection,
        )
    return msgspec.structs.replace(settings, models=models)


def _apply_proxy(
    connection: ConnectionSettings, base_url: str, environ: Mapping[str, str]
) -> ConnectionSettings:
    if connection.proxy is not None:
        return msgspec.structs.replace(
            connection, proxy=connection.proxy or None
        )  # "" switches it off
    url = parse_url(base_url)
    host = (url.hostname or "") if url is not None else ""
    if (
        url is None
        or is_loopback(host)
        or _bypassed(host, environ.get("NO_PROXY") or environ.get("no_proxy") or "")
    ):
        return connection
    names = (f"{url.scheme}_proxy", f"{url.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    proxy = next((environ[n] for n in names if environ.get(n)), None)
    return msgspec.structs.replace(connection, proxy=proxy)


def _bypassed(host: str, no_proxy: str) -> bool:
    entries = [e.strip().lower().lstrip("*").lstrip(".") for e in no_proxy.split(",") if e.strip()]
    return "" in entries or any(host == e or host.endswith("." + e) for e in entries)
