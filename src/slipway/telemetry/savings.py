"""Sum up what answers saved that no model had to write, for each app and each way of saving."""

from collections.abc import Set
from decimal import Decimal
from typing import Any

from slipway.types import AnswerDone


class SavedSum:
    """What one way saved of one app's calls. `unpriced` calls have no known price."""

    def __init__(self) -> None:
        self.calls = self.input_tokens = self.output_tokens = self.unpriced = 0
        self.usd = Decimal(0)


class Savings:
    """Sums by (app, way), and how many questions each app was asked in all."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], SavedSum] = {}
        self.asked: dict[str, int] = {}

    def add(self, done: AnswerDone) -> None:
        """Count an answer; one that failed saved nothing."""
        if done.error is not None:
            return
        self.asked[done.app] = self.asked.get(done.app, 0) + 1
        if done.saved is None:
            return
        key = (done.app, done.saved.by)
        if key not in self.sums:
            self.sums[key] = SavedSum()
        row, usage = self.sums[key], done.saved.usage
        row.calls += 1
        if usage is not None:
            row.input_tokens += usage.input_tokens
            row.output_tokens += usage.output_tokens
        if done.saved.usd is not None:
            row.usd += Decimal(done.saved.usd)
        else:
            row.unpriced += 1

    def report(self, names: Set[str] | None = None) -> list[dict[str, Any]]:
        """Return a row for each app and way, of these apps only if `names` is set."""
        return [
            {
                "app": app,
                "by": by,
                "answers": row.calls,
                "of": self.asked.get(app, 0),
                "input_tokens": row.input_tokens,
                "output_tokens": row.output_tokens,
                "usd": f"{row.usd:f}" if row.calls > row.unpriced else None,
                "unpriced": row.unpriced,
            }
            for (app, by), row in sorted(self.sums.items())
            if names is None or app in names
        ]
