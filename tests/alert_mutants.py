"""Rules with one threshold or window a fifth larger or smaller: a test of the rule must fail.

What is left out cannot change what a rule says: a threshold of 0, the constants of Wilson's formula,
the quantile of a percentile, and whether a state is 1.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from slipway.telemetry.alerts.alert import AlertRule
from slipway.telemetry.alerts.conditions import Z
from slipway.telemetry.alerts.expressions import Node

FACTORS = (0.8, 1.2)
FIELDS = ("number", "window_s", "offset_s", "hours", "at_most")
CONSTANTS = (0, 1, Z, Z * Z, Z * Z / 2, Z * Z / 4)


def mutants(rule: AlertRule) -> Iterator[tuple[str, AlertRule]]:
    """Yield what was changed, and the rule with that change in every place."""
    when = rule.variant.when
    different = list[Node]()
    for node in nodes(when):
        if node not in different:
            different.append(node)
    for node in different:
        for field in FIELDS:
            value = getattr(node, field, None)
            if value is None or value in CONSTANTS:
                continue
            for factor in FACTORS:
                new = round(value * factor) if field == "hours" else value * factor
                changed = msgspec.structs.replace(node, **{field: new})
                variant = msgspec.structs.replace(rule.variant, when=replaced(when, node, changed))
                says = f"{type(node).__name__}.{field} {value:g} -> {new:g}"
                yield says, msgspec.structs.replace(rule, variant=variant)
    if rule.definition.for_s:
        for factor in FACTORS:
            for_s = rule.definition.for_s * factor
            definition = msgspec.structs.replace(rule.definition, for_s=for_s)
            yield f"for_s {for_s:g}", msgspec.structs.replace(rule, definition=definition)


def nodes(node: Any) -> Iterator[Node]:
    """Yield all parts of an expression."""
    if isinstance(node, Node):
        yield node
        for field in node.__struct_fields__:
            yield from nodes(getattr(node, field))
    elif isinstance(node, tuple):
        for each in node:
            yield from nodes(each)


def replaced(node: Any, old: Node, new: Node) -> Any:
    """Return an expression with `new` wherever `old` is."""
    if isinstance(node, tuple):
        return tuple(replaced(each, old, new) for each in node)
    if not isinstance(node, Node):
        return node
    if node == old:
        return new
    return msgspec.structs.replace(
        node, **{name: replaced(getattr(node, name), old, new) for name in node.__struct_fields__}
    )
