"""Write the `slipway.yaml` of a decision: its models, the route with its fallbacks, and the app."""

from collections.abc import Callable, Iterator
from typing import Any

from slipway.planner.candidacy import Candidacy
from slipway.planner.deciding import Decision
from slipway.planner.models import CatalogueModel, Tier
from slipway.providers.endpoints import ENDPOINTS
from slipway.settings import AppSettings

_SPOKEN = (
    "image_generation",
    "speech",
    "transcription",
    "detection",
)  # no chat: nothing for a route


def settings_of(decision: Decision, path: Callable[[str], str] = str) -> str | None:
    """YAML that `slipway serve` takes; None while the decision is not ready, or if the model is
    none that answers in words. `path` turns a path of the requirements into one of this file.
    """
    if decision.chosen is None or decision.deployment is None or not decision.ready:
        return None
    if any(task in _SPOKEN for task in decision.requirements.tasks):
        return None
    import yaml

    by_id = {each.model.id: each for each in decision.accepted}
    entries = [decision.chosen, *(by_id[id_] for id_ in decision.deployment.chain if id_ in by_id)]
    other = decision.deployment.chosen.other
    if other and other in by_id and other not in {each.model.id for each in entries}:
        entries.insert(1, by_id[other])
    names = _names([each.model for each in entries])
    tree: dict[str, Any] = {
        "models": {names[each.model.id]: _model(each, decision) for each in entries},
        "routes": {"main": [_entry(each, entries[0], names) for each in entries]},
        "apps": {_word(decision.name): _app(decision, path)},
    }
    head = "\n".join(f"# {line}" for line in _head(decision, entries))
    return f"{head}\n{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)}"


def _head(decision: Decision, entries: list[Candidacy]) -> Iterator[str]:
    yield f"Made by slipway plan on {decision.today} for {decision.name}."
    names = dict.fromkeys(name for entry in entries for name in _variables(entry.model))
    yield f"Set these variables before: {', '.join(names) or 'none'}"


def _variables(model: CatalogueModel) -> list[str]:
    """Return the variables of the environment that this model's entry names."""
    word = _word(model.provider).upper().replace("-", "_")
    known = ENDPOINTS.get(model.endpoint)
    if model.own:
        return [f"{_word(model.name).upper().replace('-', '_').replace('.', '_')}_URL"]
    if known is not None:
        return [known.key_variable] if known.key_variable else []
    return [f"{word}_URL", f"{word}_API_KEY"]


def _names(models: list[CatalogueModel]) -> dict[str, str]:
    """Return a short name for each, and a longer one if two would share it."""
    found: dict[str, str] = {}
    for model in models:
        short = _word(model.name)
        found[model.id] = (
            short if short not in found.values() else _word(f"{short}-{model.provider}")
        )
    return found


def _word(text: str) -> str:
    return (
        "".join(
            c if c.isalnum() or c in ".-" else "-" for c in text.lower().rsplit("/", 1)[-1]
        ).strip("-.")
        or "plan"
    )


def _model(each: Candidacy, decision: Decision) -> dict[str, Any]:
    model = each.model
    upstream = model.id.split("/", 1)[1] if "/" in model.id and not model.own else model.name
    entry: dict[str, Any] = {"name": upstream}
    known = ENDPOINTS.get(model.endpoint)
    if model.own:
        entry |= {"provider": "vllm", "base_url": f"${{{_variables(model)[0]}}}"}
    elif known is not None:
        entry |= {"provider": model.endpoint}
    else:
        url, key = _variables(model)
        entry |= {"base_url": f"${{{url}}}", "api_key": f"${{{key}}}"}
    if model.regions:
        entry["zone"] = model.regions[0]
    tier = model.price(decision.demand.input_tokens)
    if tier is not None:
        entry["price"] = {"input": _price(tier, "input"), "output": _price(tier, "output")}
    if model.context is not None:
        entry["context"] = model.context
    return entry


def _price(tier: Tier, what: str) -> float:
    return round(float(getattr(tier, what)), 6)


def _entry(each: Candidacy, first: Candidacy, names: dict[str, str]) -> Any:
    """Return the same weights elsewhere are a twin; any other model that takes over counts as
    smaller.
    """
    if each is first:
        return names[each.model.id]
    twin = _word(each.model.name) == _word(first.model.name)
    return {"model": names[each.model.id], "role": "twin" if twin else "smaller"}


def _app(decision: Decision, path: Callable[[str], str]) -> dict[str, Any]:
    needs = decision.requirements
    app: dict[str, Any] = {"route": "main"}
    if needs.knowledge:
        app["knowledge"] = [path(each) for each in needs.knowledge]
    if needs.rules is not None and "rules" in AppSettings.__struct_fields__:
        app["rules"] = path(needs.rules)
    return app
