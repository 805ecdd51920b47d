"""Progress of an answer: its stage, true counts, and the time left if it is known."""

import asyncio
import time

from slipway.answer.draft import Say
from slipway.answer.pace import Pace, Writing
from slipway.types import Progress, Stage

TICK_S = 0.8


class ProgressReporter:
    """Send progress when it changes, and repeat it every TICK_S until closed."""

    def __init__(self, say: Say, started_at: float, pace: Pace) -> None:
        self._say, self._started_at, self._pace = say, started_at, pace
        self._last: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.writings: list[Writing] = []
        self.at_once = 1
        self._shown: list[tuple[float, tuple[float, float]]] = []

    def report(self, stage: Stage, label: str, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        left = self._pace.left(self.writings, self.at_once, now) if self.writings else None
        if left is not None:
            self._shown.append((now, left))
        self._last = Progress(
            stage=stage,
            label=label,
            done=done,
            total=total,
            unit=unit,
            elapsed_s=now - self._started_at,
            eta_s=left,
        )
        self._say(self._last)
        self._again()

    def _again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        last = self._last
        if last is not None:
            self.report(last.stage, last.label, last.done, last.total, last.unit)

    def close(self) -> None:
        """Send no more progress."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def judge_estimates(self) -> None:
        """Compare the estimates that were shown with the true end; all sections are done."""
        if self.writings:
            self._pace.judge(self.writings[0].model, self._shown, time.monotonic())
