"""Flags and the settings file -> settings that can be compiled."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from slipway import knowledge, providers, weights
from slipway.answer.abstention import SENTINEL
from slipway.app.compiling import load_reranker, prompt_of
from slipway.app.rulebooks import rule_files
from slipway.errors import ProviderError, SettingsError
from slipway.knowledge import files
from slipway.knowledge.access import unmatched_rules
from slipway.prices.catalogue import entry_for
from slipway.providers.endpoints import ENDPOINTS
from slipway.settings import Flags, KnownNames, Settings, load
from slipway.settings.checks import allowances
from slipway.settings.loading import Loaded
from slipway.telemetry.alerts import definitions, notifiers

log = logging.getLogger("slipway")


def with_model_names(flags: Flags) -> Flags:
    """Return the flags with a model name for each address; an address without one is asked."""
    return msgspec.structs.replace(
        flags,
        models=tuple(first_model_at(m) if "://" in m and "#" not in m else m for m in flags.models),
    )


def load_settings(flags: Flags, running: Settings | None = None) -> Loaded:
    """Read the settings and check them against the known providers.

    `running` are the settings in force, if this is a reload. Raises SettingsError.
    """
    found = load(with_model_names(flags), known_names(), running=running)
    unable = [
        name
        for name, app in found.settings.apps.items()
        if app.prompt is not None and SENTINEL not in prompt_of(app).standing
    ]
    warnings = (
        f"apps.{name}.prompt: the file lacks the words `{SENTINEL}`, so a model cannot say that "
        "the passages do not answer the question"
        for name in unable
    )
    watched = rule_files(found.settings)
    return msgspec.structs.replace(found, warnings=(*found.warnings, *warnings), watched=watched)


def check_settings(flags: Flags, running: Settings | None = None) -> Loaded:
    """Read the settings and check everything that can be checked without opening the store.

    Raises SettingsError.
    """
    found = load_settings(flags, running)
    settings = found.settings
    for name, app in settings.apps.items():
        if app.knowledge:
            knowledge.check([Path(k) for k in app.knowledge], settings.embedding, ocr=settings.ocr)
        load_reranker(name, app)
    for name, model in settings.models.items():
        providers.create(name, model, model.provider)
    return msgspec.structs.replace(
        found, warnings=(*found.warnings, *rule_warnings(found), *price_warnings(found))
    )


def rule_warnings(found: Loaded) -> Iterator[str]:
    """Name each access rule that matches no document; the files are listed, not read."""
    for name, app in found.settings.apps.items():
        if app.access and app.knowledge:
            sources = [Path(k) for k in app.knowledge]
            documents = files.find([source for source in sources if source.exists()])
            for sentence in unmatched_rules(app.access, sources, found.folder, documents):
                yield f"apps.{name}.access: {sentence}"


def price_warnings(found: Loaded) -> Iterator[str]:
    """Name each model without a price, if there is a budget that has to limit it."""
    settings = found.settings
    if all(
        allowance.usd_per_day is None and allowance.usd_per_month is None
        for _, allowance in allowances(settings)
    ):
        return
    for name, model in settings.models.items():
        if model.price is None and not model.weights:
            entry = entry_for(model.base_url, model.name)
            if entry is None or entry.price is None:
                yield (
                    f"models.{name}: its price is unknown, so whoever has a budget cannot call it; "
                    "set `price`"
                )


def known_names() -> KnownNames:
    return KnownNames(
        kinds=providers.NEEDS,
        endpoints=ENDPOINTS,
        weights=weights.runnable(),
        notifiers=notifiers.FIELDS,
        alerts=definitions.NAMES,
    )


def first_model_at(url: str) -> str:
    """Return `URL#MODEL` with the first model that the endpoint lists.

    Raises SettingsError if the endpoint cannot be reached or lists none.
    """
    from slipway.providers.openai import models_at  # loads the HTTP client: rarely needed here

    model = load(Flags(models=(f"{url}#unknown",)), known_names()).settings.models["unknown"]
    try:
        found = asyncio.run(models_at(model))
    except ProviderError as error:
        raise SettingsError(
            [f"--model {url}: {error.what} Start that server, or name the model: {url}#NAME"]
        ) from None
    if not found:
        raise SettingsError([f"--model {url}: no models are listed there; name one: {url}#NAME"])
    if len(found) > 1:
        log.warning(
            "%s lists %d models; `%s` is used. Others: %s#NAME", url, len(found), found[0], url
        )
    return f"{url}#{found[0]}"
