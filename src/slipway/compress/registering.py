"""Making the result a model of its own, and taking that back.

The file is kept as weights under its name (`slipway weights list`), and if a settings file is
named, it gets an entry under `models:` and, beside the original, a share of a route. The settings
are edited in place, not rewritten: comments and layout stay. `rollback` takes out the model that
runs these weights and the entries of routes that name it, but no model of another kind, and a
server that runs takes the changed file up by itself.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from slipway import weights
from slipway.compress.refusals import refused
from slipway.compress.results import Registered

_NOTE = "compressed.txt"

Checks = Callable[[Path], object]  # raises SettingsError if a settings file is wrong


def name_for(text: str) -> str:
    """A name of weights made from any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "model"


def check_name(name: str, origin: str) -> None:
    """Raise SettingsError if the result of `origin` would replace what it has not made."""
    there = weights.table().get(name)
    if there is None:
        return
    note = weights.folder(there) / _NOTE
    if not note.is_file():
        raise refused(
            f"--name: there are weights called `{name}` that compress did not make; "
            "choose another name"
        )
    made_from = note.read_text(encoding="utf-8").strip()
    if made_from != origin:
        raise refused(
            f"--name: the weights `{name}` were made from {made_from}, and would be replaced; "
            f"choose another name, or remove them first: slipway compress rollback {name}"
        )


def keep(name: str, file: Path, origin: str) -> Path:
    """Keep a copy as weights called `name`, in place of an earlier result of that name."""
    check_name(name, origin)
    there = weights.table().get(name)
    if there is not None:
        shutil.rmtree(weights.folder(there))
    path = weights.add(name, str(file))
    path.with_name(_NOTE).write_text(f"{origin}\n", encoding="utf-8")
    return path


def check_entry(settings: Path, name: str, route: str | None, canary: str) -> None:
    """Raise SettingsError now if `enter` could not write its entries later."""
    _entered(_read(settings), name, route, canary)


def enter(settings: Path, name: str, route: str | None, canary: str, check: Checks) -> Registered:
    """Add the model to the settings, and to a route if one is named. Raises SettingsError."""
    text = _read(settings)
    _replace(settings, text, _entered(text, name, route, canary), check)
    return Registered(
        name=name, settings=str(settings), route=route or "", canary=canary if route else ""
    )


def _entered(text: str, name: str, route: str | None, canary: str) -> str:
    text = _model_added(text, name)
    return _route_added(text, name, route, canary) if route else text


def rollback(name: str, settings: Path | None, check: Checks) -> list[str]:
    """Take the model out of the settings and of the weights; what was done, a sentence each."""
    done = list[str]()
    if settings is not None:
        text = _read(settings)
        _refuse_other(text, name, "NAME")
        new = _taken_out(text, name)
        if new != text:
            _replace(settings, text, new, check)
            done.append(
                f"{settings} names `{name}` no more; a running server takes that up by itself"
            )
    there = weights.table().get(name)
    if there is not None and (weights.folder(there) / _NOTE).is_file():
        shutil.rmtree(weights.folder(there))
        done.append(f"the weights `{name}` are removed; what they were made from is untouched")
    if not done:
        known = [n for n, w in weights.table().items() if (weights.folder(w) / _NOTE).is_file()]
        names = f"; compress made {', '.join(known)}" if known else "; compress has registered none"
        raise refused(f"NAME: nothing here is called `{name}`{names}")
    return done


# Editing YAML in place


def _read(settings: Path) -> str:
    try:
        return settings.read_bytes().decode("utf-8")  # line ends stay as they are
    except UnicodeDecodeError:
        raise refused(f"--config: {settings} is not UTF-8 text; save it as that") from None
    except OSError as error:
        raise refused(f"--config: {settings} cannot be read: {error.strerror}") from None


def _replace(settings: Path, old: str, new: str, check: Checks) -> None:
    """Write the new text; the old one comes back if the settings are not valid with it."""
    _write(settings, new)
    try:
        check(settings)
    except BaseException:
        _write(settings, old)
        raise


def _write(settings: Path, text: str) -> None:
    """Write it whole, also through a link."""
    file = settings.resolve()
    half = file.with_name(f".{file.name}.part")
    try:
        half.write_bytes(text.encode())
        shutil.copymode(file, half)
        half.replace(file)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise refused(f"--config: {settings} cannot be written: {error.strerror}") from None


def _nodes(text: str) -> dict[str, Any]:
    """The top of the file: each key's node."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise refused(f"--config: the file is not YAML ({error})") from None
    if not isinstance(root, yaml.MappingNode):
        raise refused("--config: the file has no `models:`; name the server's settings file")
    return {str(key.value): value for key, value in root.value}


def _model_added(text: str, name: str) -> str:
    models = _nodes(text).get("models")
    if not isinstance(models, yaml.MappingNode) or not models.value:
        raise refused("--config: the file has no `models:`; name the server's settings file")
    _refuse_other(text, name, "--name")
    if name in {key.value for key, _ in models.value}:
        return text
    entry = f"{name}: {{provider: local, weights: {name}}}"
    return _inserted(text, models, models.value[0][0], entry)


def _refuse_other(text: str, name: str, field: str) -> None:
    """Raise SettingsError if the settings call a model by this name that runs other weights."""
    models = _nodes(text).get("models")
    for key, value in getattr(models, "value", None) or []:
        if key.value != name:
            continue
        items = value.value if isinstance(value, yaml.MappingNode) else []
        given = {str(k.value): str(v.value) for k, v in items}
        if given.get("provider") != "local" or given.get("weights") != name:
            what = f"{field}: the settings have a model `{name}` that does not run the weights"
            fix = "choose another name" if field == "--name" else "take it out by hand"
            raise refused(f"{what} `{name}`, so compress did not enter it; {fix}")


def _route_added(text: str, name: str, route: str, canary: str) -> str:
    routes = _nodes(text).get("routes")
    known = {str(k.value): v for k, v in routes.value} if routes is not None else {}
    items = known.get(route)
    if items is None:
        names = ", ".join(known) or "none"
        raise refused(f"--route: there is no route `{route}`; there are: {names}")
    if not isinstance(items, yaml.SequenceNode):
        raise refused(f"--route: write `{route}` as a list first, such as [{items.value}]")
    text = _taken_out(text, name, only_routes=True)
    items = {str(k.value): v for k, v in _nodes(text)["routes"].value}[route]
    return _inserted(text, items, items.value[0], f"{{model: {name}, canary: {canary}}}", last=True)


def _inserted(text: str, parent: Any, first: Any, entry: str, *, last: bool = False) -> str:
    """The entry put into a mapping or list, in the style in which that is written."""
    if parent.flow_style:
        at = parent.value[-1].end_mark.index if last else first.start_mark.index
        return f"{text[:at]}, {entry}{text[at:]}" if last else f"{text[:at]}{entry}, {text[at:]}"
    start = text.rfind("\n", 0, first.start_mark.index) + 1
    indent = text[start : first.start_mark.index]
    if not last:
        return f"{text[:start]}{indent}{entry}\n{text[start:]}"
    end = text.find("\n", _end_of(parent.value[-1]) - 1)
    end = len(text) if end < 0 else end
    return f"{text[:end]}\n{indent}{entry}{text[end:]}"


def _taken_out(text: str, name: str, *, only_routes: bool = False) -> str:
    """The text without entries of this model; each is cut out in place."""
    while (span := _span_of(text, name, only_routes=only_routes)) is not None:
        text = text[: span[0]] + text[span[1] :]
    return text


def _span_of(text: str, name: str, *, only_routes: bool) -> tuple[int, int] | None:
    nodes = _nodes(text)
    for _, route in getattr(nodes.get("routes"), "value", None) or []:
        for item in route.value if isinstance(route, yaml.SequenceNode) else []:
            if _names(item, name):
                return _around(text, item.start_mark.index, _end_of(item), route.flow_style)
    models = nodes.get("models")
    for key, value in [] if only_routes else getattr(models, "value", None) or []:
        if key.value == name:
            style = getattr(models, "flow_style", False)
            return _around(text, key.start_mark.index, _end_of(value), style)
    return None


def _end_of(node: Any) -> int:
    """The index after its last character. PyYAML ends a block where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end_of(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _names(item: Any, name: str) -> bool:
    if isinstance(item, yaml.MappingNode):
        return any(k.value == "model" and v.value == name for k, v in item.value)
    return str(item.value) == name


def _around(text: str, start: int, end: int, flow: bool) -> tuple[int, int]:
    """An entry with its comma, or with its line."""
    if flow:
        before = re.search(r",\s*$", text[:start])
        after = re.match(r"\s*,\s*", text[end:])
        return (before.start(), end) if before else (start, end + (after.end() if after else 0))
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", max(start, end - 1))
    return line, len(text) if stop < 0 else stop + 1
