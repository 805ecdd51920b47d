"""The settings and the pipeline that the next question meets."""

from slipway.answer.pipeline import Pipeline
from slipway.settings import Settings


class Current:
    """Hold the settings and their compiled pipeline; `replace` swaps both in one step.

    Read it once per question: a question keeps the pipeline that it began with. What is derived
    from the settings is cached by their identity, since a reload always brings a new object.
    """

    __slots__ = ("pipeline", "settings")

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self.settings, self.pipeline = settings, pipeline

    def replace(self, settings: Settings, pipeline: Pipeline) -> None:
        self.settings, self.pipeline = settings, pipeline
