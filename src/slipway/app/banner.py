"""What a person who starts a server sees in the terminal."""

import slipway
from slipway.settings import ModelSettings
from slipway.settings.loading import Loaded


def banner(found: Loaded, address: tuple[str, int]) -> list[str]:
    """Return the lines to print: what is served, from where, and the addresses to open."""
    settings = found.settings
    url = address_of(address)
    lines = [
        f"Slipway {slipway.__version__}" + (f", settings from {found.file}" if found.file else "")
    ]
    for name, app in settings.apps.items():
        parts = [f"answers from {', '.join(app.knowledge)}"] if app.knowledge else []
        parts += [f"rules of {app.rules.file}"] if app.rules is not None else []
        lines.append(f"  app    {name}: {', '.join([*parts, app.route or 'no model'])}")
    lines += [
        f"  route  {name}: {' > '.join(e.model for e in route)}"
        for name, route in settings.routes.items()
    ]
    lines += [f"  model  {name}: {origin_of(model)}" for name, model in settings.models.items()]
    if not settings.models and not settings.apps:
        lines.append("  Nothing to serve yet: add --docs FOLDER, --model MODEL, or a settings file")
    elif not settings.models and any(app.knowledge for app in settings.apps.values()):
        lines.append(
            "  No model is set up: answers are quoted from the documents. "
            "Add one with --model, such as --model dashscope/qwen-plus"
        )
    return [*lines, f"  page   {url}/", f"  API    {url}/v1   (OPENAI_BASE_URL)"]


def origin_of(model: ModelSettings) -> str:
    return f"{model.weights}, run here" if model.weights else f"{model.name} at {model.base_url}"


def address_of(name: tuple[str, int]) -> str:
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def local_address(name: tuple[str, int]) -> tuple[str, int]:
    """Return where this machine reaches a server that may listen on all of its addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0]), name[1]
