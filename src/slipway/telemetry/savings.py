"""Report what answers saved that no model had to write, for each app and each way of saving."""

from collections.abc import Mapping, Set
from decimal import Decimal
from typing import Any

Sums = Mapping[str, Mapping[tuple[str, ...], list[float]]]


def savings_report(sums: Sums, names: Set[str] | None = None) -> list[dict[str, Any]]:
    """Return a row for each app and way, from the sums of all counters; of these names only if
    `names` is set. `of` is how many questions the app answered in all, `unpriced` how many calls
    have no known price.
    """
    answered: dict[str, float] = {}
    for (app, _, _, error), (count,) in sums["answers"].items():
        answered[app] = answered.get(app, 0) + (count if not error else 0)

    def value(metric: str, *labels: str) -> float:
        return sums[metric].get(labels, [0])[0]

    rows = []
    for (app, by), (count,) in sorted(sums["saved_answers"].items()):
        if names is not None and app not in names:
            continue
        unpriced = value("saved_unpriced", app, by)
        usd = Decimal(value("saved_usd", app, by)).quantize(Decimal("0.000001"))
        rows.append(
            {
                "app": app,
                "by": by,
                "answers": int(count),
                "of": int(answered.get(app, 0)),
                "input_tokens": int(value("saved_tokens", app, by, "input")),
                "output_tokens": int(value("saved_tokens", app, by, "output")),
                "usd": f"{usd:f}" if count > unpriced else None,
                "unpriced": int(unpriced),
            }
        )
    return rows
