"""The text of `slipway cache explain`, and the app that it is about if none is named."""

from collections.abc import Iterator, Mapping
from typing import Any

from slipway.app.loading import load_settings
from slipway.errors import SettingsError
from slipway.settings import Flags
from slipway.terminal import printable


def only_app(flags: Flags) -> str:
    """Return the one app of the settings that serves similar questions. Raises SettingsError."""
    apps = load_settings(flags).settings.apps
    names = [name for name, app in apps.items() if app.cache is not None and app.cache.semantic]
    if len(names) != 1:
        known = f"; these have it: {', '.join(names)}" if names else ""
        raise SettingsError(
            [f"name the app with --app; one with `cache: {{semantic: 1%}}` is needed{known}"]
        )
    return names[0]


def explained_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the explanation for a person to read."""
    yield f"{found['app']}: {found['outcome']}. {found['why']}"
    for near in found["near"]:
        refused = f"refused by the guard `{near['refused']}`" if near["refused"] else "allowed"
        yield f"  {near['similarity']:.3f}  {refused:32} {printable(near['text'], one_line=True)}"
    if found["score"] is not None:
        yield f"score {found['score']:.3f}: how probable it is that both have the same answer"
    if (bound := found["bound"]) is not None:
        yield from bound_lines(bound, found["questions"])


def bound_lines(bound: Mapping[str, Any], questions: int) -> Iterator[str]:
    state = "serving" if bound["serving"] else "in shadow"
    yield (
        f"{state}: {questions} questions kept; {bound['requests']} requests, {bound['served']} "
        f"answered from here, {bound['checked']} checked, {bound['reported']} reported as wrong"
    )
    yield (
        f"above the score {bound['threshold']:g}: {bound['wrong_above']} of {bound['above']} "
        f"checks were wrong; the error per hit is below {bound['per_hit']:.2%}"
    )
    yield (
        f"wrong answers served: at most {bound['wrong_served_at_most']:.0f}, "
        f"{bound['per_request']:.2%} of requests; allowed: {bound['max_error']:.2%} per "
        f"{bound['per']}"
    )
