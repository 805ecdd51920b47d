"""File + flags + environment -> Settings."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from slipway.errors import SettingsError
from slipway.settings.checks import Endpoint, Known, check, doubtful, is_loopback, parted
from slipway.settings.tree import GGUF, SQLITE, App, Connection, Model, RouteEntry, Settings

DEFAULT_FILE = "slipway.yaml"


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line may say instead of, or beside, the file. `models` are references such
    as `dashscope/qwen-plus`.
    """

    config: Path | None = None
    docs: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    file: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder to which paths in the settings are relative."""
        return self.file.parent if self.file is not None else Path()


def load(
    flags: Flags,
    known: Known,
    environ: Mapping[str, str] | None = None,
    running: Settings | None = None,
) -> Loaded:
    """The settings to start with, or to go on with where some are `running`; or a SettingsError
    with every problem found.

    Without `flags.config`, `slipway.yaml` of the working folder is read where there is one. What
    needs a restart stays as it runs, and a warning says so.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    lines: dict[str, int] = {}
    settings, warnings = Settings(), tuple[str, ...]()
    file = flags.config or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None)
    if file is not None:
        settings, warnings, lines = _read(file, environ, problems, again=running is not None)
    settings = _with_flags(settings, flags, known, environ, problems)
    settings = _with_endpoints(settings, known.endpoints, environ, problems, file, lines)

    def said(path: str, what: str) -> str:
        line = next((lines[p] for p in _ancestors(path) if p in lines), None)
        place = f"{file}:{line}: " if line is not None and file is not None else ""
        return f"{place}{path}: {what}"

    def tell(path: str, what: str) -> None:
        problems.append(said(path, what))

    if running is not None:
        settings, waits = _as_running(settings, running)
        warnings = (*warnings, *(said(path, what) for path, what in waits))
    if not problems:
        check(settings, known, tell)
    if problems:
        raise SettingsError(problems)
    return Loaded(settings=settings, file=file, warnings=(*warnings, *doubtful(settings)))


def _ancestors(path: str) -> list[str]:
    """`a.b[0]`, `a.b`, `a`: the nearest place in the file that a problem can point to. Names may
    hold dots and slashes.
    """
    found = [path]
    while path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
        if path:
            found.append(path)
    return found


def _as_running(settings: Settings, running: Settings) -> tuple[Settings, list[tuple[str, str]]]:
    """These settings as far as they count before a restart; and what waits for one, with a
    sentence.
    """
    rows = (
        ("listen.host", settings.listen.host, running.listen.host),
        ("listen.port", settings.listen.port, running.listen.port),
        ("limits.document_time", settings.limits.document_time, running.limits.document_time),
        ("store", settings.store, running.store),
        ("embedding", settings.embedding, running.embedding),
    )
    waits = [
        (path, f"`{new}` needs a restart; until then it is `{old}`")
        for path, new, old in rows
        if new != old
    ]
    listen = msgspec.structs.replace(
        settings.listen, host=running.listen.host, port=running.listen.port
    )
    limits = msgspec.structs.replace(settings.limits, document_time=running.limits.document_time)
    return msgspec.structs.replace(
        settings, listen=listen, limits=limits, store=running.store, embedding=running.embedding
    ), waits


def _read(
    file: Path, environ: Mapping[str, str], problems: list[str], *, again: bool
) -> tuple[Settings, tuple[str, ...], dict[str, int]]:
    """An empty file is no reason to give everything up that is served: read `again`, it does not
    stand.
    """
    from slipway.settings.reading import (
        Reader,
        extended,
        parse,
    )  # YAML is imported only where a file is read

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
            [f"{file}: the settings cannot be read: {reason}; check --config"]
        ) from None
    root = parse(text, str(file), reader)
    if again and root is None and not reader.problems:
        reader.problems.append(
            f"{file}: nothing is set there any more; write `models: {{}}` if that is meant"
        )
    extended(root, reader)
    settings = reader.read(root)
    problems += reader.problems
    warnings = tuple(
        f"{file}:{reader.lines.get(p, 1)}: {p} is written into the file; `${{NAME}}` keeps it in the environment"
        for p in reader.literal_secrets
    )
    return _resolved(settings, file.parent), warnings, reader.lines


def _resolved(settings: Settings, folder: Path) -> Settings:
    """Paths in the file are relative to the file."""
    apps = {
        name: msgspec.structs.replace(
            app,
            knowledge=tuple(str(folder / _at_home(k)) for k in app.knowledge),
            prompt=str(folder / _at_home(app.prompt)) if app.prompt else app.prompt,
        )
        for name, app in settings.apps.items()
    }
    models = {name: _model_in(folder, model) for name, model in settings.models.items()}
    return msgspec.structs.replace(
        settings, apps=apps, models=models, store=_beside(settings.store, folder)
    )


def _model_in(folder: Path, model: Model) -> Model:
    if model.connection.ca_file:
        connection = msgspec.structs.replace(
            model.connection, ca_file=str(folder / model.connection.ca_file)
        )
        model = msgspec.structs.replace(model, connection=connection)
    if model.weights.endswith(GGUF):
        model = msgspec.structs.replace(model, weights=str(folder / _at_home(model.weights)))
    return model


def _beside(store: str, folder: Path) -> str:
    path = store.removeprefix(SQLITE)
    return store if path == store or _at_home(path).is_absolute() else f"{SQLITE}{folder / path}"


def _at_home(path: str) -> Path:
    """`~` filled in; what names no user is a name like others, and nothing will be found there."""
    # Pathlib's own raises for a user that there is not
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _with_flags(
    settings: Settings, flags: Flags, known: Known, environ: Mapping[str, str], problems: list[str]
) -> Settings:
    listen = msgspec.structs.replace(
        settings.listen,
        host=flags.host if flags.host is not None else settings.listen.host,
        port=flags.port if flags.port is not None else settings.listen.port,
    )
    models, routes, apps = dict(settings.models), dict(settings.routes), dict(settings.apps)
    names = []
    for reference in flags.models:
        if reference in models or reference in routes:
            names.append(reference)
        elif model := _referenced(reference, known, environ, problems):
            names.append(model.name if "://" in reference or model.weights else reference)
            models[names[-1]] = model
    route = names[0] if names else None
    if len(names) > 1 and "main" not in {*models, *routes, *apps}:
        route, routes["main"] = "main", tuple(RouteEntry(model=n) for n in names)
    if flags.docs:
        if "docs" in {*models, *routes, *apps}:
            problems.append(
                f"--docs: the name `docs` is taken by {flags.config or DEFAULT_FILE}; rename it there, or leave --docs out"
            )
        problems += [
            f"--docs: there is no folder or file `{folder}`"
            for folder in flags.docs
            if not folder.exists()
        ]
        apps["docs"] = App(
            knowledge=tuple(map(str, flags.docs)), route=route or _only_route(settings)
        )
    return msgspec.structs.replace(settings, listen=listen, models=models, routes=routes, apps=apps)


def _only_route(settings: Settings) -> str | None:
    """The one route, or the one model, that `--docs` beside a file can mean."""
    for names in (list(settings.routes), list(settings.models)):
        if len(names) == 1:
            return names[0]
    return None


def _referenced(
    reference: str, known: Known, environ: Mapping[str, str], problems: list[str]
) -> Model | None:
    """`provider/model`, weights by their name or file, or an OpenAI-compatible address with the
    model's name behind `#`.
    """
    if "://" in reference:
        url, _, name = reference.partition("#")
        if not name:
            problems.append(f"--model {reference}: the address names no model; write {url}#NAME")
            return None
        return Model(base_url=url.rstrip("/"), name=name, api_key=environ.get("SLIPWAY_MODEL_KEY"))
    if reference in known.weights or reference.endswith(GGUF):
        name = reference if reference in known.weights else Path(reference).stem
        return Model(provider=known.runner, weights=reference, name=name)
    provider, _, name = reference.partition("/")
    if not name or provider not in known.endpoints:
        providers, weights = ", ".join(f"{e}/…" for e in known.endpoints), ", ".join(known.weights)
        problems.append(
            f"--model {reference}: write PROVIDER/MODEL ({providers}), an address as http://host:port/v1#MODEL, weights to run here "
            f"({weights}, or a {GGUF} file), or a model of the settings"
        )
        return None
    return Model(provider=provider, name=name)


def _with_endpoints(
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
                    f"{place}model {name} needs a key: `export {known.key_variable}=…` before the start, or give `api_key`"
                )
        connection = _with_proxy(model.connection, base_url, environ)
        models[name] = msgspec.structs.replace(
            model,
            base_url=base_url.rstrip("/"),
            api_key=api_key,
            name=model.name or name,
            connection=connection,
        )
    return msgspec.structs.replace(settings, models=models)


def _with_proxy(connection: Connection, base_url: str, environ: Mapping[str, str]) -> Connection:
    if connection.proxy is not None:
        return msgspec.structs.replace(
            connection, proxy=connection.proxy or None
        )  # "" switches it off
    url = parted(base_url)
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
