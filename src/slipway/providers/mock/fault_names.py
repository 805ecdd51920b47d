"""Read faults by name, with their arguments: `cut-20`, or a model named `fault-cut-20`."""

import difflib
import re

from slipway.providers.mock.faults import FAULTS, ROWS, Fault

_FAULT = re.compile(r"(?:fault-)?(?P<name>[a-z][a-z0-9]*)(?P<args>(?:-\d+(?:\.\d+)?)*)")
_BARE = re.compile(r"say-\d+|echo")


def parse_fault(text: str) -> Fault:
    """Parse `cut-20` or `fault-cut-20`. Raises ValueError with the nearest and all known faults, or
    with the arguments' limits.
    """
    match = _FAULT.fullmatch(text)
    row = ROWS.get(match["name"]) if match else None
    if match is None or row is None:
        raise ValueError(_unknown(text))
    args = tuple(float(arg) for arg in match["args"].split("-")[1:])
    if len(args) > len(row.args):
        raise ValueError(f"Fault {text!r} has too many arguments. {row.meaning}.")
    args += row.args[len(args) :]
    if args and not row.limits[0] <= args[0] <= row.limits[1]:
        raise ValueError(
            f"Fault {text!r}: the first argument must lie between {row.limits[0]:g} and "
            f"{row.limits[1]:g}. {row.meaning}."
        )
    return Fault(match["name"], args)


def _unknown(text: str) -> str:
    name = text.removeprefix("fault-").partition("-")[0]
    near = difflib.get_close_matches(name, ROWS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no fault {text!r}.{hint} Known faults: {', '.join(sorted(ROWS))}."


def fault_of_model(model: str) -> Fault | None:
    """Return the fault that a model's name asks for, None for an ordinary name. Raises ValueError
    like `parse_fault`.
    """
    if not model.startswith("fault-") and not _BARE.fullmatch(model):
        return None
    fault = parse_fault(model)
    if goes_by_time(fault):
        raise ValueError(
            f"Fault {fault.name!r} applies to the whole server; put it in a script. "
            f"{FAULTS[fault.name]}."
        )
    return fault


def goes_by_time(fault: Fault) -> bool:
    """Return whether the fault applies to the whole server, so that no single call can have it."""
    return ROWS[fault.name].by_time
